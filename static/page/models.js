// The served models: which there are, and which one is chosen.

import { BASE } from '../base.js';
import { isUnknown } from './form.js';
import { backoff } from '../client/everstream.js';

const MODELS = `${BASE}models`;

// While the chosen one is ready, it is only looked at now and then.
const CALM_MS = 10_000;

// Calls onModels(models) once they are known, and again and again, because a model may still be loading, or go away.
// `isReady()` says whether the chosen one is ready; `onSignedOut()` is called if one has to sign in. Returns a function
// that asks again at once.
export function watchModels(onModels, isReady, onSignedOut) {
  let timer = 0;
  let tries = 0;
  let asked = 0;

  async function ask() {
    clearTimeout(timer);
    asked += 1;
    const request = asked;
    const models = await fetchModels(onSignedOut);
    // A newer request is under way, which goes on from there.
    if (request !== asked) return;
    if (models) onModels(models);
    const isCalm = models && isReady();
    tries = isCalm ? 0 : tries + 1;
    timer = setTimeout(askIfVisible, isCalm ? CALM_MS : backoff(tries - 1));
  }

  function askIfVisible() {
    if (document.hidden) document.addEventListener('visibilitychange', askIfVisible, { once: true });
    else ask();
  }

  ask();
  return () => { tries = 0; ask(); };
}

async function fetchModels(onSignedOut) {
  try {
    const response = await fetch(MODELS);
    if (response.status === 401) onSignedOut();
    return response.ok ? (await response.json()).models : null;
  } catch {
    return null;
  }
}

export function labelOf(model) {
  return model.state === 'ready' ? model.name : `${model.name} (${model.state})`;
}

// What to say instead of a form; empty if the form can be shown.
export function obstacle(model) {
  if (!isUnknown(model)) return '';
  return model.error ? `${model.name} can't be used: ${model.error}` : `${model.name} is loading…`;
}
