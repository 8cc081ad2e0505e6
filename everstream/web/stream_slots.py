"""Slots for streams: those of this worker, and those of a client in all workers. Called for each response that is
written for as long as its client reads.

A client's slots are counted in the log, for clients with a limit alone. A worker refreshes those of its open streams.
"""

import secrets
from collections.abc import Callable
from contextlib import ExitStack, suppress

import gevent
from valkey.exceptions import ValkeyError

from everstream.errors import RateLimited, TooManyStreams
from everstream.log.web_log import SLOT_S, WebLog
from everstream.web import duties
from everstream.web.access.client_limits import client_of
from everstream.web.access.principal import principal
from everstream.web.context import AppContext, app_context


def admit() -> Callable[[], None]:
    """Take a slot for the current request's stream, and return a function that releases it.

    Raises TooManyStreams, RateLimited, ValkeyError.
    """
    context, who = app_context(), principal()
    limit = context.limits.of(who).streams
    if not limit:
        # An ExitStack per stream would take half a kilobyte.
        return _take_slot(context)
    with ExitStack() as slots:
        slots.callback(_take_slot(context))
        slots.callback(context.client_slots.take(client_of(who), limit))
        return slots.pop_all().close


def _take_slot(context: AppContext) -> Callable[[], None]:
    try:
        return context.streams.admit()
    except TooManyStreams:
        context.follower.count("streams_refused")
        raise


class ClientSlots:
    """One per web process."""

    def __init__(self, web_log: WebLog) -> None:
        self._log = web_log
        self._open: set[tuple[str, str]] = set()

    def start(self) -> None:
        gevent.spawn(duties.repeat, self._keep, SLOT_S / 3, "can't refresh the slots of clients' streams")

    def take(self, client: str, limit: int) -> Callable[[], None]:
        """Returns a function that releases it. Raises RateLimited, ValkeyError."""
        slot = client, secrets.token_hex(8)
        if not self._log.take_slot(*slot, limit):
            raise RateLimited(f"{limit} of your streams are open already; close one, or try again later")
        self._open.add(slot)

        def release() -> None:
            self._open.discard(slot)
            # In a greenlet of its own: a stream's end waits for nothing.
            gevent.spawn(self._release, *slot)

        return release

    def _release(self, client: str, stream: str) -> None:
        # Otherwise it expires.
        with suppress(ValkeyError):
            self._log.release_slot(client, stream)

    def _keep(self) -> None:
        if self._open:
            self._log.keep_slots(self._open)
