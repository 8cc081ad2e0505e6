"""Percentiles of a histogram. Pure. Called by `history`."""

from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct


class Percentiles(Struct, frozen=True):
    """In seconds, as exact as the histogram's buckets allow."""

    p50: float
    p90: float
    p99: float


def percentiles(bounds: Sequence[float], counts: Sequence[int]) -> Percentiles | None:
    """`counts` has one more than `bounds`: what is above all of them. None if nothing was counted."""
    if not sum(counts):
        return None
    return Percentiles(*(quantile(share, bounds, counts) for share in (0.5, 0.9, 0.99)))


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float:
    """As Prometheus's `histogram_quantile` estimates it: values lie evenly in their bucket, and those above all bounds
    count as the highest."""
    rank = share * sum(counts)
    at, below = next((at, below) for at, below in enumerate(accumulate(counts)) if below >= rank)
    if at == len(bounds):
        return float(bounds[-1])
    lower = bounds[at - 1] if at else 0.0
    return lower + (bounds[at] - lower) * (rank - (below - counts[at])) / counts[at]
