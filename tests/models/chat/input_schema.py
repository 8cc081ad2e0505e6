"""What the chat model takes: the same inputs, with the same checks."""

from everstream.contract import load_schema
from everstream.settings import REPO_ROOT

_chat = load_schema(REPO_ROOT)

IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = _chat.INPUT_SCHEMA
check_inputs = _chat.check_inputs
