"""One answer of vLLM's own OpenAI front end: choices, tool calls, reasoning, log probabilities. Called by `chat_model`.

In: a request of vLLM's. Out: outputs with choices (`contract.chat_outputs`), to the handler. vLLM's own code makes the
chunks of a stream, or the one response without one; here they only change their form. After an engine's death such an
answer starts over if nothing was delivered, and can't be resumed otherwise: the parsers and the grammar have state.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import msgspec
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.v1.engine.exceptions import EngineGenerateError

from everstream.contract.chat_outputs import Choice, ChoiceEnd, Ending
from everstream.contract.output_handler import StreamOutputHandler
from everstream.llm.answer import FINISH_REASONS
from everstream.llm.front_end import FrontEnd, Request, prompt_of
from everstream.llm.refusals import as_error
from everstream.llm.vllm_taps import ABNORMAL_FINISHES

PART_TOKENS = 100
"""So many tokens' log probabilities in one output, as an output's size is bounded."""
_BEFORE = "data: "


class FrontEndAnswer:
    def __init__(self, front_end: FrontEnd, request: Request, handler: StreamOutputHandler) -> None:
        self._front_end = front_end
        self._request = request
        self._handler = handler
        self._is_chat = isinstance(request, ChatCompletionRequest)
        self._prompt = prompt_of(request)
        self._usage: dict[str, Any] | None = None
        self._ends: dict[int, ChoiceEnd] = {}

    async def run(self) -> None:
        """Send the answer to the handler. Raises InvalidInput, EngineGenerateError, and whatever vLLM raises."""
        answer = await self._front_end.answer(self._request)
        if isinstance(answer, ErrorResponse):
            raise as_error(answer.error.model_dump(), self._prompt)
        if self._request.stream:
            await self._take_stream(answer)
        else:
            await self._take_whole(answer.model_dump(mode="json"))
        ends = [self._ends[index] for index in sorted(self._ends)]
        ending = Ending(ends[0].finish_reason, self._usage, ends)
        self._handler.finalise_streamed_output(**msgspec.to_builtins(ending))

    async def _take_stream(self, stream: AsyncGenerator[str, None]) -> None:
        # Closed at once, so that vLLM goes on with no answer that was stopped while its log was slow.
        async with aclosing(stream) as lines:
            async for line in lines:
                data = line.removeprefix(_BEFORE).strip()
                if data != "[DONE]":
                    await self._take_chunk(msgspec.json.decode(data))

    async def _take_chunk(self, chunk: dict[str, Any]) -> None:
        if error := chunk.get("error"):
            raise as_error(error, self._prompt)
        self._usage = chunk.get("usage") or self._usage
        choices = [self._piece(each, each.get("delta", each), chunk) for each in chunk["choices"]]
        await self._send([choice for choice in choices if choice != Choice(choice.index)])

    async def _take_whole(self, response: dict[str, Any]) -> None:
        self._usage = response.get("usage")
        pieces = [self._piece(each, each.get("message", each), response) for each in response["choices"]]
        for piece in pieces:
            for number, call in enumerate(piece.tool_calls):
                call.index = number
        await self._send(pieces)

    async def _send(self, choices: list[Choice]) -> None:
        for part in (part for choice in choices for part in in_parts(choice)):
            text = part.text if part.index == 0 else ""
            self._handler.send_streamed_output({"text": text, "choices": [msgspec.to_builtins(part)]})
            await self._handler.drain()

    def _piece(self, choice: dict[str, Any], said: dict[str, Any], around: dict[str, Any]) -> Choice:
        """`said` is a message or a piece of one; `around` is the chunk or response, which has what a chat says of its
        prompt."""
        index = choice["index"]
        if reason := choice.get("finish_reason"):
            if reason in ABNORMAL_FINISHES:
                raise EngineGenerateError(f"vLLM ended the request: {reason}")
            self._ends[index] = ChoiceEnd(index, FINISH_REASONS.get(reason, reason), choice.get("stop_reason"))
        prompt = around if self._is_chat else choice
        return msgspec.convert(
            {
                "index": index,
                "role": said.get("role") if index and self._request.stream else None,
                "text": said.get("content" if self._is_chat else "text") or "",
                "reasoning": said.get("reasoning") or "",
                "tool_calls": [{"index": 0, **call} for call in said.get("tool_calls") or ()],
                "logprobs": choice.get("logprobs"),
                "token_ids": choice.get("token_ids") or [],
                "prompt_token_ids": prompt.get("prompt_token_ids"),
                "prompt_logprobs": prompt.get("prompt_logprobs") if index == 0 or not self._is_chat else None,
                "prompt_text": prompt.get("prompt_text"),
            },
            Choice,
        )


def in_parts(choice: Choice) -> Iterator[Choice]:
    """The same choice, with the lists that have something for each token cut into parts, if they are long."""
    logprobs, prompt = choice.logprobs or {}, choice.prompt_logprobs or []
    longest = max([len(prompt), *(len(each or ()) for each in logprobs.values())])
    if longest <= PART_TOKENS:
        yield choice
        return
    yield msgspec.structs.replace(choice, logprobs=None, prompt_logprobs=None)
    for at in range(0, longest, PART_TOKENS):
        part = slice(at, at + PART_TOKENS)
        of_part = {name: each[part] for name, each in logprobs.items() if each}
        yield Choice(choice.index, logprobs=of_part or None, prompt_logprobs=prompt[part] or None)
