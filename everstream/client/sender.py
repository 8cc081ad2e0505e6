"""Sends what is in an `Outbox`, in a background thread that lives as long as its process. Called by `publisher`.

Nothing is logged while the lock is held: whoever handles the record may publish.
"""

# Sockets need it. A child that is forked while a thread imports it would never have it.
import encodings.idna  # noqa: F401
import logging
import secrets
import threading
import time
from collections.abc import Callable

import httpx

from everstream.client import replies
from everstream.client.errors import EverstreamError, RequestRefused, Unavailable
from everstream.client.outbox import Batch, Body, Outbox
from everstream.client.replies import Reply
from everstream.client.requests import producer_headers
from everstream.client.shared_outbox import SharedOutbox
from everstream.client.transport import Options, bounded, unavailable

THREAD_NAME = "everstream-publisher"
MakeTransport = Callable[[], httpx.BaseTransport]
logger = logging.getLogger("everstream.client")


class Sender:
    """`producer`: its name for the service."""

    def __init__(
        self, outbox: Outbox, options: Options, make_transport: MakeTransport | None, *, stops_when_refused: bool
    ) -> None:
        self.producer = secrets.token_hex(16)
        self.is_stopped = False
        self.outbox = SharedOutbox(outbox)
        self._options = options
        self._make_transport = make_transport
        self._stops_when_refused = stops_when_refused
        self._http: httpx.Client | None = None
        self._is_running = False
        self._reported = ""

    def add(self, topic: str, body: Body, due: float) -> None:
        self.outbox.add(topic, body, due)
        self._start()

    def wait_for_room(self, timeout_s: float | None) -> bool:
        self._start()
        with self.outbox.changed:
            return self.outbox.changed.wait_for(self.outbox.has_room, timeout_s)

    def wait_until_sent(self, timeout_s: float | None) -> bool:
        """Wait until nothing is left of what is in the outbox now."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        target = self.outbox.stats.published
        if self.outbox.is_sent(target):
            return True
        self._start()
        with self.outbox.changed:
            self.outbox.changed.wait_for(lambda: self.outbox.is_sent(target) or not self._is_running, timeout_s)
        if not self._is_running and self._may_send:
            self._send_here(target, until)
        if not self._is_running:
            self._report()
        return self.outbox.is_sent(target)

    def stop(self) -> None:
        self.is_stopped = True
        self._notify()

    @property
    def _may_send(self) -> bool:
        return not self.is_stopped and not (self._stops_when_refused and self.outbox.stats.refused)

    def _start(self) -> None:
        """Not only the thread: a child that is forked while another thread imports has only a part of the module."""
        if self._is_running or not self._may_send:
            return
        try:
            http = httpx.Client(transport=self._make_transport() if self._make_transport else None)
        except Exception as error:
            # For example, the environment's proxies are wrong.
            self._report_once(f"messages can't be sent: {error!r}")
            return
        with self.outbox.changed:
            if self._is_running:
                return
            self._http, self._is_running = http, True
        try:
            threading.Thread(target=self._run, args=(http,), name=THREAD_NAME, daemon=True).start()
        except RuntimeError:
            # No thread is left, or the interpreter is ending. The next message tries again; a flush sends by itself.
            self._is_running = False

    def _run(self, http: httpx.Client) -> None:
        try:
            with http:
                while self._may_send:
                    self._step(http, None)
            self._report()
        finally:
            self._is_running = False
            self._notify()

    def _send_here(self, target: int, until: float | None) -> None:
        """Send from a thread that waits for it, because there is no other."""
        while self._http and not self.outbox.is_sent(target) and (until is None or time.monotonic() < until):
            self._step(self._http, until)

    def _notify(self) -> None:
        with self.outbox.changed:
            self.outbox.changed.notify_all()

    def _step(self, http: httpx.Client, until: float | None) -> None:
        """Send a batch, or wait until there may be one, but not longer than `until`."""
        self._report()
        with self.outbox.changed:
            found = self.outbox.next(time.monotonic())
            if not isinstance(found, Batch):
                times = [each for each in (found, until) if each is not None]
                self.outbox.changed.wait(max(min(times) - time.monotonic(), 0.0) if times else None)
                return
        error = self._attempt(http, found)
        delay = self.outbox.settle(found, error, time.monotonic())
        if delay is not None:
            logger.info("publishing again in %.1f s: %s", delay, error)

    def _attempt(self, http: httpx.Client, batch: Batch) -> EverstreamError | None:
        """How it went; None: it is acknowledged."""
        try:
            replies.published(self._post(http, batch))
        except (Unavailable, httpx.RequestError) as error:
            return self._not_sent(error)
        except EverstreamError as error:
            return error
        except Exception as error:
            self._report_once(f"messages can't be sent for now: {error!r}")
            return Unavailable("not_sent", repr(error))
        return None

    def _not_sent(self, error: Unavailable | httpx.RequestError) -> EverstreamError:
        """What has no response is always tried again: a certificate, too, may be replaced."""
        try:
            return unavailable(error)
        except (RequestRefused, httpx.RequestError) as refused:
            self._report_once(f"messages can't be sent for now: {refused}")
            return Unavailable("not_sent", str(refused))

    def _post(self, http: httpx.Client, batch: Batch) -> Reply:
        address = self._options.addresses.topic(batch.topic)
        headers = self._options.all_headers(producer_headers(self.producer, batch.epoch, batch.seq))
        with http.stream(
            "POST",
            address,
            content=batch.body,
            headers=headers,
            timeout=self._options.timeout(),
            follow_redirects=False,
        ) as response:
            return Reply(response.status_code, response.headers, bounded(response.iter_bytes()), time.time())

    def _report(self) -> None:
        with self.outbox.warnings() as warnings:
            for warning in warnings:
                logger.warning("%s", warning)

    def _report_once(self, warning: str) -> None:
        if warning != self._reported:
            self._reported = warning
            logger.warning("%s", warning)


def is_from_elsewhere(record: logging.LogRecord) -> bool:
    """Whether a record is not about sending, which would be endless if it was sent."""
    if record.threadName is None:
        return not record.name.startswith(("everstream.client", "httpx", "httpcore"))
    return record.threadName != THREAD_NAME and not record.name.startswith("everstream.client")


# Otherwise it says at the level INFO, in the program's own log, that each batch was sent.
logging.getLogger("httpx").addFilter(lambda record: record.threadName != THREAD_NAME)
