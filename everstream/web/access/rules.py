"""What each route requires of those who call it: `@allow(...)` beside the route. A route without a rule serves nobody.

Read by `guard`, and by `apis.openapi` for the document.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from everstream.log.api_keys import Scope

View = TypeVar("View", bound=Callable[..., Any])


class Rule(NamedTuple):
    """`scope` None: open to everyone. `ticket`: what a ticket must be for, to do instead of a key.

    `takes`: the content types that its body may have.
    """

    scope: Scope | None
    ticket: Literal["", "read", "start", "follow"] = ""
    takes: tuple[str, ...] = ("application/json",)


_rules: dict[Callable[..., Any], Rule] = {}


def allow(rule: Rule) -> Callable[[View], View]:
    """Give a view function its rule. Below the route's decorator."""

    def register(view: View) -> View:
        _rules[view] = rule
        return view

    return register


def rule_of(view: Callable[..., Any] | None) -> Rule | None:
    return _rules.get(view) if view is not None else None


PUBLIC = Rule(None)
INFER = Rule("infer")
ANY_TYPE = ("*/*",)
PUBLISH = Rule("publish", takes=ANY_TYPE)
READ = Rule("read")
ADMIN = Rule("admin")
