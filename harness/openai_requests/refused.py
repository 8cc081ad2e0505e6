"""Requests that a server refuses, and so should another one: with the same status and, where sensible, `param`."""

from harness.openai_requests.build import ABSENT, both, chat, completion, tool

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
LONG = "word " * 2100
CALL_OF = {"type": "function", "function": {"name": "unknown"}}

RANGES = [
    *both("temperature -1", temperature=-1),
    *both("temperature 2.5", temperature=2.5),
    *both("top_p 2", top_p=2),
    *both("top_p 0", top_p=0),
    *both("top_p -1", top_p=-1),
    *both("top_k -2", top_k=-2),
    *both("min_p 2", min_p=2),
    *both("min_p -1", min_p=-1),
    *both("presence_penalty 3", presence_penalty=3),
    *both("frequency_penalty -3", frequency_penalty=-3),
    *both("repetition_penalty 0", repetition_penalty=0),
    *both("n 0", n=0),
    *both("n -1", n=-1),
    *both("n 2 at temperature 0", n=2),
    *both("n too large", n=100_000, temperature=1),
    *both("seed too large", seed=2**63),
    *both("max_tokens -1", max_tokens=-1),
    *both("max_tokens beyond the context", max_tokens=100_000, stop=" th"),
    chat("max_tokens 0", max_tokens=0),
    completion("max_tokens 0", max_tokens=0),
    chat("max_completion_tokens -1", max_completion_tokens=-1),
    *both("min_tokens -1", min_tokens=-1),
    *both("min_tokens above max_tokens", min_tokens=9),
    *both("logit_bias out of the vocabulary", logit_bias={"99999": 1}),
    *both("logit_bias of no number", logit_bias={"blue": 1}),
    *both("allowed_token_ids: none", allowed_token_ids=[]),
    *both("allowed_token_ids out of the vocabulary", allowed_token_ids=[99999]),
    *both("bad_words: an empty one", bad_words=[""]),
    *both("stop: an empty string", stop=[""]),
    *both("stop: five strings", stop=["a1", "b2", "c3", "d4", "e5"]),
    *both("stop_token_ids out of the vocabulary", stop_token_ids=[99999]),
    *both("truncate_prompt_tokens -2", truncate_prompt_tokens=-2),
    *both("truncate_prompt_tokens beyond the context", truncate_prompt_tokens=5000),
    *both("truncation_side unknown", truncate_prompt_tokens=2, truncation_side="middle"),
    *both("cache_salt: empty", cache_salt=""),
    *both("cache_salt with a slash", cache_salt="a/b"),
    *both("repetition_detection without a count", repetition_detection={"max_pattern_size": 2, "min_count": 1}),
    chat("reasoning_effort unknown", reasoning_effort="huge"),
]

LOGPROBS = [
    chat("top_logprobs without logprobs", top_logprobs=2),
    chat("top_logprobs -2", logprobs=True, top_logprobs=-2),
    chat("top_logprobs 21", logprobs=True, top_logprobs=21),
    chat("logprob_token_ids without logprobs", logprob_token_ids=[260]),
    completion("logprobs -2", logprobs=-2),
    completion("logprobs 21", logprobs=21),
    completion("logprob_token_ids without logprobs", logprob_token_ids=[260]),
    *both("prompt_logprobs -2", prompt_logprobs=-2),
    *both("prompt_logprobs 21", prompt_logprobs=21),
    *both("prompt_logprobs streamed", prompt_logprobs=1, stream=True),
]

TYPES = [
    *both("temperature: a word", temperature="hot"),
    *both("top_k: a fraction", top_k=1.5),
    *both("n: a word", n="two"),
    *both("max_tokens: a word", max_tokens="many"),
    *both("seed: a word", seed="lucky"),
    *both("stop: a number", stop=5),
    *both("stream: a word", stream="perhaps"),
    *both("stream_options: a word", stream=True, stream_options="usage"),
    *both("stream_options without a stream", stream_options={"include_usage": True}),
    *both("logit_bias: a list", logit_bias=[1]),
    *both("stop_token_ids: words", stop_token_ids=["a"]),
    *both("prompt_logprobs: a word", prompt_logprobs="all"),
    chat("top_logprobs: a word", logprobs=True, top_logprobs="all"),
    completion("logprobs: a word", logprobs="all"),
]

SHAPES = [
    *both("model unknown", model="unknown"),
    chat("messages absent", messages=ABSENT),
    chat("messages null", messages=None),
    chat("messages: a string", messages="Hi"),
    chat("messages: empty", messages=[]),
    chat("messages: numbers", messages=[5]),
    chat("a message without a role", messages=[{"content": "Hi"}]),
    chat("a role of no string", messages=[{"role": 5, "content": "Hi"}]),
    chat("content: a number", messages=[{"role": "user", "content": 5}]),
    chat("a plain string as a part", messages=[{"role": "user", "content": ["Hi"]}]),
    chat("an image", messages=[{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]),
    chat("audio", messages=[{"role": "user", "content": [AUDIO]}]),
    chat("an unknown part", messages=[{"role": "user", "content": [{"type": "smell", "smell": "rose"}]}]),
    chat("both generation prompt and continuation", continue_final_message=True, add_generation_prompt=True),
    chat("a chat template", chat_template="{{ messages }}"),
    chat("a chat template in kwargs", chat_template_kwargs={"chat_template": "{{ messages }}"}),
    chat("mm_processor_kwargs", mm_processor_kwargs={"a": 1}),
    chat("media_io_kwargs", media_io_kwargs={"image": {"a": 1}}),
    chat("a long prompt", messages=[{"role": "user", "content": LONG}]),
    completion("a long prompt", LONG),
    completion("a long prompt of tokens", [260] * 2048),
    completion("prompt absent", ABSENT),
    completion("prompt empty", ""),
    completion("prompt: an empty list", []),
    completion("prompt: an empty string in a list", [""]),
    completion("prompt: an empty list in a list", [[]]),
    completion("prompt: a mixed list", ["a", 5]),
    completion("prompt: negative tokens", [-1, 5]),
    completion("prompt: tokens out of the vocabulary", [99999]),
    completion("prompt_embeds", ABSENT, prompt_embeds="AAAA"),
    completion("suffix", suffix=" the end"),
]

CONSTRAINTS = [
    *both("response_format unknown", response_format={"type": "yaml"}),
    *both("json_schema without a schema", response_format={"type": "json_schema"}),
    *both(
        "a json schema that is none",
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wish"}}},
    ),
    *both("a json schema of no object", structured_outputs={"json": "{broken"}),
    *both("a regex that is none", structured_outputs={"regex": "["}),
    *both("a grammar that is none", structured_outputs={"grammar": "root ::= (broken"}),
    *both("no choices", structured_outputs={"choice": []}),
    *both("two constraints", structured_outputs={"choice": ["a"], "regex": "b"}),
    *both("no constraint", structured_outputs={}),
]

TOOLS = [
    chat("tools: empty", tools=[]),
    chat("tools: a word", tools="all"),
    chat("a tool without a function", tools=[{"type": "function"}]),
    chat("a tool of another type", tools=[{**tool(), "type": "search"}]),
    chat("tool_choice without tools", tool_choice="auto"),
    chat("tool_choice required without tools", tool_choice="required"),
    chat("tool_choice unknown", tools=[tool()], tool_choice="sometimes"),
    chat("tool_choice of an unknown tool", tools=[tool()], tool_choice=CALL_OF),
    chat("tool_choice without a name", tools=[tool()], tool_choice={"type": "function", "function": {}}),
]

OTHERS = [
    completion("beam search streamed", use_beam_search=True, n=2, stream=True),
    chat("thinking_token_budget", thinking_token_budget=10),
]

REFUSED = [*RANGES, *LOGPROBS, *TYPES, *SHAPES, *CONSTRAINTS, *TOOLS, *OTHERS]
