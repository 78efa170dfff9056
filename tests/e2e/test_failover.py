"""Test that a database cluster loses no acknowledged write when it loses an instance.

Each test causes one kind of failure while writers post messages. With --soak, each failure is repeated five times.
`make e2e-data` prints the time without an acknowledged write.
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

from .loss_report import Loss, report
from .stack import ClusterStack, Result, eventually
from .writes import Writes, writes

pytestmark = pytest.mark.long
NAME = "database-ha"
MAX_SECONDS = 120
"""Accepted time in seconds without an acknowledged write. The limit is high because the machine may be busy with other work."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    board = ClusterStack(tmp_path_factory.mktemp("board"), "e2e-failover")
    board.environment |= {"seed": False}
    board.environment["kubernetes"]["apart"] = "anywhere"
    board.environment["kubernetes"]["namespace"] = {}
    board.environment["tiers"]["database"] |= {"ha": True, "storage": "1Gi"}
    try:
        board.build_images()
        board.up()
        yield board
    finally:
        board.remove()


def cluster_status(stack: ClusterStack) -> dict[str, Any]:
    """Return the status of CloudNativePG's Cluster object."""
    return json.loads(stack.kubectl("get", "cluster", NAME, "--output=json"))["status"]


def primary(stack: ClusterStack) -> str:
    """Return the pod name of the primary."""
    return cluster_status(stack)["currentPrimary"]


def is_healthy(stack: ClusterStack) -> bool:
    """Return whether all three instances are ready and no change of the primary is in progress."""
    status = cluster_status(stack)
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    return (
        conditions["Ready"] == "True"
        and status.get("readyInstances") == 3
        and status["currentPrimary"] == status["targetPrimary"]
    )


def read_messages(stack: ClusterStack) -> dict[int, str]:
    """Return message id → body of all messages, read directly from the primary."""
    sql = "copy (select id, body from messages) to stdout"
    words = ("exec", primary(stack), "--container=postgres", "--", "psql", "--quiet", "--dbname=board", "-c", sql)
    rows = (line.partition("\t") for line in stack.kubectl(*words).splitlines())
    return {int(number): body for number, _, body in rows}


# ---------------------------------------------------------------------- failures


def kill_pod(stack: ClusterStack, pod: str) -> None:
    stack.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def processes(stack: ClusterStack, pod: str) -> list[int]:
    """Return the process ids of a database instance. The ids are valid on this machine, because this machine is the lab's node."""
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
    """Freeze all processes of an instance for 90 s. The connections of the instance stay open."""
    frozen_processes = processes(stack, pod)
    for process in frozen_processes:
        os.kill(process, signal.SIGSTOP)
    threading.Timer(90, thaw, [frozen_processes]).start()


def thaw(frozen_processes: list[int]) -> None:
    """Resume the frozen processes that still exist.

    By this time the operator has promoted another instance, but the resumed instance still acts as primary.
    """
    for process in frozen_processes:
        if Path(f"/proc/{process}").exists():
            os.kill(process, signal.SIGCONT)


def kill_two(stack: ClusterStack, pod: str) -> None:
    """Kill the primary and one replica.

    The killed replica may have writes that the third instance misses. Therefore the third instance must not become primary while
    the killed replica is down.
    """
    replica = next(entry.metadata.name for entry in stack.pods(NAME) if entry.metadata.name != pod)
    stack.kubectl("delete", "pod", pod, replica, "--force", "--grace-period=0")


def delete_volume(stack: ClusterStack, pod: str) -> None:
    stack.kubectl("delete", "pvc", pod, "--wait=false")
    kill_pod(stack, pod)


def kill_operator(stack: ClusterStack, pod: str) -> None:
    operator_pods = ("--namespace=cnpg-system", "delete", "pod", "--selector=app.kubernetes.io/name=cloudnative-pg")
    lab.kubectl(*operator_pods, "--force", "--grace-period=0")


def kill_pod_during_a_release(stack: ClusterStack, pod: str) -> None:
    """Kill the primary 12 s after the start of a release, while the migration runs or the tiers of the new slot start.

    If the loss of the primary interrupts the migration, the release fails and the live slot is unchanged. In this case run the
    update again, which must succeed.
    """
    stack.app["version"] = f"{time.time_ns()}"
    results: list[Result] = []
    release = threading.Thread(target=lambda: results.append(stack.up(check=False)))
    release.start()
    time.sleep(12)
    kill_pod(stack, pod)
    release.join(300)
    if results[0].code:
        assert "app.api.migrate" in results[0].text, results[0].text
        assert "the live slot was not changed" in results[0].text
        eventually(lambda: is_healthy(stack), 120)
        stack.up()
    assert stack.live()["release"].startswith(stack.app["version"])


@pytest.mark.parametrize(
    "failure",
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
def test_lost_database_instance_loses_no_acknowledged_write(
    stack: ClusterStack, pytestconfig: pytest.Config, failure: Callable[[ClusterStack, str], None]
) -> None:
    records: list[Writes] = []
    for _ in range(5 if pytestconfig.getoption("soak") else 1):
        eventually(lambda: is_healthy(stack), 300)
        records.append(lose_database_primary(stack, failure))
        print(f"\n{failure.__name__}: {records[-1]}")
    report("database", failure, [Loss(loss.gap, len(loss.acknowledged), len(loss.missing)) for loss in records])
    assert max(loss.gap for loss in records) < MAX_SECONDS


def lose_database_primary(stack: ClusterStack, failure: Callable[[ClusterStack, str], None]) -> Writes:
    """Cause a failure during writes, wait until the cluster is healthy, and check that no acknowledged write is missing."""
    with writes(stack) as record:
        eventually(lambda: len(record.acknowledged) > 50, 60)
        lost_primary = primary(stack)
        failure(stack, lost_primary)
        time_of_loss = time.monotonic()
        # Wait for writes after the failure as well, because a write can be lost until the cluster is healthy again.
        eventually(lambda: sum(when > time_of_loss for when, *_ in record.acknowledged) > 200, 180)
        eventually(lambda: is_healthy(stack), 300)
    record.compare(read_messages(stack))
    assert not record.missing, f"{failure.__name__} of {lost_primary}: {record}"
    server_errors = {answer for _, answer in record.refused if answer.startswith("500")}
    assert not server_errors, server_errors
    return record
