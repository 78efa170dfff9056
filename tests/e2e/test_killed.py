"""The engine is killed at points spread over a release: the next update succeeds, and users notice nothing."""

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
from .stack import Stack, deployed, on

POINTS = 3
SOAK = 30
ASKED = ("same", "previous", "third")


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board on either platform."""
    with deployed(on(request.param, tmp_path_factory.mktemp("killed"), "e2e-killed")) as board:
        yield board


def events(log: Path) -> int:
    """Return how many steps of resources have begun or ended so far."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sum('"resourcePreEvent"' in line or '"resOutputsEvent"' in line for line in lines)


def begun(stack: Stack, log: Path) -> subprocess.Popen[str]:
    stack.write()
    return subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", stack.name, "--non-interactive", "--event-log", str(log)],
        cwd=stack.folder, env=stack.variables | {"PULUMI_DEBUG_COMMANDS": "true"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def creating(log: Path, name: str) -> bool:
    """Tell whether the creation of a resource whose URN ends with `name` has begun."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    begins = [json.loads(line).get("resourcePreEvent") for line in lines if line.endswith("\n")]
    created = [
        entry["metadata"] for entry in begins if entry and entry["metadata"]["op"] in ("create", "create-replacement")
    ]
    return any(re.search(f"{name}$", entry["urn"]) for entry in created)


def killed(stack: Stack, when: Callable[[], bool], log: Path) -> bool:
    """Begin an update and kill only its engine when `when` is true; return False if the update ended before."""
    engine = begun(stack, log)
    while engine.poll() is None:
        if when():
            os.kill(engine.pid, signal.SIGKILL)
            engine.wait()
            return True
        time.sleep(0.005)
    return False


def running(stack: Stack, slot: str) -> set[str]:
    """Return ids of the containers that answer users in a slot; an id changes when its container is touched."""
    return {entry for tier in ("web", "api") for entry in stack.ids(tier, slot)}


@pytest.mark.long
def test_update_killed_anywhere_converges_and_loses_no_request(
    stack: Stack, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    points = SOAK if pytestconfig.getoption("soak") else POINTS
    number, log = 1, tmp_path / "whole.json"
    stack.app["version"] = f"0.{number}.0"
    whole = begun(stack, log)
    assert whole.wait(timeout=300) == 0
    steps = events(log)
    assert steps > 50
    at: list[int] = []
    with load(stack, seconds=points * 120, rate=50) as seen:
        for point, action in zip(range(points), cycle(ASKED), strict=False):
            step = 1 + point * (steps - 1) // (points - 1)
            before = stack.live()
            ids = running(stack, before["slot"])
            previous = stack.app["version"]
            number += 1
            stack.app["version"] = f"0.{number}.0"
            log = tmp_path / f"{point}.json"
            if killed(stack, lambda log=log, step=step: events(log) >= step, log):
                at.append(step)
                output = stack.ci("heal")
                assert "healed" in output, output
            # The stack's outputs are not read here: an interrupted update did not write them.
            if stack.get("/api/release").json()["slot"] == before["slot"]:
                assert running(stack, before["slot"]) == ids, f"the live slot was touched at step {step}"
            if action == "previous":
                stack.app["version"] = previous
            elif action == "third":
                number += 1
                stack.app["version"] = f"0.{number}.0"
            stack.up()
            assert stack.live()["release"].startswith(f"{stack.app['version']}-"), (step, action)
            if action == "previous":
                assert running(stack, before["slot"]) == ids, f"the live slot was touched after step {step}"
            assert set(stack.up().changed) == {"unchanged"}, (step, action)
    assert len(at) >= points - 1, "all updates but the last must be killed before their end"
    print(f"\n{steps} steps, killed at {at}\n{seen}")
    assert not seen.failed, seen


def test_update_after_a_killed_one_names_the_healing_command(stack: Stack, tmp_path: Path) -> None:
    stack.app["version"] = "1.0.1"
    log = tmp_path / "log.json"
    assert killed(stack, lambda: creating(log, r"(-api-1|Deployment::api-\w+)"), log)
    locked = stack.up(check=False)
    assert locked.code
    assert "the stack is currently locked by 1 lock(s)" in locked.text
    assert "pulumi cancel" in locked.text
    stack.pulumi("cancel", "--yes", "--stack", stack.name, check=True)
    refused = stack.up(check=False)
    assert refused.code
    assert f"run `make heal ENV={stack.name}`" in refused.text
    assert "healed" in stack.ci("heal")
    assert stack.ci("heal") == ""
    stack.up()
    assert stack.live()["release"].startswith("1.0.1-")


def test_second_update_at_the_same_time_is_refused(stack: Stack, tmp_path: Path) -> None:
    stack.app["version"] = "1.1.0"
    log = tmp_path / "log.json"
    one = begun(stack, log)
    while events(log) < 5:
        time.sleep(0.01)
    second = stack.up(check=False)
    assert second.code
    assert "the stack is currently locked by 1 lock(s)" in second.text
    with pytest.raises(subprocess.CalledProcessError) as alive:
        stack.ci("heal")
    assert "is being updated by" in alive.value.stderr
    assert one.wait(timeout=300) == 0
    assert stack.live()["release"].startswith("1.1.0-")
