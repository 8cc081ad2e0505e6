// Small helpers for the document.

// An element with properties, attributes (`aria-…`, `data-…`, `role`) and children: elements or texts.
export function h(name, { ...given } = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key === 'on') for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (key.includes('-') || key === 'role' || key === 'for' || key === 'class') element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const ICONS = new URL('../icons.svg', import.meta.url).href;
const SVG = 'http://www.w3.org/2000/svg';

// One of the symbols in icons.svg.
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `${ICONS}#${name}`);
  svg.append(use);
  return svg;
}

export function iconButton(name, label, onClick) {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, on: { click: onClick } }, icon(name));
}

// Assigning a text that is already there would make screen readers read it again.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// 128 random bits; crypto.randomUUID needs a secure origin.
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
