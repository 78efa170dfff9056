"""Comparison of two commands: run them in turn on this machine (A B A B …), and compute the ratio of each pair of runs."""

import statistics
import sys
import time
from collections.abc import Callable

PAIRS = 5
Run = Callable[[], object]


def pair(name: str, target: float | None, ours: Run, theirs: Run, clear: Run = lambda: None, pairs: int = PAIRS) -> str:
    """Measure two commands in pairs of runs, and return a Markdown table row.

    The row has the median seconds of each command, and the median, lowest and highest ratio of the pairs. `clear` removes
    the result of each run. The time of `clear` does not count.
    """
    times: list[tuple[float, float]] = []
    clear()
    for _ in range(pairs):
        times.append((_timed(ours, clear), _timed(theirs, clear)))
        print(f"  {name}: {times[-1][0]:.1f} s against {times[-1][1]:.1f} s", file=sys.stderr)
    ratios = [our_seconds / their_seconds for our_seconds, their_seconds in times]
    our_median, their_median = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {our_median:.1f} s | {their_median:.1f} s | {spread} | {target or ''} |"


def _timed(run: Run, clear: Run) -> float:
    started = time.monotonic()
    run()
    took = time.monotonic() - started
    clear()
    return took
