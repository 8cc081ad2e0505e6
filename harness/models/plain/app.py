"""A test model like the contract's public ones: plain `infer`, state shared between calls, `delivered` ignored."""

import time
from pathlib import Path


class InferlessPythonModel:
    def initialize(self, context):
        self.busy = False

    def infer(self, inputs, stream_output_handler):
        assert not self.busy, "infer ran twice at once"
        self.busy = True
        try:
            for n in range(inputs["count"]):
                if n == inputs.get("hold_before"):
                    while not Path(inputs["gate"]).exists():
                        time.sleep(0.002)
                stream_output_handler.send_streamed_output({"text": f"{n} "})
            stream_output_handler.finalise_streamed_output()
        finally:
            self.busy = False

    def finalize(self):
        pass
