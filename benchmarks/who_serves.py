"""Measurement of a release under load by k6: time until only the new release answers, and number of lost requests."""

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
"""Seconds that old releases must be silent to count as stopped. The pods of a release stop in less time."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """Response to a request. `at` is the time of its arrival in Unix seconds. `status` is 0 if no response came."""

    at: float
    status: int
    release: str
    error: str

    def is_from(self, version: str) -> bool:
        return self.status == 200 and self.release.partition("-")[0] == version


@dataclass(frozen=True, kw_only=True)
class Run:
    """Measured result of a release under load."""

    seconds: float
    """Seconds from the start of the release until the new release had all traffic."""
    command: float
    """Seconds that the release command took."""
    requests: int
    lost: tuple[str, ...]
    """Time and reason of each lost request."""


def measure_release(url: str, host: str, version: str, release: Callable[[], object]) -> Run:
    """Call `release` under load, and wait until only the release `version` answers.

    `Run.seconds` ends with the first response of `version` after the last response of another version. If no other
    version answers, `Run.seconds` is the duration of the call.
    """
    with _requests(url, host) as answers:
        started = time.time()
        release()
        command = time.time() - started
        eventually(lambda: _serves_only(version, answers, time.time() - QUIET), 40)
        # Leave out the last second, because k6 ends open requests when it stops.
        end = time.time() - 1
    responses = [answer for answer in answers if started <= answer.at <= end]
    other = max(
        (answer.at for answer in responses if answer.status == 200 and not answer.is_from(version)), default=None
    )
    arrived = min(answer.at for answer in responses if answer.is_from(version) and answer.at >= (other or 0))
    return Run(
        seconds=arrived - started if other else command,
        command=command,
        requests=len(responses),
        lost=tuple(
            f"{answer.at - started:.3f} s: {answer.error or answer.status}"
            for answer in responses
            if answer.status != 200
        ),
    )


def _serves_only(version: str, answers: list[Response], since: float) -> bool:
    late = [answer for answer in answers[-4000:] if answer.at > since and answer.status == 200]
    return bool(late) and all(answer.is_from(version) for answer in late)


@contextmanager
def _requests(url: str, host: str) -> Generator[list[Response]]:
    """Send requests with k6 while the `with` block runs, for at most a minute. Yield the list that receives the responses."""
    if not shutil.which("k6"):
        sys.exit("bench: k6 is not installed; run `python3 -m lab up peers`")
    command = ["k6", "run", "--quiet", "--no-usage-report", "--summary-mode=disabled", "--log-format=raw"]
    command += ["--log-output=stdout", f"--env=URL={url}", f"--env=HOST={host}", str(SCRIPT)]
    answers: list[Response] = []
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


def _read(lines: Iterable[str], answers: list[Response]) -> None:
    for line in lines:
        # Other lines are k6's own messages about failed requests.
        if line.startswith("{"):
            record = json.loads(line)
            record["at"] /= 1000
            answers.append(Response(**record))
