"""A test model that outputs what the request scripts, and waits, fails or dies where the request says so."""

import asyncio
import ctypes
import json
import os
import signal
import time
from pathlib import Path

from everstream.contract.model import CacheUse
from everstream.contract.prompt_bound import PromptBound
from everstream.errors import InvalidInput, ModelDied

CONCURRENT = True
CHECK_HELD_S = 60
"""An upper bound, because the check's thread can't be cancelled."""


class InferlessPythonModel:
    def initialize(self):
        self.max_model_len = 400_000
        self.cache_use = CacheUse(0.25, queries=100, hits=50)
        self.prompt_bound = PromptBound(["prompt"], max_bytes=2 * self.max_model_len)

    async def infer(self, inputs, stream_output_handler):
        # The page can only send a prompt, so the prompt may carry the other inputs as JSON.
        inputs = inputs | json.loads(inputs.get("prompt", "{}"))
        texts = inputs["texts"] * inputs.get("repeat", 1)
        start = len(stream_output_handler.delivered)
        for n, text in enumerate(texts[start:], start + 1):
            await self._act(inputs, n)
            if n - start > inputs.get("kill_after", len(texts)):
                os.kill(os.getpid(), signal.SIGKILL)
            stream_output_handler.send_streamed_output({"text": text})
            await stream_output_handler.drain()
            await asyncio.sleep(inputs.get("pause_ms", 0) / 1000)
        await self._act(inputs, len(texts) + 1)
        if not inputs.get("forget_to_finalise"):
            usage = {"prompt_tokens": 1, "completion_tokens": len(texts), "total_tokens": 1 + len(texts)}
            stream_output_handler.finalise_streamed_output("stop", usage)

    async def _act(self, inputs, n):
        """Do what the request schedules before output n."""
        if n == inputs.get("hold_before"):
            while not Path(inputs["gate"]).exists():
                await asyncio.sleep(0.002)
        if n == inputs.get("raise_before"):
            raise ValueError("told to raise\nover two lines")
        if n == inputs.get("kill_before"):
            os.kill(os.getpid(), signal.SIGKILL)
        if n == inputs.get("segfault_before"):
            ctypes.string_at(0)
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
