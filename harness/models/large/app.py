"""A test model whose outputs have the size that the request asks for, and no text."""

import asyncio


class InferlessPythonModel:
    async def infer(self, inputs, stream_output_handler):
        for n in range(len(stream_output_handler.delivered), inputs.get("count", 1)):
            stream_output_handler.send_streamed_output({"n": n, "audio": audio(n, inputs["size"])})
            await stream_output_handler.drain()
            await asyncio.sleep(inputs.get("pause_ms", 0) / 1000)


def audio(n, size):
    """What the model sends as output n."""
    return (f"{n:08d}" * (size // 8 + 1))[:size]
