"""The inputs of the chat model in `app.py`, in the format of the Inferless contract.

`raw` passes the prompt to the model unchanged, without the chat template; `ignore_eos` makes it run to `max_tokens`.
With `stream` false, an answer that is more than text comes in one piece. All other names are those of vLLM's
parameters.

`minimum`, `maximum`, `min_length`, `max_length`, `max_items`, `format`, `json_schema`, `is_prompt` and `model_checks`
are our additions to the contract's `datatype`, `required`, `shape` and `example`. The web process checks requests
against this before anything starts. Inputs with `model_checks` are checked by the engine, too.
"""

from typing import Any

from everstream.llm.messages import MESSAGES_SCHEMA, check_inputs

__all__ = ["INPUT_SCHEMA", "IS_STREAMING_OUTPUT", "check_inputs"]

IS_STREAMING_OUTPUT = True

TEXT: dict[str, Any] = {"datatype": "STRING", "required": False, "shape": [1]}
FLAG: dict[str, Any] = {"datatype": "BOOL", "required": False, "shape": [1], "example": [False]}
INTEGER: dict[str, Any] = {"datatype": "INT64", "required": False, "shape": [1]}
NUMBER: dict[str, Any] = {"datatype": "FP32", "required": False, "shape": [1]}
TOKENS: dict[str, Any] = {"datatype": "INT64", "required": False, "shape": [-1], "minimum": 0, "model_checks": True}
CHECKED: dict[str, Any] = {"datatype": "JSON", "required": False, "shape": [1], "model_checks": True}

INPUT_SCHEMA: dict[str, dict[str, Any]] = {
    "prompt": TEXT | {"example": ["Why is the sky blue?"], "is_prompt": True},
    "messages": TEXT
    | {
        "example": ['[{"role": "user", "content": "Why is the sky blue?"}]'],
        "format": "json",
        "json_schema": MESSAGES_SCHEMA,
        "is_prompt": True,
    },
    "prompts": CHECKED | {"example": ["one prompt", "another"]},
    "raw": FLAG,
    "system": TEXT | {"example": ["You are terse."], "is_prompt": True},
    "stream": FLAG | {"example": [True]},
    "max_tokens": INTEGER | {"datatype": "INT32", "example": [256], "minimum": 0, "maximum": 1_000_000},
    "min_tokens": INTEGER | {"example": [1], "minimum": 0, "maximum": 1_000_000, "model_checks": True},
    "temperature": NUMBER | {"example": [0.7], "minimum": 0, "maximum": 2},
    "top_p": NUMBER | {"example": [0.95], "minimum": 0, "maximum": 1},
    "top_k": INTEGER | {"datatype": "INT32", "example": [40], "minimum": -1, "maximum": 100_000},
    "min_p": NUMBER | {"example": [0.05], "minimum": 0, "maximum": 1},
    "presence_penalty": NUMBER | {"example": [0.0], "minimum": -2, "maximum": 2},
    "frequency_penalty": NUMBER | {"example": [0.0], "minimum": -2, "maximum": 2},
    "repetition_penalty": NUMBER | {"example": [1.0], "minimum": 1e-6, "maximum": 100},
    "seed": INTEGER | {"example": [7]},
    "ignore_eos": FLAG,
    "stop": TEXT | {"shape": [-1], "example": ["\n\n"], "max_items": 4, "min_length": 1, "max_length": 200},
    "include_stop_str_in_output": FLAG,
    "stop_token_ids": TOKENS | {"example": [2]},
    "allowed_token_ids": TOKENS | {"example": [1, 2, 3]},
    "bad_words": TEXT
    | {"shape": [-1], "example": ["damn"], "max_items": 1000, "min_length": 1, "max_length": 200, "model_checks": True},
    "logit_bias": CHECKED | {"example": {"1": -100}},
    "repetition_detection": CHECKED | {"example": {"max_pattern_size": 10, "min_count": 4}},
    "watermarking": FLAG | {"example": [True], "model_checks": True},
    "skip_special_tokens": FLAG | {"example": [True]},
    "spaces_between_special_tokens": FLAG | {"example": [True]},
    "add_special_tokens": FLAG,
    "truncate_prompt_tokens": INTEGER | {"example": [100], "minimum": -1, "model_checks": True},
    "truncation_side": TEXT | {"example": ["left"], "max_length": 5, "model_checks": True},
    "n": INTEGER | {"example": [1], "minimum": 1, "maximum": 128, "model_checks": True},
    "logprobs": CHECKED | {"example": True},
    "top_logprobs": INTEGER | {"example": [5], "minimum": -1, "maximum": 1000, "model_checks": True},
    "prompt_logprobs": INTEGER | {"example": [1], "minimum": -1, "maximum": 1000, "model_checks": True},
    "return_token_ids": FLAG | {"model_checks": True},
    "return_tokens_as_token_ids": FLAG | {"model_checks": True},
    "return_prompt_text": FLAG | {"model_checks": True},
    "echo": FLAG | {"model_checks": True},
    "suffix": TEXT | {"example": [" and so on."], "is_prompt": True, "model_checks": True},
    "response_format": CHECKED | {"example": {"type": "json_object"}},
    "structured_outputs": CHECKED | {"example": {"choice": ["yes", "no"]}},
    "tools": CHECKED | {"example": [{"type": "function", "function": {"name": "now"}}]},
    "tool_choice": CHECKED | {"example": "auto"},
    "parallel_tool_calls": FLAG | {"example": [True]},
    "reasoning_effort": TEXT | {"example": ["low"], "max_length": 20, "model_checks": True},
    "include_reasoning": FLAG | {"example": [True], "model_checks": True},
    "thinking_token_budget": INTEGER | {"example": [1000], "minimum": -1, "model_checks": True},
    "chat_template": TEXT | {"example": ["{{ messages[-1].content }}"], "is_prompt": True, "model_checks": True},
    "chat_template_kwargs": CHECKED | {"example": {"enable_thinking": False}},
    "documents": CHECKED | {"example": [{"title": "Sky", "text": "It is blue."}], "is_prompt": True},
    "add_generation_prompt": FLAG | {"example": [True], "model_checks": True},
    "continue_final_message": FLAG | {"model_checks": True},
    "priority": INTEGER | {"example": [0], "model_checks": True},
    "cache_salt": TEXT | {"example": ["a random string"], "min_length": 1, "max_length": 128, "model_checks": True},
}
