"""Describes an API to `factory`. Each folder in `apis` has one `Api`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flask import Blueprint

from everstream.errors import EverstreamError
from everstream.log.records import Generation
from everstream.web.sse import Encoder

MakeEncoder = Callable[[Generation], Encoder]


class Api(NamedTuple):
    """`error_body` makes the JSON of every error under `prefix`, even if no route of this API raised it. `formats` are
    those in which any generation's events can be read."""

    blueprint: Blueprint
    prefix: str = "/"
    error_body: Callable[[EverstreamError], dict[str, Any]] = EverstreamError.body
    formats: Mapping[str, MakeEncoder] = {}
