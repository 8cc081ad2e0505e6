// Changes nodes into others and keeps what is the same, so that a selection, the focus and the scroll position survive.

// Makes the nodes after `anchor` (null: the first ones) equal to `nodes`; those behind them stay. Returns the nodes that
// are in the document now.
export function patchAfter(parent, anchor, nodes) {
  const placed = [];
  for (const node of Array.from(nodes)) {
    const previous = placed.at(-1) || anchor;
    placed.push(patchNode(parent, previous ? previous.nextSibling : parent.firstChild, node));
  }
  return placed;
}

// The same, and removes those behind them.
export function patchRest(parent, anchor, nodes) {
  removeAfter(parent, patchAfter(parent, anchor, nodes).at(-1) || anchor);
}

export function removeAfter(parent, anchor) {
  while (parent.lastChild !== anchor) parent.lastChild.remove();
}

// Makes `old`, a child of `parent` or null for a new one, equal to `node`. Returns the one that is in the document.
export function patchNode(parent, old, node) {
  if (!old) return parent.appendChild(node);
  if (old.isEqualNode(node)) return old;
  if (isText(old) && isText(node)) {
    setText(old, node.data);
    return old;
  }
  if (old.nodeName !== node.nodeName || !isPatchable(old)) {
    old.replaceWith(node);
    return node;
  }
  setAttributes(old, node);
  patchRest(old, null, node.childNodes);
  return old;
}

// Appends if it can: the browser has less to lay out then, and a selection stays.
export function setText(node, text) {
  if (text === node.data) return;
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

// Makes the node after `anchor` an element like `element` and keeps its children, which are not finished yet. Returns it.
export function adoptAfter(parent, anchor, element) {
  const old = anchor ? anchor.nextSibling : parent.firstChild;
  if (old && old.nodeName === element.nodeName) {
    setAttributes(old, element);
    return old;
  }
  parent.insertBefore(element, old);
  return element;
}

// Formulas are small, and their elements mean what their parents make of them.
function isPatchable(node) {
  return node.nodeType === Node.ELEMENT_NODE && !node.classList.contains('formula');
}

function isText(node) {
  return node.nodeType === Node.TEXT_NODE;
}

function setAttributes(old, node) {
  for (const { name } of Array.from(old.attributes)) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}
