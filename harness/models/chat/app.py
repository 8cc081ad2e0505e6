"""A test model with the chat model's inputs, without vLLM.

It echoes the last message, one token per word; with `ignore_eos` it repeats the message endlessly. With `n`,
`logprobs`, `reasoning_effort` or `tools` its outputs have choices, as vLLM's own front end makes them: each choice
echoes the message, after a thought, with made-up log probabilities, or as the arguments of a call of each tool.

If the last message is a script, `{"outputs": [...], "end": {...}}`, it says that instead. With `hold_before` it waits
before the output with that number until the file `gate` exists.
"""

import asyncio
import itertools
import json
from pathlib import Path

from everstream.errors import InvalidInput

CONCURRENT = True
TEMPLATE_TOKENS = 3
CALL_CHARS = 5
"""Arguments come in pieces of this length."""


class InferlessPythonModel:
    def initialize(self):
        self.max_model_len = 1000

    async def infer(self, inputs, stream_output_handler):
        self.check(inputs)
        if text_of(inputs).startswith('{"outputs":'):
            await play(json.loads(text_of(inputs)), stream_output_handler)
            return
        prompt = words_of(inputs)
        if prompt == ["fail"]:
            raise ValueError("told to fail")
        if prompt == ["refuse"]:
            raise InvalidInput("told to refuse", param="prompt", code="context_length_exceeded")
        answer = itertools.cycle(prompt) if inputs.get("ignore_eos") else prompt
        words = list(itertools.islice(answer, inputs.get("max_tokens", 100)))
        tokens = [f" {word}" if number else word for number, word in enumerate(words)]
        reason = "stop" if words == prompt else "length"
        if not has_choices(inputs):
            for token in tokens:
                stream_output_handler.send_streamed_output({"text": token})
            stream_output_handler.finalise_streamed_output(reason, usage(inputs, prompt, words))
            return
        choices = range(inputs.get("n", 1))
        pieces = [piece for index in choices for piece in choice(index, tokens, inputs)]
        for each in pieces if inputs.get("stream", True) else [joined(index, pieces) for index in choices]:
            text = each.get("text", "") if each["index"] == 0 else ""
            stream_output_handler.send_streamed_output({"text": text, "choices": [each]})
        reason = "tool_calls" if inputs.get("tools") else reason
        ends = [{"index": index, "finish_reason": reason, "stop_reason": None} for index in choices]
        stream_output_handler.finalise_streamed_output(reason, usage(inputs, prompt, words), ends)

    def check(self, inputs):
        prompts = inputs.get("prompts", [""])
        if not (isinstance(prompts, list) and prompts and all(isinstance(prompt, str) for prompt in prompts)):
            raise InvalidInput("prompts must be an array of strings", param="prompts")
        count = len(words_of(inputs)) + TEMPLATE_TOKENS
        if count >= self.max_model_len:
            param = "messages" if "messages" in inputs else "prompt"
            raise InvalidInput(f"the prompt has {count} tokens", param=param, code="context_length_exceeded")
        if inputs.get("logprobs") == "bad":
            raise InvalidInput("told that logprobs is bad", param="logprobs")
        if not are_tools(inputs.get("tools", [])):
            raise InvalidInput("tools must be an array of functions with names", param="tools")

    def tokenize(self, inputs):
        return list(range(len(words_of(inputs)) + TEMPLATE_TOKENS))

    def detokenize(self, inputs):
        return " ".join(str(token) for token in inputs["tokens"])


def are_tools(given):
    try:
        return all(isinstance(tool["function"]["name"], str) for tool in given)
    except (TypeError, KeyError):
        return False


async def play(script, handler):
    for n, output in enumerate(script["outputs"], 1):
        while n == script.get("hold_before") and not Path(script["gate"]).exists():
            await asyncio.sleep(0.002)
        handler.send_streamed_output(output)
    handler.finalise_streamed_output(**script.get("end", {}))


def text_of(inputs):
    if "messages" in inputs:
        content = json.loads(inputs["messages"])[-1].get("content") or ""
        return content if isinstance(content, str) else " ".join(part["text"] for part in content if "text" in part)
    return inputs["prompt"] if "prompt" in inputs else inputs["prompts"][0]


def words_of(inputs):
    return text_of(inputs).split()


def has_choices(inputs):
    return any(inputs.get(name) for name in ("logprobs", "reasoning_effort", "tools")) or inputs.get("n", 1) > 1


def choice(index, tokens, inputs):
    """The pieces of one choice."""
    if inputs.get("reasoning_effort"):
        yield from ({"index": index, "reasoning": text} for text in ("Let me", " think."))
    if inputs.get("tools"):
        for number, tool in enumerate(inputs["tools"]):
            yield from call(index, number, tool["function"]["name"], json.dumps({"said": "".join(tokens)}))
        return
    for token in tokens:
        logprobs = logprobs_of(token, is_chat="messages" in inputs) if inputs.get("logprobs") else None
        yield {"index": index, "text": token, **({"logprobs": logprobs} if logprobs else {})}


def logprobs_of(token, is_chat):
    if is_chat:
        return {"content": [{"token": token, "logprob": -0.5, "bytes": [*token.encode()], "top_logprobs": []}]}
    return {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [{token: -0.5}], "text_offset": [0]}


def call(index, number, name, arguments):
    first = {"index": number, "id": f"call_{index}_{number}", "type": "function", "function": {"name": name}}
    yield {"index": index, "tool_calls": [first]}
    for at in range(0, len(arguments), CALL_CHARS):
        piece = {"index": number, "function": {"arguments": arguments[at : at + CALL_CHARS]}}
        yield {"index": index, "tool_calls": [piece]}


def joined(index, pieces):
    """One choice in one piece, as in a response that is not streamed."""
    own = [piece for piece in pieces if piece["index"] == index]
    calls = {}
    for each in (each for piece in own for each in piece.get("tool_calls", ())):
        known = calls.setdefault(each["index"], {"index": each["index"], "function": {"arguments": ""}})
        known |= {name: value for name, value in each.items() if name != "function"}
        known["function"] |= {name: value for name, value in each["function"].items() if name == "name"}
        known["function"]["arguments"] += each["function"].get("arguments", "")
    logprobs = {}
    for name, values in (each for piece in own for each in piece.get("logprobs", {}).items()):
        logprobs.setdefault(name, []).extend(values)
    return {
        "index": index,
        "text": "".join(piece.get("text", "") for piece in own),
        "reasoning": "".join(piece.get("reasoning", "") for piece in own),
        "tool_calls": list(calls.values()),
        **({"logprobs": logprobs} if logprobs else {}),
    }


def usage(inputs, prompt, words):
    prompt_tokens = len(prompt) + (0 if inputs.get("raw") else TEMPLATE_TOKENS)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(words),
        "total_tokens": prompt_tokens + len(words),
    }
