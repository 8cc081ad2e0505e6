"""What a response's output consists of, and the events that tell of it, in OpenAI's form."""

from typing import Any

from msgspec import Struct


class OutputText(Struct, tag_field="type", tag="output_text"):
    text: str
    logprobs: list[dict[str, Any]] = []
    annotations: list[Any] = []


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    text: str


class Message(Struct, tag_field="type", tag="message"):
    id: str
    status: str
    content: list[OutputText] = []
    role: str = "assistant"


class Reasoning(Struct, tag_field="type", tag="reasoning"):
    id: str
    status: str
    content: list[ReasoningText] = []
    summary: list[Any] = []
    encrypted_content: None = None


class FunctionCall(Struct, tag_field="type", tag="function_call"):
    id: str
    status: str
    call_id: str
    name: str
    arguments: str


OutputItem = Message | Reasoning | FunctionCall


class Event(Struct, tag_field="type", kw_only=True):
    """Its tag is its type, which is also the event's name in the stream. `events` numbers it."""

    sequence_number: int = -1

    @property
    def name(self) -> str:
        return str(self.__struct_config__.tag)


class Lifecycle(Event):
    """An event that holds the response as it is now."""

    response: dict[str, Any]


class Created(Lifecycle, tag="response.created"):
    pass


class Queued(Lifecycle, tag="response.queued"):
    pass


class InProgress(Lifecycle, tag="response.in_progress"):
    pass


class Completed(Lifecycle, tag="response.completed"):
    pass


class Incomplete(Lifecycle, tag="response.incomplete"):
    pass


class Failed(Lifecycle, tag="response.failed"):
    pass


class ItemAdded(Event, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(Event, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class OfItem(Event):
    output_index: int
    item_id: str


class OfContent(OfItem, kw_only=True):
    content_index: int = 0


class PartAdded(OfContent, tag="response.content_part.added"):
    part: OutputText | ReasoningText


class PartDone(OfContent, tag="response.content_part.done"):
    part: OutputText | ReasoningText


class TextDelta(OfContent, tag="response.output_text.delta"):
    delta: str
    logprobs: list[dict[str, Any]]


class TextDone(OfContent, tag="response.output_text.done"):
    text: str
    logprobs: list[dict[str, Any]]


class ReasoningDelta(OfContent, tag="response.reasoning_text.delta"):
    delta: str


class ReasoningDone(OfContent, tag="response.reasoning_text.done"):
    text: str


class ArgumentsDelta(OfItem, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(OfItem, tag="response.function_call_arguments.done"):
    arguments: str


class Error(Event, tag="error"):
    code: str
    message: str
    param: str | None = None
