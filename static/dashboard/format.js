// Numbers as people read them, on one line with their units. Pure. A value that is not known is a dash.
export const UNKNOWN = '–';
const SPACE = '\u00a0';

export function count(value) {
  return value === null || value === undefined ? UNKNOWN : Math.round(value).toLocaleString('en');
}

export function rate(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return value < 10 && value > 0 ? value.toFixed(1) : count(value);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)}${SPACE}ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)}${SPACE}ms`;
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)}${SPACE}s`;
}

export function uptime(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds < 60) return `${seconds}${SPACE}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${SPACE}min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}${SPACE}h${SPACE}${Math.floor((seconds % 3600) / 60)}${SPACE}min`;
  return `${Math.floor(seconds / 86400)}${SPACE}d`;
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at && value < 10 ? value.toFixed(1) : Math.round(value)}${SPACE}${units[at]}`;
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString();
}
