"""Command that runs the program on generated configurations: `make fuzz FOR=10` runs for 10 minutes.

The command prints the number of generated configurations, the number of accepted configurations, and each kind of
failure with its count. For each kind of failure, the command writes one configuration to reports/fuzz.
"""

import logging
import os
import random
import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from components.config import ConfigError, load_app, load_environment

from .generator import Configuration, bounded, correct, mutated
from .run import problems, write_case

REPORTS = Path("reports/fuzz")
BATCH = 50


def main(minutes: float) -> int:
    """Run the program on generated configurations for `minutes` minutes, and return the number of kinds of failures."""
    logging.disable(logging.INFO)
    end, counts, kinds = time.monotonic() + 60 * minutes, Counter[str](), Counter[str]()
    begin = random.randrange(10**6)
    while time.monotonic() < end:
        _run_batch(begin + counts["batches"], counts, kinds, end)
        counts["batches"] += 1
    print(f"{counts['all']} configurations, {counts['rendered']} of them rendered; first seed {begin}")
    for kind, count in kinds.most_common():
        print(f"  {count:5}  {kind}")
    return len(kinds)


def _run_batch(number: int, counts: Counter[str], kinds: Counter[str], end: float) -> None:
    @seed(number)
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(st.one_of(correct(), mutated(), bounded()))
    def attempt(configuration: Configuration) -> None:
        if time.monotonic() > end:
            return
        counts["all"] += 1
        counts["rendered"] += _is_accepted(configuration)
        lines = problems(configuration)
        for kind in {_kind(line) for line in lines}:
            kinds[kind] += 1
            if kinds[kind] == 1:
                write_case(configuration, REPORTS / f"{len(kinds):03}", lines)

    attempt()


def _is_accepted(configuration: Configuration) -> bool:
    try:
        load_environment(configuration.environment, load_app(configuration.app))
    except ConfigError:
        return False
    except Exception:
        return False  # The function `problems` reports the unexpected exception.
    return True


def _kind(line: str) -> str:
    return line[:100]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    minutes_text = os.environ.get("TIERS_ARG_FOR") or "1"
    if not re.fullmatch(r"\d{1,4}(\.\d)?", minutes_text):
        sys.exit(f"make: FOR: {minutes_text!r:.60} is not a number of minutes; write it as FOR=10")
    sys.exit(1 if main(float(minutes_text)) else 0)
