"""The Python client of Everstream: `pip install 'everstream[client]'`.

    with Client("https://host") as client:
        for text in client.start("Why is the sky blue?").texts():
            print(text, end="", flush=True)

`Client` and `AsyncClient` have the same words. A generation goes on where it was, over lost connections, restarted
servers and frozen links: nothing is repeated, nothing is missing, and an incomplete answer never looks finished.

Pure, without I/O: the decoder (`sse`), what is new and when to connect again (`subscription`, `backoff`), what
responses mean (`replies`), what is sent (`requests`). On httpx, and as thin as possible: `sync_client`, `answer` and
`link`; `async_client` and `async_answer`. Nothing else of the package is imported.
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
from everstream.client.sync_client import Client

__all__ = [
    "Answer",
    "AnswerCancelled",
    "AnswerClosed",
    "AnswerFailed",
    "AsyncAnswer",
    "AsyncClient",
    "Client",
    "Event",
    "EverstreamError",
    "GaveUp",
    "InvalidStream",
    "RequestRefused",
    "Result",
]
