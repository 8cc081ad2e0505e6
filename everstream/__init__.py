"""Everstream: token streams over Server-Sent Events that never lose or repeat a token.

The folders follow a token's journey. `apis` checks a request against the model's `contract`, `web` puts it into the
`log`'s queue, `engine` claims it, runs the model (the chat model is in `llm`) and appends its output to the log, and
`web` reads the log for every viewer. `host` runs all of it on one machine. Each folder's docstring says what enters,
what leaves and who may import it; import-linter checks that. `client` is for programs that use a server elsewhere:
`from everstream import publish` is a part of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everstream.client import LogHandler, Publisher, flush, follow, progress, publish, stats

__version__ = "0.1.0"
__all__ = ["LogHandler", "Publisher", "flush", "follow", "progress", "publish", "stats"]


def __getattr__(name: str) -> Any:
    """What programs publish with. Imported only then, because it needs httpx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from everstream import client  # noqa: PLC0415

    return getattr(client, name)
