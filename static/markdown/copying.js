// The Copy buttons of code blocks.

const SHOWN_MS = 2000;

// One listener for all buttons of an answer.
export function handleCopying(root) {
  root.addEventListener('click', ({ target }) => {
    const button = target.closest('button.copy');
    if (button) copyCode(button);
  });
}

async function copyCode(button) {
  const code = button.closest('.code').querySelector('code');
  const isCopied = await copy(code.textContent.replace(/\n$/, ''));
  if (!isCopied) select(code);
  button.textContent = isCopied ? 'Copied' : 'Selected';
  setTimeout(() => { button.textContent = 'Copy'; }, SHOWN_MS);
}

// Resolves to whether it worked: the clipboard needs a secure origin, and the user's permission.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const field = document.createElement('textarea');
  field.className = 'markdown-copy-source';
  field.value = text;
  // All but an open dialog is inert.
  (document.querySelector('dialog[open]') ?? document.body).append(field);
  field.select();
  const isCopied = document.execCommand('copy');
  field.remove();
  focused?.focus({ preventScroll: true });
  return isCopied;
}

// The last resort: the reader can press the keys.
function select(code) {
  getSelection().selectAllChildren(code);
}
