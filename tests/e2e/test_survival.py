"""Database and cache of one environment lose their primaries: the short form of test_failover.py and test_cache_failover.py."""

from collections.abc import Iterator

import pytest

from .stack import ClusterStack, deployed, eventually
from .test_cache_failover import FEW, befall, delete_pod, whole
from .test_failover import WITHIN, healthy, kill_pod, once


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    board = ClusterStack(tmp_path_factory.mktemp("survival"), "e2e-survival")
    board.environment["kubernetes"]["apart"] = "anywhere"
    for tier in ("web", "api"):
        board.environment["tiers"][tier]["replicas"] = 1
    for tier in ("database", "cache"):
        board.environment["tiers"][tier] |= {"ha": True, "storage": "1Gi"}
    with deployed(board):
        yield board


def test_all_instances_are_ready_and_an_update_changes_nothing(stack: ClusterStack) -> None:
    assert healthy(stack)
    assert whole(stack)
    assert "pg_isready succeeds" in stack.ci("check")
    assert set(stack.up().changed) == {"unchanged"}


def test_killed_database_primary_loses_no_acknowledged_write(stack: ClusterStack) -> None:
    assert once(stack, kill_pod).gap < WITHIN


def test_killed_cache_primary_loses_no_job(stack: ClusterStack) -> None:
    eventually(lambda: healthy(stack), 120)
    seen = befall(stack, delete_pod)
    assert seen.acknowledged
    assert seen.lost <= FEW
    assert seen.seconds < WITHIN
