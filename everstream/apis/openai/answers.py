"""A generation's entries, joined into OpenAI's non-streamed objects. Pure.

In: all entries of a generation that is done. Out: a `chat.completion` or a `text_completion`.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec

from everstream.contract.chat_outputs import Choice, ChoiceEnd, Ending, ToolCall, ending, pieces
from everstream.log.entries import TOKEN, Entry
from everstream.log.records import Generation


class Answer:
    """Whole choices, joined from their pieces."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """The last entry must be `done`."""
        self._joined: dict[int, JoinedChoice] = {}
        self.ending = Ending("stop")
        for entry in entries:
            if entry.event == TOKEN:
                for piece in pieces(entry.data):
                    self._joined.setdefault(piece.index, JoinedChoice()).add(piece)
            elif entry.is_terminal:
                self.ending = ending(entry.data)

    @cached_property
    def choices(self) -> list[tuple[Choice, ChoiceEnd]]:
        """A choice without any output is empty."""
        return [(self._joined.get(end.index, JoinedChoice()).whole(end.index), end) for end in self.ending.ends]


class JoinedChoice:
    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, ToolCall] = {}
        self._lists: dict[str, list[Any]] = {}
        self._token_ids: list[int] = []
        self._about_prompt = Choice()

    def add(self, piece: Choice) -> None:
        self._text.append(piece.text)
        self._reasoning.append(piece.reasoning)
        self._token_ids += piece.token_ids
        for call in piece.tool_calls:
            self._add_call(call)
        for name, values in (piece.logprobs or {}).items():
            self._lists.setdefault(name, []).extend(values or ())
        about = self._about_prompt
        if piece.prompt_logprobs is not None:
            # In place: a long prompt's come in many parts.
            about.prompt_logprobs = about.prompt_logprobs or []
            about.prompt_logprobs += piece.prompt_logprobs
        about.prompt_token_ids = about.prompt_token_ids or piece.prompt_token_ids
        about.prompt_text = about.prompt_text or piece.prompt_text

    def _add_call(self, piece: ToolCall) -> None:
        known = self._tool_calls.get(piece.index)
        if known is None:
            self._tool_calls[piece.index] = piece
        else:
            known.function.arguments += piece.function.arguments
            known.id, known.function.name = known.id or piece.id, known.function.name or piece.function.name

    def whole(self, index: int) -> Choice:
        return msgspec.structs.replace(
            self._about_prompt,
            index=index,
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=[self._tool_calls[at] for at in sorted(self._tool_calls)],
            logprobs=self._lists or None,
            token_ids=self._token_ids,
        )


def chat_completion(generation: Generation, answer: Answer) -> dict[str, Any]:
    """A `chat.completion` object."""
    first = answer.choices[0][0]
    about_prompt = {
        "prompt_logprobs": first.prompt_logprobs,
        "prompt_token_ids": first.prompt_token_ids,
        "prompt_text": first.prompt_text,
    }
    return {
        **_head(generation, "chatcmpl", "chat.completion"),
        "choices": [_chat_choice(choice, end) for choice, end in answer.choices],
        **_tail(answer),
        **about_prompt,
    }


def text_completion(generation: Generation, answer: Answer) -> dict[str, Any]:
    """A `text_completion` object."""
    choices = [
        {
            "index": choice.index,
            "text": choice.text,
            "logprobs": choice.logprobs,
            "finish_reason": end.finish_reason,
            "stop_reason": end.stop_reason,
            "token_ids": choice.token_ids or None,
            "prompt_logprobs": choice.prompt_logprobs,
            "prompt_token_ids": choice.prompt_token_ids,
        }
        for choice, end in answer.choices
    ]
    return {**_head(generation, "cmpl", "text_completion"), "choices": choices, **_tail(answer)}


def _chat_choice(choice: Choice, end: ChoiceEnd) -> dict[str, Any]:
    calls = msgspec.to_builtins([tool_call(call) for call in choice.tool_calls])
    message = {
        "role": "assistant",
        "content": choice.text if choice.text or not calls else None,
        "refusal": None,
        "annotations": [],
        **({"reasoning": choice.reasoning} if choice.reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    }
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": end.finish_reason,
        "stop_reason": end.stop_reason,
        "token_ids": choice.token_ids or None,
    }


def tool_call(call: ToolCall) -> dict[str, Any]:
    """A whole tool call, in a message."""
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _head(generation: Generation, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{generation.id}",
        "object": kind,
        "created": generation.created,
        "model": generation.model,
    }


def _tail(answer: Answer) -> dict[str, Any]:
    return {"usage": answer.ending.usage, "service_tier": None, "system_fingerprint": None}
