"""A response's output items: from pieces of the model's only choice to events, not yet numbered. Pure. Used by
`events`.

Text, reasoning and each function call are items of their own, one after another. A function call stays open while text
comes, because some of vLLM's parsers let white space through between two pieces of a call.
"""

from everstream.apis.openai.responses.history import item_id
from everstream.apis.openai.responses.open_items import Logprobs, OpenCall, OpenItem, OpenMessage, OpenReasoning
from everstream.apis.openai.responses.output import Event, OutputItem
from everstream.contract.chat_outputs import Choice, ToolCall


class OutputItems:
    def __init__(self, generation: str) -> None:
        self._generation = generation
        self._items: list[OpenItem] = []
        self._text: OpenMessage | OpenReasoning | None = None
        self._call: OpenCall | None = None
        self._calls: set[int] = set()

    @property
    def open_message(self) -> OpenMessage | None:
        """The message that text would be added to."""
        return self._text if isinstance(self._text, OpenMessage) else None

    def add(self, pieces: list[Choice]) -> list[Event]:
        return [event for piece in pieces if piece.index == 0 for event in self._add(piece)]

    def close(self, status: str) -> list[Event]:
        """The model has ended; what is still open gets this status."""
        return [event for item in self._still_open() for event in self._close(item, status)]

    def break_off(self) -> None:
        """The model has not ended, but no more will come."""
        for item in self._still_open():
            item.status = "incomplete"

    def so_far(self) -> list[OutputItem]:
        return [item.item() for item in self._items]

    def _add(self, piece: Choice) -> list[Event]:
        logprobs = (piece.logprobs or {}).get("content") or []
        events = self._add_reasoning(piece.reasoning) if piece.reasoning else []
        if piece.text:
            events += self._add_text(piece.text, logprobs)
        elif logprobs and not (piece.reasoning or piece.tool_calls) and isinstance(self._text, OpenMessage):
            # Of tokens that show no text, such as the last one.
            events.append(self._text.add("", logprobs))
        for call in piece.tool_calls:
            events += self._add_call(call)
        return events

    def _add_reasoning(self, text: str) -> list[Event]:
        if isinstance(self._text, OpenReasoning):
            return [self._text.add(text)]
        closing = self._close_text()
        self._text = opened = OpenReasoning(self._next_id("reasoning"), len(self._items))
        return [*closing, *self._open(opened), opened.add(text)]

    def _add_text(self, text: str, logprobs: Logprobs) -> list[Event]:
        if isinstance(self._text, OpenMessage):
            return [self._text.add(text, logprobs)]
        closing = self._close_text()
        self._text = opened = OpenMessage(self._next_id("message"), len(self._items))
        return [*closing, *self._open(opened), opened.add(text, logprobs)]

    def _add_call(self, piece: ToolCall) -> list[Event]:
        begun: list[Event] = []
        if self._call is None or self._call.index != piece.index:
            begun = self._begin_call(piece)
        assert self._call is not None
        arguments = piece.function.arguments
        return [*begun, self._call.add(arguments)] if arguments else begun

    def _begin_call(self, piece: ToolCall) -> list[Event]:
        if piece.index in self._calls:
            raise ValueError(f"function call {piece.index} goes on after its end")
        closing = self._close_text() + (self._close(self._call, "completed") if self._call else [])
        self._calls.add(piece.index)
        own_id = self._next_id("function_call")
        name, call_id = piece.function.name or "", piece.id or own_id
        self._call = OpenCall(own_id, len(self._items), piece.index, call_id, name)
        return closing + self._open(self._call)

    def _next_id(self, kind: str) -> str:
        return item_id(kind, self._generation, len(self._items))

    def _open(self, item: OpenItem) -> list[Event]:
        self._items.append(item)
        return item.opening()

    def _close_text(self) -> list[Event]:
        closed, self._text = self._text, None
        return self._close(closed, "completed") if closed else []

    def _close(self, item: OpenItem, status: str) -> list[Event]:
        item.status = status
        return item.closing()

    def _still_open(self) -> list[OpenItem]:
        return [item for item in self._items if item.status == "in_progress"]
