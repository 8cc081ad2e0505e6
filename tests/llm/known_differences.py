"""Where Everstream's OpenAI API differs from `vllm serve`, and why: in the words of `docs/openai.md`."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

LEFT_OUT = (
    "annotations",
    "audio",
    "completion_tokens_details",
    "ec_transfer_params",
    "function_call",
    "kv_transfer_params",
    "metrics",
    "prompt_logprobs",
    "prompt_text",
    "prompt_token_ids",
    "prompt_tokens_details",
    "reasoning",
    "routed_experts",
    "service_tier",
    "stop_reason",
    "system_fingerprint",
    "token_ids",
)
"""Keys that may be absent where vLLM has null, or has them in no chunk but the last."""


@dataclass(frozen=True)
class Difference:
    """`requests`: patterns of their names. `where`: the paths at which the answers differ."""

    requests: tuple[str, ...]
    where: tuple[str, ...]
    why: str

    def concerns(self, request):
        return any(fnmatchcase(request, pattern) for pattern in self.requests)


STATUS = ("status",)
DIFFERENCES = (
    Difference(
        ("*: best_of 2*",),
        STATUS,
        "`best_of` other than `n` is refused. vLLM ignores it, and returns an answer that is not the best of several.",
    ),
    Difference(
        ("*: beam search",),
        STATUS,
        "`use_beam_search` is refused: beams are chosen at the end, so there is nothing to stream or to resume.",
    ),
    Difference(
        ("*: logprob_token_ids",),
        STATUS,
        "`logprob_token_ids` is refused: in vLLM 0.32 it spoils the log probabilities of other requests in the batch.",
    ),
    Difference(
        ("*: top_p 0",),
        STATUS,
        "`top_p: 0` is accepted, as OpenAI accepts it: only the likeliest token is left.",
    ),
    Difference(
        ("*: max_tokens beyond the context",),
        STATUS,
        "`max_tokens` may exceed the model's context: the answer ends with the context, with `finish_reason` `length`.",
    ),
    Difference(
        ("*: stream_options without a stream",),
        STATUS,
        "`stream_options` without `stream` is accepted; it changes nothing.",
    ),
    Difference(
        ("chat: tools: empty", "chat: tool_choice without tools"),
        STATUS,
        '`tools: []`, and `tool_choice: "auto"` without tools, are accepted; they change nothing.',
    ),
    Difference(
        ("*: thinking_token_budget",),
        STATUS,
        "`thinking_token_budget` is accepted with a model that does not think, as it keeps to any budget.",
    ),
    Difference(
        ("*: repetition_detection", "*: repetition_detection, streamed"),
        ("choices[].finish_reason",),
        "`finish_reason` has only OpenAI's values: `repetition_detection` ends an answer with `stop`, and only the "
        "`stop_reason` says `repetition_detected`.",
    ),
    Difference(
        ("chat: add_generation_prompt false",),
        ("choices[].message.role",),
        "The role of an answer is always `assistant`, also with `add_generation_prompt: false`.",
    ),
    Difference(
        ("chat: tool_choice required", "chat: a named tool"),
        ("choices[].message.content",),
        "The `content` of a message with tool calls and no text is always null, as OpenAI has it.",
    ),
    Difference(
        ("*: continuous usage, streamed",),
        ("every_chunk",),
        "`continuous_usage_stats` is ignored: usage comes once, at the end.",
    ),
    Difference(
        ("*: a long prompt",),
        ("param",),
        "For a prompt that is too long, `param` is `messages` or `prompt`, and `code` is `context_length_exceeded`.",
    ),
)


def known_paths(request):
    """Where the answers to this request are known to differ."""
    return {path for each in DIFFERENCES if each.concerns(request) for path in each.where}
