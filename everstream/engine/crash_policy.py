"""Decides when a generation counts as the cause of engine deaths. Pure: the log's history in, a verdict out.

Each takeover leaves a fence in the log, so the next engine to take over the generation can count the deaths.
"""

import itertools
from collections.abc import Sequence

import msgspec

from everstream.log.entries import TOKEN, Entry

MAX_DEATHS_IN_A_ROW = 3
MAX_DEATHS_ON_TRIAL = 2
"""A generation that was running at this many engine deaths with no output between them, this many of them alone on
trial, counts as their cause."""
MAX_DEATHS = 10
"""The same, outputs or not: a generation that kills after every few tokens must not cause a long outage either."""


class Fence(msgspec.Struct, frozen=True):
    """The `resume` of an engine's own entry. `engine` tells two engines' entries apart."""

    engine: str
    on_trial: bool = False


class Deaths(msgspec.Struct, frozen=True):
    """Engine deaths while this generation was running: in all, since its last output, and on trial since then."""

    in_all: int
    in_a_row: int
    on_trial: int

    @property
    def are_too_many(self) -> bool:
        in_a_row = self.in_a_row >= MAX_DEATHS_IN_A_ROW and self.on_trial >= MAX_DEATHS_ON_TRIAL
        return in_a_row or self.in_all >= MAX_DEATHS

    @property
    def are_suspicious(self) -> bool:
        """Whether it may be killing engines, although it may only have run beside the cause."""
        return self.in_a_row > 1


def count_deaths(history: Sequence[Entry]) -> Deaths:
    """Each earlier takeover followed a death, and so does the current one."""
    since_output = list(itertools.takewhile(lambda entry: entry.event != TOKEN, reversed(history)))
    fences = [msgspec.json.decode(entry.resume, type=Fence) for entry in since_output if entry.event == "resumed"]
    return Deaths(
        in_all=sum(entry.event == "resumed" for entry in history) + 1,
        in_a_row=len(fences) + 1,
        on_trial=sum(fence.on_trial for fence in fences),
    )
