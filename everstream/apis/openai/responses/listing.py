"""A page of a response's input items. Pure. Called by `routes`."""

from collections.abc import Mapping
from typing import Any

from everstream.apis.openai.responses.items import Item, listed
from everstream.errors import InvalidInput

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def page(items: list[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """`query`: `limit`, `order` and `after`, the id of an item. Raises InvalidInput."""
    order, limit = query.get("order", "desc"), query.get("limit", str(DEFAULT_LIMIT))
    if order not in ("asc", "desc"):
        raise InvalidInput("order must be asc or desc", param="order")
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3 and 1 <= int(limit) <= MAX_LIMIT):
        raise InvalidInput(f"limit must be from 1 to {MAX_LIMIT}", param="limit")
    ordered = items if order == "asc" else items[::-1]
    rest = ordered[_index_after(ordered, query["after"]) :] if query.get("after") else ordered
    shown = rest[: int(limit)]
    return {
        "object": "list",
        "data": [listed(item) for item in shown],
        "first_id": shown[0].id if shown else "",
        "last_id": shown[-1].id if shown else "",
        "has_more": len(shown) < len(rest),
    }


def _index_after(items: list[Item], item_id: str) -> int:
    for index, item in enumerate(items, 1):
        if item.id == item_id:
            return index
    raise InvalidInput(f"after names {item_id[:100]!r}, which is not an item of this response", param="after")
