"""Measure the time to go back to a standby that still runs.

There are two results:

- the time of going back, minus the time of an `up` without changes
- the time from the switch's write to the last response of the old slot
"""

import json
import re
import statistics
import threading
import time
from pathlib import Path

import requests

from tests.e2e.stack import Stack

ROUNDS = 5
HEAD = "| going back | beyond an `up` that finds nothing to do | from the write to the last old answer |\n|---|---|---|"


def table(stack: Stack) -> str:
    """Measure `ROUNDS` rounds for each value of `release.workers`, then destroy the stack.

    Returns:
        Table rows. Seconds are shown as median (lowest to highest).
    """
    rows: list[str] = []
    try:
        stack.environment |= {"reload": False, "seed": False}
        for workers in ("both", "live"):
            stack.environment["release"] = {"workers": workers}
            stack.up()
            stack.app["version"] = f"1.{len(rows) + 1}.0"
            stack.up()
            rounds = [_round(stack) for _ in range(ROUNDS)]
            beyond, arrived = ([row[column] for row in rounds] for column in (0, 1))
            rows.append(
                f"| {type(stack).__name__.removesuffix('Stack')}, `workers: {workers}` | {_spread(beyond)} | {_spread(arrived)} |"
            )
    finally:
        stack.destroy(check=False)
        stack.remove_leftovers()
    return "\n".join(rows)


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


def _round(stack: Stack) -> tuple[float, float]:
    """Go back once, and return both results in seconds, in the order at the top of this file."""
    old, answers, done = stack.get("/api/release").json()["slot"], list[tuple[float, str]](), threading.Event()
    log = stack.folder / f"switching-{time.time_ns()}.json"
    written: list[float] = []

    def send_requests() -> None:
        session = requests.Session()
        session.headers.update(stack.headers)
        while not done.wait(0.01):
            for client in (session, requests):
                answer = client.get(f"{stack.url}/api/release", headers=dict(stack.headers), timeout=10, verify=False)
                answers.append((time.monotonic(), answer.json()["slot"]))

    def watch_event_log() -> None:
        while not done.wait(0.02):
            if not written and log.exists() and _switches(log):
                written.append(time.monotonic())

    threads = [threading.Thread(target=target) for target in (send_requests, watch_event_log)]
    for thread in threads:
        thread.start()
    # Send requests during both updates. Requests slow an update down, and the two durations must be comparable.
    empty = _timed(stack, {})
    back = _timed(stack, {"TIERS_RELEASE": "previous", "PULUMI_DEBUG_COMMANDS": "true"}, "--event-log", str(log))
    time.sleep(2)
    done.set()
    for thread in threads:
        thread.join()
    last = max(at for at, slot in answers if slot == old)
    # Deploy the files' release again, so that the next round's first `up` has nothing to do.
    stack.up()
    return back - empty, max(last - written[0], 0)


def _switches(log: Path) -> bool:
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    events = [json.loads(line).get("resourcePreEvent") for line in lines]
    metadata = [event["metadata"] for event in events if event and event["metadata"]["op"] in ("create", "update")]
    return any(re.search(r"(::switch-\d+|HTTPRoute::board)$", entry["urn"]) for entry in metadata)


def _timed(stack: Stack, variables: dict[str, str], *more: str) -> float:
    stack.write()
    started = time.monotonic()
    words = ("up", "--yes", "--skip-preview", "--stack", stack.name, *more)
    stack.pulumi(*words, check=True, variables=variables)
    return time.monotonic() - started
