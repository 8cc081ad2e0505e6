// Formulas as MathML, by KaTeX, which is loaded when the first one appears. Until then, and if it can't be loaded or
// refuses a formula, its source is shown.

import { escapeHtml } from './escape.js';
import { texOf } from './maths.js';

const MAX_TEX = 5000;
// Its defaults trust nothing. The bounds keep a formula from growing without end, or over the page.
const OPTIONS = { output: 'mathml', trust: false, strict: 'ignore', throwOnError: true, maxSize: 20, maxExpand: 500 };

let katex = null;
let loading = null;

// Resolves when formulas can be typeset, or can't be loaded.
export function loadTypesetting() {
  loading ||= import('../vendor/katex.js').then(
    (module) => { katex = module.default; },
    // The next formula tries again.
    () => { loading = null; },
  );
  return loading;
}

export function formula(source) {
  const { tex, display } = texOf(source);
  if (!katex) return `<span class="formula pending" dir="ltr">${escapeHtml(source)}</span>`;
  return `<span class="formula" dir="ltr">${typeset(source, tex, display)}</span>`;
}

function typeset(source, tex, display) {
  if (tex.length > MAX_TEX) return escapeHtml(source);
  try {
    return katex.renderToString(tex, { ...OPTIONS, displayMode: display });
  } catch {
    return escapeHtml(source);
  }
}
