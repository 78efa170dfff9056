"""Report of the failover tests, written to reports/failover.json. `python -m benchmarks.failover` prints the report as tables."""

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
    """Measurements of one loss of a primary."""

    seconds: float
    """Longest time without an acknowledged write."""
    acknowledged: int
    """Number of acknowledged writes."""
    lost: int
    """Number of acknowledged writes that were missing afterwards."""


def report(tier: str, failure: Callable[..., Any], losses: Sequence[Loss]) -> None:
    """Write the measurements of a failure of a tier to the report.

    The report keeps only the latest measurements for each pair of tier and failure.

    Args:
        failure: function that causes the failure. The report names the failure after this function.
    """
    entries: dict[str, dict[str, Any]] = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    seconds = [round(loss.seconds, 1) for loss in losses]
    entries.setdefault(tier, {})[failure.__name__] = {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "max": max(seconds),
        "acknowledged": sum(loss.acknowledged for loss in losses),
        "lost": sum(loss.lost for loss in losses),
        "load": round(os.getloadavg()[0], 1),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
