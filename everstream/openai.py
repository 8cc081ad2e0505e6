"""OpenAI's wire format: its requests become a model's inputs, its streams are made of our entries. Pure.

Each chunk has the event id that Everstream's own format has, so a client that comes back with `Last-Event-ID` goes on
where it was; clients that know no ids ignore them. Format as vLLM's server has it.

Outside of chunks there are only comments, and no empty line after one: OpenAI's Python client takes an empty line for
an event, with empty data that it can't parse, once it has seen an `id` or a `retry`.
"""

from typing import Any

import msgspec

from everstream import log, sse
from everstream.errors import EverstreamError, InvalidInput

DONE = b"data: [DONE]\n\n"
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's own, for /v1/completions."""

_PASSED_ON = ("temperature", "top_p", "top_k", "seed", "stop", "max_tokens", "ignore_eos")
_FIXED: dict[str, Any] = {"n": 1, "best_of": 1, "echo": False, "logprobs": False, "stream": True}
"""What is taken for the sake of clients that always send it, with the one value that it may have."""
_IGNORED = ("user", "metadata", "store")


class _Text(msgspec.Struct, gc=False):
    text: msgspec.Raw


_text_decoder = msgspec.json.Decoder(_Text)


class Wanted(msgspec.Struct, frozen=True):
    """What a request comes to: the model's inputs, and what its stream is to have."""

    inputs: dict[str, Any]
    include_usage: bool


def chat(body: dict[str, Any], model: str) -> Wanted:
    """From the body of /v1/chat/completions. Raises InvalidInput."""
    body = _checked(body, model, "messages", ("max_completion_tokens",))
    if body.get("max_completion_tokens") is not None:
        body["max_tokens"] = body["max_completion_tokens"]
    return Wanted({"messages": body["messages"], **_passed_on(body)}, _include_usage(body))


def completion(body: dict[str, Any], model: str) -> Wanted:
    """From the body of /v1/completions: the prompt goes to the model as it stands. Raises InvalidInput."""
    body = _checked(body, model, "prompt", ())
    if body.get("max_tokens") is None:
        body["max_tokens"] = DEFAULT_COMPLETION_TOKENS
    return Wanted({"prompt": body["prompt"], "raw": True, **_passed_on(body)}, _include_usage(body))


def _checked(body: dict[str, Any], model: str, required: str, more: tuple[str, ...]) -> dict[str, Any]:
    allowed = ("model", required, *more, "stream_options", *_PASSED_ON, *_FIXED, *_IGNORED)
    for name, value in body.items():
        if name not in allowed and value is not None:
            raise InvalidInput(f"{name[:100]} is not supported; allowed are {', '.join(allowed)}", param=name[:100])
        if name in _FIXED and value is not None and value != _FIXED[name]:
            raise InvalidInput(f"{name} can only be {_json_text(_FIXED[name])} here", param=name)
    if body.get("stream") is not True:
        raise InvalidInput("stream must be true: answers in one piece are not there yet", param="stream")
    if body.get(required) is None:
        raise InvalidInput(f"{required} is missing", param=required)
    if body.get("model") not in (None, model):
        raise InvalidInput(f"the model {str(body['model'])[:100]!r} is not served here; {model!r} is", param="model")
    return dict(body)


def _passed_on(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _PASSED_ON if body.get(name) is not None}


def _include_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise InvalidInput(
            "stream_options must be an object; its include_usage is true or false", param="stream_options"
        )
    return bool(options.get("include_usage", False))


class Chunks:
    """The stream of one answer, as chunks of a chat completion or of a plain one."""

    heartbeat = b": heartbeat\n"

    def __init__(self, generation: log.Generation, *, is_chat: bool, include_usage: bool) -> None:
        self.generation = generation.id
        self.format = f"chat {include_usage}" if is_chat else f"completion {include_usage}"
        self._is_chat, self._include_usage = is_chat, include_usage
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{generation.id}",
            "object": "chat.completion.chunk" if is_chat else "text_completion",
            "created": generation.created,
            "model": generation.model,
        }
        self._id = b"id: " + generation.id.encode() + b"."
        # Around each token, made once: only the text differs from one to the next.
        self._before, self._after = sse.event("", self._chunk(text=_HOLE)).split(b'"' + _HOLE.encode() + b'"')

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - see the module's docstring
        if not (is_new and self._is_chat):
            return sse.GREETING
        first = self._chunk(delta={"role": "assistant", "content": ""})
        return sse.GREETING + sse.event("", first, f"{self.generation}.0")

    def come_back(self, retry_ms: int) -> bytes:  # noqa: ARG002 - the same
        return b": come back\n"

    def token(self, n: int, data: bytes) -> bytes:
        return b"%b%d\n%b%b%b" % (self._id, n, self._before, _text(data), self._after)

    def entry(self, entry: log.Entry) -> bytes:
        if entry.event == log.TOKEN:
            return self.token(entry.n, entry.data)
        if not entry.is_terminal:
            return b": " + entry.event.encode() + b"\n"
        # The id stands at the very last, so whoever did not get all of the end gets all of it again.
        return self._end(entry) + self._id + b"%d\n" % entry.n + DONE

    def _end(self, entry: log.Entry) -> bytes:
        data = msgspec.json.decode(entry.data)
        if entry.event == "failed":
            return sse.event("", _error(data["message"], data["code"], data.get("param")))
        reason = data["finish_reason"] if entry.event == "done" else "abort"
        end = sse.event("", self._chunk(finish_reason=reason))
        if self._include_usage:
            end += sse.event("", log.encode_json({**self._head, "choices": [], "usage": data.get("usage")}))
        return end

    def queued(self, position: int) -> bytes:
        return b": queued %d\n" % position

    def lost(self, error: EverstreamError) -> bytes:
        return (
            sse.event("", _error(error.message, error.code, error.param)) + self._id + sse.GONE.encode() + b"\n" + DONE
        )

    def _chunk(self, *, text: str = "", delta: Any = None, finish_reason: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        if self._is_chat:
            choice["delta"] = delta or ({"content": text} if text else {})
        else:
            choice["text"] = text
        return log.encode_json(
            {**self._head, "choices": [{**choice, "logprobs": None, "finish_reason": finish_reason}]}
        )


_HOLE = "5f0c8a1e9b7d4c23"
"""Stands where a token's text goes; no model is called that."""


def _text(data: bytes) -> bytes:
    """The JSON string of an output's text; of an output that has none, of its JSON."""
    try:
        text = bytes(_text_decoder.decode(data).text)
    except msgspec.ValidationError:
        text = b""
    return text if text.startswith(b'"') else log.encode_json(data.decode())


def _error(message: str, code: str, param: str | None) -> bytes:
    return log.encode_json({"error": {"message": message, "type": "server_error", "param": param, "code": code}})


def _json_text(value: Any) -> str:
    return log.encode_json(value).decode()
