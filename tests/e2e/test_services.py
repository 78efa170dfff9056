"""Tests of further services (`app.services`) on both platforms: an api on a path of its own, an internal api, and a second worker.

The tests run in file order, from the first deployment to the removal.
"""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .stack import (
    Stack,
    create_board,
    deployment,
    destroy_without_leftovers,
    eventually,
    steady_requests,
)

FURTHER = ("releases", "internal", "summaries")


def further_services(board: dict[str, Any]) -> dict[str, Any]:
    """Return three entries for `app.services`. Each service runs an image of the board in its own containers."""
    build, needs = board["api"]["build"], ["database", "cache"]
    uvicorn = ["uvicorn", "board.main:app", "--host", "0.0.0.0", "--timeout-graceful-shutdown", "20", "--port"]
    http = {"tier": "api", "build": build, "ready": "/ready", "needs": needs}
    return {
        "releases": http | {"command": [*uvicorn, "8100"], "port": 8100, "paths": ["/api/release"], "needs": [*needs, "internal"]},
        "internal": http | {"command": [*uvicorn, "8200"], "port": 8200},
        "summaries": {"tier": "worker", **{key: board["worker"][key] for key in ("build", "command", "alive", "needs")}},
    }  # fmt: skip


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("services"), "e2e-services")
    stack.app["services"] = further_services(stack.app)
    stack.environment["tiers"] = {**stack.environment.get("tiers", {}), "summaries": {"replicas": 2}}
    with deployment(stack):
        yield stack


def test_each_service_of_app_services_runs_in_the_live_slot(stack: Stack) -> None:
    assert {name: len(stack.ids(name, "blue")) for name in FURTHER} == {"releases": 1, "internal": 1, "summaries": 2}
    assert set(stack.up().changes) == {"unchanged"}


def test_status_lists_the_services_of_app_services(stack: Stack) -> None:
    status = stack.run_ci("status")
    assert all(name in status for name in FURTHER), status


def test_checks_find_no_route_that_is_open_but_forbidden(stack: Stack) -> None:
    assert "through the gateway" in stack.run_ci("check")


def test_logs_of_all_services_are_printed_in_order_of_time(stack: Stack) -> None:
    stack.get("/api/stats", headers={"X-Request-Id": "logs-e2e-1"})
    eventually(lambda: "logs-e2e-1" in stack.run_ci("logs", "api", "live", "5m", "no"))
    lines = stack.run_ci("logs", "", "", "1h", "no").splitlines()
    assert {"api", "worker", "database", *FURTHER} <= {line.split()[1] for line in lines if len(line.split()) > 1}
    times = [line[:12] for line in lines if line[:1].isdigit()]
    assert times == sorted(times)


def test_command_runs_in_a_container_of_the_live_slot(stack: Stack) -> None:
    code = "import os; print(os.environ['SLOT'], 40 + 2)"
    assert stack.run_ci("container", "summaries", f'python -c "{code}"').split()[-2:] == ["blue", "42"]
    with pytest.raises(subprocess.CalledProcessError) as failed:
        stack.run_ci("container", "api", "sh -c 'exit 3'")
    assert failed.value.returncode == 3


def test_job_that_two_worker_services_may_take_runs_once(stack: Stack) -> None:
    posted = [stack.post(f"job {number}")["id"] for number in range(20)]
    eventually(lambda: all(stack.get(f"/api/messages/{number}").json()["processed"] for number in posted), 60)
    assert {stack.get(f"/api/messages/{number}").json()["attempts"] for number in posted} == {1}


def test_change_of_one_service_moves_all_services_by_one_switch_and_loses_no_request(stack: Stack) -> None:
    before = stack.live()
    stack.app["services"]["summaries"]["env"] = {"LOG_LEVEL": "debug"}
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) <= {"200", "201"}, statuses
    after = stack.live()
    assert (before["slot"], after["slot"]) == ("blue", "green")
    assert after["release"] == stack.serving_release() != before["release"]
    assert all(stack.ids(name, "green") for name in ("web", "api", "worker", *FURTHER))


def test_workers_of_the_standby_stop_and_its_other_services_keep_running(stack: Stack) -> None:
    eventually(lambda: not stack.ids("summaries", "blue") and not stack.ids("worker", "blue"), 60)
    assert stack.ids("releases", "blue") and stack.ids("internal", "blue")


@pytest.mark.long
def test_rollback_starts_the_workers_of_the_previous_release_again(stack: Stack) -> None:
    with steady_requests(stack) as statuses:
        stack.up(TIERS_RELEASE="previous")
    assert set(statuses) <= {"200", "201"}, statuses
    assert stack.live()["slot"] == "blue"
    eventually(lambda: len(stack.ids("summaries", "blue")) == 2, 60)


@pytest.mark.long
def test_service_with_a_path_answers_while_the_api_is_down(stack: Stack) -> None:
    stack.stop_tier("api", "blue")
    eventually(lambda: stack.get("/api/stats").status_code == 503)
    assert stack.live()["slot"] == "blue"


def test_service_without_paths_is_not_reachable_through_the_gateway(stack: Stack) -> None:
    # The gateway has no readiness path for this service. So web gets the request, and answers with its page.
    answer = stack.get("/.gateway/internal", headers={"X-Tiers-Slot": "blue"})
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.long
def test_removed_further_service_is_gone_after_two_releases(stack: Stack) -> None:
    del stack.app["services"]["internal"]
    stack.app["services"]["releases"]["needs"].remove("internal")
    stack.up()
    stack.app["version"] = "1.0.1"
    stack.up()
    assert not stack.ids("internal", "blue") and not stack.ids("internal", "green")
    # A further update must not create the removed service again from the slot's inputs in the checkpoint.
    assert set(stack.up().changes) == {"unchanged"}
    assert stack.live()["release"].startswith("1.0.1")


def test_destroy_leaves_nothing(stack: Stack) -> None:
    destroy_without_leftovers(stack)
