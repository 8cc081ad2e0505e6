"""vLLM's own OpenAI front end, inside the engine process: its request types, chat templates, and parsers for tools and
reasoning. Called by `chat_model`; with `front_end_answer` the only user of these parts of vLLM.

In: checked inputs, whose names are those of vLLM's parameters. Out: vLLM's request, its tokenized prompt and its
sampling parameters; and the answers to requests for which `answer` is too simple.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from starlette.datastructures import State
from vllm import SamplingParams
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens
from vllm.renderers.chat_utils import has_non_text_content
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.v1.engine.async_llm import AsyncLLM

from everstream.llm.messages import as_messages, check_media
from everstream.llm.refusals import as_error, refusals_named

PROMPT_MAX_TOKENS = 1024
"""Of the answer to a `prompt`, unless `max_tokens` says otherwise. The answer to `messages` may fill the context, as in
OpenAI's API."""
ROOM_SHARE = 4
"""A truncated prompt leaves this share of the context to the answer, unless `max_tokens` says how much."""
SMALLEST_TOP_P = 1e-9
"""OpenAI takes a top_p of 0, and vLLM does not. With this one, too, only the likeliest token is left."""
_OF_PROMPTS = ("prompt", "prompts", "system", "raw", "messages")
_SIMPLE: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "prompt_logprobs": (None,),
    "echo": (None, False),
    "suffix": (None,),
    "structured_outputs": (None,),
    "response_format": (None,),
    "tools": (None,),
    "return_token_ids": (None, False),
    "use_beam_search": (False,),
    "return_prompt_text": (None, False),
    "thinking_token_budget": (None,),
}
"""The values with which an answer is text and nothing else."""

Request: TypeAlias = Any
"""A ChatCompletionRequest or a CompletionRequest: vLLM has no types for mypy."""


class PromptedChatRequest(ChatCompletionRequest):  # type: ignore[misc]
    """A chat of one turn, whose messages were made from the input `prompt`."""


class FrontEnd:
    """One per engine process."""

    def __init__(self, llm: AsyncLLM, state: State, args: Namespace, tasks: Sequence[str]) -> None:
        self._llm = llm
        self._tasks = tasks
        self._args = args
        self._online_renderer = state.online_renderer
        self.chat = state.openai_serving_chat
        self.completion = state.openai_serving_completion
        self.max_model_len: int = llm.model_config.max_model_len
        reasoning = llm.vllm_config.reasoning_config
        self._reasons = reasoning is not None and reasoning.enabled

    @classmethod
    async def start(cls, llm: AsyncLLM, args: Namespace) -> "FrontEnd":
        """`args` are those of `vllm serve`."""
        state, tasks = State(), await llm.get_supported_tasks()
        await init_app_state(llm, state, args, tasks)
        return cls(llm, state, args, tasks)

    def request(self, inputs: Mapping[str, Any]) -> Request:
        """vLLM's request for these inputs. Raises InvalidInput."""
        given = {**self._options(inputs), **self._lengths(inputs)}
        with refusals_named("messages" if "messages" in inputs else "prompt"):
            if "prompts" in inputs or inputs.get("raw"):
                prompt = inputs["prompts"] if "prompts" in inputs else inputs["prompt"]
                return CompletionRequest.model_validate({**given, "prompt": prompt})
            messages = as_messages(inputs)
            if not self._args.allowed_media_domains:
                check_media(messages)
            request_type = ChatCompletionRequest if "messages" in inputs else PromptedChatRequest
            return request_type.model_validate({**given, "messages": messages})

    def _options(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All but the prompt, as vLLM takes it."""
        given = {name: value for name, value in inputs.items() if name not in _OF_PROMPTS}
        given["stream"] = inputs.get("stream", True)
        if given["stream"]:
            given["stream_options"] = {"include_usage": True}
        if not self._reasons:
            # A model that doesn't think keeps to any budget, but vLLM refuses one.
            given.pop("thinking_token_budget", None)
        if given.get("top_p") == 0:
            given["top_p"] = SMALLEST_TOP_P
        return given

    def _lengths(self, inputs: Mapping[str, Any]) -> dict[str, int]:
        """Of the answer and of the prompt, within the model's context."""
        most = inputs.get("max_tokens")
        if most is None and "prompt" in inputs and not inputs.get("raw"):
            most = PROMPT_MAX_TOKENS
        lengths = {} if most is None else {"max_tokens": min(most, self.max_model_len)}
        if inputs.get("truncate_prompt_tokens") == -1 and inputs.get("truncation_side"):
            # With a side, vLLM would fill the context, and then refuse to answer.
            room = lengths.get("max_tokens") or self.max_model_len // ROOM_SHARE
            lengths["truncate_prompt_tokens"] = max(1, self.max_model_len - room)
        return lengths

    def is_simple(self, request: Request) -> bool:
        """Whether the answer is one choice of plain text, so that no parser of vLLM's has to see it."""
        if not all(_is_one_of(getattr(request, name, values[0]), values) for name, values in _SIMPLE.items()):
            return False
        if isinstance(request, CompletionRequest):
            return isinstance(request.prompt, str)
        parser = self.chat.parser_cls
        parses_all = parser is not None and (parser.reasoning_parser_cls is not None or parser.always_adjust_request)
        return not parses_all and not self._online_renderer.use_harmony and not has_non_text_content(request.messages)

    def render(self, request: Request) -> dict[str, Any]:
        """A simple request's tokenized prompt, in vLLM's format. Raises InvalidInput, also for one that is too long."""
        renderer = self._online_renderer.renderer
        extras = {"cache_salt": request.cache_salt} if request.cache_salt else {}
        with refusals_named(prompt_of(request)):
            tokens = request.build_tok_params(self._llm.model_config)
            if isinstance(request, CompletionRequest):
                prompt = parse_model_prompt(self._llm.model_config, request.prompt)
                return dict(renderer.render_cmpl([prompt], tokens, prompt_extras=extras)[0])
            error = self._online_renderer.validate_chat_template(
                request.chat_template, request.chat_template_kwargs, self._args.trust_request_chat_template
            )
            if error is not None:
                raise as_error(error.error.model_dump(), prompt_of(request))
            online = self._online_renderer
            chat = request.build_chat_params(online.chat_template, online.chat_template_content_format)
            chat = chat.with_defaults({**online.default_chat_template_kwargs, "tools": None, "tokenize": False})
            return dict(renderer.render_chat([request.messages], chat, tokens, prompt_extras=extras)[1][0])

    async def answer(self, request: Request) -> Any:
        """What vLLM's route returns: an ErrorResponse, a response, or the lines of a stream. Raises InvalidInput."""
        with refusals_named(prompt_of(request)):
            if isinstance(request, CompletionRequest):
                return await self.completion.create_completion(request)
            return await self.chat.create_chat_completion(request)

    async def rendered(self, request: Request) -> list[dict[str, Any]]:
        """Any request's tokenized prompts, in vLLM's format. Raises InvalidInput."""
        with refusals_named(prompt_of(request)):
            if isinstance(request, CompletionRequest):
                prompts = await self.completion.render_completion_request(request)
            else:
                prompts = await self.chat.render_chat_request(request)
        if isinstance(prompts, ErrorResponse):
            raise as_error(prompts.error.model_dump(), prompt_of(request))
        return list(prompts[1] if isinstance(prompts, tuple) else prompts)

    def check(self, request: Request, prompts: Sequence[dict[str, Any]]) -> None:
        """Raise InvalidInput if vLLM would refuse to run these prompts of the request."""
        for prompt in prompts:
            params = self.sampling(request, len(prompt["prompt_token_ids"]))
            with refusals_named(prompt_of(request)):
                self._llm.input_processor.process_inputs("check", prompt, params, self._tasks)

    def sampling(self, request: Request, prompt_tokens: int) -> SamplingParams:
        """Raises InvalidInput."""
        serving = self.chat if isinstance(request, ChatCompletionRequest) else self.completion
        with refusals_named(prompt_of(request)):
            most = get_max_tokens(
                self.max_model_len,
                request.max_tokens,
                prompt_tokens,
                serving.default_sampling_params,
                serving.override_max_tokens,
                truncate_prompt_tokens=request.truncate_prompt_tokens,
            )
            return request.to_sampling_params(most, serving.default_sampling_params)


def _is_one_of(given: Any, values: tuple[Any, ...]) -> bool:
    # In Python, 0 is False; but `logprobs: 0` asks for some.
    return any(given == value and type(given) is type(value) for value in values)


def prompt_of(request: Request) -> str:
    """The name of the input that holds its prompt."""
    return "prompt" if isinstance(request, (CompletionRequest, PromptedChatRequest)) else "messages"
