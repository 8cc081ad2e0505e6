// Light, dark, or as the system has it. The page's head loads this as a classic script, so that the page is never drawn
// in the wrong colours first; `data-theme` is what the style sheet knows.
(() => {
  const NAME = 'everstream.theme';
  const THEMES = ['auto', 'light', 'dark'];
  const root = document.documentElement;
  function stored() {
    try {
      const theme = localStorage.getItem(NAME);
      return THEMES.includes(theme) ? theme : 'auto';
    } catch {
      return 'auto';
    }
  }
  function show(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById('theme');
    if (!button) return;
    button.title = `Colours: ${theme}`;
    button.setAttribute('aria-label', button.title);
  }
  show(stored());
  document.addEventListener('DOMContentLoaded', () => {
    show(root.dataset.theme);
    document.getElementById('theme')?.addEventListener('click', () => {
      const theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
      try {
        localStorage.setItem(NAME, theme);
      } catch {
        // Denied: it lasts as long as the page.
      }
      show(theme);
    });
  });
})();
