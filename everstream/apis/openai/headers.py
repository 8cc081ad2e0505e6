"""The headers of OpenAI's API, on all of its responses, errors included. Used by `routes`."""

import time

from flask import Blueprint, Response, g

from everstream.web import posts

VERSION = "2020-10-01"
"""Of OpenAI's API, as its own servers say."""


def register(blueprint: Blueprint) -> None:
    blueprint.before_app_request(_start_clock)
    blueprint.after_request(posts.add_headers)


def _start_clock() -> None:
    g.started = time.monotonic()


def add(response: Response) -> None:
    response.headers["x-request-id"] = posts.request_id()
    response.headers["openai-version"] = VERSION
    response.headers["openai-processing-ms"] = str(round((time.monotonic() - g.started) * 1000))
