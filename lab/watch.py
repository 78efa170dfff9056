"""What reads metrics and rules: Prometheus' own tools."""

from .services import packages
from .steps import Step

PACKAGES = {"promtool": "prometheus"}
ELSE = "the lab can install promtool only as root on Debian (this is {system}); install Prometheus (prometheus.io/download)"


def tools() -> Step:
    """`promtool`, which tests rules. The server that Debian's package brings along is not started."""
    return packages("promtool", PACKAGES, ELSE)
