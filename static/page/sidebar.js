// The list of conversations: open, search, rename by its first question, delete.

import { h, iconButton, setText } from './dom.js';

const SEARCH_AFTER_MS = 150;

// `actions`: { open(id), remove(id), search(text): the ids of conversations that have it }.
export function createSidebar(element, actions) {
  const list = element.querySelector('ul');
  const search = element.querySelector('input[type=search]');
  const empty = element.querySelector('.empty');
  let conversations = [];
  let current = '';
  let found = null;
  let timer = 0;
  let searches = 0;

  search.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(find, SEARCH_AFTER_MS);
  });

  async function find() {
    const text = search.value.trim();
    searches += 1;
    const own = searches;
    const ids = text ? await actions.search(text) : null;
    if (own !== searches) return;
    found = ids;
    render();
  }

  function isWanted({ id, title }) {
    return found === null || found.has(id) || title.toLowerCase().includes(search.value.trim().toLowerCase());
  }

  function render() {
    const wanted = conversations.filter(isWanted);
    const focused = document.activeElement?.closest('li')?.dataset.id;
    list.replaceChildren(...wanted.map(itemOf));
    if (focused) list.querySelector(`li[data-id="${CSS.escape(focused)}"] a`)?.focus();
    empty.hidden = wanted.length > 0;
    setText(empty, found === null ? 'Your conversations are kept in this browser.' : 'Nothing found.');
  }

  function itemOf({ id, title }) {
    const name = title || 'New conversation';
    const link = h('a', { href: `#c=${id}`, dir: 'auto' }, name);
    if (id === current) link.setAttribute('aria-current', 'page');
    return h('li', { 'data-id': id }, link, iconButton('delete', `Delete “${name}”`, () => actions.remove(id)));
  }

  return {
    show(given, currentId) {
      conversations = given;
      current = currentId;
      render();
    },
  };
}
