"""Tests that kill Pulumi at many different steps of a release. The next update must succeed, and no request may be lost."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from .load import load
from .stack import Stack, create_board, deployment, eventually

POINTS = 3
"""Number of steps at which an update is killed."""
SOAK_POINTS = 30
"""Number of steps at which an update is killed if pytest runs with --soak."""
NEXT_RELEASES = ("same", "previous", "third")
"""Release that is deployed after a killed update: the release of the killed update, the previous release, or a new third release."""


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board on both platforms in turn."""
    with deployment(create_board(request.param, tmp_path_factory.mktemp("killed"), "e2e-killed")) as board:
        yield board


def count_steps(log: Path) -> int:
    """Return the number of started and completed resource steps in an event log."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sum('"resourcePreEvent"' in line or '"resOutputsEvent"' in line for line in lines)


def start_update(stack: Stack, log: Path) -> subprocess.Popen[str]:
    """Start `pulumi up` with an event log."""
    stack.write()
    return subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", stack.name, "--non-interactive", "--event-log", str(log)],
        cwd=stack.folder, env=stack.variables | {"PULUMI_DEBUG_COMMANDS": "true"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def has_creation_begun(log: Path, name: str) -> bool:
    """Return whether the creation of a resource has begun. `name` is a regular expression for the end of the URN."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    events = [json.loads(line).get("resourcePreEvent") for line in lines if line.endswith("\n")]
    creations = [
        entry["metadata"] for entry in events if entry and entry["metadata"]["op"] in ("create", "create-replacement")
    ]
    return any(re.search(f"{name}$", entry["urn"]) for entry in creations)


def kill_update(stack: Stack, condition: Callable[[], bool], log: Path) -> bool:
    """Start an update, and kill its `pulumi` process as soon as `condition` is true. Kill no other process.

    Return True if the process was killed, and False if the update ended before `condition` was true.
    """
    process = start_update(stack, log)
    while process.poll() is None:
        if condition():
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)
    return False


def running_ids(stack: Stack, slot: str) -> set[str]:
    """Return the ids of the web and api containers of a slot. A replaced or restarted container gets another id."""
    return {entry for tier in ("web", "api") for entry in stack.ids(tier, slot)}


@pytest.mark.long
def test_update_after_a_kill_at_any_step_succeeds_and_loses_no_request(
    stack: Stack, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    points = SOAK_POINTS if pytestconfig.getoption("soak") else POINTS
    number, log = 1, tmp_path / "whole.json"
    stack.app["version"] = f"0.{number}.0"
    complete_update = start_update(stack, log)
    assert complete_update.wait(timeout=300) == 0
    steps = count_steps(log)
    assert steps > 50
    killed_steps: list[int] = []
    with load(stack, seconds=points * 120, rate=50) as traffic:
        for point, next_release in zip(range(points), cycle(NEXT_RELEASES), strict=False):
            step = 1 + point * (steps - 1) // (points - 1)
            before = stack.live()
            ids = running_ids(stack, before["slot"])
            previous = stack.app["version"]
            number += 1
            stack.app["version"] = f"0.{number}.0"
            log = tmp_path / f"{point}.json"
            if kill_update(stack, lambda log=log, step=step: count_steps(log) >= step, log):
                killed_steps.append(step)
                output = stack.run_ci("heal")
                assert "healed" in output, output
            # Read the live slot from the api, because an interrupted update does not write the stack outputs.
            if stack.get("/api/release").json()["slot"] == before["slot"]:
                assert running_ids(stack, before["slot"]) == ids, f"the live slot was touched at step {step}"
            if next_release == "previous":
                stack.app["version"] = previous
            elif next_release == "third":
                number += 1
                stack.app["version"] = f"0.{number}.0"
            stack.up()
            assert stack.live()["release"].startswith(f"{stack.app['version']}-"), (step, next_release)
            if next_release == "previous":
                assert running_ids(stack, before["slot"]) == ids, f"the live slot was touched after step {step}"
            assert set(stack.up().changes) == {"unchanged"}, (step, next_release)
    assert len(killed_steps) >= points - 1, "at most one update may end before it is killed"
    print(f"\n{steps} steps, killed at {killed_steps}\n{traffic}")
    assert not traffic.failed, traffic


def test_killed_update_must_be_healed_by_make_heal_before_the_next_update(stack: Stack, tmp_path: Path) -> None:
    stack.app["version"] = "1.0.1"
    log = tmp_path / "log.json"
    assert kill_update(stack, lambda: has_creation_begun(log, r"(-api-1|Deployment::api-\w+)"), log)
    locked = stack.up(check=False)
    assert locked.code
    assert "the stack is currently locked by 1 lock(s)" in locked.text
    assert "pulumi cancel" in locked.text
    stack.pulumi("cancel", "--yes", "--stack", stack.name, check=True)
    refused = stack.up(check=False)
    assert refused.code
    assert f"run `make heal ENV={stack.name}`" in refused.text
    assert "healed" in stack.run_ci("heal")
    assert stack.run_ci("heal") == ""
    stack.up()
    assert stack.live()["release"].startswith("1.0.1-")


def test_second_update_at_the_same_time_is_refused(stack: Stack, tmp_path: Path) -> None:
    stack.app["version"] = "1.1.0"
    log = tmp_path / "log.json"
    first = start_update(stack, log)
    while count_steps(log) < 5:
        time.sleep(0.01)
    # Repeat, because Pulumi reads the checkpoint first, and fails if the first update is writing the file (seen: EOF).
    eventually(lambda: "the stack is currently locked by 1 lock(s)" in stack.up(check=False).text)
    with pytest.raises(subprocess.CalledProcessError) as refused_healing:
        stack.run_ci("heal")
    assert "is being updated by" in refused_healing.value.stderr
    assert first.wait(timeout=300) == 0
    assert stack.live()["release"].startswith("1.1.0-")
