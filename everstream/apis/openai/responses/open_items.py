"""The item that the model is adding to: text, reasoning, or a function call. Pure. Used by `events`.

In: pieces as the engine logged them. Out: events, not yet numbered. The events follow from the pieces alone, so that
every process makes the same ones. A process has thousands of open items, so what they gather is kept as bytes.
"""

from typing import Any, Protocol

import msgspec

from everstream.apis.openai.responses.output import (
    ArgumentsDelta,
    ArgumentsDone,
    Event,
    FunctionCall,
    ItemAdded,
    ItemDone,
    Message,
    OutputItem,
    OutputText,
    PartAdded,
    PartDone,
    Reasoning,
    ReasoningDelta,
    ReasoningDone,
    ReasoningText,
    TextDelta,
    TextDone,
)
from everstream.log.entries import encode_json

Logprobs = list[dict[str, Any]]


class OpenItem(Protocol):
    status: str

    def opening(self) -> list[Event]:
        """The events that begin the item."""

    def closing(self) -> list[Event]:
        """The events that end it, with the status that it now has."""

    def item(self) -> OutputItem:
        """The item with what it has so far."""


class OpenMessage:
    def __init__(self, item_id: str, output_index: int) -> None:
        self.status = "in_progress"
        self._id, self._index = item_id, output_index
        self._literal = bytearray()
        self._logprobs: list[bytes] = []

    def opening(self) -> list[Event]:
        return [
            ItemAdded(output_index=self._index, item=Message(self._id, self.status)),
            PartAdded(output_index=self._index, item_id=self._id, part=OutputText("")),
        ]

    def add(self, text: str, logprobs: Logprobs) -> Event:
        """`logprobs`: in the format of a chat completion."""
        self.add_literal(encode_json(text))
        self._logprobs += map(encode_json, logprobs)
        shown = [_without_bytes(logprob) for logprob in logprobs]
        return TextDelta(output_index=self._index, item_id=self._id, delta=text, logprobs=shown)

    def add_literal(self, text: bytes) -> None:
        """The same for a JSON string."""
        self._literal += memoryview(text)[1:-1]

    def empty_delta(self) -> TextDelta:
        """What the event of every text without log probabilities looks like."""
        return TextDelta(output_index=self._index, item_id=self._id, delta="", logprobs=[])

    def closing(self) -> list[Event]:
        item = self.item()
        part, shown = item.content[0], [_without_bytes(logprob) for logprob in self._all_logprobs()]
        return [
            TextDone(output_index=self._index, item_id=self._id, text=part.text, logprobs=shown),
            PartDone(output_index=self._index, item_id=self._id, part=part),
            ItemDone(output_index=self._index, item=item),
        ]

    def item(self) -> Message:
        logprobs = [_with_bytes(logprob) for logprob in self._all_logprobs()]
        return Message(self._id, self.status, [OutputText(self._text(), logprobs)])

    def _text(self) -> str:
        text: str = msgspec.json.decode(b'"%b"' % bytes(self._literal))
        return text

    def _all_logprobs(self) -> Logprobs:
        return [msgspec.json.decode(logprob) for logprob in self._logprobs]


class OpenReasoning:
    def __init__(self, item_id: str, output_index: int) -> None:
        self.status = "in_progress"
        self._id, self._index = item_id, output_index
        self._text = bytearray()

    def opening(self) -> list[Event]:
        return [
            ItemAdded(output_index=self._index, item=Reasoning(self._id, self.status)),
            PartAdded(output_index=self._index, item_id=self._id, part=ReasoningText("")),
        ]

    def add(self, text: str) -> Event:
        self._text += text.encode()
        return ReasoningDelta(output_index=self._index, item_id=self._id, delta=text)

    def closing(self) -> list[Event]:
        item = self.item()
        part = item.content[0]
        return [
            ReasoningDone(output_index=self._index, item_id=self._id, text=part.text),
            PartDone(output_index=self._index, item_id=self._id, part=part),
            ItemDone(output_index=self._index, item=item),
        ]

    def item(self) -> Reasoning:
        return Reasoning(self._id, self.status, [ReasoningText(self._text.decode())])


class OpenCall:
    """`index` is that of the call among the model's calls."""

    def __init__(self, item_id: str, output_index: int, index: int, call_id: str, name: str) -> None:
        self.status = "in_progress"
        self.index = index
        self._id, self._index = item_id, output_index
        self._call_id, self._name = call_id, name
        self._arguments = bytearray()

    def opening(self) -> list[Event]:
        return [ItemAdded(output_index=self._index, item=self.item())]

    def add(self, arguments: str) -> Event:
        self._arguments += arguments.encode()
        return ArgumentsDelta(output_index=self._index, item_id=self._id, delta=arguments)

    def closing(self) -> list[Event]:
        item = self.item()
        return [
            ArgumentsDone(output_index=self._index, item_id=self._id, arguments=item.arguments),
            ItemDone(output_index=self._index, item=item),
        ]

    def item(self) -> FunctionCall:
        return FunctionCall(self._id, self.status, self._call_id, self._name, self._arguments.decode())


def _without_bytes(logprob: dict[str, Any]) -> dict[str, Any]:
    """As in an event of a stream."""
    top = [{"token": each["token"], "logprob": each["logprob"]} for each in logprob.get("top_logprobs") or []]
    return {"token": logprob["token"], "logprob": logprob["logprob"], "top_logprobs": top}


def _with_bytes(logprob: dict[str, Any]) -> dict[str, Any]:
    """As in a message."""
    return {**_token(logprob), "top_logprobs": [_token(each) for each in logprob.get("top_logprobs") or []]}


def _token(logprob: dict[str, Any]) -> dict[str, Any]:
    token, of_token = logprob["token"], logprob.get("bytes")
    of_token = list(token.encode()) if of_token is None else of_token
    return {"token": token, "logprob": logprob["logprob"], "bytes": of_token}
