"""Secrets of a Compose file: their names and values, and the accounts of the data services."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from .compose_service import Notes, as_name, mapping


@dataclass(frozen=True, kw_only=True)
class Account:
    """Values with which services connect to a data service, as they are in the Compose file.

    Templates have placeholders instead of these values, because the values differ between environments.
    """

    owner: str
    """Name of the data service in the new application, such as `database`."""
    host: str
    """Name of the Compose service."""
    port: int
    user: str | None = None
    """User of the database; None if the data service has no users."""
    name: str | None = None
    """Name of the database; None if the data service has no names."""
    password: str | None = field(default=None, repr=False)
    """Password; None if the Compose file has no password, or names a file with the password."""
    is_new: bool = False
    """True if the password was generated, because the Compose file has none."""
    has_password: bool = True
    """False if the data service has no password in the new application."""


@dataclass
class Secrets:
    """Secrets of a Compose file, under the names that they get in the configuration."""

    declared: Mapping[str, Any]
    """Section `secrets` of the Compose file."""

    values: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Secrets with a value in a file: name → path of the file."""

    missing: set[str] = field(default_factory=set[str])
    """Names of secrets whose values are unknown."""
    passwords: dict[str, str] = field(default_factory=dict[str, str])
    """Data service (`database` or `cache`) → name of the secret that contains its password."""
    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    """Data service → values with which other services connect to it."""

    def register(self, source: str, notes: Notes) -> str:
        """Record a secret that the Compose file declares, and return the secret's name in the configuration.

        If the declaration has no file, the secret counts as missing and gets a note.
        """
        name = as_name(source)
        if name not in {*self.files, *self.values, *self.missing}:
            if file := mapping(dict(self.declared), source).get("file"):
                self.files[name] = str(file)
            else:
                self.missing.add(name)
                notes.add_unconverted(
                    f"secrets.{source}", f"its value is not in the file; set it as secrets.{name} in `make shell`"
                )
        return name

    def store(self, key: str, value: str, service: str) -> str:
        """Record a value as a secret, and return the secret's name in the configuration.

        Args:
            key: name of the variable, from which the name is made.
            value: value of the secret.
            service: name of the service, which becomes part of the name if another value has the first name.
        """
        taken = {*self.files, *self.missing, *map(as_name, self.declared)}
        names = map(as_name, _possible_names(key, service))
        name = next(name for name in names if name not in taken and self.values.get(name, value) == value)
        self.values[name] = value
        return name


def _possible_names(key: str, service: str) -> Iterator[str]:
    """Yield the names that a secret may get, the best name first."""
    # The name of a secret begins with a letter.
    yield key if re.match(r"_*[A-Za-z]", key) else f"secret-{key}"
    yield f"{service}-{key}"
    yield from (f"{service}-{key}-{number}" for number in count(2))
