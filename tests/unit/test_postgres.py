"""Tests of the SQL statements of the backup image, and of the order of the statements.

These tests use a mock of PostgreSQL. The end-to-end tests use a real server.
"""

import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from images.backup.backup.repository import BackupError, Run


class RefusedError(Exception):
    """Mock of psycopg2.Error. The driver psycopg2 is installed in the backup image only."""


class Text(str):
    """Mock of psycopg2.sql.SQL, the class of SQL texts with placeholders."""

    def format(self, *values: object, **named: object) -> "Text":
        return Text(super().format(*values, **named))

    def __add__(self, other: str) -> "Text":
        return Text(str(self) + other)


class Server:
    """Mock of a PostgreSQL server. The mock records all received statements except SELECT and SET."""

    def __init__(self) -> None:
        self.databases = {"board", "template1"}
        self.statements: list[str] = []
        self.answers: dict[str, list[tuple[Any, ...]]] = {}
        self.used_bytes = 20 * 2**20
        self.rows: list[tuple[Any, ...]] = []
        self.failing_program = "nothing"

    def connect(self, dbname: str = "board") -> "Server":
        if dbname not in self.databases:
            raise RefusedError(f'FATAL:  database "{dbname}" does not exist')
        return self

    def feed(self, command: Sequence[str], stream: Any) -> None:
        self.statements.append(f"{command[0]} {command[-1]}: {stream.read().decode()}")
        if self.failing_program in command[0]:
            raise BackupError(f"{command[0]} fails")

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def cursor(self) -> "Server":
        return self

    def execute(self, statement: str, values: Sequence[str] = ()) -> None:
        words = statement.split()
        if words[0] not in ("SELECT", "SET"):
            self.statements.append(statement)
        if words[:2] == ["CREATE", "DATABASE"]:
            self.databases.add(words[2])
        if "datallowconn" in statement:
            self.rows = [(name,) for name in sorted(self.databases - {"template1"})]
        elif "sum(pg_database_size" in statement:
            self.rows = [(self.used_bytes,)]
        elif "FROM pg_database WHERE datname =" in statement:
            self.rows = [(1,)] if values[0] in self.databases else []
        else:
            self.rows = next((rows for part, rows in self.answers.items() if part in statement), [])

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def postgres(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module `postgres` of the backup image, with a driver that connects to the mock server."""
    driver, sql_module = ModuleType("psycopg2"), ModuleType("psycopg2.sql")
    vars(driver).update(connect=server.connect, Error=RefusedError)
    vars(sql_module).update(SQL=Text, Identifier=lambda name: name, Literal=repr)
    monkeypatch.setitem(sys.modules, "psycopg2", driver)
    monkeypatch.setitem(sys.modules, "psycopg2.sql", sql_module)
    monkeypatch.delitem(sys.modules, "images.backup.backup.postgres", raising=False)
    monkeypatch.setenv("PGDATABASE", "board")
    module = import_module("images.backup.backup.postgres")
    monkeypatch.setattr(module, "_feed", server.feed)
    return module


def test_missing_database_is_reported_with_the_existing_databases(postgres: Any, server: Server) -> None:
    server.databases |= {"board_r1"}
    with (
        pytest.raises(BackupError, match='"gone" does not exist; use one of board, board_r1'),
        postgres._connect("gone"),
    ):
        pass


def test_error_about_an_unreachable_database_server_lists_no_databases(postgres: Any, server: Server) -> None:
    server.databases.clear()
    with pytest.raises(BackupError, match=r"does not exist$"), postgres._connect():
        pass


def backup_stream(**more: Any) -> io.BytesIO:
    header = {"tables": {}, "role_names": [], "like": {"ENCODING": "UTF8"}, **more}
    return io.BytesIO(json.dumps(header).encode() + b"\nthe rows of people")


RESTORE_STATEMENTS = [
    "DROP DATABASE IF EXISTS backup_loading WITH (FORCE)",
    "CREATE DATABASE backup_loading TEMPLATE template0 ENCODING 'UTF8'",
    "REVOKE CONNECT ON DATABASE backup_loading FROM PUBLIC",
    "pg_restore backup_loading: the rows of people",
]


def test_restore_renames_the_temporary_database_after_loading_all_data(
    postgres: Any, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "anonymise.sql"
    file.write_text("anonymise all rows")
    postgres.restore(backup_stream(), "board_r1", [file])
    assert server.statements == [
        *RESTORE_STATEMENTS,
        "psql backup_loading: anonymise all rows",
        "ALTER DATABASE backup_loading RENAME TO board_r1",
        "GRANT CONNECT ON DATABASE board_r1 TO PUBLIC",
    ]


@pytest.mark.parametrize("failing_program", ["pg_restore", "psql"])
def test_failed_restore_drops_the_temporary_database(
    failing_program: str, postgres: Any, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "anonymise.sql"
    file.touch()
    server.failing_program = failing_program
    with pytest.raises(BackupError, match=f"{failing_program} fails"):
        postgres.restore(backup_stream(), "board_r1", [file])
    assert server.statements[-1] == RESTORE_STATEMENTS[0]
    assert "board_r1" not in " ".join(server.statements)


def test_restore_into_an_existing_database_is_refused(postgres: Any, server: Server) -> None:
    with pytest.raises(BackupError, match="database board already exists"):
        postgres.restore(backup_stream(), "board")
    assert not server.statements


def test_restore_without_enough_storage_is_refused_before_data_is_loaded(
    postgres: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_ROOM", str(100 * 2**20))
    server.used_bytes, large = 50 * 2**20, 40 * 2**20
    with pytest.raises(BackupError, match=r"50Mi of 100Mi are used.*60Mi.*tiers\.database\.storage to more than 110Mi"):
        postgres.restore(backup_stream(size=large), "board_r1")
    # Only one statement ran: the restore drops the temporary database that an earlier, killed restore may have left.
    assert server.statements == RESTORE_STATEMENTS[:1]
    monkeypatch.delenv("BACKUP_ROOM")
    postgres.restore(backup_stream(size=large), "board_r1")


def test_restore_is_not_refused_if_the_backup_fits_the_storage_or_has_an_unknown_size(
    postgres: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_ROOM", str(100 * 2**20))
    postgres.restore(backup_stream(size=50 * 2**20), "board_r1")
    postgres.restore(backup_stream(), "board_r2")


@pytest.mark.usefixtures("postgres")
def test_full_backup_is_listed_with_the_ids_of_the_database_snapshot_and_volume_snapshots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = import_module("images.backup.backup.__main__")
    time = datetime(2026, 11, 21, 12, tzinfo=UTC)
    runs = [
        Run(id="1", kind="backup", time=time, ok=True, snapshots=("aaaa1111",), size=2048, seconds=1.5),
        Run(id="2", kind="full", time=time, ok=True, snapshots=("bbbb2222", "cccc3333"), size=4096, seconds=2),
    ]
    monkeypatch.setattr(program, "_history", lambda: runs)
    program.list_backups()
    assert capsys.readouterr().out.splitlines() == [
        "aaaa1111  2026-11-21T12:00:00Z  backup     2.0 KiB  1.5 s",
        "bbbb2222  2026-11-21T12:00:00Z  full       4.0 KiB  2.0 s  volumes cccc3333",
    ]
