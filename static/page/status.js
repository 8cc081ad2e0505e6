// The status line: what is known of the running answer, or else of the last one and of the model.

import { setText } from './dom.js';
import { describe, describeEnd } from './state.js';

// { phase, text, detail, mark } with a mark for the tab. `model` null: not known yet.
export function statusOf({ run, last, model, now, isOnline }) {
  if (run) return { ...describe(run.state, { now, isOnline }), mark: 'busy' };
  if (last?.end) {
    const ended = describeEnd(last.end, { now, isOnline });
    return { ...ended, detail: last.stats, mark: { done: 'done', failed: 'failed' }[last.end.type] ?? 'idle' };
  }
  return { detail: '', ...withoutAnswer(model, isOnline), mark: 'idle' };
}

function withoutAnswer(model, isOnline) {
  if (!isOnline) return { phase: 'offline', text: 'Offline' };
  if (!model) return { phase: 'connecting', text: 'Connecting…' };
  if (model.state === 'failed') return { phase: 'failed', text: `Failed: ${model.error}` };
  if (model.state !== 'ready') return { phase: 'loading', text: 'Loading the model…', detail: model.message ?? '' };
  return { phase: 'idle', text: 'Ready' };
}

export function createStatusLine(element) {
  const [text, detail] = element.children;
  return (shown) => {
    setText(text, shown.text);
    setText(detail, shown.detail);
    element.dataset.phase = shown.phase;
  };
}
