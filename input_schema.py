"""The inputs of the chat model in `app.py`, in the format of the Inferless contract.

`raw` passes the prompt to the model unchanged, without the chat template; `ignore_eos` makes it run to `max_tokens`.
`minimum`, `maximum`, `min_length`, `max_length`, `max_items`, `format` and `is_prompt` are our additions to the
contract's `datatype`, `required`, `shape` and `example`. The web process checks requests against this before anything
starts.
"""

from typing import Any

from everstream.llm.messages import check_inputs

__all__ = ["INPUT_SCHEMA", "IS_STREAMING_OUTPUT", "check_inputs"]

IS_STREAMING_OUTPUT = True

INPUT_SCHEMA: dict[str, dict[str, Any]] = {
    "prompt": {
        "datatype": "STRING",
        "required": False,
        "shape": [1],
        "example": ["Why is the sky blue?"],
        "is_prompt": True,
    },
    "messages": {
        "datatype": "STRING",
        "required": False,
        "shape": [1],
        "example": ['[{"role": "user", "content": "Why is the sky blue?"}]'],
        "format": "json",
        "is_prompt": True,
    },
    "raw": {"datatype": "BOOL", "required": False, "shape": [1], "example": [False]},
    "system": {
        "datatype": "STRING",
        "required": False,
        "shape": [1],
        "example": ["You are terse."],
        "is_prompt": True,
    },
    "max_tokens": {
        "datatype": "INT32",
        "required": False,
        "shape": [1],
        "example": [256],
        "minimum": 1,
        "maximum": 1_000_000,
    },
    "temperature": {
        "datatype": "FP32",
        "required": False,
        "shape": [1],
        "example": [0.7],
        "minimum": 0,
        "maximum": 2,
    },
    "top_p": {
        "datatype": "FP32",
        "required": False,
        "shape": [1],
        "example": [0.95],
        "minimum": 0.001,
        "maximum": 1,
    },
    "top_k": {
        "datatype": "INT32",
        "required": False,
        "shape": [1],
        "example": [40],
        "minimum": 0,
        "maximum": 100_000,
    },
    "seed": {
        "datatype": "INT64",
        "required": False,
        "shape": [1],
        "example": [7],
        "minimum": 0,
        "maximum": 2**63 - 1,
    },
    "ignore_eos": {"datatype": "BOOL", "required": False, "shape": [1], "example": [False]},
    "stop": {
        "datatype": "STRING",
        "required": False,
        "shape": [-1],
        "example": ["\n\n"],
        "max_items": 4,
        "min_length": 1,
        "max_length": 200,
    },
}
