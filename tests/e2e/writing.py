"""Writes to a stack's cache and to the board during a failure, and the check for lost ones.

Jobs are written by messages to the board's api; keys are written like sessions, by redis-py in the api's container.
"""

import itertools
import json
import subprocess
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import requests

from .stack import ClusterStack, Stack, eventually

WRITERS = 4
WRITE = """
import os, sys, threading, time
from redis import Redis
from board import settings

def write(own):
    cache, number = Redis(**settings.cache_server()), 0
    while True:
        key, number = f"{sys.argv[1]}:{own}:{number}", number + 1
        try:
            cache.set(key, number)
            said = f"{key} {time.time()}"
        except Exception as error:
            said = f"! {time.time()} {type(error).__name__}"
            time.sleep(0.02)
        print(f"{said}\\n", end="", flush=True)  # whole, whoever else prints
        time.sleep(0.002)

for own in range(int(sys.argv[2])):
    threading.Thread(target=write, args=(own,)).start()
sys.stdin.read()
os._exit(0)
"""
MISSING = """
import json, sys
from redis import Redis
from board import settings
keys = json.load(sys.stdin)
print(sum(value is None for value in Redis(**settings.cache_server()).mget(keys)))
"""


class Load:
    """Acknowledged keys with their times, and messages, of one load."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack, self.name = stack, name
        self.acknowledged: list[tuple[str, float]] = []
        self.refused: set[str] = set()
        self.messages: list[int] = []
        self.ended = threading.Event()

    def lost(self) -> int:
        """Return how many acknowledged keys are missing."""
        keys = json.dumps([key for key, _ in self.acknowledged])
        return int(in_api(self.stack, MISSING, stdin=keys))

    def longest(self, since: float) -> float:
        """Return the longest time without an acknowledged key that ended after `since`, in seconds."""
        times = sorted(at for _, at in list(self.acknowledged))
        return max(later - earlier for earlier, later in itertools.pairwise(times) if later > since)

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            key, at, *error = line.split()
            if error:
                self.refused.add(error[0])
            else:
                self.acknowledged.append((key, float(at)))

    def post(self) -> None:
        while not self.ended.wait(0.1):
            try:
                self.messages.append(self.stack.post(f"{self.name}, one of {len(self.messages)}")["id"])
            except (AssertionError, requests.RequestException) as error:
                self.refused.add(type(error).__name__)


@contextmanager
def load(stack: Stack, name: str) -> Generator[Load]:
    """Write keys and messages while the block runs."""
    result = Load(stack, name)
    words = [*inside(stack), "python", "-c", WRITE, name, str(WRITERS)]
    writing = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writing.stdin and writing.stdout
    threads = [threading.Thread(target=result.read, args=(writing.stdout,)), threading.Thread(target=result.post)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(result.acknowledged) > 100 and result.messages)
        yield result
    finally:
        result.ended.set()
        writing.stdin.close()
        for thread in threads:
            thread.join()


def inside(stack: Stack) -> list[str]:
    """Return the beginning of a command that runs in the api's container."""
    live = stack.outputs()["live"]
    if not isinstance(stack, ClusterStack):
        return ["docker", "exec", "-i", f"{stack.prefix}-{live}-api-1"]
    pod = stack.pods("api", live)[0].metadata.name
    return ["kubectl", "--context", "lab", "--namespace", stack.namespace, "exec", "-i", pod, "--"]


def in_api(stack: Stack, program: str, stdin: str = "") -> str:
    """Run a Python program in the api's container, and return its output."""
    return subprocess.run(
        [*inside(stack), "python", "-c", program], input=stdin, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def every_job_is_done(stack: Stack, messages: list[int]) -> None:
    """Wait until the job of each message was done exactly once.

    The worker's sweep finds jobs that the queue missed within 90 s. A job whose worker lost the queue belongs to that worker for two
    minutes (its time limit, and one minute of RQ); the sweep runs every 30 s.
    """
    done = dict.fromkeys(messages, 0)

    def all_done() -> bool:
        for item in [entry for entry, processed in done.items() if processed == 0]:
            done[item] = stack.get(f"/api/messages/{item}").json()["processed"]
        assert not (odd := {entry: times for entry, times in done.items() if times != 1}), f"done so many times: {odd}"
        return True

    eventually(all_done, 150)


def processes(container: str, title: str) -> list[int]:
    """Return the processes of a container, or of a pod by its uid, with this title: the lab's engines run on this machine."""
    numbers: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = container in (folder / "cgroup").read_text().replace("_", "-")
            if mine and (folder / "cmdline").read_text().split("\0")[0].startswith(title):
                numbers.append(int(folder.name))
        except OSError:
            continue
    return numbers
