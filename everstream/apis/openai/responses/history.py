"""A conversation that earlier responses hold: `previous_response_id`, and references to their items. Pure.

An item's id contains that of its response's generation, so that an item is found without an index: `msg_<generation>_2`
is item 2 of the output, `msg_<generation>_i2` item 2 of the input.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from everstream.apis.openai.responses.items import Item
from everstream.errors import InvalidInput
from everstream.web.sse import GENERATION_ID

RESPONSE_PREFIX = "resp_"
_RESPONSE_ID = re.compile(f"{RESPONSE_PREFIX}({GENERATION_ID})", re.ASCII)
_ITEM_ID = re.compile(f"[a-z]{{2,3}}_({GENERATION_ID})_i?[0-9]+", re.ASCII)
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


def generation_of(response_id: str) -> str | None:
    """The generation of a response; None: no response can have this id."""
    match = _RESPONSE_ID.fullmatch(response_id)
    return match[1] if match else None


def item_id(item_type: str, generation: str, number: int | str) -> str:
    """`number`: in the output, or `i` and the number in the input."""
    return f"{PREFIXES[item_type]}_{generation}_{number}"


def with_ids(items: list[Item], generation: str) -> list[Item]:
    """A generation's input, in which each item has an id."""
    return [
        item if item.id else msgspec.structs.replace(item, id=item_id(item.type or "", generation, f"i{number}"))
        for number, item in enumerate(items)
    ]


def references(items: Iterable[Item]) -> set[str]:
    """The ids of the items to which these refer."""
    return {item.id or "" for item in items if item.type == "item_reference"}


def generation_with(item_id: str) -> str | None:
    """The generation that has this item; None: none can have it."""
    match = _ITEM_ID.fullmatch(item_id)
    return match[1] if match else None


def answered(given: list[Item], answer: list[Item]) -> list[Item]:
    """A conversation with its answer."""
    # A call whose arguments were cut is no call: a chat template could not even parse it.
    return [*given, *(item for item in answer if item.type != "function_call" or item.status == "completed")]


def continued(before: list[Item], items: list[Item], found: Mapping[str, Item]) -> list[Item]:
    """A conversation with more items. `found` has those to which some of these refer, unless they are there already.
    Raises InvalidInput."""
    present = {item.id for item in before if item.id}
    after = []
    for item in items:
        if item.type != "item_reference":
            after.append(item)
        elif item.id in present:
            continue
        elif item.id and item.id in found:
            after.append(found[item.id])
        else:
            raise InvalidInput(f"the item {(item.id or '')[:100]!r} is not stored here", param="input")
    return before + after
