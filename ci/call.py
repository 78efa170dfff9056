"""A call of make: its target and variables, which are text from people. Names are checked before anything else happens.

The Makefile hands each variable on as an environment variable `TIERS_ARG_…`; `python -m ci up ENV=prod` takes them as words, too.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PREFIX = "TIERS_ARG_"
VARIABLES = frozenset(
    [
        "APP",
        "AT",
        "COMPOSE",
        "ENV",
        "FORCE",
        "FROM",
        "FULL",
        "ID",
        "JOURNEY",
        "NAME",
        "OF",
        "ONLY",
        "PIN",
        "POLICY",
        "SHORT",
        "SLOT",
        "TO",
        "WINDOW",
    ]
)
PULL_REQUEST = "pr-"
"""Environments whose names begin so are made like staging, with a stack file that is written when it is needed."""
TEMPLATE = "staging"

_CHECKS = {
    "ENV": (r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", "ENV is the name of a stack file, as dev in Pulumi.dev.yaml"),
    "FROM": (r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?", "FROM is the name of another environment, as prod"),
    "NAME": (r"([A-Za-z0-9_][A-Za-z0-9_.-]*)?", "NAME is the name of an application, as shop"),
    "OF": (r"([A-Za-z0-9_][A-Za-z0-9_-]*)?", "OF is the name of a database, as board"),
    "TO": (r"[A-Za-z0-9_.:+-]*", "TO is latest, an id that `make backups` lists, or a time like 2026-11-21T03:20:00Z"),
    "SLOT": (r"(idle)?", "SLOT is idle, or left out"),
    "WINDOW": (r"([0-9.]+[a-z]+)?", "WINDOW is a time like 30s"),
    "ONLY": (r"[A-Za-z0-9_. -]*", "ONLY has names of examples, as about_me"),
}  # fmt: skip


class CallError(Exception):
    """A variable that can't be what it is for; the message says what to write."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A target and its variables."""

    target: str
    values: Mapping[str, str] = field(default_factory=dict[str, str])

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def env(self) -> str:
        """The environment, which is the name of a Pulumi stack."""
        return self.values.get("ENV", "dev")

    @property
    def app(self) -> str:
        """The application's folder, as it was given."""
        return self.values.get("APP", ".")

    @property
    def folder(self) -> Path:
        """The application's folder."""
        return REPOSITORY / self.app

    @property
    def policy(self) -> str:
        """The policy pack that updates are held to; empty for none."""
        return self.values.get("POLICY", str(REPOSITORY / "policy"))

    @property
    def journey(self) -> str:
        """The script of a user's way, relative to the application's folder."""
        return self["JOURNEY"] or ("examples/board/journey.js" if self.app == "." else "journey.js")

    @property
    def is_pull_request(self) -> bool:
        """True for an environment whose stack file is written when it is needed."""
        return self.env.startswith(PULL_REQUEST)

    def refuse(self) -> None:
        """Check that names are names.

        Raises:
            CallError: a variable is none, or the application's folder is missing.
        """
        for name, (pattern, fix) in _CHECKS.items():
            value = self.env if name == "ENV" else self[name]
            if not re.fullmatch(pattern, value, re.ASCII):
                raise CallError(f"{name} is {value!r:.80}; {fix}" if value else f"{name} is empty; {fix}")
        if not self._has_project():
            raise CallError(f"there is no {_shown(self.app)}/Pulumi.yaml; APP is the folder of an application")

    def refuse_missing_stack_file(self) -> None:
        """Check that the stack file is there.

        Raises:
            CallError: it is missing.
        """
        if not (self.folder / f"Pulumi.{self.env}.yaml").exists():
            raise CallError(f"there is no Pulumi.{self.env}.yaml; ENV is the name of a stack file")

    def _has_project(self) -> bool:
        try:
            return (self.folder / "Pulumi.yaml").exists()
        except (OSError, ValueError):  # Too long a name, or one with a zero byte.
            return False


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) < 200 else f"{text!r:.200}"


def parse(words: Sequence[str], environment: MutableMapping[str, str]) -> Call:
    """Return the call of a command line and of what make handed on, which is taken out of the environment.

    Raises:
        CallError: a word is no variable of make's.
    """
    values = {name: environment.pop(PREFIX + name) for name in VARIABLES if PREFIX + name in environment}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):  # Otherwise a make below this one took the same variables.
        environment.pop(name, None)
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name not in VARIABLES:
            raise CallError(f"{word!r:.80} is no variable; write one as NAME=value, of {', '.join(sorted(VARIABLES))}")
        values[name] = value
    return Call(target=words[0] if words else "", values=values)
