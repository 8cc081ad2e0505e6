"""What is kept of a request beside its generation: enough to make its events again, and to go on from it. Pure."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from everstream.apis.openai.responses.history import with_ids
from everstream.apis.openai.responses.items import Item
from everstream.apis.openai.responses.requests import Request
from everstream.apis.openai.responses.response import echo
from everstream.log.entries import encode_json


class Record(Struct, frozen=True, tag="response"):
    """`echoed`: see `response.echo`. `input`: the whole conversation up to the answer, as items. Most readers need only
    some of this, so its parts stay JSON."""

    echoed: dict[str, Raw]
    input: Raw = Raw(b"[]")
    is_background: bool = False
    is_stored: bool = True

    def items(self, generation: str) -> list[Item]:
        """The input, in which each item has an id."""
        return with_ids(msgspec.json.decode(self.input, type=list[Item]), generation)


def encoded(request: Request, conversation: list[Item]) -> bytes:
    record: dict[str, Any] = {
        "type": "response",
        "echoed": echo(request),
        "input": conversation,
        "is_background": request.background,
        "is_stored": request.store,
    }
    return encode_json(record)


def decoded(data: bytes | None) -> Record | None:
    """None: there is no record, or another API's."""
    try:
        return msgspec.json.decode(data, type=Record) if data else None
    except msgspec.ValidationError:
        return None


NO_RECORD = Record({name: Raw(encode_json(value)) for name, value in echo(Request()).items()})
"""For a generation that another API started."""
