"""When a response begins that may still become a refusal."""

import time

import gevent
from flask import Flask, g

from everstream.log.records import Generation
from everstream.log.web_log import WebLog
from everstream.settings import load_settings
from everstream.web.access.principal import ANONYMOUS
from everstream.web.context import EXTENSION, AppContext
from everstream.web.event_encoder import EventEncoder
from everstream.web.follower import Follower
from everstream.web.open_streams import OpenStreams
from everstream.web.sse import Queued
from everstream.web.streaming import begin_unless_refused

GENERATION = Generation("0123456789abcdef" * 2, "open", "model", 0)
HEARTBEAT_S = 0.4
TIMEOUT_S = 30


def test_queue_that_moves_does_not_keep_the_response_from_beginning():
    settings = load_settings({"EVERSTREAM_HEARTBEAT_S": str(HEARTBEAT_S)})
    web_log, app = WebLog(settings), Flask("test")
    # Not started: nothing reads the log, so no entry comes.
    streams = OpenStreams(settings)
    follower = Follower(web_log, settings, streams)
    app.extensions[EXTENSION] = AppContext(
        settings, web_log, streams, follower, None, None, None, None, None, None, None, None, {}
    )

    def move_queue():
        for position in range(1, 1_000_000):
            for reader in list(streams._open):
                reader.move_to(Queued(position, position))
            gevent.sleep(0.01)

    with app.test_request_context(), gevent.Timeout(TIMEOUT_S):
        g.principal, g.started = ANONYMOUS, time.monotonic()
        moving, started = gevent.spawn(move_queue), time.monotonic()
        try:
            response = begin_unless_refused(GENERATION, lambda known: EventEncoder(known.id))
        finally:
            moving.kill()
        assert response.mimetype == "text/event-stream"
        assert time.monotonic() - started > HEARTBEAT_S / 2
        assert len(streams) == 0
    response.close()
    web_log.close()
