"""Runs the application in a greenlet of its own, so that the stacks of connections stay shallow. Called by `worker`.

A greenlet keeps every page of its stack that was ever touched, and the application's calls touch several. A connection
spends most of its life waiting, for a stream's next event or for the next request, and that takes one page or two.
"""

from collections.abc import Callable, Iterable
from typing import Any

import gevent

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def apart(application: Application) -> Application:
    """The same WSGI application. What it returns is iterated over by the caller."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        greenlet = gevent.Greenlet(_outcome, application, environ, start_response)
        # Not a copy: a stream goes on in the context of its request.
        greenlet.gr_context = gevent.getcurrent().gr_context
        greenlet.start()
        try:
            result, error = greenlet.get()
        except BaseException:
            greenlet.kill(block=False)
            raise
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    return call


def _outcome(application: Application, *given: Any) -> tuple[Iterable[bytes] | None, Exception | None]:
    """gevent would print what a greenlet raises."""
    try:
        return application(*given), None
    except Exception as error:
        return None, error
