"""Load during changes: requests by k6 at a steady rate (load.js defines them), and a feed that stays open.

For any application: users that follow its journey.js.
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
"""Exit code of k6 if the script itself ended the run, as ours does on request."""
INTERRUPTED = 105
"""Exit code of k6 after a signal: it drops pending requests and counts none of them."""


@dataclass(frozen=True, repr=False)
class Load:
    """Counts of k6, complete after the block has ended."""

    folder: Path

    def __repr__(self) -> str:
        gap, p99 = f"{self.longest_gap:.2f} s", f"{self.p99:.0f} ms"
        counts = f"{self.requests} requests, {self.rate:.0f}/s, {self.failed} failed, {self.dropped} dropped"
        writes = f"{self.acknowledged} writes, {self.mixed} mixed, {self.stale} stale"
        return "\n".join([f"{counts}, longest gap {gap}, p99 {p99}, {writes} ({self.summary})", *self.failures])

    @property
    def summary(self) -> Path:
        """File with the complete summary of k6."""
        return self.folder / "summary.json"

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return json.loads(self.summary.read_text())

    def _value(self, metric: str, key: str = "count") -> float:
        # Metrics without an event are missing from the summary.
        return self._summary["metrics"].get(metric, {}).get("values", {}).get(key, 0)

    @property
    def requests(self) -> int:
        return int(self._value("http_reqs"))

    @property
    def rate(self) -> float:
        """Requests per second, of all scenarios."""
        return self.requests / self._summary["seconds"]

    @property
    def failed(self) -> int:
        """Requests not answered by 200 or 201."""
        return int(self._value("http_req_failed", "passes"))

    @property
    def dropped(self) -> int:
        """Requests that were due and not sent because too many were pending. Above 0 the rate was not held."""
        return int(self._value("dropped_iterations"))

    @property
    def acknowledged(self) -> int:
        """Writes answered by 201."""
        return int(self._value("acknowledged"))

    @property
    def longest_gap(self) -> float:
        """Longest time between two successful answers of the scenario that requests without a pause, in seconds."""
        return self._value("gap", "max") / 1000

    @property
    def mixed(self) -> int:
        """Page loads that received more than one release."""
        return int(self._value("mixed"))

    @property
    def stale(self) -> int:
        """Assets named in a page that were missing."""
        return int(self._value("stale"))

    @property
    def p95(self) -> float:
        """95th percentile of a steady request, in milliseconds."""
        return self._value("http_req_duration{scenario:steady}", "p(95)")

    @property
    def p99(self) -> float:
        """99th percentile of a steady request, in milliseconds."""
        return self._value("http_req_duration{scenario:steady}", "p(99)")

    @property
    def failures(self) -> list[str]:
        """The first ten failed requests: time, scenario, request and answer."""
        return (self.folder / "console.txt").read_text().splitlines()[:10]


@contextmanager
def load(stack: Stack, seconds: float = 600, rate: int = 300) -> Generator[Load]:
    """Send requests while the block runs, for less than `seconds`; none is cut off at its end."""
    if not shutil.which("k6"):
        raise RuntimeError("no `k6` on PATH: run `make lab`, then `make e2e`")
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
        eventually(lambda: _running(k6, output) and requests.get(f"http://{address}/v1/metrics/gap", timeout=5).ok)
        yield result
        _running(k6, output)
        more = {"data": {"type": "status", "id": "default", "attributes": {"vus": 1, "vus-max": 2}}}
        requests.patch(f"http://{address}/v1/status", json=more, timeout=5).raise_for_status()
        code = k6.wait(60)
        assert code == STOPPED_BY_SCRIPT, f"k6 ended with {code}: {output.read_text()}"
    finally:
        k6.kill()
        k6.wait()


def _running(k6: subprocess.Popen[bytes], output: Path) -> bool:
    if k6.poll() is not None:
        raise RuntimeError(f"k6 ended too early, with {k6.returncode}: {output.read_text()}")
    return True


def settled(stack: Stack, before: int, load: Load, seconds: float = 120) -> None:
    """Wait until exactly the acknowledged writes are stored, and the job of each was done exactly once.

    `before` is the number of messages at the start. A failed request may have written its message all the same.
    """

    def whole() -> bool:
        stats = stack.get("/api/stats").json()
        stored = stats["messages"]
        assert before + load.acknowledged <= stored <= before + load.acknowledged + load.failed, stats
        done = (stats["summarised"], stats["processed"], stats["attempts"], stats["most_attempts"])
        assert done == (stored, stored, stored, 1), stats
        return True

    eventually(whole, seconds)


@dataclass
class Stream:
    """Events of a feed that was kept open."""

    hello: dict[str, str] = field(default_factory=dict[str, str])
    """Release and slot that the feed came from."""
    beats: int = 0
    events: int = 0
    cut: str | None = None
    """Reason why the feed ended before the block, or None."""


@contextmanager
def stream(stack: Stack) -> Generator[Stream]:
    """Read one feed while the block runs. It ends with the first beat after the block, up to five seconds later."""
    seen, done = Stream(), threading.Event()
    feed = stack.get("/api/feed", stream=True)
    feed.raise_for_status()
    lines = feed.iter_lines()
    assert next(lines) == b"event: hello"
    seen.hello = json.loads(next(lines).removeprefix(b"data: "))

    def listen() -> None:
        try:
            for line in lines:
                seen.beats += line == b": beat"
                seen.events += line.startswith(b"data: ")
                if done.is_set():
                    return
            seen.cut = "it was ended"
        except requests.RequestException as error:
            seen.cut = str(error)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        feed.close()


@dataclass(frozen=True, repr=False)
class Journeys:
    """Counts of k6 for users that follow a journey, complete after they have finished."""

    folder: Path

    def __repr__(self) -> str:
        counts = f"{self.done} journeys, {self.requests} requests, {self.failed} failed, {self.broken} checks broken"
        return "\n".join([counts, *self.errors[:10]])

    @cached_property
    def _metrics(self) -> dict[str, dict[str, int]]:
        return json.loads((self.folder / "summary.json").read_text())["metrics"]

    @property
    def done(self) -> int:
        return self._metrics["iterations"]["count"]

    @property
    def requests(self) -> int:
        return self._metrics["http_reqs"]["count"]

    @property
    def failed(self) -> int:
        # The metric is a rate of failures: its passes are failed requests.
        return self._metrics["http_req_failed"]["passes"]

    @property
    def broken(self) -> int:
        return self._metrics["checks"]["fails"]

    @property
    def errors(self) -> list[str]:
        """Errors of the script itself, such as an answer that is no JSON."""
        lines = (self.folder / "console.txt").read_text().splitlines()
        return [line for line in lines if "level=error" in line and "'interrupt' signal" not in line]

    def lost_nothing(self) -> bool:
        return bool(self.done) and not (self.failed or self.broken or self.errors)


def journey(stack: Stack, *more: str) -> tuple[subprocess.Popen[bytes], Journeys]:
    """Start one user on the journey, or more by the options `more`."""
    seen = Journeys(Path(tempfile.mkdtemp(prefix="journey-", dir=stack.folder)))
    summary, console = seen.folder / "summary.json", seen.folder / "console.txt"
    words = ["--quiet", "--no-usage-report", "--address", "", "--summary-export", str(summary), *more]
    with console.open("w") as file:
        k6 = subprocess.Popen(
            ["k6", "run", *words, "journey.js"], cwd=stack.here, env=os.environ | {"URL": stack.address},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    return k6, seen


@contextmanager
def journeys(stack: Stack, users: int = 5) -> Generator[Journeys]:
    """Let users follow the application's journey.js, one journey after the other, while the block runs."""
    k6, seen = journey(stack, "--vus", str(users), "--duration", "15m")
    try:
        yield seen
        assert k6.poll() is None, (seen.folder / "console.txt").read_text()
        k6.send_signal(signal.SIGINT)
        assert k6.wait(60) == INTERRUPTED, (seen.folder / "console.txt").read_text()
    finally:
        k6.kill()
        k6.wait()
