"""Test that no acknowledged key and no job is lost when SIGKILL ends a single Redis instance under load."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from .cache_load import find_processes, load, wait_for_jobs
from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually

ROUNDS = 3


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with deployment(create_board(request.param, tmp_path_factory.mktemp(request.param), "e2e-one")) as board:
        yield board


def server_processes(stack: Stack) -> list[int]:
    """Return the process ids of redis-server."""
    if isinstance(stack, ClusterStack):
        return find_processes(stack.pods("cache")[0].metadata.uid, "redis-server")
    assert isinstance(stack, DockerStack)
    return find_processes(str(stack.engine.containers.get(f"{stack.prefix}-cache-1").id), "redis-server")


@pytest.mark.long
def test_killed_redis_keeps_every_acknowledged_key(stack: Stack) -> None:
    with load(stack, "single") as record:
        for _ in range(ROUNDS):
            [server], time_of_kill = server_processes(stack), time.time()
            os.kill(server, signal.SIGKILL)
            eventually(lambda time_of_kill=time_of_kill: record.acknowledged[-1][1] > time_of_kill + 3, 90)
            assert server_processes(stack) != [server], "the server was never killed"
    assert len(record.acknowledged) > 200
    assert record.lost() == 0
    wait_for_jobs(stack, record.messages)
