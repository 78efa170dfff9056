"""Users who write during a loss: their acknowledged writes, and the longest time without one."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import requests

from .stack import ClusterStack

WRITERS = 4


@dataclass
class Writes:
    """Acknowledged writes as (time, message id, body), those of each writer in order."""

    acknowledged: list[tuple[float, int, str]] = field(default_factory=list[tuple[float, int, str]])
    refused: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    missing: list[int] = field(default_factory=list[int])
    """Ids of acknowledged messages that are missing or changed afterwards."""
    done: threading.Event = field(default_factory=threading.Event)

    def __repr__(self) -> str:
        return f"{len(self.acknowledged)} acknowledged, {len(self.refused)} refused, longest gap {self.gap:.1f} s"

    @property
    def gap(self) -> float:
        """Longest time without an acknowledged write, in seconds."""
        times = sorted(when for when, *_ in self.acknowledged)
        return max((later - earlier for earlier, later in pairwise(times)), default=0)

    def compare(self, stored: dict[int, str]) -> None:
        """Find the acknowledged messages that are missing from the database."""
        self.missing = [number for _, number, body in self.acknowledged if stored.get(number) != body]


@contextmanager
def writes(stack: ClusterStack) -> Generator[Writes]:
    """Write messages through the gateway and the api as users do, one after the other by each writer."""
    seen = Writes()
    writers = [threading.Thread(target=_write, args=(stack, seen, number)) for number in range(WRITERS)]
    for thread in writers:
        thread.start()
    try:
        yield seen
    finally:
        seen.done.set()
        for thread in writers:
            thread.join()


def _write(stack: ClusterStack, seen: Writes, writer: int) -> None:
    session = requests.Session()
    session.headers.update(stack.headers)
    for number in range(10**9):
        if seen.done.is_set():
            return
        body = f"writer {writer}, message {number} at {time.time_ns()}"
        try:
            answer = session.post(f"{stack.url}/api/messages", json={"author": "writer", "body": body}, timeout=20)
        except requests.RequestException as error:
            seen.refused.append((time.monotonic(), type(error).__name__))
            continue
        if answer.status_code == 201:
            seen.acknowledged.append((time.monotonic(), answer.json()["id"], body))
        else:
            seen.refused.append((time.monotonic(), f"{answer.status_code} {answer.text[:200]}"))
        time.sleep(0.05)
