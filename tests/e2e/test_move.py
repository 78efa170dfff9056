"""Test that `make move` copies a single database into a database cluster while users write.

No acknowledged write is lost, and a failed move changes nothing.
"""

import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from .stack import ClusterStack, deployment, eventually, steady_requests
from .test_restore import database, run_ci
from .writes import Writes, writes

pytestmark = pytest.mark.long
MAX_SECONDS = 300
"""Accepted time in seconds without an acknowledged write. The time includes the copying of the data and the release.

The limit is high because the machine may be busy with other work.
"""
# SQL that creates an event trigger, which makes the copy fail. Only a superuser can create event triggers, and the owner of the
# cluster's database is no superuser.
UNCOPYABLE_TRIGGER = """
  CREATE FUNCTION foreign_here() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
  CREATE EVENT TRIGGER foreign_here ON sql_drop WHEN TAG IN ('DROP AGGREGATE') EXECUTE FUNCTION foreign_here()"""


@pytest.fixture
def stack(tmp_path: Path) -> Generator[ClusterStack]:
    board = ClusterStack(tmp_path / "board", "e2e-move")
    board.environment |= {"seed": False}
    board.environment["kubernetes"]["apart"] = "anywhere"
    board.environment["kubernetes"]["namespace"] = {}
    board.pulumi("config", "set", "--secret", "--path", "secrets.backup-key", "e2e-move-key-77a0", check=True)
    database(board).update({"storage": "1Gi", "backup": {"target": {"volume": True}}})
    with deployment(board):
        yield board


def psql(stack: ClusterStack, pod: str, name: str, sql: str) -> str:
    """Run psql in a pod, and return its output."""
    user = ["--username=board"] if pod == "database-0" else []
    words = ["exec", pod, "--", "psql", "--quiet", "--no-align", "--tuples-only", *user, f"--dbname={name}", "-c", sql]
    return stack.kubectl(*words)


def read_messages(stack: ClusterStack, name: str) -> dict[int, str]:
    """Return message id → body of all messages in a database of the database cluster."""
    primary = stack.kubectl("get", "cluster", "database-ha", "--output=jsonpath={.status.currentPrimary}")
    rows = (
        line.partition("\t")
        for line in psql(stack, primary, name, "copy (select id, body from messages) to stdout").splitlines()
    )
    return {int(number): body for number, _, body in rows}


def wait_for_writes(record: Writes) -> None:
    """Wait until 40 more writes are acknowledged."""
    since = time.monotonic()
    eventually(lambda: sum(when > since for when, *_ in list(record.acknowledged)) > 40, 120)


def test_single_database_is_moved_into_a_cluster_without_a_lost_write(stack: ClusterStack) -> None:
    before, pod = stack.live(), stack.pods("database")[0].metadata.uid
    database(stack).update({"ha": True, "single": "live"})
    stack.build_images()  # Build the images as `make up` does, because the backup image is now based on the image of the database cluster.
    stack.up()
    # The update created the database cluster. The release and the single database must be unchanged.
    assert stack.live() == before
    assert stack.pods("database")[0].metadata.uid == pod

    with writes(stack) as record, steady_requests(stack, writes=False) as read_statuses:
        wait_for_writes(record)
        psql(stack, "database-0", "board", UNCOPYABLE_TRIGGER)
        output = run_ci(stack, "move", check=False)
        assert "board takes writes again" in output and "foreign_here" in output, output
        assert database(stack)["single"] == "live" and "name" not in database(stack)
        wait_for_writes(record)
        assert stack.live() == before
        gap_of_failed_move = record.gap
        psql(stack, "database-0", "board", "DROP EVENT TRIGGER foreign_here; DROP FUNCTION foreign_here")

        move_started = time.monotonic()
        output = run_ci(stack, "move")
        assert "equal to the original" in output, output
        move_ended = time.monotonic()
        stack.up()
        release_ended = time.monotonic()
        wait_for_writes(record)
    name = database(stack)["name"]
    assert database(stack)["single"] == "kept" and name.startswith("board_r")
    assert stack.live()["release"] != before["release"]
    record.compare(read_messages(stack, name))
    errors = Counter(text[:60] for _, text in record.refused)
    print(
        f"\nmove {move_ended - move_started:.1f} s, release {release_ended - move_ended:.1f} s; {record}; failed move: {gap_of_failed_move:.1f} s without writes;"
        f"\nrefused: {dict(errors)}\nreads: {dict(read_statuses)}"
    )
    assert not record.missing, record
    assert not {text for text in errors if not text.startswith("503")}, errors
    assert record.gap < MAX_SECONDS
    assert read_statuses["200"] > 0.98 * read_statuses.total(), read_statuses

    # After a rollback the api uses the single database. That database stays read-only until `move --reopen` makes it writable.
    assert "does not use the single database" in run_ci(stack, "move", "--reopen", check=False)
    stack.up(TIERS_RELEASE="previous")
    assert stack.get("/api/messages?limit=1").status_code == 200
    with pytest.raises(AssertionError, match="the database is unavailable"):
        stack.post("refused")
    run_ci(stack, "move", "--reopen")
    eventually(lambda: stack.post("written after the rollback"), 60)
    assert (database(stack)["single"], database(stack)["name"]) == ("live", "board")
    stack.up()
    assert stack.live()["release"] == before["release"]
