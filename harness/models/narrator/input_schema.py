"""The chat model's inputs, with the same checks."""

import runpy

from everstream.settings import PROJECT_ROOT

_chat = runpy.run_path(str(PROJECT_ROOT / "input_schema.py"))

IS_STREAMING_OUTPUT = True
INPUT_SCHEMA = _chat["INPUT_SCHEMA"]
check_inputs = _chat["check_inputs"]
