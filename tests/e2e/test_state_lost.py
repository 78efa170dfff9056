"""Tests that the program finds the live slot after stopped containers are pruned or the HTTPRoute is deleted.

A refresh removes the pruned and deleted objects from the state before the next update.
"""

from collections.abc import Iterator

import pytest

from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board, whose live slot is blue."""
    with deployment(create_board(request.param, tmp_path_factory.mktemp("lost"), "e2e-live-lost")) as board:
        yield board


def remove_switch_records(stack: Stack) -> None:
    """Remove the objects that record the live slot, and refresh the state.

    On Docker these objects are stopped containers. In the cluster the object is the HTTPRoute.
    """
    if isinstance(stack, DockerStack):
        stopped = [container for container in stack.containers() if container.status in ("exited", "created")]
        assert any("-switch-" in entry.name for entry in stopped)
        for entry in stopped:
            entry.remove()
    else:
        assert isinstance(stack, ClusterStack)
        stack.kubectl("delete", "httproute", "board")
    stack.pulumi("refresh", "--yes", "--stack", stack.name, check=True)


def test_failed_release_after_the_loss_of_the_switch_does_not_change_the_live_slot(stack: Stack) -> None:
    before = stack.live()
    ids = {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api", "worker")}
    remove_switch_records(stack)
    assert "blue is live" in stack.run_ci("status")
    valid = stack.app["api"]["migrate"]
    stack.app["api"]["migrate"] = {"command": ["sh", "-c", "exit 9"]}
    failed = stack.up(check=False)
    stack.app["api"]["migrate"] = valid
    assert failed.code
    assert "the lost switch to blue is recreated; green gets" in failed.text, failed.text
    assert "the live slot was not changed: blue" in failed.text, failed.text
    eventually(lambda: stack.live() == before)
    assert {tier: stack.ids(tier, before["slot"]) for tier in ids} == ids
    assert "switch 1 " in stack.run_ci("status"), "a failed release must keep the journal"


@pytest.mark.long
def test_release_after_the_loss_of_the_switch_goes_to_the_idle_slot(stack: Stack) -> None:
    stack.app["version"] = "1.1.0"
    stack.up()
    eventually(lambda: stack.live()["slot"] == "green")
    status = stack.run_ci("status")
    assert all(part in status for part in ("green is live", "switch 1 ", "switch 2 "))
    stack.up()
    assert set(stack.up().changes) == {"unchanged"}


@pytest.mark.long
def test_lost_switch_is_recreated_without_a_release(stack: Stack) -> None:
    before = stack.live()
    running = stack.ids("api", before["slot"])
    remove_switch_records(stack)
    update = stack.up()
    assert "the release does not change; the lost switch to green is recreated" in update.text
    eventually(lambda: stack.live() == before)
    assert stack.ids("api", before["slot"]) == running
    assert set(stack.up().changes) == {"unchanged"}
