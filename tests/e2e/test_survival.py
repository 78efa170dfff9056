"""Short form of test_failover.py and test_cache_failover.py.

The tests run in one environment: first the database loses its primary, then the cache loses its primary.
"""

from collections.abc import Iterator

import pytest

from .stack import ClusterStack, deployment, eventually
from .test_cache_failover import MAX_LOST_KEYS, delete_pod, is_replicated, lose_cache_primary
from .test_failover import MAX_SECONDS, is_healthy, kill_pod, lose_database_primary


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    board = ClusterStack(tmp_path_factory.mktemp("survival"), "e2e-survival")
    board.environment["kubernetes"]["apart"] = "anywhere"
    for tier in ("web", "api"):
        board.environment["tiers"][tier]["replicas"] = 1
    for tier in ("database", "cache"):
        board.environment["tiers"][tier] |= {"ha": True, "storage": "1Gi"}
    with deployment(board):
        yield board


def test_all_instances_are_ready_and_an_update_changes_nothing(stack: ClusterStack) -> None:
    assert is_healthy(stack)
    assert is_replicated(stack)
    assert "pg_isready succeeds" in stack.run_ci("check")
    assert set(stack.up().changes) == {"unchanged"}


def test_killed_database_primary_loses_no_acknowledged_write(stack: ClusterStack) -> None:
    assert lose_database_primary(stack, kill_pod).gap < MAX_SECONDS


def test_killed_cache_primary_loses_no_job(stack: ClusterStack) -> None:
    eventually(lambda: is_healthy(stack), 120)
    record = lose_cache_primary(stack, delete_pod)
    assert record.acknowledged
    assert record.lost <= MAX_LOST_KEYS
    assert record.seconds < MAX_SECONDS
