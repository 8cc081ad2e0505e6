"""Asks an engine whether a prompt fits, if a web process can't tell, or for its tokens. Called by `submission`, and by
the routes of APIs that count tokens.

Tokenizing a prompt takes an engine up to a third of a second, so the number of requests is bounded. The log bounds the
waiting ones across all web processes. This module bounds those in flight from this process, because each holds a
connection to Valkey: each model has an equal share, so that one whose engine is slow leaves the others theirs. It also
bounds those of a client. Raises InvalidInput, TryLater, ModelError.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from everstream.contract.inputs import text_bytes
from everstream.contract.prompt_bound import LONG_TEXT_BYTES, PromptBound
from everstream.errors import ChecksBusy, InvalidInput, ModelError, NotSupported, TooManyChecks
from everstream.log.records import EngineStatus
from everstream.log.web_log import WebLog

MAX_CONCURRENT = 32
"""For all models. Half of a web process's connections to Valkey."""
MAX_OF_A_CLIENT = 16
MAX_LONG_OF_A_CLIENT = 4


class PromptValidator:
    """One per web process."""

    def __init__(self, web_log: WebLog, models: int) -> None:
        self._log = web_log
        self._most = max(1, MAX_CONCURRENT // models)
        self._in_flight: defaultdict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)

    def validate(self, given: dict[str, Any], client: str, queue: str) -> None:
        """Have an engine of this queue validate the inputs."""
        self.ask("check", given, client, queue)

    def ask(self, method: str, given: dict[str, Any], client: str, queue: str) -> Any:
        """What a method of the model says of these inputs."""
        is_long = text_bytes(given) > LONG_TEXT_BYTES
        with self._slot(client, queue, is_long=is_long):
            reply = self._log.validate(given, queue, method, is_long=is_long)
        if reply.is_bug:
            raise ModelError(reply.message)
        if reply.message:
            kind = NotSupported if reply.code == NotSupported.code else InvalidInput
            raise kind(reply.message, param=reply.param, code=reply.code)
        return reply.result

    @contextmanager
    def _slot(self, client: str, queue: str, *, is_long: bool) -> Iterator[None]:
        in_flight = self._in_flight[queue]
        key, limit = (client, is_long), MAX_LONG_OF_A_CLIENT if is_long else MAX_OF_A_CLIENT
        if in_flight[key] >= limit:
            raise TooManyChecks(f"{limit} prompts from your address are being checked already; try again later")
        if in_flight.total() >= self._most:
            raise ChecksBusy(f"{self._most} prompts are being checked already; try again later")
        in_flight[key] += 1
        try:
            yield
        finally:
            in_flight[key] -= 1
            if not in_flight[key]:
                del in_flight[key]


def refuse_what_cant_fit(given: dict[str, Any], engines: list[EngineStatus]) -> None:
    """Refuse text whose length alone shows that it fits none of these engines."""
    bounds = [engine.prompt_bound for engine in engines]
    for name, text in given.items():
        if isinstance(text, str) and bounds and all(_is_exceeded(bound, name, text) for bound in bounds):
            longest = max(bound.max_bytes for bound in bounds if bound)
            raise InvalidInput(
                f"{name} has {len(text.encode())} bytes; at most {longest} can fit into the model's context",
                param=name,
                code="context_length_exceeded",
            )


def _is_exceeded(bound: PromptBound | None, name: str, text: str) -> bool:
    return bound is not None and name in bound.inputs and bound.exceeded_by(text)
