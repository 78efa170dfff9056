"""A single Redis is killed under load, without a warning: what it had answered is there when it is back, and every job is done."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from .stack import ClusterStack, DockerStack, Stack, deployed, eventually, on
from .writing import every_job_is_done, load, processes

ROUNDS = 3


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with deployed(on(request.param, tmp_path_factory.mktemp(request.param), "e2e-one")) as made:
        yield made


def servers(stack: Stack) -> list[int]:
    if isinstance(stack, ClusterStack):
        return processes(stack.pods("cache")[0].metadata.uid, "redis-server")
    assert isinstance(stack, DockerStack)
    return processes(str(stack.engine.containers.get(f"{stack.prefix}-cache-1").id), "redis-server")


@pytest.mark.long
def test_a_redis_that_is_killed_has_all_that_it_answered(stack: Stack) -> None:
    with load(stack, "single") as seen:
        for _ in range(ROUNDS):
            [server], at = servers(stack), time.time()
            os.kill(server, signal.SIGKILL)
            eventually(lambda at=at: seen.acknowledged[-1][1] > at + 3, 90)
            assert servers(stack) != [server], "it was never away"
    assert len(seen.acknowledged) > 200
    assert seen.lost() == 0
    every_job_is_done(stack, seen.messages)
