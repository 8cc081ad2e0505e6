// Keeps the newest text in view until the reader scrolls up, however little; a button leads back.

const AT_BOTTOM_PX = 4;

// Returns { keep, toBottom }. Call `keep` after each rendering.
export function followBottom(button) {
  let isFollowing = true;
  let lastTop = window.scrollY;

  function isAtBottom() {
    const { scrollHeight, clientHeight } = document.documentElement;
    return scrollHeight - clientHeight - window.scrollY <= AT_BOTTOM_PX;
  }

  function setFollowing(value) {
    isFollowing = value;
    button.hidden = value || isAtBottom();
  }

  // Content that shrinks moves the page up, too, but then it is at the bottom.
  window.addEventListener('scroll', () => {
    const { scrollY } = window;
    if (isAtBottom()) setFollowing(true);
    else if (scrollY < lastTop) setFollowing(false);
    lastTop = scrollY;
  }, { passive: true });
  // Before the page has moved: rendering must not pull it back.
  window.addEventListener('wheel', ({ deltaY }) => { if (deltaY < 0) setFollowing(false); }, { passive: true });
  window.addEventListener('touchmove', () => { if (!isAtBottom()) setFollowing(false); }, { passive: true });
  window.addEventListener('keydown', ({ key }) => {
    if (['PageUp', 'Home', 'ArrowUp'].includes(key) && document.activeElement === document.body) setFollowing(false);
  });

  function toBottom() {
    setFollowing(true);
    window.scrollTo(0, document.documentElement.scrollHeight);
    lastTop = window.scrollY;
  }

  function keep() {
    if (isFollowing) toBottom();
    else button.hidden = isAtBottom();
  }

  button.addEventListener('click', toBottom);
  // Formulas and images take their room later, and what is out of sight only when it comes into view.
  new ResizeObserver(keep).observe(document.querySelector('main'));
  return { keep, toBottom };
}
