"""The seam to vLLM's internals. The chat model uses only this and vLLM's public API.

In: a prompt's token ids, and sampling parameters. Out: new tokens, to a `Receiver`, as vLLM's engine produces them.

The fast path takes tokens where vLLM makes outputs from them (`vllm_taps`), with our detokenizer in place of vLLM's, so
that no task is woken per token. It relies on names inside vLLM (`vllm_internals`). They are checked once at startup,
and a few tokens are generated to verify that the path works. If anything differs, all tokens come from
`AsyncLLM.generate` and `PublicDetokenizer` instead: the same answers, stop strings and resumes, with one task wakeup
per token.
"""

import asyncio
import logging
import operator
import secrets
import time
from collections.abc import Awaitable
from contextlib import aclosing, nullcontext
from types import SimpleNamespace
from typing import Any

import vllm
from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from everstream.errors import ModelDied, ModelError
from everstream.llm.detokenizer import Detokenizer, PublicDetokenizer
from everstream.llm.vllm_internals import ASYNC_LLM_API, Internals, differences, find_internals, has
from everstream.llm.vllm_taps import ABNORMAL_FINISHES, Receiver, Tap, Taps
from everstream.processes import how_it_ended

logger = logging.getLogger(__name__)

DEATH_NOTICE_S = 10.0
TRIAL_S = 60.0
TRIAL_TOKENS = 4
"""The taps treat a first, a middle and a last token differently."""


class Vllm:
    """One AsyncLLM, and the path that its tokens take."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._internals: Internals | None = None
        self._taps: Taps | None = None
        self.tokenizer: Any = llm.get_tokenizer()
        self.max_model_len: int = llm.model_config.max_model_len
        self.stream_interval: int = llm.vllm_config.scheduler_config.stream_interval
        """vLLM's option: how many tokens are sent at once, after the first one."""

    async def start(self) -> None:
        """Choose the path for tokens. Call once, before anything else. Logs one line about what differs."""
        lost = {path: cost for path, cost in ASYNC_LLM_API.items() if not has(self._llm, path)}
        if "get_supported_tasks" not in lost:
            # Otherwise the first request asks for it, and would wait forever for a process that died meanwhile.
            await self._llm.get_supported_tasks()
        costs = [f"AsyncLLM.{path} is gone: {cost}" for path, cost in lost.items()]
        if found := await self._open_fast_path():
            costs.append(
                f"{'; '.join(found)}: tokens come from AsyncLLM.generate() instead, "
                "with the same text but more CPU per token"
            )
        if costs:
            known = "requirements.txt pins the right one"
            message = "vLLM %s is not the version that Everstream expects; %s. %s"
            logger.warning(message, vllm.__version__, known, ". ".join(costs))

    async def _open_fast_path(self) -> list[str]:
        """Returns what prevents it; the path then stays closed."""
        try:
            internals = find_internals()
        except ImportError as error:
            return [str(error)]
        if found := differences(internals):
            return found
        if not has(self._llm, "output_processor.request_states"):
            return ["AsyncLLM.output_processor.request_states is gone"]
        self._internals, self._taps = internals, Taps(internals, self._llm.output_processor)
        self._taps.open()
        try:
            await self._try_out()
        except ModelDied:
            raise
        except Exception as error:
            self._taps.close()
            self._internals = self._taps = None
            return [f"a trial of {TRIAL_TOKENS} tokens failed with {error!r}"]
        return []

    async def _try_out(self) -> None:
        """Generate a few tokens: behaviour may change while signatures stay the same."""
        trial = Trial(self.detokenizer([0], SamplingParams()))
        params = SamplingParams(
            max_tokens=TRIAL_TOKENS,
            ignore_eos=True,
            temperature=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        async with asyncio.timeout(TRIAL_S):
            await self.generate(tokens_input([0]), params, trial)
        trial.check()

    @property
    def has_died(self) -> bool:
        return bool(getattr(self._llm, "errored", False))

    @property
    def death(self) -> str:
        """How vLLM's processes ended, in words. Empty while they run."""
        path = "engine_core.resources.engine_manager.finished_procs"
        finished = operator.attrgetter(path)(self._llm)() if has(self._llm, path) else {}
        return "; ".join(f"vLLM's process {name} {how_it_ended(status)}" for name, status in finished.items())

    @property
    def running_requests(self) -> int | None:
        """vLLM's own count of unfinished requests; None if it can't be queried."""
        path = "output_processor.get_num_unfinished_requests"
        return int(operator.attrgetter(path)(self._llm)()) if has(self._llm, path) else None

    def shutdown(self) -> None:
        self._llm.shutdown()

    def detokenizer(self, prompt: list[int], params: SamplingParams) -> Detokenizer:
        """For one answer. Its state follows from the prompt and the tokens so far."""
        if self._internals is None:
            return PublicDetokenizer(self.tokenizer, prompt, params.stop)
        # The fields of an EngineCoreRequest that vLLM's detokenizer reads.
        request = SimpleNamespace(request_id="", prompt_token_ids=prompt, prompt_embeds=None, sampling_params=params)
        made: Detokenizer = self._internals.IncrementalDetokenizer.from_new_request(self.tokenizer, request)
        return made

    def can_detokenize(self, request: Any) -> bool:
        """Whether `detokenizer` knows the options of this request of vLLM's front end."""
        has_options = request.include_stop_str_in_output or request.min_tokens or not request.skip_special_tokens
        return self._internals is not None or not has_options

    async def generate(self, prompt: Any, params: SamplingParams, receiver: Receiver, priority: int = 0) -> None:
        """Give the receiver all tokens up to the last one, which comes with a finish reason. `prompt` is in vLLM's own
        format, with `prompt_token_ids`.

        Raises ModelDied, EngineGenerateError, whatever vLLM raises to refuse a request, and whatever the receiver
        raised.
        """
        request_id, tap = secrets.token_hex(16), Tap(receiver)
        try:
            await self._generate(request_id, prompt, params, tap, priority)
        except EngineDeadError as error:
            raise ModelDied(str(error)) from error
        except BaseException as error:
            # vLLM does not abort the request if it is cancelled while adding it.
            await self._llm.abort(request_id)
            if not isinstance(error, EngineGenerateError):
                raise
            if tap.refusal is not None:
                raise tap.refusal from None
            await self._raise_if_dying(error)
            raise EngineGenerateError(str(error) or repr(error.__cause__)) from error

    async def guarded(self, work: Awaitable[None]) -> None:
        """Await work of vLLM's front end. Raises ModelDied if it failed because vLLM did, or what it raised."""
        try:
            await work
        except EngineDeadError as error:
            raise ModelDied(str(error)) from error
        except (EngineGenerateError, ModelError) as error:
            await self._raise_if_dying(error)
            raise

    async def _generate(self, request_id: str, prompt: Any, params: SamplingParams, tap: "Tap", priority: int) -> None:
        attached = self._taps.attached(request_id, tap) if self._taps else nullcontext()
        generated = self._llm.generate(prompt, params, request_id, priority=priority)
        with attached:
            async with aclosing(generated) as outputs:
                async for output in outputs:
                    completion = output.outputs[0]
                    if completion.finish_reason in ABNORMAL_FINISHES:
                        raise EngineGenerateError(f"vLLM ended the request: {completion.finish_reason}")
                    # On the fast path, only the last output comes here.
                    if self._taps is None and tap.pass_on(completion):
                        return

    async def _raise_if_dying(self, error: Exception) -> None:
        """A request may fail because one of vLLM's processes is gone, which vLLM notices a little later."""
        deadline = time.monotonic() + DEATH_NOTICE_S
        while time.monotonic() < deadline:
            if self.has_died:
                raise ModelDied(f"{error!r}, caused by {error.__cause__!r}") from error
            await asyncio.sleep(0.1)


class Trial:
    """Receives and checks the tokens of the trial."""

    has_stop_strings = False

    def __init__(self, detokenizer: Detokenizer) -> None:
        self.detokenizer = detokenizer
        self._tokens = 0
        self._ended: str | None = None

    def take(self, tokens: list[int], finish_reason: str | None, stop_reason: int | str | None) -> None:  # noqa: ARG002
        self._tokens += len(tokens)
        self._ended = finish_reason
        self.detokenizer.get_next_output_text(finish_reason is not None, True)

    def check(self) -> None:
        seen = self._tokens, self.detokenizer.num_output_tokens(), self._ended
        if seen != (TRIAL_TOKENS, TRIAL_TOKENS, "length"):
            raise RuntimeError(f"tokens taken, tokens detokenized and finish reason were {seen}")
