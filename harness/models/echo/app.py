"""A test model that is no chat: it outputs each of its inputs, one by one, as JSON text."""

import json


class InferlessPythonModel:
    async def infer(self, inputs, stream_output_handler):
        for name, value in inputs.items():
            stream_output_handler.send_streamed_output({"input": name, "json": json.dumps(value)})
