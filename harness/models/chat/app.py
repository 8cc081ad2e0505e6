"""A test model with the chat model's inputs, without vLLM.

It echoes the last message, one token per word; with `ignore_eos` it repeats the message endlessly."""

import itertools
import json

from everstream.errors import InvalidInput

CONCURRENT = True
TEMPLATE_TOKENS = 3


class InferlessPythonModel:
    def initialize(self):
        self.max_model_len = 1000

    async def infer(self, inputs, stream_output_handler):
        prompt = words_of(inputs)
        if prompt == ["fail"]:
            raise ValueError("told to fail")
        if prompt == ["refuse"]:
            raise InvalidInput("told to refuse", param="prompt", code="context_length_exceeded")
        answer = itertools.cycle(prompt) if inputs.get("ignore_eos") else prompt
        words = list(itertools.islice(answer, inputs.get("max_tokens", 100)))
        for number, word in enumerate(words):
            stream_output_handler.send_streamed_output({"text": f" {word}" if number else word})
        prompt_tokens = len(prompt) + (0 if inputs.get("raw") else TEMPLATE_TOKENS)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(words),
            "total_tokens": prompt_tokens + len(words),
        }
        stream_output_handler.finalise_streamed_output("stop" if words == prompt else "length", usage)

    def check(self, inputs):
        count = len(words_of(inputs)) + TEMPLATE_TOKENS
        if count >= self.max_model_len:
            param = "messages" if "messages" in inputs else "prompt"
            raise InvalidInput(f"the prompt has {count} tokens", param=param, code="context_length_exceeded")


def words_of(inputs):
    text = json.loads(inputs["messages"])[-1]["content"] if "messages" in inputs else inputs["prompt"]
    return text.split()
