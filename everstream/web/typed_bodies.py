"""Decodes a request's body into an API's own type. Pure. Called by the APIs' `requests`."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from everstream.contract.inputs import check_containers
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json

T = TypeVar("T")


def decoded(body: dict[str, Any], decoder: msgspec.json.Decoder[T], hint: Callable[[str], str] = lambda _: "") -> T:
    """`body`: as `inputs.parse_body` gives it. `hint`: what to add to the error about a place, such as
    `messages[1].role`. Raises InvalidInput, which names the place."""
    for name, value in body.items():
        if isinstance(value, msgspec.Raw):
            check_containers(name[:100], value)
    try:
        # Decoding skips what is not honoured, without a look at its UTF-8.
        return decoder.decode(encode_json(body).decode())
    except msgspec.ValidationError as error:
        raise _explained(str(error), hint) from None
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not JSON in UTF-8", param="body") from None


def _explained(problem: str, hint: Callable[[str], str]) -> InvalidInput:
    """msgspec's messages end with the place: `$.messages[1].role`. The part before it may quote the client."""
    what, has_place, path = problem.rpartition(" - at `$")
    if not has_place:
        # Only a missing field of the body itself has none.
        name = problem.split("`")[1]
        return InvalidInput(f"{name} is missing", param=name)
    place = path.strip("`.")
    return InvalidInput(f"{place}: {what[:100]}{hint(place)}", param=place)
