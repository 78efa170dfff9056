"""A change under load: when all answers came from the new release, and how many never came. The load is k6's."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.stack import eventually

SCRIPT = Path(__file__).parent / "peers" / "who_serves.js"
QUIET = 8
"""Seconds without an answer of another release until it counts as gone: longer than its pods take to leave."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request came back with, and when; status 0 if it didn't."""

    at: float
    status: int
    release: str
    error: str

    def of(self, version: str) -> bool:
        return self.status == 200 and self.release.partition("-")[0] == version


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one change did: seconds from asking for it, until all traffic was on it and until the command was done."""

    seconds: float
    command: float
    requests: int
    lost: tuple[str, ...]
    """When each of those was lost, and why."""


def change(url: str, host: str, version: str, ask: Callable[[], object]) -> Run:
    """Ask for `version` while requests flow, and watch until no other release answers any more.

    Where `version` is live already nothing is to change: then it takes as long as the command.
    """
    with _requests(url, host) as answers:
        started = time.time()
        ask()
        command = time.time() - started
        eventually(lambda: _only(version, answers, time.time() - QUIET), 40)
        # What is under way when k6 is told to end is not counted.
        ended = time.time() - 1
    seen = [answer for answer in answers if started <= answer.at <= ended]
    other = max((answer.at for answer in seen if answer.status == 200 and not answer.of(version)), default=None)
    arrived = min(answer.at for answer in seen if answer.of(version) and answer.at >= (other or 0))
    return Run(
        seconds=arrived - started if other else command,
        command=command,
        requests=len(seen),
        lost=tuple(
            f"{answer.at - started:.3f} s: {answer.error or answer.status}" for answer in seen if answer.status != 200
        ),
    )


def _only(version: str, answers: list[Answer], since: float) -> bool:
    late = [answer for answer in answers[-4000:] if answer.at > since and answer.status == 200]
    return bool(late) and all(answer.of(version) for answer in late)


@contextmanager
def _requests(url: str, host: str) -> Generator[list[Answer]]:
    """Requests by k6 for as long as the block runs, a minute at most."""
    if not shutil.which("k6"):
        sys.exit("bench: k6 is not here; `python3 -m lab up peers` builds it")
    command = ["k6", "run", "--quiet", "--no-usage-report", "--summary-mode=disabled", "--log-format=raw"]
    command += ["--log-output=stdout", f"--env=URL={url}", f"--env=HOST={host}", str(SCRIPT)]
    answers: list[Answer] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as k6:
        assert k6.stdout
        reader = threading.Thread(target=_read, args=(k6.stdout, answers))
        reader.start()
        try:
            eventually(lambda: len(answers) > 200)
            yield answers
        finally:
            k6.send_signal(signal.SIGINT)
            reader.join()


def _read(lines: Iterable[str], answers: list[Answer]) -> None:
    for line in lines:
        # Between them k6 says why requests failed.
        if line.startswith("{"):
            told = json.loads(line)
            told["at"] /= 1000
            answers.append(Answer(**told))
