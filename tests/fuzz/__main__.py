"""Tries generated configurations for some minutes: `make fuzz FOR=10`.

Prints the number of configurations, the number rendered, and each kind of failure once. The first failure of a kind is written as a case.
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
    """Try configurations for some minutes, and return the number of kinds of failures."""
    logging.disable(logging.INFO)
    end, counts, kinds = time.monotonic() + 60 * minutes, Counter[str](), Counter[str]()
    begin = random.randrange(10**6)
    while time.monotonic() < end:
        _batch(begin + counts["batches"], counts, kinds, end)
        counts["batches"] += 1
    print(f"{counts['all']} configurations, {counts['rendered']} of them rendered; first seed {begin}")
    for kind, count in kinds.most_common():
        print(f"  {count:5}  {kind}")
    return len(kinds)


def _batch(number: int, counts: Counter[str], kinds: Counter[str], end: float) -> None:
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
        counts["rendered"] += _accepted(configuration)
        lines = problems(configuration)
        for kind in {_kind(line) for line in lines}:
            kinds[kind] += 1
            if kinds[kind] == 1:
                write_case(configuration, REPORTS / f"{len(kinds):03}", lines)

    attempt()


def _accepted(configuration: Configuration) -> bool:
    try:
        load_environment(configuration.environment, load_app(configuration.app))
    except ConfigError:
        return False
    except Exception:
        return False  # `problems` reports it.
    return True


def _kind(line: str) -> str:
    return line[:100]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    given_minutes = os.environ.get("TIERS_ARG_FOR") or "1"
    if not re.fullmatch(r"\d{1,4}(\.\d)?", given_minutes):
        sys.exit(f"make: FOR: {given_minutes!r:.60} is no number of minutes; write one as FOR=10")
    sys.exit(1 if main(float(given_minutes)) else 0)
