"""Measurement of two commands in turn on the same machine, A B A B …, with the ratio of each pair."""

import statistics
import sys
import time
from collections.abc import Callable

PAIRS = 5
Run = Callable[[], object]


def pair(name: str, target: float | None, ours: Run, theirs: Run, clear: Run = lambda: None, pairs: int = PAIRS) -> str:
    """Return a row of the table: median seconds of both commands, and the median, lowest and highest ratio.

    `clear` removes the result of each run, untimed.
    """
    times: list[tuple[float, float]] = []
    clear()
    for _ in range(pairs):
        times.append((_timed(ours, clear), _timed(theirs, clear)))
        print(f"  {name}: {times[-1][0]:.1f} s against {times[-1][1]:.1f} s", file=sys.stderr)
    ratios = [one / other for one, other in times]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {mine:.1f} s | {other:.1f} s | {spread} | {target or ''} |"


def _timed(run: Run, clear: Run) -> float:
    started = time.monotonic()
    run()
    took = time.monotonic() - started
    clear()
    return took
