"""What an answer consists of. Pure."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from everstream.client.errors import AnswerCancelled, AnswerFailed, EverstreamError

DONE, CANCELLED, FAILED = "done", "cancelled", "failed"
TERMINAL = frozenset({DONE, CANCELLED, FAILED})
_GENERATION = re.compile("[0-9a-f]{32}")


class Event(NamedTuple):
    """`type`: `message` is one output, such as `{"text": …}`; one of `TERMINAL` is the last. `n`: its number in the
    generation's log; None for events about the generation that are not in the log: `queued`, `engine`."""

    type: str
    id: str
    n: int | None
    data: Any

    @property
    def text(self) -> str:
        """The text of an output; empty if there is none."""
        text = self.data.get("text") if self.type == "message" and isinstance(self.data, dict) else None
        return text if isinstance(text, str) else ""

    @property
    def is_terminal(self) -> bool:
        return self.type in TERMINAL


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer, or, after `follow(id, after=n)`, what came after entry n.

    `state`: `done`, `cancelled` or `failed`. `error`: why it is not `done`. `outputs`: all that the model sent, if its
    first output is more than text.
    """

    id: str
    text: str
    state: str
    finish_reason: str | None
    usage: dict[str, Any] | None
    outputs: tuple[Any, ...]
    error: EverstreamError | None


def is_generation(text: object) -> bool:
    return isinstance(text, str) and _GENERATION.fullmatch(text) is not None


def checked_generation(text: str) -> str:
    """An id that is safe in an address. Raises ValueError."""
    if not is_generation(text):
        raise ValueError(f"a generation's id is 32 hex digits, not {text!r}")
    return text


def error_of(end: Event) -> EverstreamError | None:
    """Why an answer with this last event is incomplete; None if it is complete."""
    said = end.data if isinstance(end.data, dict) else {}
    if end.type == CANCELLED:
        return AnswerCancelled("cancelled", f"the generation was stopped: {said.get('reason', 'no reason given')}")
    if end.type == FAILED:
        return AnswerFailed(str(said.get("code", "failed")), str(said.get("message", "the generation failed")))
    return None
