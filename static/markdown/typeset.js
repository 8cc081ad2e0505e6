// Formulas as MathML, by KaTeX, which is loaded when the first one appears. Until then, and if it can't be loaded or
// refuses a formula, its source is shown.

import { escapeHtml } from './escape.js';
import { texOf } from './maths.js';

const MAX_TEX = 5000;
// Its defaults trust nothing. The bounds keep a formula from growing without end, or over the page.
const OPTIONS = { output: 'mathml', trust: false, strict: 'ignore', throwOnError: true, maxSize: 20, maxExpand: 500 };

let katex = null;
let loading = null;

// The class of a formula that is shown as its source, as it appears in HTML.
export const PENDING = 'class="formula pending"';

// Resolves to whether formulas can be typeset.
export function loadTypesetting() {
  loading ||= import('../vendor/katex.js').then(
    (module) => {
      katex = module.default;
      return true;
    },
    () => {
      // The next formula tries again.
      loading = null;
      return false;
    },
  );
  return loading;
}

export function formula(source) {
  const { tex, display } = texOf(source);
  if (!katex) return `<span ${PENDING} dir="ltr">${escapeHtml(source)}</span>`;
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
