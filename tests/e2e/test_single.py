"""Tests of a process that must never run twice (`single`), on both platforms.

The process writes its identity to Redis every 20 ms, also while it finishes its work after SIGTERM. If two processes ran at the same
time, their entries would alternate. The tests run in file order.
"""

import os
import signal
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

import pytest

from .redis_program import CLIENT, output_lines
from .stack import (
    ClusterStack,
    DockerStack,
    Stack,
    create_board,
    deployment,
    destroy_without_leftovers,
    eventually,
    steady_requests,
)

TICKER = f"""{CLIENT}
identity, ends = f"{{os.environ['RELEASE']}}/{{uuid.uuid4().hex[:8]}}", []
signal.signal(signal.SIGTERM, lambda *_: ends.append(time.time() + 1))
while not ends or time.time() < ends[0]:
    client.rpush("ticks", f"{{identity}} {{time.time()}}")
    time.sleep(0.02)
"""
READER = 'print(*(tick.decode() for tick in client.lrange("ticks", 0, -1)), sep="\\n")'


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("single"), "e2e-single")
    build = stack.app["api"]["build"]
    beat = {"tier": "worker", "build": build, "command": ["python", "-c", TICKER], "needs": ["cache"], "single": True}
    stack.app["services"] = {"beat": beat}
    with deployment(stack):
        yield stack


def ticks(stack: Stack) -> list[tuple[str, float]]:
    """Return the entries of all processes until now: identity and time."""
    pairs = (line.split() for line in output_lines(stack, READER) if "/" in line and len(line.split()) == 2)
    return [(identity, float(when)) for identity, when in pairs]


def processes(stack: Stack) -> list[str]:
    """Return the identities of all processes in the order of their start. Assert that no two processes ran at the same time."""
    entries = ticks(stack)
    runs = [identity for identity, _ in groupby(entries, key=lambda entry: entry[0])]
    assert len(runs) == len(set(runs)), f"two processes ran at the same time: {runs}"
    return runs


def gaps(stack: Stack) -> list[float]:
    """Return the seconds without a process at each handover."""
    entries = ticks(stack)
    return [round(later - earlier, 1) for (one, earlier), (other, later) in pairwise(entries) if one != other]


def running_release(stack: Stack) -> str:
    return processes(stack)[-1].partition("/")[0]


def test_process_runs_for_the_live_release(stack: Stack) -> None:
    eventually(lambda: running_release(stack) == stack.live()["release"])
    assert set(stack.up().changes) == {"unchanged"}
    assert "1/1 ready" in next(line for line in stack.run_ci("status").splitlines() if "beat" in line)


@pytest.mark.parametrize("step", ["release", "rollback", "release after the rollback"])
def test_process_runs_once_over_a_switch_and_no_request_is_lost(stack: Stack, step: str) -> None:
    before = processes(stack)
    action = "previous" if step == "rollback" else "configured"
    if action == "configured":
        stack.app["version"] = f"2.{len(before)}.0"
    with steady_requests(stack) as statuses:
        result = stack.up(TIERS_RELEASE=action)
    assert set(statuses) <= {"200", "201"}, statuses
    assert "beat: the old process ended and the new one is healthy, within" in result.text
    eventually(lambda: running_release(stack) == stack.live()["release"])
    assert len(processes(stack)) == len(before) + 1
    print(f"\n{step}: gaps of all handovers in seconds: {gaps(stack)}")


@pytest.mark.long
def test_update_after_a_switch_changes_nothing(stack: Stack) -> None:
    before = processes(stack)
    assert set(stack.up().changes) == {"unchanged"}
    assert processes(stack) == before


@pytest.mark.long
def test_release_that_waits_leaves_the_process_and_promotion_replaces_it(stack: Stack) -> None:
    before = processes(stack)
    stack.environment["release"] = {**stack.environment.get("release", {}), "promote": "manual"}
    stack.app["version"] = "3.0.0"
    stack.up()
    assert processes(stack) == before
    stack.up(TIERS_RELEASE="promote")
    eventually(lambda: running_release(stack).startswith("3.0.0-"))
    assert len(processes(stack)) == len(before) + 1
    stack.environment["release"]["promote"] = "auto"
    stack.up()


def test_killed_process_starts_again_and_never_runs_twice(stack: Stack) -> None:
    before = processes(stack)
    kill(stack)
    eventually(lambda: len(processes(stack)) == len(before) + 1, 60)
    assert running_release(stack) == stack.live()["release"]


def kill(stack: Stack) -> None:
    """Kill the process without giving it time to end; on Kubernetes delete its pod."""
    if isinstance(stack, DockerStack):
        [container] = [item for item in stack.containers() if item.labels.get("tiers.role") == "single"]
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    if isinstance(stack, ClusterStack):
        stack.kubectl("delete", "pod", "beat-0", "--wait=false")


def test_command_runs_in_the_process_and_with_its_settings(stack: Stack) -> None:
    assert stack.run_ci("container", "beat", "printenv RELEASE").strip().splitlines()[-1] == stack.live()["release"]


@pytest.mark.long
def test_process_that_fails_is_reported_and_a_rollback_restores_the_old_one(stack: Stack) -> None:
    before, live = processes(stack), stack.live()["release"]
    good: dict[str, Any] = stack.app["services"]["beat"]
    stack.app["services"]["beat"] = good | {
        "command": ["python", "-c", "print('no broker'); raise SystemExit(3)"],
        "start_within": "8s",
    }
    stack.app["version"] = "4.0.0"
    failed = stack.up(check=False)
    assert failed.code
    assert "app.services.beat" in failed.text and "no broker" in failed.text, failed.text
    assert stack.live()["release"].startswith("4.0.0-")
    stack.app["services"]["beat"] = good
    stack.up(TIERS_RELEASE="previous")
    assert stack.live()["release"] == live
    eventually(lambda: running_release(stack) == live)
    assert len(processes(stack)) == len(before) + 1


def test_destroy_leaves_nothing(stack: Stack) -> None:
    destroy_without_leftovers(stack)
