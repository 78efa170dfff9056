"""Writers that post messages to the board during a failover or a move of the database, and a record of the acknowledged writes."""

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
    """Record of the writes of all writers."""

    acknowledged: list[tuple[float, int, str]] = field(default_factory=list[tuple[float, int, str]])
    """Time, message id and body of each acknowledged write."""
    refused: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """Time and error of each failed write."""
    missing: list[int] = field(default_factory=list[int])
    """Ids of acknowledged messages that are missing or different in the database. `compare` sets this list."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Event that stops the writers."""

    def __repr__(self) -> str:
        return f"{len(self.acknowledged)} acknowledged, {len(self.refused)} refused, longest gap {self.gap:.1f} s"

    @property
    def gap(self) -> float:
        """Return the longest time without an acknowledged write, in seconds."""
        times = sorted(when for when, *_ in self.acknowledged)
        return max((later - earlier for earlier, later in pairwise(times)), default=0)

    def compare(self, stored: dict[int, str]) -> None:
        """Compare the acknowledged writes with the stored messages (id → body), and set `missing`."""
        self.missing = [number for _, number, body in self.acknowledged if stored.get(number) != body]


@contextmanager
def writes(stack: ClusterStack) -> Generator[Writes]:
    """Write messages through the gateway and the api while the `with` block runs, and yield the record of the writes.

    Each writer sends one message at a time.
    """
    record = Writes()
    writers = [threading.Thread(target=_write, args=(stack, record, number)) for number in range(WRITERS)]
    for thread in writers:
        thread.start()
    try:
        yield record
    finally:
        record.stop.set()
        for thread in writers:
            thread.join()


def _write(stack: ClusterStack, record: Writes, writer: int) -> None:
    session = requests.Session()
    session.headers.update(stack.headers)
    for number in range(10**9):
        if record.stop.is_set():
            return
        body = f"writer {writer}, message {number} at {time.time_ns()}"
        try:
            answer = session.post(f"{stack.url}/api/messages", json={"author": "writer", "body": body}, timeout=20)
        except requests.RequestException as error:
            record.refused.append((time.monotonic(), type(error).__name__))
            continue
        if answer.status_code == 201:
            record.acknowledged.append((time.monotonic(), answer.json()["id"], body))
        else:
            record.refused.append((time.monotonic(), f"{answer.status_code} {answer.text[:200]}"))
        time.sleep(0.05)
