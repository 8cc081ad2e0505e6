"""Describes an API to `factory`. Each folder in `apis` has one `Api`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Blueprint

from everstream.errors import EverstreamError


class Api(NamedTuple):
    """`error_body` makes the JSON of every error under `prefix`, even if no route of this API raised it."""

    blueprint: Blueprint
    prefix: str = "/"
    error_body: Callable[[EverstreamError], dict[str, Any]] = EverstreamError.body
