"""A database cluster loses an instance in every possible way under users who write: no acknowledged write is lost.

With --soak each way is tried five times; `make e2e-data` prints the time without acknowledged writes.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import cluster as lab

from .losses import Loss, report
from .stack import ClusterStack, Result, eventually
from .writes import Writes, writes

pytestmark = pytest.mark.long
NAME = "database-ha"
WITHIN = 120
"""Longest time without an acknowledged write, in seconds: a limit for a busy machine, not a promise."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    board = ClusterStack(tmp_path_factory.mktemp("board"), "e2e-failover")
    board.environment |= {"seed": False}
    board.environment["kubernetes"]["apart"] = "anywhere"
    board.environment["kubernetes"]["namespace"] = {}
    board.environment["tiers"]["database"] |= {"ha": True, "storage": "1Gi"}
    try:
        board.images()
        board.up()
        yield board
    finally:
        board.remove()


def state(stack: ClusterStack) -> dict[str, Any]:
    return json.loads(stack.kubectl("get", "cluster", NAME, "--output=json"))["status"]


def primary(stack: ClusterStack) -> str:
    return state(stack)["currentPrimary"]


def healthy(stack: ClusterStack) -> bool:
    """Tell whether all instances are ready and the current primary is the intended one."""
    seen = state(stack)
    conditions = {condition["type"]: condition["status"] for condition in seen["conditions"]}
    return (
        conditions["Ready"] == "True"
        and seen.get("readyInstances") == 3
        and seen["currentPrimary"] == seen["targetPrimary"]
    )


def stored(stack: ClusterStack) -> dict[int, str]:
    """Return every message that the current primary has, read from the primary directly."""
    sql = "copy (select id, body from messages) to stdout"
    words = ("exec", primary(stack), "--container=postgres", "--", "psql", "--quiet", "--dbname=board", "-c", sql)
    rows = (line.partition("\t") for line in stack.kubectl(*words).splitlines())
    return {int(number): body for number, _, body in rows}


# ---------------------------------------------------------------------- ways to lose the primary


def kill_pod(stack: ClusterStack, pod: str) -> None:
    stack.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def processes(stack: ClusterStack, pod: str) -> list[int]:
    """Return the process ids of an instance, as its node knows them."""
    statuses = stack.core.read_namespaced_pod(pod, stack.namespace).status.container_statuses
    [container] = [
        status.container_id.removeprefix("containerd://") for status in statuses if status.name == "postgres"
    ]
    ctr = ("ctr", "--address", str(lab.SOCKET), "--namespace", "k8s.io")
    listed = subprocess.run([*ctr, "tasks", "ps", container], check=True, capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines()[1:]]


def kill_process(stack: ClusterStack, pod: str) -> None:
    os.kill(min(processes(stack, pod)), signal.SIGKILL)


def freeze(stack: ClusterStack, pod: str) -> None:
    """Stop all processes of the instance for 90 s; its connections stay open."""
    frozen = processes(stack, pod)
    for entry in frozen:
        os.kill(entry, signal.SIGSTOP)
    threading.Timer(90, thaw, [frozen]).start()


def thaw(frozen: list[int]) -> None:
    """Continue the processes: the instance still believes to be the primary unless its operator stopped it."""
    for entry in frozen:
        if Path(f"/proc/{entry}").exists():
            os.kill(entry, signal.SIGCONT)


def kill_two(stack: ClusterStack, pod: str) -> None:
    """Kill the primary and a replica that may have writes the third instance lacks: the third must not take over alone."""
    other = next(entry.metadata.name for entry in stack.pods(NAME) if entry.metadata.name != pod)
    stack.kubectl("delete", "pod", pod, other, "--force", "--grace-period=0")


def delete_volume(stack: ClusterStack, pod: str) -> None:
    stack.kubectl("delete", "pvc", pod, "--wait=false")
    kill_pod(stack, pod)


def kill_operator(stack: ClusterStack, pod: str) -> None:
    words = ("--namespace=cnpg-system", "delete", "pod", "--selector=app.kubernetes.io/name=cloudnative-pg")
    lab.kubectl(*words, "--force", "--grace-period=0")


def kill_pod_during_a_release(stack: ClusterStack, pod: str) -> None:
    """Kill the primary while the migration runs or the tiers of the new slot start.

    An interrupted migration is not repeated by itself, because nobody knows what it has done. The release fails, the live slot
    is untouched, and a second update releases it.
    """
    stack.app["version"] = f"{time.time_ns()}"
    ended: list[Result] = []
    release = threading.Thread(target=lambda: ended.append(stack.up(check=False)))
    release.start()
    time.sleep(12)
    kill_pod(stack, pod)
    release.join(300)
    if ended[0].code:
        assert "app.api.migrate" in ended[0].text, ended[0].text
        assert "what is live was not touched" in ended[0].text
        eventually(lambda: healthy(stack), 120)
        stack.up()
    assert stack.live()["release"].startswith(stack.app["version"])


@pytest.mark.parametrize(
    "lose",
    [
        kill_pod,
        kill_process,
        freeze,
        kill_two,
        delete_volume,
        kill_operator,
        kill_pod_during_a_release,
    ],
)
def test_no_acknowledged_write_is_lost_with_an_instance(
    stack: ClusterStack, pytestconfig: pytest.Config, lose: Callable[[ClusterStack, str], None]
) -> None:
    seen: list[Writes] = []
    for _ in range(5 if pytestconfig.getoption("soak") else 1):
        eventually(lambda: healthy(stack), 300)
        seen.append(once(stack, lose))
        print(f"\n{lose.__name__}: {seen[-1]}")
    report("database", lose, [Loss(loss.gap, len(loss.acknowledged), len(loss.missing)) for loss in seen])
    assert max(loss.gap for loss in seen) < WITHIN


def once(stack: ClusterStack, lose: Callable[[ClusterStack, str], None]) -> Writes:
    """Lose the primary once, and check every acknowledged write after the cluster is healthy again."""
    with writes(stack) as seen:
        eventually(lambda: len(seen.acknowledged) > 50, 60)
        lost = primary(stack)
        lose(stack, lost)
        after = time.monotonic()
        # First some later writes, then a healthy cluster: late losses count, too.
        eventually(lambda: sum(when > after for when, *_ in seen.acknowledged) > 200, 180)
        eventually(lambda: healthy(stack), 300)
    seen.compare(stored(stack))
    assert not seen.missing, f"{lose.__name__} of {lost}: {seen}"
    vague = {answer for _, answer in seen.refused if answer.startswith("500")}
    assert not vague, vague
    return seen
