"""Asks an engine whether a prompt fits, where a web process can't tell. Called by `starting`.

A prompt costs an engine up to a third of a second of tokenizing, so questions are bounded: those that wait, in the log
for all web processes; those under way here, in all, as each holds a connection to Valkey, and for each client. Raises
InvalidInput, TryLater.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from everstream import log
from everstream.errors import ChecksBusy, InvalidInput, ModelError, TooManyChecks
from everstream.web_log import WebLog

MAX_UNDER_WAY = 32
"""Half of the connections to Valkey that a web process has."""
MAX_OF_A_CLIENT = 16
MAX_LONG_OF_A_CLIENT = 4


class Asking:
    """One per web process."""

    def __init__(self, web_log: WebLog) -> None:
        self._log = web_log
        self._under_way: Counter[tuple[str, bool]] = Counter()

    def check(self, given: dict[str, Any], text_bytes: int, client: str) -> None:
        """Have an engine look at the inputs."""
        is_long = text_bytes > log.LONG_TEXT_BYTES
        with self._place(client, is_long=is_long):
            answer = self._log.ask(given, is_long=is_long)
        if answer.is_bug:
            raise ModelError(answer.message)
        if answer.message:
            raise InvalidInput(answer.message, param=answer.param, code=answer.code)

    @contextmanager
    def _place(self, client: str, *, is_long: bool) -> Iterator[None]:
        place, most = (client, is_long), MAX_LONG_OF_A_CLIENT if is_long else MAX_OF_A_CLIENT
        if self._under_way[place] >= most:
            raise TooManyChecks(f"{most} prompts from your address are being checked already; try again later")
        if self._under_way.total() >= MAX_UNDER_WAY:
            raise ChecksBusy(f"{MAX_UNDER_WAY} prompts are being checked already; try again later")
        self._under_way[place] += 1
        try:
            yield
        finally:
            self._under_way[place] -= 1
            if not self._under_way[place]:
                del self._under_way[place]


def refuse_what_cant_fit(given: dict[str, Any], engines: list[log.EngineStatus]) -> None:
    """Refuse text that is too long for each of these engines, whatever it says."""
    for name, text in given.items():
        if isinstance(text, str) and engines and all(_cant_fit(name, text, engine.fit) for engine in engines):
            longest = max(engine.fit.max_bytes for engine in engines if engine.fit)
            raise InvalidInput(
                f"{name} has {len(text.encode())} bytes; what fits into the model's context has at most {longest}",
                param=name,
                code="context_length_exceeded",
            )


def _cant_fit(name: str, text: str, fit: log.Fit | None) -> bool:
    return fit is not None and name in fit.inputs and fit.exceeded_by(text)
