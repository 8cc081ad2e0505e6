"""What `GET /openapi.json` says about these routes."""

from typing import Literal

from msgspec import Struct

from everstream.apis.anthropic.message import (
    BlockDelta,
    BlockStart,
    BlockStop,
    ErrorBody,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
)
from everstream.apis.anthropic.request_types import MessagesRequest, Prompt
from everstream.web.description import ANSWER, TOKENIZE, Answer, ApiDescription, Description, Fields
from everstream.web.posts import ADDED_HEADERS
from everstream.web.shared_types import OPTIONS, POST_HEADERS, POST_QUERY, RequestIdHeader


class Ping(Struct):
    """A sign of life."""

    type: Literal["ping"]


class TokenCount(Struct):
    input_tokens: int


EVENTS = {
    "message_start": MessageStart,
    "content_block_start": BlockStart,
    "content_block_delta": BlockDelta,
    "content_block_stop": BlockStop,
    "message_delta": MessageDelta,
    "message_stop": MessageStop,
    "ping": Ping,
    "error": ErrorBody,
}
DESCRIPTION = ApiDescription(
    "Anthropic's Messages API.",
    {
        "messages": Description(
            "Answer a chat",
            {
                200: Answer("The message, whole, or with `stream` in pieces.", Message, EVENTS),
                204: Answer("The client has seen the message's last event."),
            },
            failures=ANSWER,
            query=POST_QUERY,
            headers=POST_HEADERS,
            body=Fields((*OPTIONS, MessagesRequest), is_open=True),
        ),
        "count_tokens": Description(
            "The number of a prompt's tokens",
            {200: Answer("Their number.", TokenCount)},
            failures=TOKENIZE,
            headers=(RequestIdHeader,),
            body=Fields((*OPTIONS, Prompt), is_open=True),
        ),
    },
    ErrorBody,
    formats=(EVENTS,),
    headers={**ADDED_HEADERS, "request-id": "The request's `x-request-id`, or a new one."},
)
