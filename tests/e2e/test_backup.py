"""Tests of backups and restores on both platforms: under load, after a lost volume, on a full disk, with a damaged repository.

The tests of a store's backups run in file order, from the first deployment to the removal.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .stack import SECRETS, ClusterStack, DockerStack, Stack, create_board, deployment, eventually

KEY = "e2e-backup-key-41d7"
SECRET_TEXT = "a zebra nobody else writes of"
"""Text in the database that must not be readable in backups, logs or processes."""
USER = 10001
"""User id of the backup container. The disk must belong to this user."""
DISK_SIZE = 24
"""Capacity of the backup disk in MiB."""


def run_backup(stack: Stack, *words: str, check: bool = True) -> str:
    """Run `python -m ci.backup` with a command such as `verify`, and return its output.

    With `check=True` the command must succeed. With `check=False` the command must fail, and the result is its error output.
    """
    stack.write()
    process = subprocess.run(
        [sys.executable, "-m", "ci.backup", stack.name, *words],
        cwd=stack.app_folder, env=stack.variables, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert not check or not process.returncode, process.stderr
    assert check or process.returncode, f"the command did not fail: {process.stdout}"
    return process.stdout if check else process.stderr


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """Mount a file system of `DISK_SIZE` MiB that a test can fill."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}m,mode=700,uid={USER}", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# Program for the backup container. It records backups and verifications with given times, deletes the expired ones, and prints the
# remaining ones.
RETENTION_PROGRAM = """
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
    snapshots = [repository.save("database", [f"{kind} {at}".encode()])[0]] if kind in repository.BACKUP_KINDS else []
    repository.record(kind, ok=ok, snapshots=snapshots)
moment = datetime.fromisoformat(now + "+00:00")
repository.forget(repository.expired_ids(repository.snapshots(), timedelta(days=days), moment))
repository.check()
remaining = repository.snapshots()
runs = [run for run in repository.runs(remaining) if run.kind != "begin"]
for run in runs:
    for snapshot in run.snapshots:
        with repository.read(snapshot, "database") as data:
            assert data.read().decode() == f"{run.kind} {run.time:%Y-%m-%d %H:%M:%S}", run
saved = {snapshot for run in runs if run.kind in repository.BACKUP_KINDS for snapshot in run.snapshots}
assert {snapshot.id for snapshot in remaining if not snapshot.is_record} == saved
print(json.dumps([[run.kind, f"{run.time:%Y-%m-%d %H:%M:%S}", run.ok] for run in runs]))
"""


class StackWithBackups(DockerStack):
    """The board on Docker, with backups in the folder `disk` of this machine."""

    def __init__(self, folder: Path, disk: Path) -> None:
        super().__init__(folder, "e2e-backup")
        self.disk = disk
        self.environment |= {"reload": False, "seed": False}
        self.environment["tiers"] = {"database": {"backup": {"target": {"directory": str(disk)}}}}
        self.pulumi("config", "set", "--secret", "--path", "secrets.backup-key", KEY, check=True)

    def run_inside(self, name: str, *command: str) -> str:
        """Run a command in a container of the stack, and return its output."""
        container: Any = self.engine.containers.get(f"{self.prefix}-{name}-1")
        code, output = container.exec_run(list(command))
        assert code == 0, output
        return output.decode().strip()

    def sql(self, text: str, database: str = "board") -> str:
        return self.run_inside(
            "database", "psql", "-U", "board", "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", text, database
        )

    def metrics(self) -> dict[str, float]:
        program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9200/metrics').read().decode())"
        lines = (
            line.rpartition(" ") for line in self.run_inside("backup", "python3", "-c", program).splitlines() if line
        )
        return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Generator[StackWithBackups]:
    assert not os.geteuid(), "only root can mount the file system of this test"
    folder = tmp_path_factory.mktemp("backup")
    with small_disk(folder / "disk") as disk:
        stack = StackWithBackups(folder / "board", disk)
        with deployment(stack):
            yield stack


def message_checksum(stack: StackWithBackups, database: str = "board") -> str:
    return stack.sql("SELECT count(*), md5(string_agg(m::text, '|' ORDER BY id)) FROM messages m", database)


@pytest.mark.long
def test_database_is_restored_after_its_volume_is_lost(board: StackWithBackups) -> None:
    """Restore a backup that was taken during writes.

    The restored database must have all rows from before the backup, and no incomplete transaction.
    """
    board.sql(f"CREATE TABLE kept AS SELECT i, '{SECRET_TEXT} ' || i AS t FROM generate_series(1, 1000) i")
    backup_ended = threading.Event()

    def write() -> None:
        while not backup_ended.is_set():
            board.sql("INSERT INTO kept SELECT i, 'later' FROM generate_series(1, 100) i")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run_backup(board, "backup")
    finally:
        backup_ended.set()
        writer.join()
    before = message_checksum(board)
    for name in ("database-1", "backup-1"):
        board.engine.containers.get(f"{board.prefix}-{name}").remove(force=True)
    board.engine.volumes.get(f"{board.prefix}-database-data").remove()
    # Refresh only the containers, because a full refresh fails at the missing volume. The engine recreates the volume when `up`
    # creates the containers.
    targets = ["--target", "**database-1", "--target", "**backup-1"]
    board.pulumi("refresh", "--yes", "--stack", board.name, *targets, check=True)
    board.up()
    assert board.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'") == "0"
    output = run_backup(board, "restore", "--into", "again")
    assert "equal to the backup" in output
    assert message_checksum(board, "again") == before
    earlier_rows, partial_batch = board.sql(
        "SELECT count(*) FILTER (WHERE t <> 'later'), count(*) FILTER (WHERE t = 'later') % 100 FROM kept", "again"
    ).split("|")
    assert (earlier_rows, partial_batch) == ("1000", "0")
    assert "database again already exists" in run_backup(board, "restore", "--into", "again", check=False)


@pytest.mark.long
def test_backup_leaks_no_secret_and_no_text_of_the_database(board: StackWithBackups) -> None:
    board.sql(f"CREATE TABLE IF NOT EXISTS secret_texts AS SELECT '{SECRET_TEXT}' AS t")
    run_backup(board, "full")
    run_backup(board, "verify")
    texts = [file.read_bytes() for file in board.disk.rglob("*") if file.is_file()]
    assert len(texts) > 5
    texts.append(board.pulumi("stack", "export", check=True).text.encode())
    for container in board.containers():
        texts += [str(container.attrs).encode(), container.logs()]
    texts.append(board.run_inside("backup", "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline").encode())
    for secret in (*SECRETS.values(), KEY, SECRET_TEXT):
        assert not [text[:200] for text in texts if secret.encode() in text]


@pytest.mark.long
def test_verification_leaves_no_scratch_database(board: StackWithBackups) -> None:
    run_backup(board, "backup")
    assert "equal to the backup" in run_backup(board, "verify")
    assert "backup_verification" not in board.sql("SELECT string_agg(datname, ' ') FROM pg_database")


def times() -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime(2026, 1, 1), datetime(2026, 6, 30)).map(lambda at: at.replace(microsecond=0))


@pytest.mark.long
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(
    history=st.lists(
        st.tuples(st.sampled_from(["backup", "full", "verify"]), times(), st.booleans()),
        min_size=4, max_size=12, unique_by=lambda entry: entry[1],
    ),
    days=st.integers(1, 60),
)  # fmt: skip
def test_retention_deletes_exactly_the_expired_backups(
    board: StackWithBackups, history: list[tuple[str, datetime, bool]], days: int
) -> None:
    """Compare the remaining backups and verifications with the test's own computation of the retention rule."""
    arguments = [[kind, str(at), ok] for kind, at, ok in history], days, "2026-06-30 23:59:59"
    remaining = json.loads(board.run_inside("backup", "python3", "-c", RETENTION_PROGRAM, json.dumps(arguments)))
    last_success = {
        kind: max((at for run_kind, at, ok in history if ok and run_kind == kind), default=None) for kind, *_ in history
    }
    expected = [
        run for run in history if (last := last_success[run[0]]) is None or run[1] >= last - timedelta(days=days)
    ]
    assert sorted(map(tuple, remaining)) == sorted((kind, str(at), ok) for kind, at, ok in expected)


@pytest.mark.long
def test_full_backup_disk_damages_neither_database_nor_earlier_backups(board: StackWithBackups) -> None:
    run_backup(board, "backup")
    before = run_backup(board, "list").splitlines()
    board.sql("CREATE TABLE large AS SELECT encode(sha512(i::text::bytea), 'hex') t FROM generate_series(1, 400000) i")
    try:
        assert "no space left" in run_backup(board, "backup", check=False)
        assert board.sql("SELECT count(*) FROM large") == "400000"
        board.sql("CREATE TABLE written AS SELECT 'while the disk of the backups is full' AS t")
    finally:
        board.sql("DROP TABLE large")
    assert [line for line in run_backup(board, "list").splitlines() if line in before][:-1] == before[:-1]
    run_backup(board, "prune")
    assert "equal to the backup" in run_backup(board, "verify")


@pytest.mark.long
def test_damaged_repository_is_reported(board: StackWithBackups) -> None:
    """Damage a pack file, and check that the verification fails.

    This test must be the last test on Docker, because the repository stays damaged.
    """
    run_backup(board, "backup")
    # Remove the files that the failed backup has left on the full disk. No successful backup uses these files, so a verification
    # would not notice damage in them.
    run_backup(board, "prune")
    run_backup(board, "verify")
    eventually(lambda: board.metrics()["tiers_backup_verified"] == 1, 90)
    pack = max((board.disk / "data").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(content)
    assert "the repository is damaged" in run_backup(board, "verify", check=False)
    eventually(lambda: board.metrics()["tiers_backup_verified"] == 0, 90)
    assert "verification" in run_backup(board, "status", check=False)


@pytest.mark.long
def test_backups_on_kubernetes_run_by_schedule_and_by_command(tmp_path: Path) -> None:
    stack = create_board("kubernetes", tmp_path / "board", "e2e-backup")
    stack.environment["tiers"]["database"]["backup"] = {"schedule": "*/2 * * * *", "target": {"volume": True}}
    stack.pulumi("config", "set", "--secret", "--path", "secrets.backup-key", KEY, check=True)
    with deployment(stack):
        for number in range(5):
            stack.post(f"{SECRET_TEXT} {number}")
        eventually(lambda: "  backup  " in run_backup(stack, "list"), 240)
        run_backup(stack, "full")
        assert "equal to the backup" in run_backup(stack, "verify")
        assert "equal to the backup" in run_backup(stack, "restore", "--into", "again")
        assert "database again already exists" in run_backup(stack, "restore", "--into", "again", check=False)
        assert "  full  " in run_backup(stack, "list")
        assert "backups are taken and can be restored: last backup" in stack.run_ci("check")
        assert not set(stack.preview().changes) - {"unchanged"}


# ---------------------------------------------------------------------- a store

STORE: dict[str, Any] = {
    "tier": "store", "image": "postgres:15-bookworm", "port": 5432, "alive": ["pg_isready", "-q", "-h", "127.0.0.1", "-U", "reports"],
    "env": {"POSTGRES_USER": "reports", "PGDATA": "/var/lib/postgresql/data/pgdata"}, "volumes": {"report-data": "/var/lib/postgresql/data"},
    "secret_env": {"POSTGRES_PASSWORD": "${secrets.report-password}"}, "writable": ["/tmp", "/var/run/postgresql"], "start_within": "120s",
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.long), pytest.param("kubernetes", marks=pytest.mark.long)],
)
def with_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board with a store, whose volumes are backed up into a volume. The board's own database has no backups."""
    stack = create_board(request.param, tmp_path_factory.mktemp("store-backup"), "e2e-store-backup")
    stack.environment |= {"reload": False, "protect_data": False}
    stack.app["services"] = {"reports": dict(STORE)}
    stack.environment.setdefault("tiers", {})["reports"] = {"backup": {"target": {"volume": True}}}
    for name, value in (("report-password", "e2e-report-1b7c"), ("backup-key", KEY)):
        stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value, check=True)
    with deployment(stack):
        yield stack


def query(stack: Stack, sql: str) -> str:
    """Run a query in the store, and return its output."""
    words = ("psql", "-U", "reports", "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", sql)
    return stack.run_ci("container", "reports", shlex.join(words)).strip()


def back_up(stack: Stack, *words: str, check: bool = True) -> str:
    return run_backup(stack, *words, "--service", "reports", check=check)


def restore_store(stack: Stack, to: str) -> str:
    return stack.run_ci("restore", to, "--service", "reports")


def lose_the_volume(stack: Stack) -> None:
    """Delete the store's volume with all its data, and create the store again without data."""
    if isinstance(stack, ClusterStack):
        stack.kubectl("scale", "statefulset/reports", "--replicas=0")
        eventually(lambda: not stack.pods("reports"), 120)
        # Kubernetes keeps a claim as long as a pod of a finished Job names it.
        stack.kubectl("delete", "jobs", "--selector=app.kubernetes.io/component=reports-backup", "--cascade=foreground")
        stack.kubectl("delete", "persistentvolumeclaim/report-data", "--wait=true")
        stack.pulumi("refresh", "--yes", "--stack", stack.name, check=True)
        stack.up()
        return
    assert isinstance(stack, DockerStack)
    for name in ("reports-1", "reports-backup-1"):
        stack.engine.containers.get(f"{stack.prefix}-{name}").remove(force=True)
    stack.engine.volumes.get(f"{stack.prefix}-report-data").remove()
    targets = ["--target", "**reports-1", "--target", "**reports-backup-1"]
    stack.pulumi("refresh", "--yes", "--stack", stack.name, *targets, check=True)
    stack.up()


def test_second_update_of_a_stack_with_backups_of_a_store_changes_nothing(with_store: Stack) -> None:
    assert set(with_store.up().changes) == {"unchanged"}


def test_data_of_a_store_is_restored_after_its_volume_is_lost(with_store: Stack) -> None:
    query(with_store, "create table totals as select i as orders from generate_series(1, 1000) i")
    eventually(lambda: "saved" in back_up(with_store, "backup"), 300)
    query(with_store, "insert into totals values (1001)")
    lose_the_volume(with_store)
    assert query(with_store, "select count(*) from pg_tables where tablename = 'totals'") == "0"
    assert "restored" in restore_store(with_store, "latest")
    assert query(with_store, "select count(*), sum(orders) from totals") == "1000|500500"
    assert set(with_store.up().changes) == {"unchanged"}


def test_restore_of_a_store_can_be_undone_by_its_own_backup(with_store: Stack) -> None:
    query(with_store, "insert into totals values (5000)")
    output = restore_store(with_store, "latest")
    assert query(with_store, "select max(orders) from totals") == "1000"
    replaced = output.split("the replaced files are backup ")[1].split()[0]
    assert f"{replaced}  " in back_up(with_store, "list")
    restore_store(with_store, replaced)
    assert query(with_store, "select max(orders) from totals") == "5000"


def test_backups_of_a_store_are_verified_checked_and_pruned(with_store: Stack) -> None:
    assert "all its files can be read" in back_up(with_store, "verify")
    assert "deleted 0 expired snapshots" in back_up(with_store, "prune")
    assert "backups of reports are taken and can be read: last backup" in with_store.run_ci("check")
    assert "environment.tiers.database.backup: stack" in run_backup(with_store, "list", check=False)


def test_restore_of_a_missing_backup_leaves_the_store_running(with_store: Stack) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        restore_store(with_store, "2020-01-01T00:00:00Z")
    assert "there is no backup 2020-01-01" in failed.value.stderr
    assert query(with_store, "select max(orders) from totals") == "5000"


def test_backup_container_of_a_store_can_not_write_to_the_volume(with_store: Stack) -> None:
    if isinstance(with_store, ClusterStack):
        [pod] = with_store.pods("reports-backup")
        assert "/volumes/report-data" not in {mount.mount_path for mount in pod.spec.containers[0].volume_mounts}
        return
    assert isinstance(with_store, DockerStack)
    container: Any = with_store.engine.containers.get(f"{with_store.prefix}-reports-backup-1")
    code, output = container.exec_run(["touch", "/volumes/report-data/new"])
    assert code and b"Read-only" in output


def test_stack_with_backups_of_a_store_is_removed(with_store: Stack) -> None:
    assert with_store.destroy().code == 0
    assert isinstance(with_store, DockerStack | ClusterStack)
    assert with_store.leftovers() == []
