"""A test model that does not stream: it returns its inputs, one output for each."""

import asyncio
from pathlib import Path

CONCURRENT = True


class InferlessPythonModel:
    async def infer(self, inputs):
        while "gate" in inputs and not Path(inputs["gate"]).exists():
            await asyncio.sleep(0.002)
        if "fail" in inputs:
            raise ValueError(inputs["fail"])
        return inputs
