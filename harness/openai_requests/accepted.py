"""Requests that a server answers. Those in `ALSO_STREAMED` are also sent with `stream: true`."""

from harness.openai_requests.build import (
    ABSENT,
    END_OF_TURN,
    PROMPT_TOKENS,
    QUESTION,
    START_OF_TURN,
    both,
    chat,
    completion,
    hermes_call,
    tool,
)
from harness.openai_requests.history import HISTORY

SAMPLED = {"temperature": 0.8, "seed": 7}
COUNTRY = {"type": "object", "properties": {"country": {"enum": ["France", "Peru"]}}, "required": ["country"]}
REPETITION = {"max_pattern_size": 1, "min_count": 3}
REPEATS = {"logit_bias": {"30": 60, "260": 60}, "max_tokens": 8}
"""Leaves a full stop and " the", which then come again and again."""
WORDS_TO_COME = [1962, 7541]
"""Tokens that the greedy answers have: " question" and " possibilities"."""
NO_OPS = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1.0,
    "logit_bias": {},
    "logprobs": None,
    "min_p": 0,
    "n": 1,
    "response_format": {"type": "text"},
    "seed": None,
    "stop": None,
    "top_k": 0,
    "top_p": 1,
    "user": "someone",
    "stream_options": None,
}
IGNORED = {
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "prompt_cache_key": "key",
    "safety_identifier": "someone",
    "service_tier": "auto",
    "store": False,
    "verbosity": "low",
}

BASICS = [
    *both("greedy"),
    *both("no-op values", **NO_OPS),
    *both("fields that are ignored", **IGNORED),
    *both("n 2", **SAMPLED, n=2),
    *both("repetition_detection", logit_bias={"260": 100}, repetition_detection=REPETITION),
]

SAMPLING = [
    *both("seeded sampling", **SAMPLED),
    *both("temperature 2", temperature=2, seed=7),
    *both("seed -1", seed=-1),
    *both("top_k -1", **SAMPLED, top_k=-1),
    *both("top_k 1", temperature=1.5, top_k=1),
    *both("top_k 5", **SAMPLED, top_k=5),
    *both("top_p 0.5", **SAMPLED, top_p=0.5),
    *both("min_p", **SAMPLED, min_p=0.2),
    *both("a repeated word", **REPEATS),
    *both("presence_penalty", **REPEATS, presence_penalty=2),
    *both("frequency_penalty", **REPEATS, frequency_penalty=1.5),
    *both("frequency_penalty below zero", frequency_penalty=-2, max_tokens=20),
    *both("repetition_penalty", **REPEATS, repetition_penalty=1.5),
    *both("logit_bias", logit_bias={"260": 100, "253": -100}),
    *both("allowed_token_ids", allowed_token_ids=[260, 253, 30]),
    *both("bad_words", bad_words=["question", "possibilities"]),
    *both("best_of 2", best_of=2),
]

ENDS = {"logit_bias": {str(END_OF_TURN): 100}}
SAYS_SPECIAL = {"logit_bias": {str(START_OF_TURN): 100}}
STOPPING = [
    *both("stop: a string", stop=" th", max_tokens=12),
    *both("stop: a list", stop=["zebra", " th"], max_tokens=12),
    *both("stop: four strings", stop=["a1", "b2", "c3", " th"], max_tokens=12),
    *both("stop included", stop=" th", include_stop_str_in_output=True, max_tokens=12),
    *both("stops that begin and do not come", stop=[" question mark", " possibilities are"]),
    *both("stop_token_ids", stop_token_ids=WORDS_TO_COME),
    *both("stop_token_ids included", stop_token_ids=WORDS_TO_COME, include_stop_str_in_output=True),
    *both("max_tokens beyond the room", max_tokens=2040, stop=" th"),
    *both("end of turn", **ENDS),
    *both("end of turn shown", **ENDS, skip_special_tokens=False),
    *both("min_tokens", **ENDS, min_tokens=3),
    *both("ignore_eos", **ENDS, ignore_eos=True),
    *both("special tokens", **SAYS_SPECIAL),
    *both("skip_special_tokens false", **SAYS_SPECIAL, skip_special_tokens=False),
    *both(
        "spaces_between_special_tokens", **SAYS_SPECIAL, skip_special_tokens=False, spaces_between_special_tokens=False
    ),
    chat("max_completion_tokens", max_tokens=ABSENT, max_completion_tokens=4),
    chat("max_completion_tokens wins", max_tokens=8, max_completion_tokens=4),
    chat("max_tokens null", max_tokens=None, stop=" th"),
    completion("max_tokens null", max_tokens=None),
    completion("max_tokens absent", max_tokens=ABSENT),
]

LOGPROBS = [
    chat("logprobs", logprobs=True),
    chat("logprobs false", logprobs=False),
    chat("top_logprobs 0", logprobs=True, top_logprobs=0),
    chat("top_logprobs 3", logprobs=True, top_logprobs=3),
    chat("top_logprobs 20", logprobs=True, top_logprobs=20, max_tokens=2),
    completion("logprobs 0", logprobs=0),
    completion("logprobs 3", logprobs=3),
    completion("logprobs of half characters", prompt="🙂🎉🚀 🙂🎉🚀 🙂🎉", logprobs=1),
    completion("logprobs with n 2", **SAMPLED, n=2, logprobs=1),
    chat("logprobs with a stop", logprobs=True, top_logprobs=1, stop=" th", max_tokens=12),
    completion("logprobs with a stop", logprobs=1, stop=" th", max_tokens=12),
    completion("logprobs with a stop that begins", logprobs=1, stop=" possibilities are"),
    chat("logprobs as token ids", logprobs=True, top_logprobs=2, return_tokens_as_token_ids=True),
    completion("logprobs as token ids", logprobs=2, return_tokens_as_token_ids=True),
    *both("return_token_ids", return_token_ids=True),
    *both("return_token_ids with n 2", return_token_ids=True, **SAMPLED, n=2),
    chat("return_prompt_text", return_prompt_text=True),
]

PROMPTS = [
    completion("tokens", PROMPT_TOKENS),
    completion("a list of one string", ["The sky is"]),
    completion("strings", ["The sky is", "Water is"]),
    completion("lists of tokens", [PROMPT_TOKENS, [253, 260]]),
    completion("strings with n 2", ["The sky is", "Water is"], **SAMPLED, n=2),
    completion("strings with logprobs", ["The sky is", "Water is"], logprobs=1),
    completion("add_special_tokens false", add_special_tokens=False),
    completion("special tokens in the prompt", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    completion("echo", echo=True),
    completion("echo with logprobs", echo=True, logprobs=1),
    completion("echo alone", echo=True, max_tokens=0),
    completion("echo alone with logprobs", echo=True, max_tokens=0, logprobs=1),
    completion("echo of tokens", PROMPT_TOKENS, echo=True),
    completion("echo of strings", ["The sky is", "Water is"], echo=True),
    completion("echo with n 2", echo=True, **SAMPLED, n=2),
    completion("echo with return_token_ids", echo=True, return_token_ids=True),
]

RENDERING = [
    *both("truncate_prompt_tokens", truncate_prompt_tokens=2, return_token_ids=True),
    *both("truncate_prompt_tokens -1", truncate_prompt_tokens=-1, return_token_ids=True),
    *both("truncation_side right", truncate_prompt_tokens=2, truncation_side="right", return_token_ids=True),
    *both("truncation_side left", truncate_prompt_tokens=2, truncation_side="left", return_token_ids=True),
    chat("add_generation_prompt false", add_generation_prompt=False, return_token_ids=True),
    chat("add_special_tokens", add_special_tokens=True, return_token_ids=True),
    chat("chat_template_kwargs", chat_template_kwargs={"enable_thinking": False}, return_token_ids=True),
    chat("documents", documents=[{"title": "Sky", "text": "It is blue."}], return_token_ids=True),
    chat("chat_template null", chat_template=None),
    chat("reasoning_effort", reasoning_effort="low"),
    chat("include_reasoning false", include_reasoning=False),
    *both("priority 0", priority=0),
    *both("priority 1", priority=1),
    *both("cache_salt", cache_salt="c2FsdA"),
    *both("vllm_xargs", vllm_xargs={"a": 1}),
    *both("session_id", session_id="a-session"),
    *both("length_penalty", length_penalty=1.0),
]

CONSTRAINED = [
    chat("json_object", response_format={"type": "json_object"}, max_tokens=12),
    *both(
        "json_schema",
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": COUNTRY, "strict": True}},
        max_tokens=24,
    ),
    *both("structured_outputs: json", structured_outputs={"json": COUNTRY}, max_tokens=24),
    *both("structured_outputs: json_object", structured_outputs={"json_object": True}, max_tokens=12),
    *both("structured_outputs: choice", structured_outputs={"choice": ["red", "green"]}),
    *both("structured_outputs: regex", structured_outputs={"regex": "[xyz]{3}"}),
    *both("structured_outputs: grammar", structured_outputs={"grammar": 'root ::= "up" | "down"'}),
    chat("structured_outputs with logprobs", structured_outputs={"choice": ["red", "green"]}, logprobs=True),
]

CALL = {"structured_outputs": {"regex": hermes_call()}, "max_tokens": 60}
TWO_CALLS = {
    "structured_outputs": {"regex": f"{hermes_call()}\n{hermes_call('listen')}"},
    "tools": [tool(), tool("listen")],
    "max_tokens": 110,
}
NAMED = {"type": "function", "function": {"name": "look"}}
TOOLS = [
    chat("tools with tool_choice none", **CALL, tools=[tool()], tool_choice="none"),
    chat("tools", tools=[tool()]),
    chat("tool_choice auto", **CALL, tools=[tool()], tool_choice="auto"),
    chat("tool_choice auto, not called", tools=[tool()], tool_choice="auto"),
    chat("tool_choice auto with logprobs and tokens", **CALL, tools=[tool()], logprobs=True, return_token_ids=True),
    chat("tool_choice required", tools=[tool()], tool_choice="required", max_tokens=60),
    chat("a named tool", tools=[tool()], tool_choice=NAMED, max_tokens=60),
    chat("a tool with description and strict", tools=[tool(description="The weather", strict=True)]),
    chat("tool_choice null", tools=[tool()], tool_choice=None),
    chat("no tools, tool_choice none", tool_choice="none"),
    chat("two calls", **TWO_CALLS),
    chat("parallel_tool_calls false", **TWO_CALLS, parallel_tool_calls=False),
    chat("a call that the length cuts", **CALL | {"max_tokens": 15}, tools=[tool()]),
    chat("n 2 with tools", **CALL, **SAMPLED, n=2, tools=[tool()]),
]

STREAMS = [
    *both("without usage", stream=True, stream_options=ABSENT),
    *both("continuous usage", stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    *both("continuous usage without usage", stream=True, stream_options={"continuous_usage_stats": True}),
    *both("stream_interval", stream=True, stream_interval=4),
    *both("stream_options null", stream=True, stream_options=None),
]

SOLITARY = [
    chat("logprob_token_ids", logprobs=True, logprob_token_ids=[260, 253]),
    completion("logprob_token_ids", logprobs=1, logprob_token_ids=[260, 253]),
]
"""Sent when nothing else runs: vLLM 0.32 lets these change the log probabilities of whoever is in the same batch."""

OTHERS = [
    *both("prompt_logprobs", prompt_logprobs=1, max_tokens=2),
    *both("prompt_logprobs 0", prompt_logprobs=0, max_tokens=2),
    chat("request_id", request_id="chat-0123456789abcdef"),
    completion("request_id", request_id="completion-0123456789abcdef"),
    *both("beam search", use_beam_search=True, n=2),
    chat("echo", [QUESTION, {"role": "assistant", "content": "The"}], echo=True, add_generation_prompt=False),
]

ALSO_STREAMED = [*BASICS, *STOPPING, *LOGPROBS, *PROMPTS, *CONSTRAINED, *TOOLS]
ACCEPTED = [
    *ALSO_STREAMED,
    *SAMPLING,
    *RENDERING,
    *HISTORY,
    *OTHERS,
    *[request.as_stream for request in [*ALSO_STREAMED, *STREAMS]],
]
