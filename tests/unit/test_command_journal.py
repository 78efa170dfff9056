"""Tests of the journal of commands: `make run`, `make exec` and `make console`."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi import RunError

from ci import command_journal, status
from ci.command_journal import LENGTH, LONGEST_TAG, Entry


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Mock the tags of a stack."""
    stored: dict[str, str] = {"pulumi:project": "board"}

    def pulumi(*words: str) -> str:
        if words[:3] == ("stack", "tag", "ls"):
            return json.dumps(stored)
        assert words[:3] == ("stack", "tag", "set") and words[5:] == ("--stack", "dev")
        stored[words[3]] = words[4]
        return ""

    monkeypatch.setattr(command_journal, "pulumi", pulumi)
    return stored


def entry(second: int, **more: Any) -> Entry:
    fields: Mapping[str, Any] = {
        "who": "ana@host",
        "target": "run",
        "service": "api",
        "slot": "blue",
        "program": "python",
    }
    return Entry(at=f"2026-12-01T03:00:{second:02}+00:00", **{**fields, **more})


def test_entry_has_the_program_and_the_number_of_arguments_but_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERS_WHO", "ana")
    recorded = Entry.of("exec", "database", None, ["/usr/bin/psql", "-c", "alter role x password 'hunter2'"])
    assert (recorded.who, recorded.target, recorded.service, recorded.slot) == ("ana", "exec", "database", "")
    assert (recorded.program, recorded.arguments) == ("psql", 2)
    assert "hunter2" not in recorded.text and "-c" not in recorded.text


def test_entry_of_a_console_has_no_program() -> None:
    assert (Entry.of("console", "api", "green", ()).program, Entry.of("console", "api", "green", ()).arguments) == (
        "",
        0,
    )


def test_entries_come_back_with_the_newest_first(tags: dict[str, str]) -> None:
    for second in (2, 1, 3):
        command_journal.record("dev", entry(second, arguments=second))
    assert command_journal.entries("dev") == [entry(second, arguments=second) for second in (3, 2, 1)]


def test_new_entry_replaces_the_oldest(tags: dict[str, str]) -> None:
    for second in range(LENGTH + 3):
        command_journal.record("dev", entry(second))
    assert command_journal.entries("dev") == [entry(second) for second in range(LENGTH + 2, 2, -1)]
    assert len(tags) == LENGTH + 1


def test_tags_of_other_programs_are_neither_read_nor_replaced(tags: dict[str, str]) -> None:
    tags["tiers:command-0"] = "[1]"
    assert command_journal.entries("dev") == []
    command_journal.record("dev", entry(1))
    assert command_journal.entries("dev") == [entry(1)]
    assert tags["pulumi:project"] == "board"


@given(who=st.text(max_size=200), program=st.text(min_size=1, max_size=200), arguments=st.integers(0, 100_000))
def test_text_of_an_entry_fits_into_a_tag_and_can_be_read(who: str, program: str, arguments: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_journal, "author", lambda variables: who)
        recorded = Entry.of("console", "a" * 30, "green", [program, *["x"] * min(arguments, 3)])
    assert len(recorded.text) <= LONGEST_TAG
    assert recorded.text.isprintable() or recorded.text.encode()
    assert command_journal._parse(recorded.text) == recorded  # pyright: ignore[reportPrivateUsage]


def test_backend_that_refuses_tags_prevents_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: str) -> str:
        raise RunError("no tags")

    monkeypatch.setattr(command_journal, "pulumi", refuse)
    command_journal.record("dev", entry(1))
    assert capsys.readouterr().err == "  this command is not in the journal of dev: no tags\n"
    assert [*status._commands("dev")] == ["  the journal of commands can't be read: no tags"]  # pyright: ignore[reportPrivateUsage]


def test_make_status_prints_the_last_commands_of_people(tags: dict[str, str]) -> None:
    assert [*status._commands("dev")] == []  # pyright: ignore[reportPrivateUsage]
    command_journal.record("dev", entry(1, arguments=2))
    command_journal.record("dev", entry(2, target="console", service="database", slot="", program=""))
    assert [*status._commands("dev")] == [  # pyright: ignore[reportPrivateUsage]
        "  console    2026-12-01T03:00:02+00:00  database: the console; by ana@host",
        "  run        2026-12-01T03:00:01+00:00  api (blue): python, 2 arguments; by ana@host",
    ]
