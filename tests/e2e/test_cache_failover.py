"""The primary of a replicated Redis dies in several ways under load: lost keys and the time without acknowledged writes are measured.

`lost` counts acknowledged keys that are missing afterwards. A lost job fails the test, because its message is in the database.
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

from .losses import Loss, report
from .stack import ClusterStack, deployed, eventually
from .writing import MISSING, every_job_is_done, in_api, load, processes

pytestmark = pytest.mark.long
FEW = 40
"""Most keys that may be lost with a primary, of thousands: those it acknowledged in its last milliseconds.

See docs/adr/018-a-cache-that-survives.md.
"""


# ---------------------------------------------------------------------- ways to lose the primary


def primary(stack: ClusterStack) -> Any:
    """Return the pod of the primary that all three Sentinels name."""
    ask = """W=$(printf 'watcher %s' "$(cat /run/secrets/cache-password)" | sha256sum | cut -d ' ' -f 1)
    REDISCLI_AUTH=$W redis-cli -p 26379 sentinel get-master-addr-by-name tiers | head -n 1"""
    members = stack.pods("cache")
    primaries = [
        stack.kubectl("exec", pod.metadata.name, "-c", "watcher", "--", "sh", "-c", ask).strip() for pod in members
    ]
    assert len(primaries) == 3 and len(set(primaries)) == 1, primaries
    return next(pod for pod in members if pod.metadata.labels["tiers.member"] == primaries[0])


def redis(stack: ClusterStack, pod: Any, command: str) -> str:
    """Run a Redis command on a member, and return the answer."""
    login = f'REDISCLI_AUTH="$(cat /run/secrets/cache-password)" redis-cli {command}'
    return stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", login)


def whole(stack: ClusterStack) -> bool:
    """Tell whether the cache has one primary and two replicas that follow it."""
    replication = redis(stack, primary(stack), "info replication")
    return "role:master" in replication and replication.count("state=online") == 2


def server(pod: Any) -> int:
    """Return the process id of a member's redis-server."""
    [process] = processes(pod.metadata.uid, "redis-server *:6379")
    return process


def delete_pod(stack: ClusterStack, pod: Any) -> None:
    stack.kubectl("delete", "pod", pod.metadata.name, "--force", "--grace-period=0")


def stop_pod(stack: ClusterStack, pod: Any) -> None:
    """Delete the pod with its grace period, as a drained node and a new version do."""
    stack.kubectl("delete", "pod", pod.metadata.name, "--wait=false")


def kill_server(stack: ClusterStack, pod: Any) -> None:
    os.kill(server(pod), signal.SIGKILL)


def freeze(stack: ClusterStack, pod: Any) -> None:
    """Stop the process for 20 s. Meanwhile another member becomes primary."""
    process = server(pod)
    os.kill(process, signal.SIGSTOP)
    threading.Timer(20, os.kill, (process, signal.SIGCONT)).start()


def lose_data(stack: ClusterStack, pod: Any) -> None:
    """Restart the server at once without its data, before Sentinel notices."""
    process = server(pod)
    stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", "rm -rf /data/*")
    os.kill(process, signal.SIGKILL)


def delete_all(stack: ClusterStack, pod: Any) -> None:
    stack.kubectl("delete", "pod", "--selector=app.kubernetes.io/name=cache", "--force", "--grace-period=0")


def change_each(stack: ClusterStack) -> None:
    stack.environment["tiers"]["cache"]["memory"] = "320Mi"
    stack.up()


def befall(stack: ClusterStack, what: Callable[[ClusterStack, Any], None], number: int = 1) -> Loss:
    """Lose the primary under load, and return the lost keys and the time without acknowledged writes."""
    eventually(lambda: whole(stack), 60)
    with load(stack, f"{what.__name__}-{number}") as seen:
        before, at = len(seen.acknowledged), time.time()
        what(stack, primary(stack))
        eventually(lambda: seen.acknowledged[-1][1] > at + 12, 90)
        eventually(lambda: whole(stack), 90)
        time.sleep(2)
    assert len(seen.acknowledged) > before
    every_job_is_done(stack, seen.messages)
    return Loss(seen.longest(at), len(seen.acknowledged), seen.lost())


# ---------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """Deploy staging with a single cache that holds a key, and then replicate it, as every stack with data does."""
    board = ClusterStack(tmp_path_factory.mktemp("cache"), "e2e-cache")
    board.environment["kubernetes"]["namespace"].pop("quota")
    for tier in ("web", "api"):
        board.environment["tiers"][tier]["replicas"] = 1
    with deployed(board):
        in_api(
            board, "from redis import Redis; from board import settings; Redis(**settings.cache_server()).set('old', 1)"
        )
        board.environment["tiers"]["cache"]["ha"] = True
        board.up()
        yield board


def test_key_of_the_single_cache_is_on_all_three_members(stack: ClusterStack) -> None:
    assert whole(stack)
    for pod in stack.pods("cache"):
        assert redis(stack, pod, "exists old").strip() == "1"
    assert json.loads(in_api(stack, MISSING, stdin='["old", "never"]')) == 1, "the check for missing keys must find one"


def test_clients_connect_to_the_proxy_only(stack: ClusterStack) -> None:
    """Clients that found a member through the old address would stay connected to it after it stops being primary."""
    by_tier = {tier: {pod.status.pod_ip for pod in stack.pods(tier)} for tier in ("api", "worker", "cache-proxy")}
    came = {
        pod.metadata.name: set(re.findall(r" addr=([\d.]+):", redis(stack, pod, "client list")))
        for pod in stack.pods("cache")
    }
    assert came[primary(stack).metadata.name] & by_tier["cache-proxy"], came
    assert not set().union(*came.values()) & (by_tier["api"] | by_tier["worker"]), (came, by_tier)


def test_second_update_changes_nothing(stack: ClusterStack) -> None:
    assert set(stack.up().changed) == {"unchanged"}


@pytest.mark.parametrize("what", [delete_pod, kill_server, freeze, lose_data, delete_all, stop_pod])
def test_no_job_is_lost_with_the_primary(
    stack: ClusterStack, pytestconfig: pytest.Config, what: Callable[[ClusterStack, Any], None]
) -> None:
    rounds = 5 if pytestconfig.getoption("soak") else 1
    reported(what, [befall(stack, what, number) for number in range(rounds)])


def test_members_are_updated_one_after_the_other_under_load(stack: ClusterStack) -> None:
    with load(stack, "change") as seen:
        at = time.time()
        change_each(stack)
        time.sleep(5)
    eventually(lambda: whole(stack), 60)
    reported(change_each, [Loss(seen.longest(at), len(seen.acknowledged), seen.lost())])


def test_new_password_reaches_all_members(stack: ClusterStack) -> None:
    stack.pulumi("config", "set", "--secret", "--path", "secrets.cache-password", "another-e2e-cache", check=True)
    stack.up()
    eventually(lambda: whole(stack), 60)
    assert in_api(stack, MISSING, stdin='["old"]').strip() == "0"


def reported(what: Callable[..., None], rounds: Sequence[Loss]) -> None:
    """Write the rounds to the report, and fail if too many keys are lost or the time is too long."""
    report("cache", what, rounds)
    assert all(loss.lost <= FEW for loss in rounds), rounds
    assert max(loss.seconds for loss in rounds) < 60, rounds
