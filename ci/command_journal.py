"""Journal of the commands that people run in an environment: `make run`, `make exec` and `make console`.

An entry says who ran which program, when, and in which service. It contains no arguments, because people type secrets there. The entries
are tags of the stack: Pulumi keeps them next to the state in the same backend, and writes them without an update and without the lock of
the state (docs/adr/036-one-off-containers.md).
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from pulumi import RunError

from components.release.journal import author

from .pulumi_stack import pulumi

LENGTH = 10
"""Number of entries. A new entry replaces the oldest entry."""
LONGEST_TAG = 256
"""Maximum length of a tag's value, in characters (Pulumi Cloud)."""
_TAG = "tiers:command-{}"
_LONGEST_TEXT = 60


@dataclass(frozen=True, kw_only=True, order=True)
class Entry:
    """A command that a person ran."""

    at: str
    """Time of the command (ISO 8601, in UTC)."""
    who: str
    """Person or job that ran the command (`journal.author`)."""
    target: str
    """Make target: `run`, `exec` or `console`."""
    service: str
    slot: str
    """Slot of the service; empty for a service that both slots share."""
    program: str
    """File name of the program; empty for the console of the service."""
    arguments: int = 0
    """Number of arguments of the program."""

    @classmethod
    def of(cls, target: str, service: str, slot: str | None, words: Sequence[str]) -> "Entry":
        """Return the entry of a command that this process runs now.

        Args:
            target: make target.
            service: name of the service.
            slot: slot of the service; None for a service that both slots share.
            words: the program with its arguments; empty for the console of the service.
        """
        return cls(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            who=_plain(author(os.environ)),
            target=target,
            service=service,
            slot=str(slot or ""),
            program=_plain(PurePath(words[0]).name) if words else "",
            arguments=len(words[1:]),
        )

    @property
    def text(self) -> str:
        """The entry as the value of a tag, which has at most `LONGEST_TAG` characters."""
        return json.dumps(astuple(self), ensure_ascii=False, separators=(",", ":"))


def record(stack: str, entry: Entry) -> None:
    """Write an entry into the journal of a stack. If this fails, print a warning: an incident must not wait for the journal."""
    try:
        used = dict(_numbered(stack))
        number = next((number for number in range(LENGTH) if number not in used), None)
        oldest = min(used, key=used.__getitem__) if number is None else number
        pulumi("stack", "tag", "set", _TAG.format(oldest), entry.text, "--stack", stack)
    except RunError as error:
        print(f"  this command is not in the journal of {stack}: {error}", file=sys.stderr)


def entries(stack: str) -> list[Entry]:
    """Return the last `LENGTH` entries of a stack's journal, the newest first.

    Raises:
        RunError: the backend can't list the tags of the stack.
    """
    return sorted(dict(_numbered(stack)).values(), reverse=True)


def _numbered(stack: str) -> Iterator[tuple[int, Entry]]:
    """Yield the number of each tag with an entry, and the entry. Skip tags that a person or another version has written."""
    tags: Mapping[str, str] = json.loads(pulumi("stack", "tag", "ls", "--json", "--stack", stack) or "{}")
    for number in range(LENGTH):
        if (text := tags.get(_TAG.format(number))) and (entry := _parse(text)):
            yield number, entry


def _parse(text: str) -> Entry | None:
    try:
        at, who, target, service, slot, program, arguments = json.loads(text)
        return Entry(
            at=str(at), who=str(who), target=str(target), service=str(service), slot=str(slot), program=str(program),
            arguments=int(arguments),
        )  # fmt: skip
    except (TypeError, ValueError):
        return None


def _plain(text: Any) -> str:
    """Return a text without characters that JSON would escape, cut to `_LONGEST_TEXT` characters."""
    return re.sub(r'["\\\x00-\x1f\ud800-\udfff]', "?", str(text))[:_LONGEST_TEXT]
