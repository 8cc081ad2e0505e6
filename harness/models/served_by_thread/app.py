"""A test model whose `initialize` starts a thread that works for all requests: it fills a queue that they share."""

import queue
import threading
import time

TOKENS = 5


class InferlessPythonModel:
    def initialize(self):
        self.words, self.texts = queue.Queue(), queue.Queue()
        threading.Thread(target=self.work, name="worker", daemon=True).start()

    def work(self):
        while True:
            word = self.words.get()
            for n in range(TOKENS):
                self.texts.put(f"{word}-{n} ")
                time.sleep(0.02)

    def infer(self, inputs, stream_output_handler):
        self.words.put(inputs["word"])
        for n in range(TOKENS):
            if n == inputs.get("raise_after"):
                raise ValueError("told to raise")
            stream_output_handler.send_streamed_output({"text": self.texts.get()})
        stream_output_handler.finalise_streamed_output()
