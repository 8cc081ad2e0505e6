"""All that touches vLLM's internals. The chat model (`app.py`) speaks to this and to vLLM's public API, and to no more.

In: the token ids of a prompt, and sampling parameters. Out: new tokens, to a `Receiver`, as vLLM's engine says them.

The fast way takes tokens where vLLM makes outputs of them, with our detokenizer in the place of vLLM's: no task is
woken for a token. It rests on names inside vLLM. They are looked at once, at the start, and two tokens are generated to
see that the way is open. Where anything differs, all tokens come from `AsyncLLM.generate` and `PublicDetokenizer`
instead: the same answers, stop strings and resumes, with a task to wake for each token.
"""

import asyncio
import inspect
import logging
import operator
import secrets
import time
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import vllm
from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from everstream.detokenizer import Detokenizer, PublicDetokenizer
from everstream.errors import ModelDied

logger = logging.getLogger(__name__)

NOT_OURS = ("abort", "error")
"""Finish reasons that nobody asked for here: a stop cancels the task that would see them."""
DYING_S = 10.0
TRIAL_S = 60.0
TRIAL_TOKENS = 2


class Receiver(Protocol):
    """Who gets an answer's tokens."""

    detokenizer: Detokenizer
    """Has been given the tokens when `take` is called."""

    def take(self, tokens: list[int], finish_reason: str | None) -> None: ...


class Internals(NamedTuple):
    """The classes of vLLM's that the fast way reaches into."""

    OutputProcessor: Any
    RequestState: Any
    EngineCoreRequest: Any
    IncrementalDetokenizer: Any


# Of each method the parameters that we take or give, by name and in this order; of each class the fields that we use.
TAKEN_OVER = {
    "OutputProcessor.add_request": ("self", "request"),
    "RequestState.make_request_output": ("self", "new_token_ids", "pooling_output", "finish_reason"),
}
CALLED = {
    "IncrementalDetokenizer.from_new_request": ("tokenizer", "request"),
    "IncrementalDetokenizer.update": ("self", "new_token_ids", "stop_terminated"),
    "IncrementalDetokenizer.get_next_output_text": ("self", "finished", "delta"),
    "IncrementalDetokenizer.num_output_tokens": ("self",),
}
FIELDS = {
    "RequestState": ("detokenizer", "queue"),
    "EngineCoreRequest": ("request_id", "external_req_id", "prompt_token_ids", "prompt_embeds", "sampling_params"),
}
# Of AsyncLLM, whichever way the tokens come, and what is lost without.
ASKED = {
    "errored": "an idle engine's death shows with its next generation only",
    "get_supported_tasks": "an engine that dies at its first request may be waited for for ever",
    "model_config.get_diff_sampling_param": "the defaults in a model's generation_config.json are not used",
    "output_processor.get_num_unfinished_requests": "/readyz does not show vLLM's own count of requests",
}


def find_internals() -> Internals:
    """Raises ImportError, which names what is gone."""
    from vllm.v1.engine import EngineCoreRequest  # noqa: PLC0415
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer  # noqa: PLC0415
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState  # noqa: PLC0415

    return Internals(OutputProcessor, RequestState, EngineCoreRequest, IncrementalDetokenizer)


def differences(internals: Internals) -> list[str]:
    """What the fast way would stumble over, in words."""
    found = [
        _parameters_differ(internals, path, names, is_called=path in CALLED)
        for path, names in (TAKEN_OVER | CALLED).items()
    ]
    found += [_field_lacks(internals, owner, name) for owner, names in FIELDS.items() for name in names]
    return [each for each in found if each]


def _parameters_differ(internals: Internals, path: str, names: tuple[str, ...], *, is_called: bool) -> str:
    try:
        parameters = list(inspect.signature(operator.attrgetter(path)(internals)).parameters.values())
    except AttributeError:
        return f"{path} is gone"
    leading, rest = parameters[: len(names)], parameters[len(names) :]
    by_place_or_name = all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in leading)
    demands_more = is_called and any(each.default is each.empty for each in rest)
    if tuple(each.name for each in leading) == names and by_place_or_name and not demands_more:
        return ""
    plain = inspect.Signature([each.replace(annotation=each.empty) for each in parameters])
    return f"{path} takes {plain}, expected were ({', '.join(names)})"


def _field_lacks(internals: Internals, owner: str, name: str) -> str:
    fields = inspect.signature(getattr(internals, owner)).parameters
    return "" if name in fields else f"{owner} has no {name}"


def has(thing: Any, path: str) -> bool:
    try:
        operator.attrgetter(path)(thing)
    except AttributeError:
        return False
    return True


class Vllm:
    """One AsyncLLM, and the way that its tokens come."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._internals: Internals | None = None
        self._taps: dict[str, Tap] = {}
        self.tokenizer: Any = llm.get_tokenizer()
        self.max_model_len: int = llm.model_config.max_model_len
        self.stream_interval: int = llm.vllm_config.scheduler_config.stream_interval
        """vLLM's option: after the first token so many are sent at once."""

    async def start(self) -> None:
        """Find out which way tokens can come; once, before anything else is asked. One line says what differs."""
        lost = {path: cost for path, cost in ASKED.items() if not has(self._llm, path)}
        if "get_supported_tasks" not in lost:
            # Asked for by the first request otherwise, which would wait for ever for a process that died meanwhile.
            await self._llm.get_supported_tasks()
        costs = [f"AsyncLLM.{path} is gone: {cost}" for path, cost in lost.items()]
        if found := await self._open_fast_way():
            costs.append(
                f"{'; '.join(found)}: tokens come from AsyncLLM.generate() instead, "
                "with the same text and at more CPU for each token"
            )
        if costs:
            known = "requirements.txt has a version that is"
            logger.warning("vLLM %s is not as Everstream knows it; %s. %s", vllm.__version__, known, ". ".join(costs))

    async def _open_fast_way(self) -> list[str]:
        """Returns what is in its way; the way stays closed then."""
        try:
            internals = find_internals()
        except ImportError as error:
            return [str(error)]
        if found := differences(internals):
            return found
        if not has(self._llm, "output_processor.request_states"):
            return ["AsyncLLM.output_processor.request_states is gone"]
        self._internals = internals
        self._llm.output_processor.add_request = self._add_request  # type: ignore[method-assign]
        try:
            await self._try_out()
        except ModelDied:
            raise
        except Exception as error:
            self._internals = None
            del self._llm.output_processor.add_request
            return [f"a trial of {TRIAL_TOKENS} tokens failed with {error!r}"]
        return []

    async def _try_out(self) -> None:
        """Signatures may stay while what is done with them changes."""
        trial = Trial(self.detokenizer([0], ["\n"]))
        params = SamplingParams(
            max_tokens=TRIAL_TOKENS,
            ignore_eos=True,
            temperature=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        async with asyncio.timeout(TRIAL_S):
            await self.generate([0], params, trial)
        trial.check()

    @property
    def suggested_sampling(self) -> dict[str, Any]:
        """What the model's generation_config.json says."""
        config = self._llm.model_config
        return config.get_diff_sampling_param() if hasattr(config, "get_diff_sampling_param") else {}

    @property
    def has_died(self) -> bool:
        return bool(getattr(self._llm, "errored", False))

    @property
    def running_requests(self) -> int | None:
        """vLLM's own count of what it has not finished; None if it can't be asked."""
        path = "output_processor.get_num_unfinished_requests"
        return int(operator.attrgetter(path)(self._llm)()) if has(self._llm, path) else None

    def shutdown(self) -> None:
        self._llm.shutdown()

    def detokenizer(self, prompt: list[int], stop: list[str] | None) -> Detokenizer:
        """For the tokens of one answer. Its state follows from the prompt and the tokens so far."""
        if self._internals is None:
            return PublicDetokenizer(self.tokenizer, prompt, stop)
        # What vLLM's reads of an EngineCoreRequest.
        request = SimpleNamespace(
            request_id="", prompt_token_ids=prompt, prompt_embeds=None, sampling_params=SamplingParams(stop=stop)
        )
        made: Detokenizer = self._internals.IncrementalDetokenizer.from_new_request(self.tokenizer, request)
        return made

    async def generate(self, prompt: list[int], params: SamplingParams, receiver: Receiver) -> None:
        """Give the receiver all tokens up to the last one, which comes with a finish reason.

        Raises ModelDied, EngineGenerateError, what vLLM raises for a request that it refuses, and what the receiver
        raised.
        """
        request_id, tap = secrets.token_hex(16), Tap(receiver)
        try:
            await self._generate(request_id, prompt, params, tap)
        except EngineDeadError as error:
            raise ModelDied(str(error)) from error
        except BaseException as error:
            # vLLM does not where it is cancelled while it adds the request.
            await self._llm.abort(request_id)
            if not isinstance(error, EngineGenerateError):
                raise
            if tap.refusal is not None:
                raise tap.refusal from None
            await self._raise_if_dying(error)
            raise EngineGenerateError(str(error) or repr(error.__cause__)) from error

    async def _generate(self, request_id: str, prompt: list[int], params: SamplingParams, tap: "Tap") -> None:
        if self._internals is not None:
            self._taps[request_id] = tap
        try:
            async with aclosing(self._llm.generate(tokens_input(prompt), params, request_id)) as outputs:
                async for output in outputs:
                    completion = output.outputs[0]
                    if completion.finish_reason in NOT_OURS:
                        raise EngineGenerateError(f"vLLM ended the request: {completion.finish_reason}")
                    # On the fast way all that comes here is the last output.
                    if self._internals is None and tap.pass_on(list(completion.token_ids), completion.finish_reason):
                        return
        finally:
            self._taps.pop(request_id, None)

    def _add_request(self, request: Any, *more: Any, **others: Any) -> None:
        """In place of vLLM's own: called for each new request, before vLLM's engine hears of it."""
        assert self._internals is not None
        processor = self._llm.output_processor
        self._internals.OutputProcessor.add_request(processor, request, *more, **others)
        self._taps.pop(request.external_req_id).attach(processor.request_states[request.request_id])

    async def _raise_if_dying(self, error: EngineGenerateError) -> None:
        """A request may fail because one of vLLM's processes is gone, which vLLM notices a little later."""
        deadline = time.monotonic() + DYING_S
        while time.monotonic() < deadline:
            if self.has_died:
                raise ModelDied(f"{error!r}, caused by {error.__cause__!r}") from error
            await asyncio.sleep(0.1)


class Tap:
    """Where the tokens of one request come out of vLLM."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.refusal: Exception | None = None
        """Why the receiver took no more."""

    def attach(self, state: Any) -> None:
        """Stand where vLLM makes an output of tokens; only the last one is made, for who waits for the end.

        vLLM gives the detokenizer each token first, and ends the request where that finds a stop string.
        """
        state.detokenizer = self._receiver.detokenizer
        make_output, give = state.make_request_output, self._receiver.take

        def take(new_token_ids: list[int], pooling_output: None, finish_reason: Any, *more: Any, **others: Any) -> Any:
            reason = None if finish_reason is None else str(finish_reason)
            if reason not in NOT_OURS and self.refusal is None:
                try:
                    give(new_token_ids, reason)
                except Exception as error:
                    # One answer's trouble; raised here it would be everyone's.
                    self.refusal = error
                    state.queue.put(error)
            if reason is None:
                return None
            return make_output(new_token_ids, pooling_output, finish_reason, *more, **others)

        state.make_request_output = take

    def pass_on(self, tokens: list[int], finish_reason: str | None) -> bool:
        """The same for tokens of an output of vLLM's. True: that was the end, of vLLM's making or by a stop string."""
        if self._receiver.detokenizer.update(tokens, finish_reason == "stop"):
            finish_reason = "stop"
        self._receiver.take(tokens, finish_reason)
        return finish_reason is not None


class Trial:
    """The receiver of tokens that nobody reads."""

    def __init__(self, detokenizer: Detokenizer) -> None:
        self.detokenizer = detokenizer
        self._tokens = 0
        self._ended: str | None = None

    def take(self, tokens: list[int], finish_reason: str | None) -> None:
        self._tokens += len(tokens)
        self._ended = finish_reason
        self.detokenizer.get_next_output_text(finish_reason is not None, True)

    def check(self) -> None:
        seen = self._tokens, self.detokenizer.num_output_tokens(), self._ended
        if seen != (TRIAL_TOKENS, TRIAL_TOKENS, "length"):
            raise RuntimeError(f"tokens taken, tokens detokenized and finish reason were {seen}")
