// What the page's address says after the #: `c=` a conversation in this browser, `g=` the generation of an answer that
// can be shared. It never reaches a server.

const HASH = /^#([cg])=([0-9a-f]{32})$/;

// { conversation } or { generation }, or neither.
export function readAddress() {
  const [, kind, id] = location.hash.match(HASH) ?? [];
  return { conversation: kind === 'c' ? id : null, generation: kind === 'g' ? id : null };
}

export function addressOfAnswer({ generation }) {
  return `${withoutHash()}#g=${generation}`;
}

export function showAddressOf(conversation) {
  const hash = `#c=${conversation.id}`;
  if (location.hash !== hash) history.replaceState(null, '', hash);
}

export function showNoAddress({ isNewEntry = false } = {}) {
  if (isNewEntry) history.pushState(null, '', withoutHash());
  else history.replaceState(null, '', withoutHash());
}

function withoutHash() {
  return location.href.split('#')[0];
}
