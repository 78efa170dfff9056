"""The live slot is known after any loss of state: stopped containers pruned, the route deleted, and a refresh that records the loss."""

from collections.abc import Iterator

import pytest

from .stack import ClusterStack, DockerStack, Stack, deployed, eventually, on


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board live on blue; the tests then remove the evidence of that."""
    with deployed(on(request.param, tmp_path_factory.mktemp("lost"), "e2e-live-lost")) as board:
        yield board


def lose(stack: Stack) -> None:
    """Remove the evidence of the live slot, as users do, and refresh the state."""
    if isinstance(stack, DockerStack):
        stopped = [container for container in stack.containers() if container.status in ("exited", "created")]
        assert any("-switch-" in entry.name for entry in stopped)
        for entry in stopped:
            entry.remove()
    else:
        assert isinstance(stack, ClusterStack)
        stack.kubectl("delete", "httproute", "board")
    stack.pulumi("refresh", "--yes", "--stack", stack.name, check=True)


def test_failed_release_after_a_prune_leaves_live_serving(stack: Stack) -> None:
    before = stack.live()
    ids = {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api", "worker")}
    lose(stack)
    assert "blue is live" in stack.ci("status")
    good = stack.app["api"]["migrate"]
    stack.app["api"]["migrate"] = {"command": ["sh", "-c", "exit 9"]}
    failed = stack.up(check=False)
    stack.app["api"]["migrate"] = good
    assert failed.code
    assert "the switch to blue is lost and recreated; green gets" in failed.text, failed.text
    assert "what is live was not touched: blue" in failed.text, failed.text
    eventually(lambda: stack.live() == before)
    assert {tier: stack.ids(tier, before["slot"]) for tier in ids} == ids
    assert "switch 1 " in stack.ci("status"), "a failed release must keep the journal"


@pytest.mark.long
def test_good_release_after_it_goes_to_the_idle_slot(stack: Stack) -> None:
    stack.app["version"] = "1.1.0"
    stack.up()
    eventually(lambda: stack.live()["slot"] == "green")
    status = stack.ci("status")
    assert all(part in status for part in ("green is live", "switch 1 ", "switch 2 "))
    stack.up()
    assert set(stack.up().changed) == {"unchanged"}


@pytest.mark.long
def test_lost_switch_alone_comes_back_without_a_release(stack: Stack) -> None:
    before = stack.live()
    running = stack.ids("api", before["slot"])
    lose(stack)
    again = stack.up()
    assert "nothing of the release changes; the switch to green is lost and recreated" in again.text
    eventually(lambda: stack.live() == before)
    assert stack.ids("api", before["slot"]) == running
    assert set(stack.up().changed) == {"unchanged"}
