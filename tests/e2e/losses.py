"""What was measured of each way to lose a primary, left in reports/failover.json for `python -m benchmarks.failover`."""

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
    """One that was lost: the longest time, in seconds, without a write that was acknowledged, how many were, and what of them is gone."""

    seconds: float
    acknowledged: int
    lost: int


def report(tier: str, way: Callable[..., Any], seen: Sequence[Loss]) -> None:
    """Leave it with all single values, in place of what was there of the same way."""
    known: dict[str, dict[str, Any]] = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    seconds = [round(each.seconds, 1) for each in seen]
    known.setdefault(tier, {})[way.__name__] = {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "max": max(seconds),
        "acknowledged": sum(each.acknowledged for each in seen),
        "lost": sum(each.lost for each in seen),
        "load": round(os.getloadavg()[0], 1),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
