"""OpenAI's objects, with vLLM's additions, as responses and events have them. Pure. For this API's description; made by
`answers`, `chunks`, `tokens` and `routes`.

`token_ids`, `prompt_token_ids`, `prompt_logprobs`, `prompt_text`, `stop_reason` and `reasoning` are vLLM's.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

Logprobs = dict[str, Any] | None
"""OpenAI's, of a chat or of a plain completion."""


class CalledFunction(Struct):
    """`arguments` is JSON, if the model has kept to it."""

    name: str | None
    arguments: str


class FunctionCall(Struct):
    id: str | None
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    reasoning: str | UnsetType = UNSET
    tool_calls: list[FunctionCall] | UnsetType = UNSET


class ChatChoice(Struct):
    index: int
    message: AssistantMessage
    logprobs: Logprobs
    finish_reason: str
    stop_reason: int | str | None
    token_ids: list[int] | None


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: dict[str, Any] | None
    service_tier: None
    system_fingerprint: None
    prompt_logprobs: list[Any] | None
    prompt_token_ids: list[int] | None
    prompt_text: str | None


class CompletionChoice(Struct):
    index: int
    text: str
    logprobs: Logprobs
    finish_reason: str
    stop_reason: int | str | None
    token_ids: list[int] | None
    prompt_logprobs: list[Any] | None
    prompt_token_ids: list[int] | None


class Completion(Struct):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: dict[str, Any] | None
    service_tier: None
    system_fingerprint: None


class FunctionDelta(Struct):
    arguments: str
    name: str | UnsetType = UNSET


class CallDelta(Struct):
    """Only a call's first piece has an id and a type."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(Struct):
    """A piece of a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET


class ChunkChoice(Struct):
    index: int
    delta: Delta
    logprobs: Logprobs
    finish_reason: str | None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(Struct):
    """`usage`: only in the last one, if it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: dict[str, Any] | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType = UNSET


class CompletionChunkChoice(Struct):
    index: int
    text: str
    logprobs: Logprobs
    finish_reason: str | None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionChunk(Struct):
    """`usage`: only in the last one, if it was asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    usage: dict[str, Any] | UnsetType | None = UNSET
    prompt_text: str | UnsetType = UNSET


class Model(Struct):
    """`max_model_len`: its context, in tokens; null while no engine has loaded it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int | None


class ModelList(Struct):
    object: Literal["list"]
    data: list[Model]


class Tokens(Struct):
    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: None


class Detokenized(Struct):
    prompt: str
