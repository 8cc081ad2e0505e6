"""Describes an API to `factory`. Each folder in `apis` has one `Api`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flask import Blueprint, Response

from everstream.errors import EverstreamError
from everstream.log.records import Generation
from everstream.web.sse import Encoder

MakeEncoder = Callable[[Generation], Encoder]


def no_headers(response: Response) -> None:
    """What an API adds that has no headers of its own."""


class Api(NamedTuple):
    """`error_body` makes the JSON of every error under `prefix`, even if no route of this API raised it. `formats` are
    those in which any generation's events can be read. `add_headers` is called with every response under `prefix`."""

    blueprint: Blueprint
    prefix: str = "/"
    error_body: Callable[[EverstreamError], dict[str, Any]] = EverstreamError.body
    formats: Mapping[str, MakeEncoder] = {}
    add_headers: Callable[[Response], None] = no_headers


def api_of(path: str, apis: Sequence[Api]) -> Api | None:
    """The API with the longest prefix of this path."""
    return max((api for api in apis if path.startswith(api.prefix)), key=lambda api: len(api.prefix), default=None)
