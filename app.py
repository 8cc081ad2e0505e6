"""The chat model, as a model folder of the Inferless contract. Its parts are in `everstream/llm/`."""

from everstream.llm.chat_model import InferlessPythonModel

__all__ = ["CONCURRENT", "InferlessPythonModel"]

CONCURRENT = True
