"""The engine's own connection for appends: one command at a time, without valkey-py's work for each.

Its pool, its retries, its stream reader and its tasks cost more than all the entries of a commit. So valkey-py only
opens the connection, with all that an address may ask for; then a protocol of ours takes its place on the transport.
"""

import asyncio
from typing import Any, cast

import libvalkey
from valkey import asyncio as valkey
from valkey._parsers import BaseParser
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError
from valkey.exceptions import ValkeyError

from everstream.log.connection import COMMAND_TIMEOUT_S

_INCOMPLETE = object()


class AppendConnection:
    """Opened at the first command, and again after it was lost."""

    def __init__(self, url: str) -> None:
        # No socket timeout: for that, valkey-py would create a task at each write.
        self._connection = valkey.ConnectionPool.from_url(url, socket_timeout=None).make_connection()
        self._turn = asyncio.Lock()
        self._channel: _Channel | None = None

    async def call(self, *command: Any) -> Any:
        """Send one command, and return the reply. Raises the ValkeyError that it is, or UNAVAILABLE."""
        packed = libvalkey.pack_command(command)
        async with self._turn:
            try:
                if self._channel is None or self._channel.is_lost:
                    self._channel = await self._open()
                reply = await self._channel.send(packed)
                if isinstance(reply, ValkeyConnectionError):
                    # Such as READONLY: another connection may reach the primary again.
                    raise reply
            except BaseException:
                # The reply may still arrive, and would be taken for the next command's.
                await self.close()
                raise
        if isinstance(reply, ValkeyError):
            raise reply
        return reply

    async def _open(self) -> "_Channel":
        await self.close()
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await self._connection.connect()
        except TimeoutError:
            raise _too_slow() from None
        return _Channel(cast(asyncio.Transport, self._connection._writer.transport))

    async def close(self) -> None:
        if self._channel is not None:
            self._channel.abort()
        self._channel = None
        await self._connection.disconnect(nowait=True)


class _Channel(asyncio.Protocol):
    """One connection, once it is open."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reader = libvalkey.Reader(notEnoughData=_INCOMPLETE, replyError=BaseParser.parse_error)
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Any] | None = None
        self.is_lost = False
        transport.set_protocol(self)

    async def send(self, command: bytes) -> Any:
        self._reply = self._loop.create_future()
        timer = self._loop.call_later(COMMAND_TIMEOUT_S, self._fail, _too_slow())
        try:
            self._transport.write(command)
            return await self._reply
        finally:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        reply = self._reader.gets()
        if reply is not _INCOMPLETE and self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._fail(ValkeyConnectionError(f"the connection to Valkey was lost: {exc or 'it was closed'}"))

    def abort(self) -> None:
        """Close it at once, without what is not sent yet."""
        self._transport.abort()

    def _fail(self, error: ValkeyError) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


def _too_slow() -> ValkeyTimeoutError:
    return ValkeyTimeoutError("Valkey took too long to answer")
