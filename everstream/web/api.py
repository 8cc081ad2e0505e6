"""Describes an API to `factory`. Each folder in `apis` has one `Api`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flask import Blueprint, Response

from everstream.errors import EverstreamError
from everstream.log.records import Generation
from everstream.settings import Settings
from everstream.web.description import ApiDescription
from everstream.web.sse import Encoder

MakeEncoder = Callable[[Generation], Encoder]


def no_headers(response: Response) -> None:
    """What an API adds that has no headers of its own."""


def always(settings: Settings) -> bool:  # noqa: ARG001 - others look at them
    return True


class Api(NamedTuple):
    """`error_body` makes the JSON of every error under one of `prefixes`, even if no route of this API raised it.
    `formats` are those in which any generation's events can be read. `add_headers` is called with every response there.
    `description`: for /openapi.json. `is_served`: otherwise it is as if the API did not exist."""

    blueprint: Blueprint
    prefixes: Sequence[str] = ("/",)
    error_body: Callable[[EverstreamError], Mapping[str, Any]] = EverstreamError.body
    formats: Mapping[str, MakeEncoder] = {}
    add_headers: Callable[[Response], None] = no_headers
    description: ApiDescription | None = None
    is_served: Callable[[Settings], bool] = always


def api_of(path: str, apis: Sequence[Api]) -> Api | None:
    """The API with the longest prefix of this path."""
    found = [(len(prefix), api) for api in apis for prefix in api.prefixes if path.startswith(prefix)]
    return max(found, key=lambda each: each[0])[1] if found else None
