"""Measurements of lost primaries, written to reports/failover.json for `python -m benchmarks.failover`."""

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .stack import ROOT

REPORT = ROOT / "reports" / "failover.json"


@dataclass(frozen=True)
class Loss:
    """Result of one loss: the longest time without an acknowledged write in seconds, the acknowledged writes, and the lost ones among them."""

    seconds: float
    acknowledged: int
    lost: int


def report(tier: str, way: Callable[..., Any], seen: Sequence[Loss]) -> None:
    """Replace the measurements of a tier and a way to lose its primary in the report."""
    entries: dict[str, dict[str, Any]] = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    seconds = [round(loss.seconds, 1) for loss in seen]
    entries.setdefault(tier, {})[way.__name__] = {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "max": max(seconds),
        "acknowledged": sum(loss.acknowledged for loss in seen),
        "lost": sum(loss.lost for loss in seen),
        "load": round(os.getloadavg()[0], 1),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
