// HTML to nodes, through DOMPurify. The parser escapes what a model writes; this is the second lock.

import createPurifier from '../vendor/dompurify.js';

const TAGS = 'a blockquote br button code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th '
  + 'thead tr ul';
// What KaTeX writes.
const MATHS = 'math annotation maction menclose merror mfrac mglyph mi mlabeledtr mmultiscripts mn mo mover mpadded '
  + 'mphantom mprescripts mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover '
  + 'semantics';
const ATTRIBUTES = 'aria-live class dir href rel start tabindex target title type';
const MATH_ATTRIBUTES = 'accent accentunder columnalign columnlines columnspacing columnspan depth display displaystyle '
  + 'encoding fence frame height largeop linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize '
  + 'minsize movablelimits notation rowalign rowlines rowspacing rspace scriptlevel separator side stretchy symmetric '
  + 'voffset width xmlns';

export const ALLOWED_TAGS = words(TAGS, MATHS);
export const ALLOWED_ATTRIBUTES = words(ATTRIBUTES, MATH_ATTRIBUTES);

const purifier = createPurifier(window);
const OPTIONS = {
  ALLOWED_TAGS,
  ALLOWED_ATTR: ALLOWED_ATTRIBUTES,
  // Applies to all attributes but the next ones.
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ADD_URI_SAFE_ATTR: ALLOWED_ATTRIBUTES.filter((name) => name !== 'href'),
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

// Annotations hold the formula's source, as text.
purifier.addHook('uponSanitizeElement', (node, { tagName }) => {
  if (tagName === 'annotation' && node.firstElementChild) node.replaceChildren(node.textContent);
});

purifier.addHook('uponSanitizeAttribute', (node, attribute) => {
  if (attribute.attrName === 'href' && node.localName !== 'a') attribute.keepAttr = false;
});

export function fragmentOf(html) {
  return purifier.sanitize(html, OPTIONS);
}

// The same for several pieces of HTML. Each call makes a document, which takes longer than a short piece does.
export function fragmentsOf(pieces) {
  const joined = fragmentOf(pieces.map((html) => `<div>${html}</div>`).join(''));
  return Array.from(joined.childNodes, (holder) => {
    const fragment = document.createDocumentFragment();
    fragment.append(...holder.childNodes);
    return fragment;
  });
}

function words(...lists) {
  return lists.join(' ').split(' ');
}
