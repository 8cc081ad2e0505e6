"""What a progress bar says, in words. Pure. Called by `progress`."""

import re

MAX_CHARS = 100
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"\s*(?:\|[^|]*\||Completed)\s*|\[[^\]]*\]|\s+")


def in_words(bar: str) -> str:
    """Without the bar itself, and the times: `Loading shards: 50%|█████     | 1/2 [00:01<00:01]` is
    `Loading shards: 50% 1/2`."""
    text = "".join(char for char in _ESCAPES.sub("", bar) if char.isprintable())
    return _BAR.sub(" ", text).strip()[:MAX_CHARS]
