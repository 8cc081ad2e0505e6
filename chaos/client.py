"""The HTTP side of the readers: what an EventSource does, no matter how often it takes.

In: a `Reader` with its plan. Out: the same reader, at its end or closed for good. Any end of a connection without a
terminal event, and any network error, is followed by another connection after the time that the server asked for.
"""

import asyncio
import time
from urllib.parse import urlencode

import aiohttp

from tests.sse_client import Decoder

NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)
CONNECT_TIMEOUT_S = 10
EXCERPT_BYTES = 1000
"""Of an answer that is not what it should be."""


class Client:
    """One per phase. `url` is nginx's."""

    def __init__(self, url):
        self._url = url
        # Every connection is a new one, as those of a browser that was cut off are.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self):
        await self._session.close()

    async def run(self, reader):
        """Start it if need be, follow it to its end, come back after the end, and look into the log."""
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
        """Whether the step was done."""
        try:
            return await step(reader)
        except NETWORK_ERRORS as error:
            reader.seen[type(error).__name__] += 1
            return False

    async def _start(self, reader):
        """A 5xx or 429 says that nothing was started; the same request id is sent again until it is taken."""
        body = reader.plan.inputs | {"request_id": reader.request_id}
        async with self._session.post(f"{self._url}/generations", json=body) as answer:
            if answer.status == 201:
                reader.generation = (await answer.json())["id"]
            elif not _is_temporary(answer.status):
                reader.close(answer.status, await _excerpt(answer))
            return not _is_temporary(answer.status)

    async def _follow(self, reader):
        """One connection, to whichever end it comes."""
        reader.connected()
        decoder = Decoder(last_id=reader.last_id)
        async with self._get(reader) as answer:
            if answer.status != 200:
                reader.close(answer.status, await _excerpt(answer))
                return True
            while True:
                asked_at = time.monotonic()
                chunk = await answer.content.readany()
                reader.waited(time.monotonic() - asked_at)
                if not chunk or reader.take(chunk, decoder):
                    return True

    def _get(self, reader):
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": reader.last_id} if reader.last_id else {})
        if reader.plan.by_address and not reader.is_viewer:
            query = urlencode(reader.plan.inputs | {"request_id": reader.request_id}, doseq=True)
            return self._session.get(f"{self._url}/stream?{query}", headers=headers)
        return self._session.get(f"{self._url}/generations/{reader.generation}/events", headers=headers)

    async def _come_back(self, reader):
        """Who comes back after the end is told by 204 to stay away."""
        async with self._get(reader) as answer:
            if answer.status == 204:
                return True
            events = Decoder().feed(await answer.content.read(EXCERPT_BYTES))
            if answer.status == 200 and not events:
                return False
            reader.violate("other", f"after its end came {answer.status} and {events[:3]}")
            return True

    async def _look_into_log(self, reader):
        async with self._session.get(f"{self._url}/generations/{reader.generation}") as answer:
            if answer.status == 200:
                reader.compare_with_log(await answer.json())
            elif not _is_temporary(answer.status):
                reader.violate("other", f"its log was answered {answer.status} {await _excerpt(answer)}")
            return not _is_temporary(answer.status)


def _is_temporary(status):
    """Whether to send the same again: no web process answered, or nginx's limit for an address was hit."""
    return status == 429 or status >= 500


async def _excerpt(answer):
    return (await answer.content.read(EXCERPT_BYTES)).decode(errors="replace")
