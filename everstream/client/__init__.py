"""The Python client of Everstream: `pip install 'everstream[client]'`.

    with Client("https://host") as client:
        for text in client.start("Why is the sky blue?").texts():
            print(text, end="", flush=True)

`Client` and `AsyncClient` have the same words. A generation goes on where it was, over lost connections, restarted
servers and frozen links: nothing is repeated, nothing is missing, and an incomplete answer never looks finished.

`publish`, `progress` and `LogHandler` send messages to topics in the background, and `follow` reads them.

Pure, without I/O: the decoder (`sse`), what is new and when to connect again (`stream`, `subscription`,
`topic_subscription`, `backoff`), what is sent (`requests`, `messages`) and when (`outbox`), what responses mean
(`replies`). On httpx, and as thin as possible: `sync_client`, `reader`, `answer`, `topic_reader` and `link`; the same
with `async_`; `sender`. Nothing else of the package is imported.
"""

try:
    import httpx as _httpx  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "httpx":
        raise
    raise ModuleNotFoundError("everstream.client needs httpx: pip install 'everstream[client]'", name="httpx") from None

from everstream.client.answer import Answer
from everstream.client.async_answer import AsyncAnswer
from everstream.client.async_client import AsyncClient
from everstream.client.async_topic_reader import AsyncMessages
from everstream.client.errors import (
    AnswerCancelled,
    AnswerClosed,
    AnswerFailed,
    EverstreamError,
    GaveUp,
    InvalidStream,
    RequestRefused,
)
from everstream.client.events import Event, Result
from everstream.client.log_handler import LogHandler
from everstream.client.messages import Message
from everstream.client.outbox import Stats
from everstream.client.progress_report import Progress, progress
from everstream.client.publisher import Publisher
from everstream.client.publishing import flush, follow, publish, stats
from everstream.client.sync_client import Client
from everstream.client.topic_reader import Messages

__all__ = [
    "Answer",
    "AnswerCancelled",
    "AnswerClosed",
    "AnswerFailed",
    "AsyncAnswer",
    "AsyncClient",
    "AsyncMessages",
    "Client",
    "Event",
    "EverstreamError",
    "GaveUp",
    "InvalidStream",
    "LogHandler",
    "Message",
    "Messages",
    "Progress",
    "Publisher",
    "RequestRefused",
    "Result",
    "Stats",
    "flush",
    "follow",
    "progress",
    "publish",
    "stats",
]
