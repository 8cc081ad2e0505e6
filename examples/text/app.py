"""A chat model on transformers, in the form of Inferless's public streaming models.

TEXT_MODEL is a model's folder or its id on a hub. The default is the folder that `make model` builds.
"""

import os
from pathlib import Path
from threading import Thread

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("EVERSTREAM_CACHE_DIR") or USER_CACHE / "everstream")
MODEL = os.environ.get("TEXT_MODEL") or str(CACHE / "smollm2-135m-instruct-v2")


class InferlessPythonModel:
    def initialize(self):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = AutoModelForCausalLM.from_pretrained(MODEL).to(device)
        self.streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)

    def infer(self, inputs, stream_output_handler):
        messages = [{"role": "user", "content": inputs["TEXT"]}]
        prompt = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        # Greedy: after an engine crash, a model that starts over must say the same again.
        generation_kwargs = {
            **prompt,
            "streamer": self.streamer,
            "do_sample": False,
            # An invalid number would raise in the thread, and the streamer would never end.
            "max_new_tokens": min(max(inputs.get("MAX_NEW_TOKENS", 256), 1), 2048),
        }
        thread = Thread(target=self.model.generate, kwargs=generation_kwargs)
        thread.start()
        for new_text in self.streamer:
            stream_output_handler.send_streamed_output({"OUT": new_text})
        thread.join()
        stream_output_handler.finalise_streamed_output()

    def finalize(self):
        self.model = None
