"""Load on a stack while a test changes the stack.

`load` uses k6 to run load.js, which sends requests to the board at a steady rate. `stream` reads the board's feed over one open
connection. `user_journeys` uses k6 to run an application's journey.js, which acts as a user.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import requests

from .stack import Stack, eventually, free_port

SCRIPT = Path(__file__).with_name("load.js")
STOPPED_BY_SCRIPT = 108
"""Exit code of k6 if the script ends the run. In load.js, the scenario `stop` ends the run."""
INTERRUPTED = 105
"""Exit code of k6 after a signal. k6 does not count the requests that are pending at the signal."""


@dataclass(frozen=True, repr=False)
class Load:
    """Counts of the requests that `load` has sent. Read the counts only after the end of the `with load(…)` block."""

    folder: Path

    def __repr__(self) -> str:
        gap, p99 = f"{self.longest_gap:.2f} s", f"{self.p99:.0f} ms"
        counts = f"{self.requests} requests, {self.rate:.0f}/s, {self.failed} failed, {self.dropped} dropped"
        writes = f"{self.acknowledged} writes, {self.mixed} mixed, {self.stale} stale"
        return "\n".join([f"{counts}, longest gap {gap}, p99 {p99}, {writes} ({self.summary})", *self.failures])

    @property
    def summary(self) -> Path:
        """Return the file with the complete summary of k6."""
        return self.folder / "summary.json"

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return json.loads(self.summary.read_text())

    def _value(self, metric: str, key: str = "count") -> float:
        # Return 0 for a metric without an event, because the summary does not contain such a metric.
        return self._summary["metrics"].get(metric, {}).get("values", {}).get(key, 0)

    @property
    def requests(self) -> int:
        return int(self._value("http_reqs"))

    @property
    def rate(self) -> float:
        """Return the number of requests per second, summed over all scenarios."""
        return self.requests / self._summary["seconds"]

    @property
    def failed(self) -> int:
        """Return the number of requests that were not answered with status 200 or 201."""
        return int(self._value("http_req_failed", "passes"))

    @property
    def dropped(self) -> int:
        """Return the number of requests that k6 could not send in time. Such requests make the rate lower than configured."""
        return int(self._value("dropped_iterations"))

    @property
    def acknowledged(self) -> int:
        """Return the number of writes that were answered with status 201."""
        return int(self._value("acknowledged"))

    @property
    def longest_gap(self) -> float:
        """Return the longest time in seconds between two successful answers of the scenario `pulse`.

        `pulse` requests /api/release continuously.
        """
        return self._value("gap", "max") / 1000

    @property
    def mixed(self) -> int:
        """Return the number of page loads that got answers from more than one release."""
        return int(self._value("mixed"))

    @property
    def stale(self) -> int:
        """Return the number of assets that a page links to but the stack did not deliver."""
        return int(self._value("stale"))

    @property
    def p95(self) -> float:
        """Return the 95th percentile of the duration of requests of the scenario `steady`, in milliseconds."""
        return self._value("http_req_duration{scenario:steady}", "p(95)")

    @property
    def p99(self) -> float:
        """Return the 99th percentile of the duration of requests of the scenario `steady`, in milliseconds."""
        return self._value("http_req_duration{scenario:steady}", "p(99)")

    @property
    def failures(self) -> list[str]:
        """Return the first ten lines of the log of failed requests. Each line has time, scenario, request and answer."""
        return (self.folder / "console.txt").read_text().splitlines()[:10]


@contextmanager
def load(stack: Stack, seconds: float = 600, rate: int = 300) -> Generator[Load]:
    """Send `rate` requests per second while the `with` block runs. Pending requests are completed at the end of the block.

    The block must take less than `seconds` seconds, because k6 ends after this time.
    """
    if not shutil.which("k6"):
        raise RuntimeError("`k6` is not on PATH: run `make lab`, then `make e2e`")
    result = Load(Path(tempfile.mkdtemp(prefix="load-", dir=stack.folder)))
    address, output = f"127.0.0.1:{free_port()}", result.folder / "k6.txt"
    variables = {
        "URL": stack.url, "HOST": stack.headers.get("Host", ""), "INSECURE": "yes" if "https:" in stack.url else "",
        "RATE": str(rate), "DURATION": str(round(seconds)), "SUMMARY": str(result.summary),
    }  # fmt: skip
    with output.open("w") as file:
        k6 = subprocess.Popen(
            ["k6", "run", "--quiet", "--no-usage-report", "--log-format", "raw", "--address", address,
             "--console-output", str(result.folder / "console.txt"), str(SCRIPT)],
            env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        eventually(
            lambda: _check_running(k6, output) and requests.get(f"http://{address}/v1/metrics/gap", timeout=5).ok
        )
        yield result
        _check_running(k6, output)
        start_stop_scenario = {"data": {"type": "status", "id": "default", "attributes": {"vus": 1, "vus-max": 2}}}
        requests.patch(f"http://{address}/v1/status", json=start_stop_scenario, timeout=5).raise_for_status()
        code = k6.wait(60)
        assert code == STOPPED_BY_SCRIPT, f"k6 ended with {code}: {output.read_text()}"
    finally:
        k6.kill()
        k6.wait()


def _check_running(k6: subprocess.Popen[bytes], output: Path) -> bool:
    """Return True if k6 still runs, and raise RuntimeError if k6 has ended."""
    if k6.poll() is not None:
        raise RuntimeError(f"k6 ended too early, with {k6.returncode}: {output.read_text()}")
    return True


def wait_until_settled(stack: Stack, messages_before: int, load: Load, seconds: float = 120) -> None:
    """Wait until the job of every message has run exactly once, and check that no acknowledged message is missing.

    A failed request may have stored its message or not. The check accepts both cases.

    Args:
        messages_before: number of messages before the load.
    """

    def is_settled() -> bool:
        stats = stack.get("/api/stats").json()
        stored = stats["messages"]
        minimum = messages_before + load.acknowledged
        assert minimum <= stored <= minimum + load.failed, stats
        job_counts = (stats["summarised"], stats["processed"], stats["attempts"], stats["most_attempts"])
        assert job_counts == (stored, stored, stored, 1), stats
        return True

    eventually(is_settled, seconds)


@dataclass
class Stream:
    """Counts of the events and comments that one open connection to the feed has received."""

    hello: dict[str, str] = field(default_factory=dict[str, str])
    """First event of the feed, with the release and the slot of the api that serves the feed."""
    beats: int = 0
    """Number of keep-alive comments."""
    events: int = 0
    """Number of events after `hello`."""
    cut: str | None = None
    """Reason why the connection ended too early. None means that the connection stayed open until the end of the `with` block."""


@contextmanager
def stream(stack: Stack) -> Generator[Stream]:
    """Read the feed over one connection while the `with` block runs.

    After the block the reader closes the connection at the next line. The wait takes at most five seconds, because the feed
    sends a keep-alive comment every five seconds.
    """
    received, block_ended = Stream(), threading.Event()
    feed = stack.get("/api/feed", stream=True)
    feed.raise_for_status()
    lines = feed.iter_lines()
    assert next(lines) == b"event: hello"
    received.hello = json.loads(next(lines).removeprefix(b"data: "))

    def listen() -> None:
        try:
            for line in lines:
                received.beats += line == b": beat"
                received.events += line.startswith(b"data: ")
                if block_ended.is_set():
                    return
            received.cut = "the server closed the connection"
        except requests.RequestException as error:
            received.cut = str(error)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield received
    finally:
        block_ended.set()
        thread.join()
        feed.close()


@dataclass(frozen=True, repr=False)
class Journeys:
    """Counts of a run of journey.js with k6. Read the counts only after k6 has ended."""

    folder: Path

    def __repr__(self) -> str:
        counts = (
            f"{self.completed} journeys, {self.requests} requests, {self.failed} failed, {self.broken} checks broken"
        )
        return "\n".join([counts, *self.errors[:10]])

    @cached_property
    def _metrics(self) -> dict[str, dict[str, int]]:
        return json.loads((self.folder / "summary.json").read_text())["metrics"]

    @property
    def completed(self) -> int:
        """Return the number of completed journeys. A journey is one run of the script journey.js."""
        return self._metrics["iterations"]["count"]

    @property
    def requests(self) -> int:
        return self._metrics["http_reqs"]["count"]

    @property
    def failed(self) -> int:
        # k6 counts each failed request as a pass of the metric `http_req_failed`.
        return self._metrics["http_req_failed"]["passes"]

    @property
    def broken(self) -> int:
        """Return the number of checks in journey.js that failed."""
        return self._metrics["checks"]["fails"]

    @property
    def errors(self) -> list[str]:
        """Return the errors of the script, such as an answer that is not JSON.

        The message about the signal that ends the run is left out.
        """
        lines = (self.folder / "console.txt").read_text().splitlines()
        return [line for line in lines if "level=error" in line and "'interrupt' signal" not in line]

    def lost_nothing(self) -> bool:
        """Return whether a journey was completed, and no request, check or script has failed."""
        return bool(self.completed) and not (self.failed or self.broken or self.errors)


def start_journey(stack: Stack, *options: str) -> tuple[subprocess.Popen[bytes], Journeys]:
    """Start k6 with the application's journey.js, and return the process and its counts.

    By default one user runs the script once. `options` are options of k6, for example for more users.
    """
    counts = Journeys(Path(tempfile.mkdtemp(prefix="journey-", dir=stack.folder)))
    summary, console = counts.folder / "summary.json", counts.folder / "console.txt"
    words = ["--quiet", "--no-usage-report", "--address", "", "--summary-export", str(summary), *options]
    with console.open("w") as file:
        k6 = subprocess.Popen(
            ["k6", "run", *words, "journey.js"], cwd=stack.app_folder, env=os.environ | {"URL": stack.address},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    return k6, counts


@contextmanager
def user_journeys(stack: Stack, users: int = 5) -> Generator[Journeys]:
    """Run the application's journey.js with several users while the `with` block runs. Each user repeats the script."""
    k6, counts = start_journey(stack, "--vus", str(users), "--duration", "15m")
    try:
        yield counts
        assert k6.poll() is None, (counts.folder / "console.txt").read_text()
        k6.send_signal(signal.SIGINT)
        assert k6.wait(60) == INTERRUPTED, (counts.folder / "console.txt").read_text()
    finally:
        k6.kill()
        k6.wait()
