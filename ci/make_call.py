"""Call of a make target with its variables. The variables are validated before any other step.

The Makefile passes each variable as an environment variable `TIERS_ARG_…`. `python -m ci up ENV=prod` also accepts
variables as words.
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
        "CMD",
        "COMPOSE",
        "COUNT",
        "ENV",
        "FOLLOW",
        "FORCE",
        "FROM",
        "FULL",
        "ID",
        "JOB",
        "JOURNEY",
        "NAME",
        "OF",
        "ONLY",
        "PIN",
        "POLICY",
        "SEED",
        "SERVICE",
        "SHORT",
        "SINCE",
        "SLOT",
        "TO",
        "WINDOW",
    ]
)
PULL_REQUEST = "pr-"
"""Prefix of the names of environments whose stack file is generated for a pull request."""
TEMPLATE = "staging"

_CHECKS = {
    "ENV": (r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", "set ENV to the name of a stack, as in ENV=dev for Pulumi.dev.yaml"),
    "FROM": (r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?", "set FROM to the name of another environment, such as prod"),
    "NAME": (r"([A-Za-z0-9_][A-Za-z0-9_.-]*)?", "set NAME to the name of an application, such as shop"),
    "OF": (r"([A-Za-z0-9_][A-Za-z0-9_-]*)?", "set OF to the name of a database, such as board"),
    "TO": (r"[A-Za-z0-9_.:+-]*", "set TO to latest, an id that `make backups` lists, or a time like 2026-11-21T03:20:00Z"),
    "SERVICE": (r"([a-z][a-z0-9-]{0,39})?", "set SERVICE to the name of a service, such as api"),
    "JOB": (r"([a-z][a-z0-9-]{0,39})?", "set JOB to the name of a job in app.jobs, such as digest"),
    "SINCE": (r"([0-9.]+[smhd])?", "set SINCE to an age, such as 30s, 10m, 2h or 1d"),
    "FOLLOW": (r"(no|yes)?", "set FOLLOW to no, or remove FOLLOW"),
    "SLOT": (r"(idle|live|blue|green)?", "set SLOT to live, idle, blue or green, or remove SLOT"),
    "WINDOW": (r"([0-9.]+[a-z]+)?", "set WINDOW to a time like 30s"),
    "SEED": (r"[0-9]{0,9}", "set SEED to a whole number, such as 7"),
    "COUNT": (r"[0-9]{0,4}", "set COUNT to a whole number, such as 20"),
    "ONLY": (r"[A-Za-z0-9_. -]*", "set ONLY to names of examples, such as about_me"),
}  # fmt: skip


class CallError(Exception):
    """Error in a make call, such as an invalid value of a variable. The message says what to write instead."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Make target and its variables."""

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
        """Folder of the application, as the user wrote it."""
        return self.values.get("APP", ".")

    @property
    def folder(self) -> Path:
        """Absolute path of the application's folder."""
        return REPOSITORY / self.app

    @property
    def policy(self) -> str:
        """Folder of the policy pack that checks updates, or an empty text if no pack is used."""
        return self.values.get("POLICY", str(REPOSITORY / "policy"))

    @property
    def journey(self) -> str:
        """Path of the k6 script that imitates a user (`make journey`), relative to the application's folder."""
        return self["JOURNEY"] or ("examples/board/journey.js" if self.app == "." else "journey.js")

    @property
    def is_pull_request(self) -> bool:
        """True if the environment belongs to a pull request. The stack file of such an environment is generated."""
        return self.env.startswith(PULL_REQUEST)

    def validate(self) -> None:
        """Check that all variables have valid values.

        Raises:
            CallError: a value is invalid, or the application's folder has no Pulumi.yaml.
        """
        for name, (pattern, fix) in _CHECKS.items():
            value = self.env if name == "ENV" else self[name]
            if not re.fullmatch(pattern, value, re.ASCII):
                raise CallError(f"{name}: {value!r:.80} is not valid; {fix}" if value else f"{name} is empty; {fix}")
        if not self._has_project():
            raise CallError(f"there is no {_shown(self.app)}/Pulumi.yaml; set APP to the folder of an application")

    def refuse_missing_stack_file(self) -> None:
        """Check that the stack file exists.

        Raises:
            CallError: the stack file is missing.
        """
        if not (self.folder / f"Pulumi.{self.env}.yaml").exists():
            raise CallError(
                f"there is no Pulumi.{self.env}.yaml; set ENV to the name of a stack, as in ENV=dev for Pulumi.dev.yaml"
            )

    def _has_project(self) -> bool:
        try:
            return (self.folder / "Pulumi.yaml").exists()
        except (OSError, ValueError):  # The name is too long, or has a zero byte.
            return False


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) < 200 else f"{text!r:.200}"


def parse(words: Sequence[str], environment: MutableMapping[str, str]) -> Call:
    """Parse a make call from the words of a command line and from environment variables.

    The parsed variables are removed from `environment`, and so are the variables that make sets for child processes.

    Raises:
        CallError: a word is not a variable of make.
    """
    values = {name: environment.pop(PREFIX + name) for name in VARIABLES if PREFIX + name in environment}
    # Remove these variables. Otherwise a nested make would inherit the variables of this call.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):
        environment.pop(name, None)
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name not in VARIABLES:
            raise CallError(
                f"{word!r:.80} is not a variable of this Makefile; write NAME=value, where NAME is one of {', '.join(sorted(VARIABLES))}"
            )
        values[name] = value
    return Call(target=words[0] if words else "", values=values)
