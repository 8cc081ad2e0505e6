"""What `GET /openapi.json` says about these routes. Part of the description of OpenAI's API."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.apis.openai.responses import listing, output
from everstream.apis.openai.responses.output import OutputItem
from everstream.apis.openai.responses.requests import NO_OP, Request
from everstream.apis.openai.responses.tools import Tool, ToolChoice
from everstream.contract.schema import Schema
from everstream.errors import InvalidInput, ShuttingDown, TooManyStreams, UnknownResponse
from everstream.web.description import ANSWER, FOLLOW, READ, Answer, Description, Failure, Fields, failures
from everstream.web.shared_types import (
    OPTIONS,
    POST_HEADERS,
    POST_QUERY,
    CompactQuery,
    RequestIdHeader,
    ResumeHeader,
    ResumeQuery,
)
from everstream.web.sse import MAX_NUMBER


class ResponseError(Struct):
    """`type` is Everstream's own code."""

    code: str
    message: str
    type: str
    param: str | None


class IncompleteDetails(Struct):
    reason: str | None


class InputTokensDetails(Struct):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Struct):
    reasoning_tokens: int


class ResponseUsage(Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Reasoning(Struct):
    effort: str | None
    summary: None


class ResponseText(Struct):
    format: dict[str, Any]
    verbosity: str | UnsetType = UNSET


class Response(Struct):
    """Fields after `usage` echo the request."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: Reasoning
    safety_identifier: str | None
    service_tier: Literal["default"]
    temperature: float | None
    text: ResponseText
    tool_choice: str | ToolChoice
    tools: list[Tool]
    top_logprobs: int
    top_p: float | None
    truncation: str
    user: str | None


class InputItems(Struct):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class Deleted(Struct):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class RetrieveQuery(Struct):
    stream: Literal["true", "false"] | UnsetType = UNSET
    starting_after: Annotated[int, Meta(description="the number of an event", ge=0, le=MAX_NUMBER)] | UnsetType = UNSET


class PageQuery(Struct):
    order: Literal["asc", "desc"] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=listing.MAX_LIMIT)] | UnsetType = UNSET
    after: Annotated[str, Meta(description="the id of an item")] | UnsetType = UNSET


def _name(kind: type[output.Event]) -> str:
    return str(kind.__struct_config__.tag)


class WithResponse(Struct):
    """An event that holds the response as it is now."""

    type: str
    sequence_number: int
    response: Response


_WITH_RESPONSE: tuple[type[output.Event], ...] = (
    output.Created,
    output.Queued,
    output.InProgress,
    output.Completed,
    output.Incomplete,
    output.Failed,
)
_OTHERS: tuple[type[output.Event], ...] = (
    output.ItemAdded,
    output.ItemDone,
    output.PartAdded,
    output.PartDone,
    output.TextDelta,
    output.TextDone,
    output.ReasoningDelta,
    output.ReasoningDone,
    output.ArgumentsDelta,
    output.ArgumentsDone,
    output.Error,
)
EVENTS: dict[str, type] = {
    **{_name(kind): WithResponse for kind in _WITH_RESPONSE},
    **{_name(kind): kind for kind in _OTHERS},
}


def _inputs(schema: Schema) -> Schema:
    """vLLM's parameters."""
    return {name: field for name, field in schema.items() if name in NO_OP}


_UNKNOWN = failures(UnknownResponse)
_SEEN = Answer("The client has seen the response's last event.")
RESPONSES = {
    "responses.create": Description(
        "Answer a conversation",
        {200: Answer("The response, whole, or with `stream` as events.", Response, EVENTS), 204: _SEEN},
        failures=(*ANSWER, Failure(400, "previous_response_not_found")),
        query=POST_QUERY,
        headers=POST_HEADERS,
        body=Fields((*OPTIONS, Request), _inputs, is_open=True),
        details="With `background`, the response comes at once, without its output.",
    ),
    "responses.retrieve": Description(
        "A response so far",
        {200: Answer("The response, or with `stream` its events.", Response, EVENTS), 204: _SEEN},
        failures=(*FOLLOW, *_UNKNOWN),
        query=Fields((RetrieveQuery, ResumeQuery, CompactQuery)),
        headers=(RequestIdHeader, ResumeHeader),
    ),
    "responses.input_items": Description(
        "What a response answers",
        {200: Answer("A page of items.", InputItems)},
        failures=(*READ, *failures(InvalidInput), *_UNKNOWN),
        query=Fields((PageQuery,)),
        headers=(RequestIdHeader,),
    ),
    "responses.cancel": Description(
        "Stop a background response",
        {200: Answer("The response as it ended.", Response)},
        failures=(*READ, *failures(InvalidInput, TooManyStreams, ShuttingDown), *_UNKNOWN),
        headers=(RequestIdHeader,),
    ),
    "responses.delete": Description(
        "Forget a response",
        {200: Answer("It is forgotten.", Deleted)},
        failures=(*READ, *_UNKNOWN),
        headers=(RequestIdHeader,),
    ),
}
