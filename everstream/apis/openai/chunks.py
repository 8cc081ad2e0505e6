"""OpenAI's wire format: log entries as chunks of a streamed completion. Pure.

Each chunk has the same event id as in Everstream's own format, so a client that returns with `Last-Event-ID` continues
where it left off. Clients that don't use ids ignore them. The format matches that of vLLM's server.

Besides chunks there are only comments, never followed by an empty line. Once OpenAI's Python client has seen an `id` or
a `retry`, it takes an empty line for an event, whose empty data it can't parse.
"""

from typing import Any

import msgspec

from everstream.errors import EverstreamError
from everstream.log.entries import TOKEN, Entry, encode_json, text_literal
from everstream.log.records import Generation
from everstream.web import sse

DONE = b"data: [DONE]\n\n"


class ChunkEncoder:
    """An `Encoder` of one generation, as chunks of a chat completion or of a plain one."""

    heartbeat = b": heartbeat\n"

    def __init__(self, generation: Generation, *, is_chat: bool, include_usage: bool) -> None:
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
        # Encode the bytes around a token once, because only the text differs between tokens.
        self._before, self._after = sse.event("", self._chunk(text=_MARK)).split(b'"' + _MARK.encode() + b'"')

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - see the module's docstring
        if not (is_new and self._is_chat):
            return sse.GREETING
        first = self._chunk(delta={"role": "assistant", "content": ""})
        return sse.GREETING + sse.event("", first, f"{self.generation}.0")

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - likewise
        return b": come back\n"

    def token(self, n: int, data: bytes) -> bytes:
        return b"%b%d\n%b%b%b" % (self._id, n, self._before, _text(data), self._after)

    def entry(self, entry: Entry) -> bytes:
        if entry.event == TOKEN:
            return self.token(entry.n, entry.data)
        if not entry.is_terminal:
            return b": " + entry.event.encode() + b"\n"
        # The id comes last, so a client that got only part of the end gets all of it again.
        return self._end(entry) + self._id + b"%d\n" % entry.n + DONE

    def _end(self, entry: Entry) -> bytes:
        data = msgspec.json.decode(entry.data)
        if entry.event == "failed":
            return sse.event("", _error(data["message"], data["code"], data.get("param")))
        reason = data["finish_reason"] if entry.event == "done" else "abort"
        end = sse.event("", self._chunk(finish_reason=reason))
        if self._include_usage:
            end += sse.event("", encode_json({**self._head, "choices": [], "usage": data.get("usage")}))
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
        return encode_json({**self._head, "choices": [{**choice, "logprobs": None, "finish_reason": finish_reason}]})


_MARK = "5f0c8a1e9b7d4c23"
"""Marks where a token's text goes. No model has this name."""


def _text(output: bytes) -> bytes:
    """An output's text as a JSON string; if it has none, the output's JSON as a string."""
    return text_literal(output) or encode_json(output.decode())


def _error(message: str, code: str, param: str | None) -> bytes:
    return encode_json({"error": {"message": message, "type": "server_error", "param": param, "code": code}})
