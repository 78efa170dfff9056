"""Tests of a replicated Redis: if the primary fails under load, no job and at most a few keys may be lost.

If a job is lost, the worker finds the job's message in the database, and queues the job again. loss_report.py records the longest
time without an acknowledged key, and the number of acknowledged keys that are missing afterwards.
"""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from .cache_load import MISSING, find_processes, load, run_in_api, wait_for_jobs
from .loss_report import Loss, report
from .stack import ClusterStack, deployment, eventually

pytestmark = pytest.mark.long
MAX_LOST_KEYS = 40
"""Accepted number of lost keys.

A primary that fails loses the keys that it has acknowledged but not yet replicated (docs/adr/018-a-cache-that-survives.md).
"""


# ---------------------------------------------------------------------- failures of the primary


def primary(stack: ClusterStack) -> Any:
    """Return the pod of the primary, and check that all three Sentinels name the same primary."""
    script = """W=$(printf 'watcher %s' "$(cat /run/secrets/cache-password)" | sha256sum | cut -d ' ' -f 1)
    REDISCLI_AUTH=$W redis-cli -p 26379 sentinel get-master-addr-by-name tiers | head -n 1"""
    members = stack.pods("cache")
    primaries = [
        stack.kubectl("exec", pod.metadata.name, "-c", "watcher", "--", "sh", "-c", script).strip() for pod in members
    ]
    assert len(primaries) == 3 and len(set(primaries)) == 1, primaries
    return next(pod for pod in members if pod.metadata.labels["tiers.member"] == primaries[0])


def redis_cli(stack: ClusterStack, pod: Any, command: str) -> str:
    """Run a Redis command in the pod of a member, and return the output."""
    login = f'REDISCLI_AUTH="$(cat /run/secrets/cache-password)" redis-cli {command}'
    return stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", login)


def is_replicated(stack: ClusterStack) -> bool:
    """Return whether the cache has one primary and two online replicas."""
    replication = redis_cli(stack, primary(stack), "info replication")
    return "role:master" in replication and replication.count("state=online") == 2


def server_process(pod: Any) -> int:
    """Return the process id of redis-server in the pod of a member."""
    [process] = find_processes(pod.metadata.uid, "redis-server *:6379")
    return process


def delete_pod(stack: ClusterStack, pod: Any) -> None:
    stack.kubectl("delete", "pod", pod.metadata.name, "--force", "--grace-period=0")


def stop_pod(stack: ClusterStack, pod: Any) -> None:
    """Delete the pod with its grace period, as Kubernetes does when a node is drained or a new version is deployed."""
    stack.kubectl("delete", "pod", pod.metadata.name, "--wait=false")


def kill_server(stack: ClusterStack, pod: Any) -> None:
    os.kill(server_process(pod), signal.SIGKILL)


def freeze(stack: ClusterStack, pod: Any) -> None:
    """Freeze redis-server for 20 s. Another member becomes primary in this time."""
    process = server_process(pod)
    os.kill(process, signal.SIGSTOP)
    threading.Timer(20, os.kill, (process, signal.SIGCONT)).start()


def lose_data(stack: ClusterStack, pod: Any) -> None:
    """Delete the data and kill redis-server. The server restarts without data before Sentinel notices the loss."""
    process = server_process(pod)
    stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", "rm -rf /data/*")
    os.kill(process, signal.SIGKILL)


def delete_all(stack: ClusterStack, pod: Any) -> None:
    stack.kubectl("delete", "pod", "--selector=app.kubernetes.io/name=cache", "--force", "--grace-period=0")


def replace_members(stack: ClusterStack) -> None:
    """Change the memory limit of the cache and run `pulumi up`, which replaces every member."""
    stack.environment["tiers"]["cache"]["memory"] = "320Mi"
    stack.up()


def lose_cache_primary(stack: ClusterStack, failure: Callable[[ClusterStack, Any], None], number: int = 1) -> Loss:
    """Cause a failure under load, wait until the cache is replicated again, and return the measurements.

    Args:
        number: number of the round. The number is part of each key, so the keys of different rounds differ.
    """
    eventually(lambda: is_replicated(stack), 60)
    with load(stack, f"{failure.__name__}-{number}") as record:
        acknowledged_before, start = len(record.acknowledged), time.time()
        failure(stack, primary(stack))
        eventually(lambda: record.acknowledged[-1][1] > start + 12, 90)
        eventually(lambda: is_replicated(stack), 90)
        time.sleep(2)
    assert len(record.acknowledged) > acknowledged_before
    wait_for_jobs(stack, record.messages)
    return Loss(record.longest_gap(start), len(record.acknowledged), record.lost())


# ---------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """Deploy staging with a single Redis instance, write the key `old`, and then update to a replicated Redis."""
    board = ClusterStack(tmp_path_factory.mktemp("cache"), "e2e-cache")
    board.environment["kubernetes"]["namespace"].pop("quota")
    for tier in ("web", "api"):
        board.environment["tiers"][tier]["replicas"] = 1
    with deployment(board):
        run_in_api(
            board, "from redis import Redis; from board import settings; Redis(**settings.cache_server()).set('old', 1)"
        )
        board.environment["tiers"]["cache"]["ha"] = True
        board.up()
        yield board


def test_key_written_before_replication_is_on_all_three_members(stack: ClusterStack) -> None:
    assert is_replicated(stack)
    for pod in stack.pods("cache"):
        assert redis_cli(stack, pod, "exists old").strip() == "1"
    assert json.loads(run_in_api(stack, MISSING, stdin='["old", "never"]')) == 1, (
        "the check for missing keys must find the key `never`"
    )


def test_clients_connect_to_the_proxy_only(stack: ClusterStack) -> None:
    """Check that no member of the cache has a connection from the api or the worker.

    The api and the worker must connect to the proxy, because only the proxy finds the new primary after a failover.
    """
    addresses_by_tier = {
        tier: {pod.status.pod_ip for pod in stack.pods(tier)} for tier in ("api", "worker", "cache-proxy")
    }
    client_addresses = {
        pod.metadata.name: set(re.findall(r" addr=([\d.]+):", redis_cli(stack, pod, "client list")))
        for pod in stack.pods("cache")
    }
    assert client_addresses[primary(stack).metadata.name] & addresses_by_tier["cache-proxy"], client_addresses
    assert not set().union(*client_addresses.values()) & (addresses_by_tier["api"] | addresses_by_tier["worker"]), (
        client_addresses,
        addresses_by_tier,
    )


def test_second_update_changes_nothing(stack: ClusterStack) -> None:
    assert set(stack.up().changes) == {"unchanged"}


@pytest.mark.parametrize("failure", [delete_pod, kill_server, freeze, lose_data, delete_all, stop_pod])
def test_lost_cache_primary_loses_no_job(
    stack: ClusterStack, pytestconfig: pytest.Config, failure: Callable[[ClusterStack, Any], None]
) -> None:
    rounds = 5 if pytestconfig.getoption("soak") else 1
    report_losses(failure, [lose_cache_primary(stack, failure, number) for number in range(rounds)])


def test_members_are_updated_one_after_the_other_under_load(stack: ClusterStack) -> None:
    with load(stack, "change") as record:
        start = time.time()
        replace_members(stack)
        time.sleep(5)
    eventually(lambda: is_replicated(stack), 60)
    report_losses(replace_members, [Loss(record.longest_gap(start), len(record.acknowledged), record.lost())])


def test_new_password_reaches_all_members(stack: ClusterStack) -> None:
    stack.pulumi("config", "set", "--secret", "--path", "secrets.cache-password", "another-e2e-cache", check=True)
    stack.up()
    eventually(lambda: is_replicated(stack), 60)
    assert run_in_api(stack, MISSING, stdin='["old"]').strip() == "0"


def report_losses(failure: Callable[..., None], losses: Sequence[Loss]) -> None:
    """Write the losses to the report. For each loss, check the number of lost keys and the time without an acknowledged key."""
    report("cache", failure, losses)
    assert all(loss.lost <= MAX_LOST_KEYS for loss in losses), losses
    assert max(loss.seconds for loss in losses) < 60, losses
