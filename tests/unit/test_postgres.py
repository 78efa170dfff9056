"""What the image of backups says to a server, and in which order; what a real one makes of it is in tests/e2e."""

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from images.backup.backup.repository import BackupError


class RefusedError(Exception):
    """The driver's error: it is in the image, and not here."""


class Text(str):
    """A statement as the driver puts it together."""

    def format(self, *values: object, **named: object) -> "Text":
        return Text(super().format(*values, **named))

    def __add__(self, other: str) -> "Text":
        return Text(str(self) + other)


class Server:
    """Databases by name, and what was done to them."""

    def __init__(self) -> None:
        self.databases = {"board", "template1"}
        self.done: list[str] = []
        self.answers: dict[str, list[tuple[Any, ...]]] = {}
        self.found: list[tuple[Any, ...]] = []

    def connect(self, dbname: str = "board") -> "Server":
        if dbname not in self.databases:
            raise RefusedError(f'FATAL:  database "{dbname}" does not exist')
        return self

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def cursor(self) -> "Server":
        return self

    def execute(self, statement: str, values: Sequence[str] = ()) -> None:
        words = statement.split()
        if words[0] != "SELECT":
            self.done.append(statement)
        if "datallowconn" in statement:
            self.found = [(name,) for name in sorted(self.databases - {"template1"})]
        elif "FROM pg_database WHERE datname =" in statement:
            self.found = [(1,)] if values[0] in self.databases else []
        else:
            self.found = next((found for part, found in self.answers.items() if part in statement), [])

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.found[0] if self.found else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.found


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def postgres(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a driver that leads to this server."""
    driver, written = ModuleType("psycopg2"), ModuleType("psycopg2.sql")
    vars(driver).update(connect=server.connect, Error=RefusedError)
    vars(written).update(SQL=Text, Identifier=lambda name: name, Literal=repr)
    monkeypatch.setitem(sys.modules, "psycopg2", driver)
    monkeypatch.setitem(sys.modules, "psycopg2.sql", written)
    monkeypatch.delitem(sys.modules, "images.backup.backup.postgres", raising=False)
    monkeypatch.setenv("PGDATABASE", "board")
    return import_module("images.backup.backup.postgres")


def test_where_a_database_is_not_there_those_that_are_are_named(postgres: Any, server: Server) -> None:
    server.databases |= {"board_r1"}
    with (
        pytest.raises(BackupError, match='"gone" does not exist; there are board, board_r1'),
        postgres._connected("gone"),
    ):
        pass


def test_where_nobody_answers_no_database_is_named(postgres: Any, server: Server) -> None:
    server.databases.clear()
    with pytest.raises(BackupError, match=r"does not exist$"), postgres._connected():
        pass
