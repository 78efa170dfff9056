"""Conversion of services' variables into common settings, settings of this environment, and secrets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.config import TierName

from .given import Given, Notes, as_host, as_name, mapping, names
from .roles import DATA, Roles

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|(^|_)(PASS|KEY|SALT|DSN)$|API_?KEY|ACCESS_KEY")
_PUBLIC = re.compile(r"^(VITE|NEXT_PUBLIC|REACT_APP|NUXT_PUBLIC|PUBLIC)_")
_USER_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_OF_A_PLACE = re.compile(r"(^|_)(ENV|ENVIRONMENT|DEBUG|LOG|LEVEL|URL|URI|HOSTS?|ORIGINS?|DOMAIN|ADDRESS)(_|$)")
_GIVEN = re.compile(r"(DATABASE|CACHE)_(HOST|PORT|NAME|USER|PASSWORD_FILE)|API_URL|RELEASE|SLOT")
_MOUNTED = "/run/secrets/"


@dataclass
class Secrets:
    """Secrets of the file, under their new names."""

    declared: Mapping[str, Any]
    """Section `secrets` of the file."""

    values: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Name → path of the file with the value."""

    elsewhere: set[str] = field(default_factory=set[str])
    passwords: dict[TierName, str] = field(default_factory=dict[TierName, str])
    """Data tier → name of the secret with its password."""

    def mounted(self, source: str, notes: Notes) -> str:
        """Return the new name of a secret that the file declares, and record the location of its value."""
        name = as_name(source)
        if name not in {*self.files, *self.values, *self.elsewhere}:
            if file := mapping(dict(self.declared), source).get("file"):
                self.files[name] = str(file)
            else:
                self.elsewhere.add(name)
                notes.left(f"secrets.{source}", f"its value is not here; set it as secrets.{name} in `make shell`")
        return name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one tier."""

    env: dict[str, str]
    here: dict[str, str]
    """Variables of this environment only."""

    secrets: list[str]


class Reader:
    """Reader of the variables of web, api and worker. The passwords of database and cache must be known."""

    def __init__(self, services: Mapping[str, Given], roles: Roles, secrets: Secrets, notes: Notes) -> None:
        self.services, self.roles, self.secrets, self.notes = services, roles, secrets, notes

    def read(self, service: Given, tier: TierName) -> Settings:
        settings = Settings(env={}, here={}, secrets=[])
        for entry in service.raw.get("secrets") or ():
            settings.secrets.append(
                self.secrets.mounted(entry if isinstance(entry, str) else entry["source"], self.notes)
            )
        for key, value in sorted(service.env.items()):
            path = f"{service.path}.environment.{key}"
            if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", key):
                self.notes.left(path, "settings have capitals, digits and underscores; rename it, and say it in env")
            elif value is None:
                self.notes.left(path, f"it has no value here; say it in app.{tier}.env")
            elif _GIVEN.fullmatch(key):
                self.notes.implied(f"services.*.environment.{key}", "the program gives it to a tier that needs it")
            elif value.startswith(_MOUNTED):
                name = as_name(value.removeprefix(_MOUNTED))
                # The variable with the secret's own name is always set.
                settings.env.update({key: f"{_MOUNTED}{name}"} if key != _variable(name) else {})
            elif (
                tier is not TierName.API
                and TierName.API in self.roles.tiers
                and names(value, self.roles.tiers[TierName.API].name)
            ):
                self.notes.left(path, "it names the api, whose address differs by slot; read API_URL")
            else:
                self._plain_or_secret(settings, key, value, path, tier)
        return settings

    def _plain_or_secret(self, settings: Settings, key: str, value: str, path: str, tier: TierName) -> None:
        for name in self.services:
            if not self.roles.tier(name) and names(value, name):
                self.notes.left(path, f"it names {name}, which does not run here; give the address of one that does")
        moved = self._moved(value)
        if _PUBLIC.match(key) or not (_SECRET.search(key) or _USER_IN_URL.search(moved)):
            (settings.here if _OF_A_PLACE.search(key) or "localhost" in value else settings.env)[key] = moved
        elif not value:
            self.notes.left(path, f"it is empty; set secrets.{as_name(key)}, and name it in app.{tier}.secrets")
        else:
            name = as_name(key)
            if self.secrets.values.get(name, moved) != moved:
                name = f"{tier}-{name}"
            self.secrets.values[name] = moved
            settings.secrets.append(name)
            is_database_password = value == self.secrets.values.get("database-password")
            self.notes.left(
                path,
                f"moved to secrets, and no variable any more: read it from the file that {_variable(name)} names"
                + ("; DATABASE_PASSWORD_FILE has the same" if is_database_password else ""),
            )

    def _moved(self, value: str) -> str:
        """Return a value with services' names replaced by those of database and cache.

        The cache's URL gets its password.
        """
        for tier in DATA:
            if service := self.roles.tiers.get(tier):
                value = re.sub(as_host(service.name), rf"\g<1>{tier}", value)
        password = self.secrets.values.get("cache-password", "")
        return re.sub(r"^(rediss?://)(?=cache\b)", lambda scheme: f"{scheme[1]}:{password}@", value)


def _variable(name: str) -> str:
    """Return the name of the variable with the path of a secret's file."""
    return f"{name.upper().replace('-', '_')}_FILE"
