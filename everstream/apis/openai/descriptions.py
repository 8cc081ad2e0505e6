"""What `GET /openapi.json` says about these routes."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from everstream.apis.openai.errors import OpenAIError
from everstream.apis.openai.objects import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
    Detokenized,
    Model,
    ModelList,
    Tokens,
)
from everstream.apis.openai.requests import ApiFields, CompletionFields
from everstream.apis.openai.responses.descriptions import EVENTS as RESPONSE_EVENTS
from everstream.apis.openai.responses.descriptions import RESPONSES
from everstream.apis.openai.responses.history import RESPONSE_PREFIX
from everstream.apis.openai.tokens import TOKENS
from everstream.contract.schema import Schema
from everstream.errors import UnknownModel
from everstream.web.description import (
    ANSWER,
    READ,
    TOKENIZE,
    Answer,
    ApiDescription,
    Description,
    Events,
    Failure,
    Fields,
    failures,
)
from everstream.web.posts import ADDED_HEADERS
from everstream.web.shared_types import OPTIONS, POST_HEADERS, POST_QUERY, ModelOption, RequestIdHeader, ServedName
from everstream.web.sse import GENERATION_ID

_OF_PROMPTS = ("prompts", "raw", "system", "stream")


class Path(Struct):
    name: ServedName
    response_id: Annotated[str, Meta(description="the response's id", pattern=f"^{RESPONSE_PREFIX}{GENERATION_ID}$")]


def _inputs(schema: Schema, without: Sequence[str]) -> Schema:
    return {name: field for name, field in schema.items() if name not in (*_OF_PROMPTS, *without)}


def _of_chat(schema: Schema) -> Schema | None:
    return _inputs(schema, ("prompt",)) if "messages" in schema else None


def _of_completion(schema: Schema) -> Schema | None:
    return _inputs(schema, ("prompt", "messages")) if "prompt" in schema else None


def _of_tokenize(schema: Schema) -> Schema:
    return _inputs(schema, ())


_CHAT_EVENTS = {"message": (ChatChunk, OpenAIError, "[DONE]")}
_EVENTS = {"message": (CompletionChunk, OpenAIError, "[DONE]")}


def _answers(whole: type, events: Events) -> dict[int, Answer]:
    return {
        200: Answer("The answer, whole, or with `stream` in pieces.", whole, events),
        204: Answer("The client has seen the answer's last event."),
    }


DESCRIPTION = ApiDescription(
    "OpenAI's API, with vLLM's parameters.",
    {
        **RESPONSES,
        "chat_completions": Description(
            "Answer a chat",
            _answers(ChatCompletion, _CHAT_EVENTS),
            failures=ANSWER,
            query=POST_QUERY,
            headers=POST_HEADERS,
            body=Fields((*OPTIONS, ApiFields), _of_chat, is_open=True),
        ),
        "completions": Description(
            "Continue prompts, without a chat template",
            _answers(Completion, _EVENTS),
            failures=ANSWER,
            query=POST_QUERY,
            headers=POST_HEADERS,
            body=Fields((*OPTIONS, ApiFields, CompletionFields), _of_completion, is_open=True),
        ),
        "models": Description(
            "The served models", {200: Answer("The models.", ModelList)}, failures=READ, headers=(RequestIdHeader,)
        ),
        "model": Description(
            "One served model",
            {200: Answer("The model.", Model)},
            failures=(*READ, *failures(UnknownModel)),
            headers=(RequestIdHeader,),
        ),
        "embeddings": Description(
            "Not here: this server generates text",
            {},
            failures=(Failure(404, "embeddings_not_supported"),),
            headers=(RequestIdHeader,),
        ),
        "tokenize": Description(
            "A prompt's tokens, with or without a chat template",
            {200: Answer("The tokens.", Tokens)},
            failures=TOKENIZE,
            headers=(RequestIdHeader,),
            body=Fields((ModelOption,), _of_tokenize, is_open=True),
        ),
        "detokenize": Description(
            "The text of tokens",
            {200: Answer("The text.", Detokenized)},
            failures=TOKENIZE,
            headers=(RequestIdHeader,),
            body=Fields((ModelOption,), lambda _: TOKENS, is_open=True),
        ),
    },
    OpenAIError,
    Path,
    {
        **ADDED_HEADERS,
        "x-request-id": "The request's own, or a new one.",
        "openai-version": "The version of OpenAI's API.",
        "openai-processing-ms": "How long the response took to begin.",
    },
    (_CHAT_EVENTS, _EVENTS, RESPONSE_EVENTS),
)
