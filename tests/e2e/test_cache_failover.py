"""The primary of a replicated Redis dies in several ways under load: which of what was answered is there afterwards, and for how long none was.

`lost` counts keys that were acknowledged and are not there; that a job was lost fails the test, for its message is in the database.
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
"""Keys that may be lost with a primary: what it answered in its last milliseconds (docs/adr/018-a-cache-that-survives.md). Of thousands."""


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
    """The redis-server of a member."""
    [found] = processes(pod.metadata.uid, "redis-server *:6379")
    return found


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


def change_each(stack: ClusterStack) -> None:
    stack.environment["tiers"]["cache"]["memory"] = "320Mi"
    stack.up()


def befall(stack: ClusterStack, what: Callable[[ClusterStack, Any], None], number: int = 1) -> Loss:
    """What of the keys that were acknowledged is gone, and for how long none was."""
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
    """Staging, its cache single with a key in it, and then replicated: the way of every stack that has data."""
    made = ClusterStack(tmp_path_factory.mktemp("cache"), "e2e-cache")
    made.environment["kubernetes"]["namespace"].pop("quota")
    for tier in ("web", "api"):
        made.environment["tiers"][tier]["replicas"] = 1
    with deployed(made):
        in_api(
            made, "from redis import Redis; from board import settings; Redis(**settings.cache_server()).set('old', 1)"
        )
        made.environment["tiers"]["cache"]["ha"] = True
        made.up()
        yield made


def test_what_a_single_cache_held_is_there_three_times(stack: ClusterStack) -> None:
    assert whole(stack)
    for pod in stack.pods("cache"):
        assert redis(stack, pod, "exists old").strip() == "1"
    assert json.loads(in_api(stack, MISSING, given='["old", "never"]')) == 1, "what finds a lost key finds one"


def test_nobody_comes_past_the_proxy(stack: ClusterStack) -> None:
    """Who found a member while there was a single one's address yet would not be cut when it is primary no longer."""
    by_tier = {tier: {pod.status.pod_ip for pod in stack.pods(tier)} for tier in ("api", "worker", "cache-proxy")}
    came = {
        pod.metadata.name: set(re.findall(r" addr=([\d.]+):", redis(stack, pod, "client list")))
        for pod in stack.pods("cache")
    }
    assert came[primary(stack).metadata.name] & by_tier["cache-proxy"], came
    assert not set().union(*came.values()) & (by_tier["api"] | by_tier["worker"]), (came, by_tier)


def test_an_update_that_changes_nothing_changes_nothing(stack: ClusterStack) -> None:
    assert set(stack.up().changed) == {"unchanged"}


@pytest.mark.parametrize("what", [delete_pod, kill_server, freeze, lose_data, delete_all, stop_pod])
def test_whatever_befalls_the_primary_no_job_is_lost(
    stack: ClusterStack, pytestconfig: pytest.Config, what: Callable[[ClusterStack, Any], None]
) -> None:
    rounds = 5 if pytestconfig.getoption("soak") else 1
    reported(what, [befall(stack, what, number) for number in range(rounds)])


def test_members_are_changed_one_after_the_other_under_load(stack: ClusterStack) -> None:
    with load(stack, "change") as seen:
        at = time.time()
        change_each(stack)
        time.sleep(5)
    eventually(lambda: whole(stack), 60)
    reported(change_each, [Loss(seen.longest(at), len(seen.acknowledged), seen.lost())])


def test_a_new_password_reaches_all_members_at_once(stack: ClusterStack) -> None:
    stack.pulumi("config", "set", "--secret", "--path", "secrets.cache-password", "another-e2e-cache", check=True)
    stack.up()
    eventually(lambda: whole(stack), 60)
    assert in_api(stack, MISSING, given='["old"]').strip() == "0"


def reported(what: Callable[..., None], rounds: Sequence[Loss]) -> None:
    """Say it in the report, and fail if it is too much."""
    report("cache", what, rounds)
    assert all(each.lost <= FEW for each in rounds), rounds
    assert max(each.seconds for each in rounds) < 60, rounds
