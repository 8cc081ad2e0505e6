"""The items of a request's input, as clients write them and as they send back those of earlier responses. Pure.

An `Item` is of any type, and is decoded from JSON with only the fields that matter here: whatever else the SDKs send
(annotations, log probabilities, phases) is skipped. Items are kept in a response's record, listed by its `input_items`,
and turned into chat messages by `messages`.
"""

from typing import Any

from msgspec import Struct

TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal")
ROLES = ("user", "assistant", "system", "developer")
REQUIRED_FIELDS = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "reasoning": (),
    "item_reference": ("id",),
}
"""By the type of an item."""


class Part(Struct, omit_defaults=True):
    """A part of some content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        # msgspec adds the place to the message, and stops: a long list of nonsense does not become as many objects.
        if self.type not in (*TEXT_PARTS, "input_image"):
            raise ValueError(f"content of type {self.type[:40]!r} is not supported")
        if self.type == "input_image" and not self.image_url:
            raise ValueError("an input_image needs an image_url; files are not supported")

    @property
    def plain_text(self) -> str:
        return self.text or self.refusal or ""


class Item(Struct, omit_defaults=True):
    """An item of a conversation. Its `type` decides which of the other fields it needs."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None

    def __post_init__(self) -> None:
        if self.type is None:
            self.type = "item_reference" if self.id and self.role is None else "message"
        if self.type not in REQUIRED_FIELDS:
            raise ValueError(f"items of type {self.type[:40]!r} are not supported")
        if missing := [name for name in REQUIRED_FIELDS[self.type] if getattr(self, name) is None]:
            raise ValueError(f"a {self.type} item needs {' and '.join(missing)}")
        if self.type == "message" and self.role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}")
        if self.type == "reasoning" and self.encrypted_content and not self.texts:
            raise ValueError("encrypted reasoning can't be read here; send the reasoning's content, or leave it out")

    @property
    def parts(self) -> list[Part]:
        """What it says."""
        content = self.output if self.type == "function_call_output" else self.content
        return [Part("input_text", content)] if isinstance(content, str) else content or []

    @property
    def texts(self) -> list[str]:
        return [part.plain_text for part in self.parts or self.summary or []]


def listed(item: Item) -> dict[str, Any]:
    """An item with an id, as `input_items` lists it: with all the fields of OpenAI's type."""
    head = {"id": item.id, "type": item.type, "status": item.status or "completed"}
    if item.type == "function_call":
        return {**head, "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
    if item.type == "function_call_output":
        output = item.output if isinstance(item.output, str) else [_input_part(part) for part in item.parts]
        return {**head, "call_id": item.call_id, "output": output}
    if item.type == "reasoning":
        content = [{"type": "reasoning_text", "text": part.plain_text} for part in item.parts]
        summary = [{"type": "summary_text", "text": part.plain_text} for part in item.summary or []]
        return {**head, "summary": summary, "content": content}
    part_of = _output_part if item.role == "assistant" else _input_part
    return {**head, "role": item.role, "content": [part_of(part) for part in item.parts]}


def _input_part(part: Part) -> dict[str, Any]:
    if part.type == "input_image":
        return {"type": "input_image", "image_url": part.image_url, "detail": part.detail or "auto"}
    return {"type": "input_text", "text": part.plain_text}


def _output_part(part: Part) -> dict[str, Any]:
    if part.type == "refusal":
        return {"type": "refusal", "refusal": part.plain_text}
    return {"type": "output_text", "text": part.plain_text, "annotations": [], "logprobs": []}
