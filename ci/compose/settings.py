"""Conversion of environment variables to `env` of the application, `env` of the environment, and secrets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.config import RESERVED
from components.model.names import secret_variable
from components.model.services import common_catalogue, prefix

from .compose_service import ComposeService, Notes, as_name, mapping, names_host, with_host
from .roles import Roles

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|(^|_)(PASS|KEY|SALT|DSN)$|API_?KEY|ACCESS_KEY")
_PUBLIC = re.compile(r"^(VITE|NEXT_PUBLIC|REACT_APP|NUXT_PUBLIC|PUBLIC)_")
_USER_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_NO_SECRET_KEY = re.compile(
    r"PUBLIC|(^|_)(DIR|FOLDER|PATH|MINUTES|SECONDS|HOURS|DAYS|TTL|LIFETIME|EXPIRY|LENGTH|SIZE|NAME|HEADER|ALGORITHM)(_|$)"
)
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|PASS|SECRET|TOKEN|KEY|SALT|DSN)$")
_NO_SECRET_VALUE = re.compile(r"-?\d+(\.\d+)?|\.{0,2}/[^\s:]*|https?://[^@\s?]+")
"""Pattern of values that are not secret: numbers, paths, and URLs without user and query."""
_ENVIRONMENT_SPECIFIC = re.compile(
    r"(^|_)(ENV|ENVIRONMENT|DEBUG|LOG|LEVEL|URL|URI|HOSTS?|ORIGINS?|DOMAIN|ADDRESS)(_|$)"
)
_SECRETS_FOLDER = "/run/secrets/"


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
                    f"secrets.{source}",
                    f"its value is not in the file; set the value of secrets.{name} in `make shell`",
                )
        return name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one tier."""

    env: dict[str, str]
    """Variables with the same value in all environments."""
    local_env: dict[str, str]
    """Variables whose value is specific to one environment, such as a host or a log level."""

    secrets: list[str]
    """Names of the secrets that the tier reads."""


class Reader:
    """Reader of the environment variables of the services in a slot.

    The database and the cache must be converted first, because the reader needs their passwords.
    """

    def __init__(self, services: Mapping[str, ComposeService], roles: Roles, secrets: Secrets, notes: Notes) -> None:
        self.services, self.roles, self.secrets, self.notes = services, roles, secrets, notes

    def read(self, service: ComposeService, tier: str) -> Settings:
        settings = Settings(env={}, local_env={}, secrets=[])
        for entry in service.raw.get("secrets") or ():
            source = entry if isinstance(entry, str) else entry["source"]
            name = self.secrets.register(source, self.notes)
            settings.secrets.append(name)
            target = source if isinstance(entry, str) else str(entry.get("target") or source)
            if (
                path := target if target.startswith("/") else f"{_SECRETS_FOLDER}{target}"
            ) != f"{_SECRETS_FOLDER}{name}":
                self.notes.add_unconverted(
                    f"{service.path}.secrets",
                    f"{path} is {_SECRETS_FOLDER}{name} here; read it from there, or from the path in {secret_variable(name)}",
                )
        for key, value in sorted(service.env.items()):
            path = f"{service.path}.environment.{key}"
            if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", key):
                self.notes.add_unconverted(
                    path,
                    "the name of a variable must have only capitals, digits and underscores; rename it, and set it in env",
                )
            elif value is None:
                self.notes.add_unconverted(path, f"it has no value; set it in {self.roles.path(tier)}.env")
            elif key in RESERVED:
                self.notes.add_unconverted(
                    path, f"the program sets {key} itself, to another value; rename this variable in the service"
                )
            elif self._is_address(key, service):
                self.notes.add_unnecessary(
                    f"services.*.environment.{key}", "tiers that need it get this variable from the program"
                )
            elif value.startswith(_SECRETS_FOLDER):
                name = as_name(value.removeprefix(_SECRETS_FOLDER))
                # Skip a variable named <NAME>_FILE, because the program sets that variable for each secret.
                settings.env.update({key: f"{_SECRETS_FOLDER}{name}"} if key != secret_variable(name) else {})
            elif addressed := [
                name
                for name, other in self.roles.http.items()
                if name in self.roles.catalogue.may_need(tier)
                if other is not service and names_host(key, value, other.name)
            ]:
                self.notes.add_unconverted(
                    path,
                    f"it contains the address of the {addressed[0]}, which is different in each slot; read {prefix(addressed[0])}_URL instead",
                )
            else:
                self._plain_or_secret(settings, key, value, path, tier)
        return settings

    def _plain_or_secret(self, settings: Settings, key: str, value: str, path: str, tier: str) -> None:
        for name in self.services:
            if not self.roles.new_name(name) and names_host(key, value, name):
                self.notes.add_unconverted(
                    path,
                    f"it refers to {name}, which is not imported; write the address of a {name} that runs elsewhere, and set egress: true",
                )
        converted = self._with_tier_hosts(key, value)
        if not (looks_secret(key, value) or looks_secret(key, converted)):
            (settings.local_env if _ENVIRONMENT_SPECIFIC.search(key) or "localhost" in value else settings.env)[key] = (
                converted
            )
        elif not value:
            self.notes.add_unconverted(
                path, f"it is empty; set secrets.{as_name(key)}, and add it to {self.roles.path(tier)}.secrets"
            )
        else:
            name = as_name(key)
            if self.secrets.values.get(name, converted) != converted:
                name = as_name(f"{tier}-{key}")
            self.secrets.values[name] = converted
            settings.secrets.append(name)
            same = [data for data, secret in self.secrets.passwords.items() if value == self.secrets.values.get(secret)]
            self.notes.add_unconverted(
                path,
                f"it is a secret now, not a variable: read the file whose path is in {secret_variable(name)}"
                + (f"; {secret_variable(self.secrets.passwords[same[0]])} has the same value" if same else ""),
            )

    def _is_address(self, key: str, service: ComposeService) -> bool:
        """Return True if Tiers itself sets the variable `key`, such as DATABASE_HOST if the service uses the database."""
        return any(
            key in (*record.variables, f"{record.prefix}_PASSWORD_FILE")
            for record in self.roles.catalogue.records
            if (other := self.roles.tiers.get(record.name)) and service.talks_to(other)
        )

    def _with_tier_hosts(self, key: str, value: str) -> str:
        """Replace the Compose names of data services in a value by their new names, such as `database` and `cache`.

        A Redis URL without user also gets the password of the cache.
        """
        for record in common_catalogue().data:
            if service := self.roles.tiers.get(record.name):
                value = with_host(key, value, service.name, record.name)
        password = self.secrets.values.get("cache-password", "")
        return re.sub(r"^(rediss?://)(?=cache\b)", lambda match: f"{match[1]}:{password}@", value)


def looks_secret(key: str, value: str) -> bool:
    """Return True if the name and the value of a variable look like a secret. A URL with a password is a secret, too."""
    return not _PUBLIC.match(key) and bool(_is_secret(key, value) or _USER_IN_URL.search(value))


def _is_secret(key: str, value: str) -> bool:
    if _NO_SECRET_KEY.search(key) or re.fullmatch(r"(?i:true|false|yes|no|on|off)", value):
        return False
    # For a name such as DB_PASSWORD the value does not matter, because a password may be a number or begin with a slash.
    return bool(_SECRET_NAME.search(key) or (_SECRET.search(key) and not _NO_SECRET_VALUE.fullmatch(value)))
