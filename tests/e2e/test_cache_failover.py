"""The primary of a replicated Redis dies in several ways under load: what was answered is there afterwards, and for how long none was.

Two things are written meanwhile: jobs, by messages to the board's api; and keys as sessions are, by redis-py in a pod of the
api, through the Service as every client. `lost` counts keys that were acknowledged and are not there.
"""

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from .stack import ROOT, ClusterStack, deployed, eventually

REPORT = ROOT / "reports" / "cache-failover.json"
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
    """What was acknowledged for as long as it lasts: keys with their time, and messages."""

    def __init__(self, stack: ClusterStack, name: str) -> None:
        self.stack, self.name = stack, name
        self.acknowledged: list[tuple[str, float]] = []
        self.refused: set[str] = set()
        self.messages: list[int] = []
        self.ended = threading.Event()

    def lost(self) -> int:
        """Keys that were acknowledged and are not there."""
        keys = json.dumps([key for key, _ in self.acknowledged])
        return int(in_api(self.stack, MISSING, given=keys))

    def longest(self, since: float) -> float:
        """The longest time without an acknowledged key that ended after `since`."""
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
def load(stack: ClusterStack, name: str) -> Generator[Load]:
    """Keys and messages, written for the length of the block."""
    made = Load(stack, name)
    words = [*inside(stack), "python", "-c", WRITE, name, str(WRITERS)]
    writing = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writing.stdin and writing.stdout
    threads = [threading.Thread(target=made.read, args=(writing.stdout,)), threading.Thread(target=made.post)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(made.acknowledged) > 100 and made.messages)
        yield made
    finally:
        made.ended.set()
        writing.stdin.close()
        for thread in threads:
            thread.join()


def inside(stack: ClusterStack) -> list[str]:
    """What begins a command that is to run where the api does."""
    pod = stack.pods("api", stack.outputs()["live"])[0].metadata.name
    return ["kubectl", "--context", "lab", "--namespace", stack.namespace, "exec", "-i", pod, "--"]


def in_api(stack: ClusterStack, program: str, given: str = "") -> str:
    """What a program prints there."""
    return subprocess.run(
        [*inside(stack), "python", "-c", program], input=given, capture_output=True, text=True, check=True, timeout=60
    ).stdout


# ---------------------------------------------------------------------- what befalls the primary


def primary(stack: ClusterStack) -> Any:
    """The pod of the member that two of three Sentinels call primary; and that has both replicas."""
    ask = """W=$(printf 'watcher %s' "$(cat /run/secrets/cache-password)" | sha256sum | cut -d ' ' -f 1)
    REDISCLI_AUTH=$W redis-cli -p 26379 sentinel get-master-addr-by-name tiers | head -n 1"""
    members = stack.pods("cache")
    said = [
        stack.kubectl("exec", each.metadata.name, "-c", "watcher", "--", "sh", "-c", ask).strip() for each in members
    ]
    assert len(said) == 3 and len(set(said)) == 1, said
    return next(each for each in members if each.metadata.labels["tiers.member"] == said[0])


def redis(stack: ClusterStack, pod: Any, command: str) -> str:
    """What a member answers."""
    login = f'REDISCLI_AUTH="$(cat /run/secrets/cache-password)" redis-cli {command}'
    return stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", login)


def whole(stack: ClusterStack) -> bool:
    """Whether one is primary and the two others follow it."""
    told = redis(stack, primary(stack), "info replication")
    return "role:master" in told and told.count("state=online") == 2


def server(pod: Any) -> int:
    """The redis-server of a member, as a process of this machine, which is the lab's only node."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = pod.metadata.uid in (folder / "cgroup").read_text().replace("_", "-")
            if mine and (folder / "cmdline").read_text().split("\0")[0].startswith("redis-server *:6379"):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"no redis-server of {pod.metadata.name} runs here")


def delete_pod(stack: ClusterStack, pod: Any) -> None:
    stack.kubectl("delete", "pod", pod.metadata.name, "--force", "--grace-period=0")


def stop_pod(stack: ClusterStack, pod: Any) -> None:
    """As a drained node does, and a new version."""
    stack.kubectl("delete", "pod", pod.metadata.name, "--wait=false")


def kill_server(stack: ClusterStack, pod: Any) -> None:
    os.kill(server(pod), signal.SIGKILL)


def freeze(stack: ClusterStack, pod: Any) -> None:
    """It comes to itself after 20 s, when another has long been primary."""
    process = server(pod)
    os.kill(process, signal.SIGSTOP)
    threading.Timer(20, os.kill, (process, signal.SIGCONT)).start()


def lose_data(stack: ClusterStack, pod: Any) -> None:
    """It starts again at once, and empty: before anybody has missed it."""
    process = server(pod)
    stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", "rm -rf /data/*")
    os.kill(process, signal.SIGKILL)


def delete_all(stack: ClusterStack, pod: Any) -> None:
    stack.kubectl("delete", "pod", "--selector=app.kubernetes.io/name=cache", "--force", "--grace-period=0")


def befall(stack: ClusterStack, what: Callable[[ClusterStack, Any], None], number: int = 1) -> tuple[float, int, int]:
    """Seconds without an acknowledged key, how many were acknowledged, and how many of them are lost."""
    eventually(lambda: whole(stack), 60)
    with load(stack, f"{what.__name__}-{number}") as seen:
        before, at = len(seen.acknowledged), time.time()
        what(stack, primary(stack))
        eventually(lambda: seen.acknowledged[-1][1] > at + 12, 90)
        eventually(lambda: whole(stack), 90)
        time.sleep(2)
    assert len(seen.acknowledged) > before
    every_job_is_done(stack, seen.messages)
    return round(seen.longest(at), 1), len(seen.acknowledged), seen.lost()


def every_job_is_done(stack: ClusterStack, messages: list[int]) -> None:
    """Once each; those the queue was away for are found by the worker's sweep, which takes a minute and a half."""
    done = dict.fromkeys(messages, 0)

    def asked() -> bool:
        for each in [each for each, processed in done.items() if processed == 0]:
            done[each] = stack.get(f"/api/messages/{each}").json()["processed"]
        return set(done.values()) == {1}

    eventually(asked, 150)


# ---------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """Staging, its cache single with a key in it, and then replicated: the way of every stack that has data."""
    made = ClusterStack(tmp_path_factory.mktemp("cache"), "d-cache")
    made.environment["kubernetes"]["namespace"].pop("quota")
    sizes = made.environment["tiers"]
    sizes["web"]["replicas"] = sizes["api"]["replicas"] = 1
    with deployed(made):
        in_api(
            made, "from redis import Redis; from board import settings; Redis(**settings.cache_server()).set('old', 1)"
        )
        sizes["cache"]["ha"] = True
        made.up()
        yield made


def test_what_a_single_cache_held_is_there_three_times(stack: ClusterStack) -> None:
    assert whole(stack)
    for pod in stack.pods("cache"):
        assert redis(stack, pod, "exists old").strip() == "1"
    assert json.loads(in_api(stack, MISSING, given='["old", "never"]')) == 1, "what finds a lost key finds one"


def test_an_update_that_changes_nothing_changes_nothing(stack: ClusterStack) -> None:
    assert set(stack.up().changed) == {"unchanged"}


def test_the_primary_is_deleted_and_nothing_acknowledged_is_lost(stack: ClusterStack) -> None:
    report("delete_pod, once", [befall(stack, delete_pod)])


@pytest.mark.long
@pytest.mark.parametrize("what", [delete_pod, kill_server, freeze, lose_data, delete_all, stop_pod])
def test_whatever_befalls_the_primary_nothing_acknowledged_is_lost(
    stack: ClusterStack, what: Callable[[ClusterStack, Any], None]
) -> None:
    report(what.__name__, [befall(stack, what, number) for number in range(5)])


@pytest.mark.long
def test_members_are_changed_one_after_the_other_under_load(stack: ClusterStack) -> None:
    stack.environment["tiers"]["cache"]["memory"] = "320Mi"
    with load(stack, "change") as seen:
        at = time.time()
        stack.up()
        time.sleep(5)
    assert whole(stack)
    report("a change of every member", [(round(seen.longest(at), 1), len(seen.acknowledged), seen.lost())])


def report(what: str, rounds: list[tuple[float, int, int]]) -> None:
    """Say it in the report, and fail if anything is lost."""
    known: list[dict[str, Any]] = json.loads(REPORT.read_text()) if REPORT.exists() else []
    seconds = [each for each, _, _ in rounds]
    told = {
        "what": what,
        "seconds": seconds,
        "acknowledged": sum(count for _, count, _ in rounds),
        "lost": sum(lost for _, _, lost in rounds),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([*(each for each in known if each["what"] != what), told], indent=1) + "\n")
    assert told["lost"] == 0, told
    assert max(seconds) < 60, told
