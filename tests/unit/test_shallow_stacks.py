"""The application runs in a greenlet of its own, and nobody can tell."""

from contextvars import ContextVar

import gevent
import pytest
from flask import Flask, request, stream_with_context

from everstream.web.shallow_stacks import apart

PLACE = ContextVar("PLACE", default="")


def test_it_is_another_greenlet_in_the_same_context():
    def application(environ, start_response):
        start_response(environ["path"], [])
        PLACE.set("inside")
        gevent.sleep(0)
        return [gevent.getcurrent()]

    def connection():
        PLACE.set("outside")
        (found,) = apart(application)({"path": "/a"}, lambda *given: started.append(given))
        return found is not gevent.getcurrent(), PLACE.get()

    started = []
    assert gevent.spawn(connection).get() == (True, "inside")
    assert started == [("/a", [])] and PLACE.get() == ""


def test_stream_goes_on_in_the_context_of_its_request():
    app = Flask("test")

    @app.get("/<name>")
    def stream(name):
        return app.response_class(stream_with_context(f"{request.path}{n}" for n in range(3)))

    app.wsgi_app = apart(app.wsgi_app)
    jobs = [gevent.spawn(lambda path: app.test_client().get(path).text, path) for path in ("/a", "/b")]
    assert [job.get() for job in jobs] == ["/a0/a1/a2", "/b0/b1/b2"]


def test_error_is_the_callers(capsys):
    with pytest.raises(ZeroDivisionError):
        apart(lambda environ, start_response: 1 / 0)({}, None)
    assert capsys.readouterr().err == ""


def test_connection_that_is_killed_takes_it_along():
    ended = []

    def application(environ, start_response):
        try:
            gevent.sleep(60)
        finally:
            ended.append(True)

    connection = gevent.spawn(apart(application), {}, None)
    gevent.sleep(0)
    gevent.sleep(0)
    connection.kill()
    gevent.sleep(0)
    assert ended == [True]
