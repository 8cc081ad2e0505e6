"""The chat model's inputs, with the same checks."""

from everstream.contract.loader import load_schema
from everstream.settings import PROJECT_ROOT

_chat = load_schema(PROJECT_ROOT)

IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = _chat.inputs
check_inputs = _chat.check
