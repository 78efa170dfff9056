"""The engine killed at points spread over a release: whatever is asked for next goes out, and nobody notices."""

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
    """The board live on either platform."""
    with deployed(on(request.param, tmp_path_factory.mktemp("killed"), "e2e-killed")) as made:
        yield made


def events(log: Path) -> int:
    """How many steps of resources have begun or ended so far."""
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
    """Whether the creation of a resource whose URN ends like that has begun."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    begins = [json.loads(line).get("resourcePreEvent") for line in lines if line.endswith("\n")]
    made = [each["metadata"] for each in begins if each and each["metadata"]["op"] in ("create", "create-replacement")]
    return any(re.search(f"{name}$", each["urn"]) for each in made)


def killed(stack: Stack, when: Callable[[], bool], log: Path) -> bool:
    """Begin an update and kill its engine, and nothing else, when it is time; False if it ended before."""
    engine = begun(stack, log)
    while engine.poll() is None:
        if when():
            os.kill(engine.pid, signal.SIGKILL)
            engine.wait()
            return True
        time.sleep(0.005)
    return False


def running(stack: Stack, slot: str) -> set[str]:
    """What answers users in a slot, by ids that change when it is touched."""
    return {each for tier in ("web", "api") for each in stack.ids(tier, slot)}


@pytest.mark.long
def test_killed_anywhere_it_converges_and_nobody_notices(
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
        for point, asked in zip(range(points), cycle(ASKED), strict=False):
            step = 1 + point * (steps - 1) // (points - 1)
            before = stack.live()
            kept = running(stack, before["slot"])
            previous = stack.app["version"]
            number += 1
            stack.app["version"] = f"0.{number}.0"
            log = tmp_path / f"{point}.json"
            if killed(stack, lambda log=log, step=step: events(log) >= step, log):
                at.append(step)
                told = stack.ci("heal")
                assert "healed" in told, told
            # What the stack last said is not asked here: an update that was cut off did not get to say it.
            if stack.get("/api/release").json()["slot"] == before["slot"]:
                assert running(stack, before["slot"]) == kept, f"what is live was touched at step {step}"
            if asked == "previous":
                stack.app["version"] = previous
            elif asked == "third":
                number += 1
                stack.app["version"] = f"0.{number}.0"
            stack.up()
            assert stack.live()["release"].startswith(f"{stack.app['version']}-"), (step, asked)
            if asked == "previous":
                assert running(stack, before["slot"]) == kept, f"what is live was touched after step {step}"
            assert set(stack.up().changed) == {"unchanged"}, (step, asked)
    assert len(at) >= points - 1, "the last point may be the end"
    print(f"\n{steps} steps, killed at {at}\n{seen}")
    assert not seen.failed, seen


def test_a_killed_update_says_what_heals_it(stack: Stack, tmp_path: Path) -> None:
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


def test_two_updates_at_once(stack: Stack, tmp_path: Path) -> None:
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
