"""What a chat model's outputs may hold besides their text. Pure; the engine's model writes it, the web's encoders read
it.

An output is `{"text": " The"}`, which is a piece of the only choice, or `{"text": …, "choices": [Choice, …]}`, whose
`text` is that of the first choice, for readers who want nothing else. A choice's pieces, joined in order, are the
choice. The terminal entry's data is an `Ending`.
"""

from typing import Any

import msgspec


class Function(msgspec.Struct, omit_defaults=True, gc=False):
    """A tool call's name, which comes whole, and a piece of its arguments, which together are JSON."""

    name: str | None = None
    arguments: str = ""


class ToolCall(msgspec.Struct, omit_defaults=True):
    """A piece of the call with this index; only its first piece has an id, a type and a name."""

    index: int
    function: Function
    id: str | None = None
    type: str | None = None


class Choice(msgspec.Struct, omit_defaults=True):
    """A piece of one choice.

    `logprobs` are those of this piece's tokens, in the format of the API whose request was sent: a chat completion's
    `{"content": [...]}`, or a completion's four lists. `prompt_token_ids` and `prompt_logprobs` come once. So does
    `role`, with the first piece of a choice whose index is not 0.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    logprobs: dict[str, Any] | None = None
    token_ids: list[int] = []
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[Any] | None = None
    prompt_text: str | None = None
    role: str | None = None


class ChoiceEnd(msgspec.Struct, omit_defaults=True):
    """Why a choice ended. `stop_reason`: the stop string or the token id that ended it."""

    index: int
    finish_reason: str
    stop_reason: int | str | None = None


class _TokenDetails(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    """The part of OpenAI's usage that other APIs report in their own words."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _TokenDetails | None = None
    completion_tokens_details: _TokenDetails | None = None

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that were found in a cache; None: not known."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None

    @property
    def reasoning(self) -> int | None:
        """Tokens of the answer that are reasoning; None: not known."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None


class Ending(msgspec.Struct, omit_defaults=True):
    """The data of a `done` entry. `choices`: None if there is only one, which ended without a `stop_reason`."""

    finish_reason: str
    usage: dict[str, Any] | None = None
    choices: list[ChoiceEnd] | None = None

    @property
    def ends(self) -> list[ChoiceEnd]:
        """Of each choice."""
        return [ChoiceEnd(0, self.finish_reason)] if self.choices is None else self.choices

    @property
    def chat_usage(self) -> ChatUsage:
        return msgspec.convert(self.usage or {}, ChatUsage)


class _Output(msgspec.Struct):
    text: str | msgspec.UnsetType = msgspec.UNSET
    choices: list[Choice] | None = None


_output_decoder = msgspec.json.Decoder(_Output)
_ending_decoder = msgspec.json.Decoder(Ending)


def has_choices(output: bytes) -> bool:
    """Whether an output's JSON may hold more than its text. Doesn't decode it."""
    # In a string, the quotes would be escaped.
    return b'"choices":' in output


def pieces(output: bytes) -> list[Choice]:
    """The pieces of choices in an output's JSON. An output of another model, without text, counts as text itself."""
    try:
        decoded = _output_decoder.decode(output)
    except msgspec.ValidationError:
        return [Choice(text=output.decode())]
    if decoded.choices is not None:
        return decoded.choices
    return [Choice(text=output.decode() if decoded.text is msgspec.UNSET else decoded.text)]


def ending(data: bytes) -> Ending:
    """From a `done` entry's data."""
    return _ending_decoder.decode(data)


def one_line(arguments: str) -> bytes:
    """A tool call's complete arguments, for a `data` line. Between its tokens, JSON may have line ends; in its strings,
    it has none."""
    return arguments.replace("\r", " ").replace("\n", " ").encode()


def as_object(arguments: str) -> str:
    """A tool call's arguments; or, if they are not an object, for example because they were cut, an object that holds
    them, in the form that Anthropic's documents have for it."""
    text = arguments or "{}"
    return text if is_object(text) else msgspec.json.encode({"INVALID_JSON": text}).decode()


def is_object(arguments: str) -> bool:
    """Whether a tool call's arguments are complete."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
