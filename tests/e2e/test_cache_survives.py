"""A single Redis is killed under load without warning: every acknowledged key is there after its restart, and every job is done."""

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
    with deployed(on(request.param, tmp_path_factory.mktemp(request.param), "e2e-one")) as board:
        yield board


def servers(stack: Stack) -> list[int]:
    if isinstance(stack, ClusterStack):
        return processes(stack.pods("cache")[0].metadata.uid, "redis-server")
    assert isinstance(stack, DockerStack)
    return processes(str(stack.engine.containers.get(f"{stack.prefix}-cache-1").id), "redis-server")


@pytest.mark.long
def test_killed_redis_keeps_every_acknowledged_key(stack: Stack) -> None:
    with load(stack, "single") as seen:
        for _ in range(ROUNDS):
            [server], at = servers(stack), time.time()
            os.kill(server, signal.SIGKILL)
            eventually(lambda at=at: seen.acknowledged[-1][1] > at + 3, 90)
            assert servers(stack) != [server], "the server was never killed"
    assert len(seen.acknowledged) > 200
    assert seen.lost() == 0
    every_job_is_done(stack, seen.messages)
