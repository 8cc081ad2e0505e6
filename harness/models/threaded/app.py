"""A test model like the public streaming templates: one streamer shared by all calls, filled from a thread.

Each token takes `pause_ms`. Before token n the thread waits for a gate or raises; `infer` returns early after output n.
`act` is one of the methods below, which misbehave.
"""

import queue
import re
import sys
import threading
import time
from pathlib import Path

END = object()


class Streamer:
    """As transformers' TextIteratorStreamer: a queue without a bound, read without a timeout."""

    def __init__(self):
        self._texts = queue.Queue()

    def put(self, text):
        self._texts.put(text)

    def __iter__(self):
        return iter(self._texts.get, END)


class InferlessPythonModel:
    def initialize(self):
        self.streamer = Streamer()

    def infer(self, inputs, stream_output_handler):
        if "act" in inputs:
            return getattr(self, inputs["act"])(inputs, stream_output_handler)
        thread = threading.Thread(target=self.generate, args=(inputs,), name="generate")
        thread.start()
        for n, text in enumerate(self.streamer, 1):
            stream_output_handler.send_streamed_output({"text": text})
            if n == inputs.get("return_after"):
                stream_output_handler.finalise_streamed_output()
                return None
        thread.join()
        stream_output_handler.finalise_streamed_output()
        return None

    def generate(self, inputs):
        for n in range(1, inputs["count"] + 1):
            if n == inputs.get("raise_before"):
                raise RuntimeError("CUDA out of memory")
            if n == inputs.get("hold_before"):
                wait_for(inputs["gate"])
            time.sleep(inputs.get("pause_ms", 0) / 1000)
            self.streamer.put(f"{inputs['word']}-{n} ")
        self.streamer.put(END)

    def exit(self, inputs, handler):
        sys.exit("told to exit")

    def return_a_dict(self, inputs, handler):
        return {"text": inputs["word"]}

    def send_from_a_thread_that_outlives_infer(self, inputs, handler):
        def send():
            wait_for(inputs["gate"])
            for n in range(inputs["count"]):
                handler.send_streamed_output({"text": f"{n} "})

        threading.Thread(target=send, name="sender").start()

    def send_nan(self, inputs, handler):
        handler.send_streamed_output({"text": "", "score": 0.5})
        try:
            handler.send_streamed_output({"text": "", "score": float("nan")})
        except ValueError:
            # Public templates print errors and go on.
            handler.send_streamed_output({"text": "", "score": 1.0})

    def change_a_key(self, inputs, handler):
        handler.send_streamed_output({"text": "a"})
        handler.send_streamed_output({"word": "b"})
        handler.send_streamed_output({"text": "c"})

    def change_a_type(self, inputs, handler):
        handler.send_streamed_output({"text": "a"})
        handler.send_streamed_output({"text": ["b"]})

    def read_a_file_beside_this_one(self, inputs, handler):
        handler.send_streamed_output({"text": Path("beside.txt").read_text()})

    def hold_the_interpreter_lock(self, inputs, handler):
        re.match("(a+)+$", "a" * 40 + "b")

    def say_the_time(self, inputs, handler):
        for _ in range(inputs["count"]):
            handler.send_streamed_output({"text": str(time.monotonic_ns())})
        wait_for(inputs["gate"])


def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.002)
