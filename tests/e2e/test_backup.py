"""Backups and restores: under load, after a lost volume, from a damaged repository, on a full disk, on both platforms."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .stack import SECRETS, DockerStack, Stack, deployed, eventually, on

KEY = "e2e-backup-key-41d7"
WORDS = "a zebra nobody else writes of"
USER = 10001
ROOM = 24
"""Capacity of the backup disk in MiB."""


def backup(stack: Stack, *words: str, check: bool = True) -> str:
    """Run `make backup` or a related command, and return its output, or its errors if `check` is False."""
    stack.write()
    done = subprocess.run(
        [sys.executable, "-m", "ci.backup", stack.name, *words],
        cwd=stack.here, env=stack.variables, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert not check or not done.returncode, done.stderr
    assert check or done.returncode, f"it did not fail: {done.stdout}"
    return done.stdout if check else done.stderr


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """Mount a small file system that a test can fill."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}m,mode=700,uid={USER}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# A program that fills a repository with runs of given times, tidies it up, and prints the remaining runs.
TIDY = """
import json, sys, tempfile
from datetime import datetime, timedelta
from os import environ
from backup import repository

history, days, now = json.loads(sys.argv[1])
environ["RESTIC_REPOSITORY"] = tempfile.mkdtemp()
command, at = repository._command, now
repository._command = lambda verb, *words: command(verb, *words, *(["--time", at] if verb == "backup" else []))
repository.begin()
for kind, at, ok in history:
    of = [repository.save("database", [f"{kind} {at}".encode()])[0]] if kind in repository.MAKING else []
    repository.record(kind, ok=ok, of=of)
moment = datetime.fromisoformat(now + "+00:00")
repository.forget(repository.expired(repository.snapshots(), timedelta(days=days), moment))
repository.check()
kept = repository.snapshots()
known = [run for run in repository.runs(kept) if run.kind != "begin"]
for run in known:
    for one in run.of:
        with repository.read(one, "database") as data:
            assert data.read().decode() == f"{run.kind} {run.at:%Y-%m-%d %H:%M:%S}", run
made = {one for run in known if run.kind in repository.MAKING for one in run.of}
assert {each.id for each in kept if not each.record} == made
print(json.dumps([[run.kind, f"{run.at:%Y-%m-%d %H:%M:%S}", run.ok] for run in known]))
"""


class BackedUp(DockerStack):
    """The board on Docker, with backups in a folder of this machine."""

    def __init__(self, folder: Path, disk: Path) -> None:
        super().__init__(folder, "e2e-backup")
        self.disk = disk
        self.environment |= {"reload": False, "seed": False}
        self.environment["tiers"] = {"database": {"backup": {"target": {"directory": str(disk)}}}}
        self.pulumi("config", "set", "--secret", "--path", "secrets.backup-key", KEY, check=True)

    def inside(self, name: str, *command: str) -> str:
        """Run a command in a container of the stack, and return its output."""
        container: Any = self.engine.containers.get(f"{self.prefix}-{name}-1")
        code, output = container.exec_run(list(command))
        assert code == 0, output
        return output.decode().strip()

    def sql(self, text: str, database: str = "board") -> str:
        return self.inside("database", "psql", "-U", "board", "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", text, database)

    def metrics(self) -> dict[str, float]:
        program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9200/metrics').read().decode())"
        lines = (line.rpartition(" ") for line in self.inside("backup", "python3", "-c", program).splitlines() if line)
        return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Generator[BackedUp]:
    assert not os.geteuid(), "a file system is mounted, which takes root"
    folder = tmp_path_factory.mktemp("backup")
    with small_disk(folder / "disk") as disk:
        stack = BackedUp(folder / "board", disk)
        with deployed(stack):
            yield stack


def rows(stack: BackedUp, database: str = "board") -> str:
    return stack.sql("SELECT count(*), md5(string_agg(m::text, '|' ORDER BY id)) FROM messages m", database)


@pytest.mark.long
def test_database_is_restored_after_its_volume_is_lost(board: BackedUp) -> None:
    """The backup is taken while rows are written: it contains one moment, and no later row."""
    board.sql(f"CREATE TABLE kept AS SELECT i, '{WORDS} ' || i AS t FROM generate_series(1, 1000) i")
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            board.sql("INSERT INTO kept SELECT i, 'later' FROM generate_series(1, 100) i")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup(board, "backup")
    finally:
        over.set()
        writer.join()
    before = rows(board)
    for name in ("database-1", "backup-1"):
        board.engine.containers.get(f"{board.prefix}-{name}").remove(force=True)
    board.engine.volumes.get(f"{board.prefix}-database-data").remove()
    # The engine creates the volume together with its container. The provider fails on a missing volume in a full refresh.
    gone = ["--target", "**database-1", "--target", "**backup-1"]
    board.pulumi("refresh", "--yes", "--stack", board.name, *gone, check=True)
    board.up()
    assert board.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'") == "0"
    output = backup(board, "restore", "--into", "again")
    assert "equal what was saved" in output
    assert rows(board, "again") == before
    whole, of_the_writer = board.sql(
        "SELECT count(*) FILTER (WHERE t <> 'later'), count(*) FILTER (WHERE t = 'later') % 100 FROM kept", "again"
    ).split("|")
    assert (whole, of_the_writer) == ("1000", "0")
    assert "there is a database again" in backup(board, "restore", "--into", "again", check=False)


@pytest.mark.long
def test_backup_leaks_no_secret_and_no_content(board: BackedUp) -> None:
    board.sql(f"CREATE TABLE IF NOT EXISTS told AS SELECT '{WORDS}' AS t")
    backup(board, "full")
    backup(board, "verify")
    texts = [file.read_bytes() for file in board.disk.rglob("*") if file.is_file()]
    assert len(texts) > 5
    texts.append(board.pulumi("stack", "export", check=True).text.encode())
    for container in board.containers():
        texts += [str(container.attrs).encode(), container.logs()]
    texts.append(board.inside("backup", "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline").encode())
    for secret in (*SECRETS.values(), KEY, WORDS):
        assert not [text[:200] for text in texts if secret.encode() in text]


@pytest.mark.long
def test_verification_leaves_no_scratch_database(board: BackedUp) -> None:
    backup(board, "backup")
    assert "equal what was saved" in backup(board, "verify")
    assert "backup_verification" not in board.sql("SELECT string_agg(datname, ' ') FROM pg_database")


def moments() -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime(2026, 1, 1), datetime(2026, 6, 30)).map(lambda at: at.replace(microsecond=0))


@pytest.mark.long
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(
    history=st.lists(
        st.tuples(st.sampled_from(["backup", "full", "verify"]), moments(), st.booleans()),
        min_size=4, max_size=12, unique_by=lambda entry: entry[1],
    ),
    days=st.integers(1, 60),
)  # fmt: skip
def test_retention_deletes_exactly_the_expired_backups(
    board: BackedUp, history: list[tuple[str, datetime, bool]], days: int
) -> None:
    """restic itself reads every remaining backup and finds no expired one."""
    arguments = [[kind, str(at), ok] for kind, at, ok in history], days, "2026-06-30 23:59:59"
    left = json.loads(board.inside("backup", "python3", "-c", TIDY, json.dumps(arguments)))
    good = {kind: max((at for one, at, ok in history if ok and one == kind), default=None) for kind, *_ in history}
    stays = [run for run in history if (last := good[run[0]]) is None or run[1] >= last - timedelta(days=days)]
    assert sorted(map(tuple, left)) == sorted((kind, str(at), ok) for kind, at, ok in stays)


@pytest.mark.long
def test_full_backup_disk_harms_neither_database_nor_earlier_backups(board: BackedUp) -> None:
    backup(board, "backup")
    before = backup(board, "list").splitlines()
    board.sql("CREATE TABLE large AS SELECT encode(sha512(i::text::bytea), 'hex') t FROM generate_series(1, 400000) i")
    try:
        assert "no space left" in backup(board, "backup", check=False)
        assert board.sql("SELECT count(*) FROM large") == "400000"
        board.sql("CREATE TABLE written AS SELECT 'while the disk of the backups is full' AS t")
    finally:
        board.sql("DROP TABLE large")
    assert [line for line in backup(board, "list").splitlines() if line in before][:-1] == before[:-1]
    backup(board, "prune")
    assert "equal what was saved" in backup(board, "verify")


@pytest.mark.long
def test_damaged_repository_is_reported(board: BackedUp) -> None:
    """This test is the last one: it leaves the repository damaged."""
    backup(board, "backup")
    # Leftovers of a run on a full disk belong to no backup, so damage to them would not be noticed.
    backup(board, "prune")
    backup(board, "verify")
    eventually(lambda: board.metrics()["tiers_backup_verified"] == 1, 90)
    pack = max((board.disk / "data").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(content)
    assert "the repository is damaged" in backup(board, "verify", check=False)
    eventually(lambda: board.metrics()["tiers_backup_verified"] == 0, 90)
    assert "verification" in backup(board, "status", check=False)


@pytest.mark.long
def test_on_kubernetes_backups_run_by_schedule_and_by_hand(tmp_path: Path) -> None:
    stack = on("kubernetes", tmp_path / "board", "e2e-backup")
    stack.environment["tiers"]["database"]["backup"] = {"schedule": "*/2 * * * *", "target": {"volume": True}}
    stack.pulumi("config", "set", "--secret", "--path", "secrets.backup-key", KEY, check=True)
    with deployed(stack):
        for number in range(5):
            stack.post(f"{WORDS} {number}")
        eventually(lambda: "  backup  " in backup(stack, "list"), 240)
        backup(stack, "full")
        assert "equal what was saved" in backup(stack, "verify")
        assert "equal what was saved" in backup(stack, "restore", "--into", "again")
        assert "there is a database again" in backup(stack, "restore", "--into", "again", check=False)
        assert "  full  " in backup(stack, "list")
        assert "backups are taken and can be restored: last backup" in stack.ci("check")
        assert not set(stack.preview().changed) - {"unchanged"}
