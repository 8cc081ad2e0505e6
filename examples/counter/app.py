"""Counts, one number every half second: the smallest streaming model."""

import time


class InferlessPythonModel:
    def initialize(self):
        pass

    def infer(self, inputs, stream_output_handler):
        # Only Everstream has `delivered`: what was sent before an engine crash. Without it, the model would start at
        # 1 again, and Everstream would drop the numbers that were already sent.
        sent = len(getattr(stream_output_handler, "delivered", []))
        for n in range(sent + 1, inputs["count"] + 1):
            stream_output_handler.send_streamed_output({"n": n})
            time.sleep(0.5)
        stream_output_handler.finalise_streamed_output()

    def finalize(self):
        pass
