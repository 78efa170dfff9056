"""A single-instance database becomes a cluster under users who write: no acknowledged write is lost, and a failed move changes nothing."""

import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from .stack import ClusterStack, deployed, eventually, requests_flowing
from .test_restore import ci, database
from .writes import Writes, writes

pytestmark = pytest.mark.long
WITHIN = 300
"""Longest time without a write for a copy and a release, in seconds: a limit for a busy machine, not a promise."""
# The owner of the cluster's database is no superuser and can't create this trigger, so the copy must fail.
FOREIGN = """
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
    with deployed(board):
        yield board


def psql(stack: ClusterStack, pod: str, name: str, sql: str) -> str:
    """Run psql in a pod, and return its output."""
    who = ["--username=board"] if pod == "database-0" else []
    words = ["exec", pod, "--", "psql", "--quiet", "--no-align", "--tuples-only", *who, f"--dbname={name}", "-c", sql]
    return stack.kubectl(*words)


def stored(stack: ClusterStack, name: str) -> dict[int, str]:
    """Return every message in the database cluster."""
    primary = stack.kubectl("get", "cluster", "database-ha", "--output=jsonpath={.status.currentPrimary}")
    rows = (
        line.partition("\t")
        for line in psql(stack, primary, name, "copy (select id, body from messages) to stdout").splitlines()
    )
    return {int(number): body for number, _, body in rows}


def goes_on(seen: Writes) -> None:
    """Wait until writes are acknowledged again."""
    since = time.monotonic()
    eventually(lambda: sum(when > since for when, *_ in list(seen.acknowledged)) > 40, 120)


def test_single_database_is_moved_into_a_cluster_without_a_lost_write(stack: ClusterStack) -> None:
    before, pod = stack.live(), stack.pods("database")[0].metadata.uid
    database(stack).update({"ha": True, "single": "live"})
    stack.images()  # `make up` does this: the backup image is built from the cluster's image.
    stack.up()
    # The cluster exists, and neither the release nor the single database has changed.
    assert stack.live() == before
    assert stack.pods("database")[0].metadata.uid == pod

    with writes(stack) as seen, requests_flowing(stack, writes=False) as read:
        goes_on(seen)
        psql(stack, "database-0", "board", FOREIGN)
        output = ci(stack, "move", check=False)
        assert "board takes writes again" in output and "foreign_here" in output, output
        assert database(stack)["single"] == "live" and "name" not in database(stack)
        goes_on(seen)
        assert stack.live() == before
        failed = seen.gap
        psql(stack, "database-0", "board", "DROP EVENT TRIGGER foreign_here; DROP FUNCTION foreign_here")

        begun = time.monotonic()
        output = ci(stack, "move")
        assert "equal what was copied" in output, output
        moved = time.monotonic()
        stack.up()
        switched = time.monotonic()
        goes_on(seen)
    name = database(stack)["name"]
    assert database(stack)["single"] == "kept" and name.startswith("board_r")
    assert stack.live()["release"] != before["release"]
    seen.compare(stored(stack, name))
    answers = Counter(text[:60] for _, text in seen.refused)
    print(
        f"\nmove {moved - begun:.1f} s, release {switched - moved:.1f} s; {seen}; a move that failed: {failed:.1f} s without writes;"
        f"\nrefused: {dict(answers)}\nreads: {dict(read)}"
    )
    assert not seen.missing, seen
    assert not {text for text in answers if not text.startswith("503")}, answers
    assert seen.gap < WITHIN
    assert read["200"] > 0.98 * read.total(), read

    # A rollback leads to the read-only database until it is reopened.
    assert "does not use the single database" in ci(stack, "move", "--reopen", check=False)
    stack.up(TIERS_RELEASE="previous")
    assert stack.get("/api/messages?limit=1").status_code == 200
    with pytest.raises(AssertionError, match="can't be asked just now"):
        stack.post("refused")
    ci(stack, "move", "--reopen")
    eventually(lambda: stack.post("behind the way back"), 60)
    assert (database(stack)["single"], database(stack)["name"]) == ("live", "board")
    stack.up()
    assert stack.live()["release"] == before["release"]
