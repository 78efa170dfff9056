"""Tests of scheduled jobs (`app.jobs`) on both platforms.

A job that is due every minute writes its release and the time to Redis. Releases and rollbacks happen meanwhile. The tests run in file order.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from .redis_program import CLIENT, output_lines
from .stack import (
    Stack,
    create_board,
    deployment,
    destroy_without_leftovers,
    eventually,
    steady_requests,
)

TICK = f"""{CLIENT}
client.rpush("ticks", f"{{os.environ['RELEASE']}} {{os.environ['SLOT']}} {{int(time.time()) // 60}}")
"""
SLOW = f"""{CLIENT}
client.set("slow", "began")
time.sleep(70)
client.set("slow", f"ended by {{os.environ['RELEASE']}}")
"""
READ = """
print("slow", (client.get("slow") or b"").decode())
print(*(tick.decode() for tick in client.lrange("ticks", 0, -1)), sep="\\n")
"""
EVERY_MINUTE = "* * * * *"


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("jobs"), "e2e-jobs")
    stack.app["jobs"] = {
        "tick": {"service": "worker", "command": ["python", "-c", TICK], "schedule": EVERY_MINUTE, "timezone": "Europe/Berlin"},
        "broken": {"service": "api", "command": ["python", "-c", "raise SystemExit(3)"], "schedule": EVERY_MINUTE},
    }  # fmt: skip
    with deployment(stack):
        yield stack


def read(stack: Stack) -> list[str]:
    """Return the lines of the keys that the jobs write: first the state of the slow job, then a line for each run of `tick`."""
    lines = output_lines(stack, READ)
    start = next(number for number, line in enumerate(lines) if line.startswith("slow"))
    return [line for line in lines[start:] if line]


def ticks(stack: Stack) -> list[tuple[str, str, int]]:
    """Return release, slot and minute of each run of the job `tick`."""
    return [(words[0], words[1], int(words[2])) for line in read(stack)[1:] if len(words := line.split()) == 3]


def wait_for_minute(stack: Stack, count: int) -> None:
    """Wait until the job `tick` has run `count` more times."""
    before = len(ticks(stack))
    eventually(lambda: len(ticks(stack)) >= before + count, 75 * count)


def job_line(stack: Stack, name: str) -> str:
    return next((line for line in stack.run_ci("status").splitlines() if line.strip().startswith(f"{name} ")), "")


def test_job_runs_at_its_due_times_for_the_live_release(stack: Stack) -> None:
    assert set(stack.up().changes) == {"unchanged"}
    wait_for_minute(stack, 1)
    release, slot, _ = ticks(stack)[-1]
    assert (release, slot) == (stack.live()["release"], "blue")


def test_status_shows_last_and_next_runs_and_a_failed_job_is_reported(stack: Stack) -> None:
    eventually(lambda: "exit code 3" in job_line(stack, "broken"), 90)
    assert "exit code 0" in job_line(stack, "tick")
    assert "next 20" in job_line(stack, "tick")
    assert "the job broken failed" in stack.run_ci("status")


def test_make_run_runs_a_job_now(stack: Stack) -> None:
    before = len(ticks(stack))
    stack.run_ci("one_off", "tick")
    assert len(ticks(stack)) > before


@pytest.mark.long
def test_every_due_minute_has_one_run_over_releases_and_rollbacks_and_no_request_is_lost(stack: Stack) -> None:
    del stack.app["jobs"]["broken"]
    wait_for_minute(stack, 1)
    start = ticks(stack)[-1][2]
    with steady_requests(stack) as statuses:
        for number in range(3):
            stack.app["version"] = f"2.{number}.0"
            stack.up()
            stack.up(TIERS_RELEASE="previous")
        stack.up()
    assert set(statuses) <= {"200", "201"}, statuses
    wait_for_minute(stack, 1)
    entries = ticks(stack)
    minutes = [minute for _, _, minute in entries if minute > start]
    assert minutes == sorted(set(minutes)), "a due minute had two runs"
    assert minutes == list(range(start + 1, minutes[-1] + 1)), "a due minute had no run"
    assert entries[-1][0] == stack.live()["release"]
    print(f"\n{len(minutes)} due minutes, by slot: {[slot for _, slot, _ in entries]}")


@pytest.mark.long
def test_run_in_progress_at_the_switch_ends_in_peace(stack: Stack) -> None:
    slow: dict[str, Any] = {"service": "worker", "command": ["python", "-c", SLOW], "schedule": EVERY_MINUTE}
    stack.app["jobs"]["slow"] = slow
    stack.app["version"] = "3.0.0"
    stack.up()
    eventually(lambda: read(stack)[0] == "slow began", 90)
    stack.app["version"] = "3.1.0"
    stack.up()
    assert stack.live()["release"].startswith("3.1.0-")
    eventually(lambda: read(stack)[0].startswith("slow ended by 3.0.0-"), 90)


@pytest.mark.long
def test_release_without_jobs_stops_them_and_a_rollback_starts_them_again(stack: Stack) -> None:
    jobs = stack.app.pop("jobs")
    stack.app["version"] = "4.0.0"
    stack.up()
    time.sleep(5)
    count = len(ticks(stack))
    time.sleep(65)
    assert len(ticks(stack)) == count
    stack.up(TIERS_RELEASE="previous")
    wait_for_minute(stack, 1)
    stack.app["jobs"] = jobs


def test_destroy_leaves_nothing(stack: Stack) -> None:
    destroy_without_leftovers(stack)
