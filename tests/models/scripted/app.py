"""A test model that says what the request tells it to, and waits where it is told to wait."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from everstream.errors import InvalidInput, ModelDied
from everstream.log import Fit

CHECK_HELD_S = 60
"""At most: its thread can't be told to stop."""


class InferlessPythonModel:
    def initialize(self):
        self.max_model_len = 400_000
        self.prompt_fit = Fit(["prompt"], max_bytes=2 * self.max_model_len)

    async def infer(self, inputs, stream_output_handler):
        # The page can only send a prompt, so that may hold the rest, as JSON.
        inputs = inputs | json.loads(inputs.get("prompt", "{}"))
        texts = inputs["texts"] * inputs.get("repeat", 1)
        begun = len(stream_output_handler.delivered)
        for n, text in enumerate(texts[begun:], begun + 1):
            await self._act(inputs, n)
            if n - begun > inputs.get("kill_after", len(texts)):
                os.kill(os.getpid(), signal.SIGKILL)
            stream_output_handler.send_streamed_output({"text": text})
            await stream_output_handler.drain()
            await asyncio.sleep(inputs.get("pause_ms", 0) / 1000)
        await self._act(inputs, len(texts) + 1)
        if not inputs.get("forget_to_finalise"):
            usage = {"prompt_tokens": 1, "completion_tokens": len(texts), "total_tokens": 1 + len(texts)}
            stream_output_handler.finalise_streamed_output("stop", usage)

    async def _act(self, inputs, n):
        """What is to happen before output n."""
        if n == inputs.get("hold_before"):
            while not Path(inputs["gate"]).exists():
                await asyncio.sleep(0.002)
        if n == inputs.get("raise_before"):
            raise ValueError("told to raise\nover two lines")
        if n == inputs.get("kill_before"):
            os.kill(os.getpid(), signal.SIGKILL)
        if n == inputs.get("die_before"):
            raise ModelDied("told to die")

    def check(self, inputs):
        if "check_begun" in inputs:
            Path(inputs["check_begun"]).touch()
        deadline = time.monotonic() + CHECK_HELD_S
        while "check_gate" in inputs and not Path(inputs["check_gate"]).exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        length = sum(len(text) for text in inputs.get("texts", ()))
        if length > self.max_model_len:
            raise InvalidInput(f"{length} is too long", param="texts", code="context_length_exceeded")

    def finalize(self, args):
        pass
