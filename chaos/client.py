"""The HTTP side of the readers: does what an EventSource does, and reconnects until the stream ends.

In: a `Reader` with its plan. Out: the same reader, with a terminal event or closed permanently. After a connection ends
without a terminal event, or any network error, it reconnects after the delay that the server asked for.
"""

import asyncio
import time
from urllib.parse import urlencode

import aiohttp

from chaos.reader import OUTSIDE_THE_LOG
from harness.sse_client import Decoder

NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)
CONNECT_TIMEOUT_S = 10
EXCERPT_BYTES = 1000
"""Kept of an unexpected response."""


class Client:
    """One per phase. `url` points to nginx."""

    def __init__(self, url, address=None):
        """`address`: the client's own, for nginx's limits."""
        self._url = url
        # Always open a new connection, as a browser does after a disconnect.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, local_addr=address and (address, 0))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self):
        await self._session.close()

    async def run(self, reader):
        """Start the generation if needed, follow it to its end, reconnect after the end, and compare with the log."""
        if not reader.generation and not reader.plan.by_address:
            await self._persist(reader, self._start)
        while not reader.is_over:
            await self._attempt(reader, self._follow)
            if not reader.is_over:
                await asyncio.sleep(reader.retry_s)
        if not reader.closed:
            await self._persist(reader, self._come_back)
            await self._persist(reader, self._look_into_log)

    async def _persist(self, reader, step):
        while not await self._attempt(reader, step):
            await asyncio.sleep(reader.retry_s)

    async def _attempt(self, reader, step):
        """Returns whether the step succeeded."""
        try:
            return await step(reader)
        except NETWORK_ERRORS as error:
            reader.seen[type(error).__name__] += 1
            return False

    async def _start(self, reader):
        """Retry with the same request id until it is accepted: a 5xx or 429 means that nothing was started."""
        body = reader.plan.inputs | {"request_id": reader.request_id}
        async with self._session.post(f"{self._url}/generations", json=body) as answer:
            if answer.status == 201:
                reader.generation = (await answer.json())["id"]
            elif not _is_temporary(answer.status):
                reader.close(answer.status, await _excerpt(answer))
            return not _is_temporary(answer.status)

    async def _follow(self, reader):
        """Read one connection to its end."""
        reader.connected()
        decoder = Decoder(last_id=reader.last_id)
        async with self._get(reader) as answer:
            if answer.status != 200:
                reader.close(answer.status, await _excerpt(answer))
                return True
            while True:
                waiting_since = time.monotonic()
                chunk = await answer.content.readany()
                reader.waited(time.monotonic() - waiting_since)
                if not chunk or reader.take(chunk, decoder):
                    return True

    def _get(self, reader):
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": reader.last_id} if reader.last_id else {})
        if reader.plan.by_address and not reader.is_viewer:
            query = urlencode(reader.plan.inputs | {"request_id": reader.request_id}, doseq=True)
            return self._session.get(f"{self._url}/stream?{query}", headers=headers)
        return self._session.get(f"{self._url}/generations/{reader.generation}/events", headers=headers)

    async def _come_back(self, reader):
        """Reconnect after the terminal event. A 204 tells the client to stop."""
        async with self._get(reader) as answer:
            if answer.status == 204:
                return True
            events = Decoder().feed(await answer.content.read(EXCERPT_BYTES))
            if answer.status == 200 and all(event.type in OUTSIDE_THE_LOG for event in events):
                return False
            reader.violate("other", f"reconnecting after the end returned {answer.status} and {events[:3]}")
            return True

    async def _look_into_log(self, reader):
        async with self._session.get(f"{self._url}/generations/{reader.generation}") as answer:
            if answer.status == 200:
                reader.compare_with_log(await answer.json())
            elif not _is_temporary(answer.status):
                reader.violate("other", f"reading its log returned {answer.status} {await _excerpt(answer)}")
            return not _is_temporary(answer.status)


def _is_temporary(status):
    """Whether to retry: no web process responded, or nginx's per-address limit was hit."""
    return status == 429 or status >= 500


async def _excerpt(answer):
    return (await answer.content.read(EXCERPT_BYTES)).decode(errors="replace")
