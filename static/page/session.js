// Signing in, where the service needs API keys: a cookie that no script can read stands for the key from then on.

import { BASE } from '../base.js';
import { setText } from './dom.js';

const SESSION = `${BASE}session`;
const JSON_TYPE = { 'Content-Type': 'application/json' };

// The codes of errors that signing in mends.
const SIGNED_OUT = ['missing_api_key', 'session_expired', 'invalid_api_key'];

export function isSignedOut(data) {
  return SIGNED_OUT.includes(data?.code);
}

// `dialog` asks for the key; `note` says who is signed in, with a button to sign out. `scope`: one that the key must
// have; empty: any.
export function createSession(dialog, note, scope = '') {
  const form = dialog.querySelector('form');
  const error = dialog.querySelector('.bad');
  let isAsking = false;

  // Until it is known whether a key is needed, none is.
  async function state() {
    const response = await fetch(SESSION).catch(() => null);
    return response?.ok ? response.json().catch(() => ({})) : {};
  }

  function show({ signed_in: isSignedIn, name, scopes }) {
    note.hidden = !isSignedIn;
    if (isSignedIn) setText(note.querySelector('span'), `Signed in with the key ${name} (${scopes.join(', ')})`);
  }

  function isEnough({ required, signed_in: isSignedIn, scopes = [] }) {
    return !required || (isSignedIn && (!scope || scopes.includes(scope)));
  }

  async function signIn(key) {
    const request = { method: 'POST', headers: JSON_TYPE, body: JSON.stringify({ key }) };
    const response = await fetch(SESSION, request).catch(() => null);
    const body = await response?.json().catch(() => null);
    if (!response?.ok) return body?.error?.message ?? 'The server did not answer';
    const found = await state();
    if (!found.signed_in) return 'Your browser keeps no session here: open the page over HTTPS, or on localhost';
    show(found);
    return isEnough(found) ? '' : `This needs a key with the scope ${scope}`;
  }

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const { key } = form.elements;
    setText(error, await signIn(key.value.trim()));
    error.hidden = !error.textContent;
    if (error.hidden) {
      key.value = '';
      dialog.close();
    } else key.select();
  });
  note.querySelector('button').addEventListener('click', async () => {
    await fetch(SESSION, { method: 'DELETE' }).catch(() => null);
    window.location.reload();
  });
  // There is nothing behind it.
  dialog.addEventListener('cancel', (event) => event.preventDefault());

  function ask() {
    return new Promise((resolve) => {
      dialog.addEventListener('close', resolve, { once: true });
      dialog.showModal();
    });
  }

  return {
    // Resolves once this page may use the service.
    async begin() {
      const found = await state();
      show(found);
      if (!isEnough(found)) await ask();
    },
    // The session has ended: after another one has begun, the page starts anew, and its answers go on.
    async renew() {
      if (isAsking) return;
      isAsking = true;
      await ask();
      window.location.reload();
    },
  };
}
