"""Load on the board's cache during a failure, and checks for lost keys and lost jobs.

The load has two parts. A program in the api's container writes keys with redis-py, as an application writes sessions. A thread of
the test posts messages to the board's api, and the api puts a job for each message into the queue.
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
"""Number of threads that write keys."""
WRITE = """
import os, sys, threading, time
from redis import Redis
from board import settings

def write(writer):
    cache, number = Redis(**settings.cache_server()), 0
    while True:
        key, number = f"{sys.argv[1]}:{writer}:{number}", number + 1
        try:
            cache.set(key, number)
            line = f"{key} {time.time()}"
        except Exception as error:
            line = f"! {time.time()} {type(error).__name__}"
            time.sleep(0.02)
        print(f"{line}\\n", end="", flush=True)  # One call, so that lines of threads do not mix.
        time.sleep(0.002)

for writer in range(int(sys.argv[2])):
    threading.Thread(target=write, args=(writer,)).start()
sys.stdin.read()
os._exit(0)
"""
"""Program that writes keys until its standard input is closed.

For each acknowledged write the program prints the key and the time. For each failed write the program prints `!`, the time and the
error.
"""
MISSING = """
import json, sys
from redis import Redis
from board import settings
keys = json.load(sys.stdin)
print(sum(value is None for value in Redis(**settings.cache_server()).mget(keys)))
"""
"""Program that reads a JSON list of keys and prints how many of them are missing."""


class Load:
    """Record of the keys and messages that one call of `load` has written."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack, self.name = stack, name
        # Key and time of each acknowledged write.
        self.acknowledged: list[tuple[str, float]] = []
        self.refused: set[str] = set()
        self.messages: list[int] = []
        self.stop = threading.Event()

    def lost(self) -> int:
        """Return the number of acknowledged keys that are missing in the cache."""
        keys = json.dumps([key for key, _ in self.acknowledged])
        return int(run_in_api(self.stack, MISSING, stdin=keys))

    def longest_gap(self, since: float) -> float:
        """Return the longest time in seconds between two acknowledged keys. Ignore gaps that ended before the time `since`."""
        times = sorted(written_at for _, written_at in list(self.acknowledged))
        return max(later - earlier for earlier, later in itertools.pairwise(times) if later > since)

    def read(self, lines: Iterable[str]) -> None:
        """Record the acknowledged keys and the errors in the output of the program that writes keys."""
        for line in lines:
            key, written_at, *error = line.split()
            if error:
                self.refused.add(error[0])
            else:
                self.acknowledged.append((key, float(written_at)))

    def post(self) -> None:
        """Post messages to the board until the load is stopped."""
        while not self.stop.wait(0.1):
            try:
                self.messages.append(self.stack.post(f"{self.name}, message {len(self.messages)}")["id"])
            except (AssertionError, requests.RequestException) as error:
                self.refused.add(type(error).__name__)


@contextmanager
def load(stack: Stack, name: str) -> Generator[Load]:
    """Write keys and messages while the `with` block runs, and yield the record of these writes."""
    result = Load(stack, name)
    words = [*api_exec_command(stack), "python", "-c", WRITE, name, str(WRITERS)]
    writer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin and writer.stdout
    threads = [threading.Thread(target=result.read, args=(writer.stdout,)), threading.Thread(target=result.post)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(result.acknowledged) > 100 and result.messages)
        yield result
    finally:
        result.stop.set()
        writer.stdin.close()
        for thread in threads:
            thread.join()


def api_exec_command(stack: Stack) -> list[str]:
    """Return the first part of a command line that runs a program in the live api's container.

    The first part is `docker exec …` or `kubectl exec …`. The caller appends the program and its arguments.
    """
    live = stack.outputs()["live"]
    if not isinstance(stack, ClusterStack):
        return ["docker", "exec", "-i", f"{stack.prefix}-{live}-api-1"]
    pod = stack.pods("api", live)[0].metadata.name
    return ["kubectl", "--context", "lab", "--namespace", stack.namespace, "exec", "-i", pod, "--"]


def run_in_api(stack: Stack, program: str, stdin: str = "") -> str:
    """Run a Python program in the live api's container, and return its output."""
    return subprocess.run(
        [*api_exec_command(stack), "python", "-c", program],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def wait_for_jobs(stack: Stack, messages: list[int]) -> None:
    """Wait up to 150 s until the job of each message has run exactly once.

    The wait is long for two reasons:

    - A lost job is queued again up to 90 s after its loss. The worker looks for lost jobs every 30 s, and ignores messages
      that are less than 60 s old.
    - If a worker loses its connection to the queue during a job, RQ gives the job to another worker only after two minutes: the
      job's time limit of one minute, plus one minute that RQ adds.
    """
    processed = dict.fromkeys(messages, 0)

    def all_done() -> bool:
        for waiting_message in [message for message, count in processed.items() if count == 0]:
            processed[waiting_message] = stack.get(f"/api/messages/{waiting_message}").json()["processed"]
        wrong = {message: count for message, count in processed.items() if count != 1}
        assert not wrong, f"message id → number of runs of its job: {wrong}"
        return True

    eventually(all_done, 150)


def find_processes(container: str, title: str) -> list[int]:
    """Return the ids of a container's processes whose command line begins with `title`.

    The function reads /proc, because the lab's engine and cluster run on this machine.

    Args:
        container: id of the container, or uid of the pod.
        title: beginning of the command line.
    """
    processes: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_in_container = container in (folder / "cgroup").read_text().replace("_", "-")
            if is_in_container and (folder / "cmdline").read_text().split("\0")[0].startswith(title):
                processes.append(int(folder.name))
        except OSError:
            continue
    return processes
