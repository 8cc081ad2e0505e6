"""The headers of OpenAI's API, on all of its responses, errors included. Used by `routes`."""

from flask import Blueprint, Response

from everstream.web import posts
from everstream.web.access_log import elapsed_ms

VERSION = "2020-10-01"
"""Of OpenAI's API, as its own servers say."""


def register(blueprint: Blueprint) -> None:
    blueprint.after_request(posts.add_headers)


def add(response: Response) -> None:
    response.headers["openai-version"] = VERSION
    response.headers["openai-processing-ms"] = str(elapsed_ms())
