// Small things that have to be written before the page can be closed, which IndexedDB does not promise. They are lost
// with the tab where the browser denies localStorage.

const PREFIX = 'everstream.';
const memory = new Map();

export function readLocal(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? memory.get(name) ?? otherwise;
  } catch {
    return memory.get(name) ?? otherwise;
  }
}

export function writeLocal(name, value) {
  memory.set(name, value);
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Denied or full: the copy in memory is used.
  }
}
