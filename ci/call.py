"""Call of a make target: its name and variables, which people type. All names are checked before any other step.

The Makefile passes each variable as an environment variable `TIERS_ARG_…`; `python -m ci up ENV=prod` takes words
too.
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
        "COUNT",
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
        "SEED",
        "SHORT",
        "SLOT",
        "TO",
        "WINDOW",
    ]
)
PULL_REQUEST = "pr-"
"""Prefix of the environments of pull requests. Their stack files are generated from that of staging when needed."""
TEMPLATE = "staging"

_CHECKS = {
    "ENV": (r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", "ENV is the name of a stack file, as dev in Pulumi.dev.yaml"),
    "FROM": (r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?", "FROM is the name of another environment, as prod"),
    "NAME": (r"([A-Za-z0-9_][A-Za-z0-9_.-]*)?", "NAME is the name of an application, as shop"),
    "OF": (r"([A-Za-z0-9_][A-Za-z0-9_-]*)?", "OF is the name of a database, as board"),
    "TO": (r"[A-Za-z0-9_.:+-]*", "TO is latest, an id that `make backups` lists, or a time like 2026-11-21T03:20:00Z"),
    "SLOT": (r"(idle)?", "SLOT is idle, or left out"),
    "WINDOW": (r"([0-9.]+[a-z]+)?", "WINDOW is a time like 30s"),
    "SEED": (r"[0-9]{0,9}", "SEED is a whole number, as 7"),
    "COUNT": (r"[0-9]{0,4}", "COUNT is a whole number, as 20"),
    "ONLY": (r"[A-Za-z0-9_. -]*", "ONLY has names of examples, as about_me"),
}  # fmt: skip


class CallError(Exception):
    """A variable has an invalid value; the message says what to write."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Target of make and its variables."""

    target: str
    values: Mapping[str, str] = field(default_factory=dict[str, str])

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def env(self) -> str:
        """Name of the environment, which is the name of its Pulumi stack."""
        return self.values.get("ENV", "dev")

    @property
    def app(self) -> str:
        """Folder of the application, as it was typed."""
        return self.values.get("APP", ".")

    @property
    def folder(self) -> Path:
        """Absolute path of the application's folder."""
        return REPOSITORY / self.app

    @property
    def policy(self) -> str:
        """Folder of the policy pack that checks updates; empty for none."""
        return self.values.get("POLICY", str(REPOSITORY / "policy"))

    @property
    def journey(self) -> str:
        """Script of a user's path through the application, relative to its folder."""
        return self["JOURNEY"] or ("examples/board/journey.js" if self.app == "." else "journey.js")

    @property
    def is_pull_request(self) -> bool:
        """True for an environment whose stack file is generated when needed."""
        return self.env.startswith(PULL_REQUEST)

    def refuse(self) -> None:
        """Check that all variables have valid values.

        Raises:
            CallError: a value is invalid, or the application's folder is missing.
        """
        for name, (pattern, fix) in _CHECKS.items():
            value = self.env if name == "ENV" else self[name]
            if not re.fullmatch(pattern, value, re.ASCII):
                raise CallError(f"{name} is {value!r:.80}; {fix}" if value else f"{name} is empty; {fix}")
        if not self._has_project():
            raise CallError(f"there is no {_shown(self.app)}/Pulumi.yaml; APP is the folder of an application")

    def refuse_missing_stack_file(self) -> None:
        """Check that the stack file exists.

        Raises:
            CallError: it is missing.
        """
        if not (self.folder / f"Pulumi.{self.env}.yaml").exists():
            raise CallError(f"there is no Pulumi.{self.env}.yaml; ENV is the name of a stack file")

    def _has_project(self) -> bool:
        try:
            return (self.folder / "Pulumi.yaml").exists()
        except (OSError, ValueError):  # The name is too long, or has a zero byte.
            return False


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) < 200 else f"{text!r:.200}"


def parse(words: Sequence[str], environment: MutableMapping[str, str]) -> Call:
    """Return the call from a command line and from make's environment variables, which are removed from the environment.

    Raises:
        CallError: a word is not a variable of make.
    """
    values = {name: environment.pop(PREFIX + name) for name in VARIABLES if PREFIX + name in environment}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):  # A nested make would take the same variables.
        environment.pop(name, None)
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name not in VARIABLES:
            raise CallError(f"{word!r:.80} is no variable; write one as NAME=value, of {', '.join(sorted(VARIABLES))}")
        values[name] = value
    return Call(target=words[0] if words else "", values=values)
