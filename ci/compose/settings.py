"""Conversion of environment variables to `env` and `secret_env` of the application, `env` of the environment, and secrets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.config import RESERVED
from components.config.template import PASSWORD, SECRETS
from components.model.names import secret_variable
from components.model.services import common_catalogue, prefix

from .compose_service import as_name, names_host, with_host
from .project import Project
from .secret_values import Account
from .url_templates import SECRET_PARAMETER, data_template, http_template, placeholder

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|(^|_)(PASS|KEY|SALT|DSN)$|API_?KEY|ACCESS_KEY")
_PUBLIC = re.compile(r"^(VITE|NEXT_PUBLIC|REACT_APP|NUXT_PUBLIC|PUBLIC)_")
_USER_IN_URL = re.compile(r"://[^/@\s:]*:(?!\d+(/|$))[^@\r\n]+@")
"""Pattern of a password in a URL. The password may contain a slash and spaces, but a port followed by a path is no password."""
_PASSWORD_NAME = re.compile(r"PASS|PWD|AUTH")
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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one service."""

    env: dict[str, str] = field(default_factory=dict[str, str])
    """Variables with the same value in all environments."""
    local_env: dict[str, str] = field(default_factory=dict[str, str])
    """Variables whose value is specific to one environment, such as a host or a log level."""
    secret_env: dict[str, str] = field(default_factory=dict[str, str])
    """Templates of the variables that contain a secret, or an address that differs between slots."""

    secrets: list[str] = field(default_factory=list[str])
    """Names of the secrets that the service reads as files."""


class Reader:
    """Reader of the environment variables of a service in a slot.

    The database and the cache must be converted first, because the reader needs their accounts.

    Args:
        project: the Compose file.
        name: name of the service in the new application.
        needs: names of the services that the service needs. Templates may contain only their values.
    """

    def __init__(self, project: Project, name: str, needs: Sequence[str]) -> None:
        self.project, self.name = project, name
        self.roles, self.secrets, self.notes = project.roles, project.secrets, project.notes
        self.service = project.roles.tiers[name]
        accounts = project.secrets.accounts
        self.accounts = [
            accounts[record.name] for record in common_catalogue().data if record.name in {*needs} & {*accounts}
        ]
        self.needed_http = {name: service for name, service in self.roles.http.items() if name in needs}
        self.settings = Settings()

    def read(self) -> Settings:
        """Convert the secrets and the variables of the service."""
        for entry in self.service.raw.get("secrets") or ():
            self._add_file(entry)
        for key, value in sorted(self.service.env.items()):
            self._add_variable(key, value)
        return self.settings

    def _add_file(self, entry: str | Mapping[str, Any]) -> None:
        """Add an entry of the service's `secrets`."""
        source = entry if isinstance(entry, str) else entry["source"]
        name = self.secrets.register(source, self.notes)
        self.settings.secrets.append(name)
        target = source if isinstance(entry, str) else str(entry.get("target") or source)
        path = target if target.startswith("/") else f"{_SECRETS_FOLDER}{target}"
        if path != f"{_SECRETS_FOLDER}{name}":
            self.notes.add_unconverted(
                f"{self.service.path}.secrets",
                f"{path} is {_SECRETS_FOLDER}{name} here; read it from there, or from the path in {secret_variable(name)}",
            )

    def _add_variable(self, key: str, value: str | None) -> None:
        path = self._path(key)
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", key):
            self.notes.add_unconverted(
                path,
                "the name of a variable must have only capitals, digits and underscores; rename it, and set it in env",
            )
        elif value is None:
            self.notes.add_unconverted(path, f"it has no value; set it in {self.roles.path(self.name)}.env")
        elif key in RESERVED:
            self.notes.add_unconverted(
                path, f"the program sets {key} itself, to another value; rename this variable in the service"
            )
        elif self._is_address(key):
            self.notes.add_unnecessary(
                f"services.*.environment.{key}", "tiers that need it get this variable from the program"
            )
        elif value.startswith(_SECRETS_FOLDER):
            name = as_name(value.removeprefix(_SECRETS_FOLDER))
            # Skip a variable named <NAME>_FILE, because the program sets that variable for each secret.
            self.settings.env.update({key: f"{_SECRETS_FOLDER}{name}"} if key != secret_variable(name) else {})
        elif addressed := self._addressed(key, value):
            self._add_address(key, value, addressed)
        else:
            self._add_other(key, value)

    def _path(self, key: str) -> str:
        return f"{self.service.path}.environment.{key}"

    def _addressed(self, key: str, value: str) -> list[str]:
        """Return the names of the HTTP services whose addresses are in a value."""
        return [
            name
            for name, other in self.roles.http.items()
            if name in self.roles.catalogue.may_need(self.name)
            if other is not self.service and names_host(key, value, other.name)
        ]

    def _add_address(self, key: str, value: str, addressed: Sequence[str]) -> None:
        """Add a variable with the addresses of HTTP services, which are different in each slot."""
        template = http_template(key, value, self.needed_http) if set(addressed) <= set(self.needed_http) else None
        url, closing, rest = (template or "").partition("}")
        if template and is_secret(key, value):
            # The rest is a secret, such as the token in a query.
            is_prefix = template.startswith("${") and "${" not in rest
            template = url + closing + (self._secret(key, rest) if rest else "") if is_prefix else None
        if template:
            self.settings.secret_env[key] = template
            self.notes.add_assumption(
                self._path(key), f"it has the address that the {addressed[0]} has in each slot, by secret_env"
            )
        else:
            self.notes.add_unconverted(
                self._path(key),
                f"it contains the address of the {addressed[0]}, which is different in each slot; read {prefix(addressed[0])}_URL instead",
            )

    def _add_other(self, key: str, value: str) -> None:
        """Add a variable that contains no address of an HTTP service."""
        path = self._path(key)
        for name in self.project.services:
            if not self.roles.new_name(name) and names_host(key, value, name):
                self.notes.add_unconverted(
                    path,
                    f"it refers to {name}, which is not imported; write the address of a {name} that runs elsewhere, and set egress: true",
                )
        converted = self._with_data_hosts(key, value)
        if template := data_template(value, self.accounts, lambda secret: self._store(f"{key}-password", secret)):
            self.settings.secret_env[key] = template
            self.notes.add_assumption(path, "it is a template in secret_env, with the address of the data service")
        elif not is_secret(key, converted):
            is_local = _ENVIRONMENT_SPECIFIC.search(key) or "localhost" in value
            (self.settings.local_env if is_local else self.settings.env)[key] = converted
        elif not value:
            self.settings.env[key] = ""
            self.notes.add_assumption(
                path, f"it is empty; for a secret value, move it to secret_env.{key}: ${{secrets.{as_name(key)}}}"
            )
        elif owner := self._password_owner(key, value):
            self.settings.secret_env[key] = placeholder(owner, PASSWORD)
            self.notes.add_assumption(path, f"it is the password of the {owner}, by secret_env")
        else:
            self.settings.secret_env[key] = self._secret(key, converted)
            self.notes.add_assumption(path, "it is a secret, which the service gets as this variable by secret_env")

    def _secret(self, key: str, value: str) -> str:
        """Record a secret, and return its placeholder."""
        return placeholder(SECRETS, self._store(key, value))

    def _store(self, key: str, value: str) -> str:
        return self.secrets.store(key, value, self.name)

    def _password_owner(self, key: str, value: str) -> str | None:
        """Return the data service whose password is the value of a variable, or None.

        A variable such as JWT_SECRET may have the same value by chance, and must not change with a password. If several data
        services have the same password, the name of the variable decides.
        """
        owners = [account for account in self.accounts if account.password == value]
        named = [account for account in owners if any(word in key for word in _words_of(account))]
        if named:
            return named[0].owner
        return owners[0].owner if owners and _PASSWORD_NAME.search(key) else None

    def _is_address(self, key: str) -> bool:
        """Return True if Tiers itself sets the variable `key`, such as DATABASE_HOST if the service uses the database."""
        return any(
            key in (*record.variables, f"{record.prefix}_PASSWORD_FILE")
            for record in self.roles.catalogue.records
            if (other := self.roles.tiers.get(record.name)) and self.service.talks_to(other)
        )

    def _with_data_hosts(self, key: str, value: str) -> str:
        """Replace the Compose names of data services in a value by their new names, such as `database` and `cache`."""
        for record in common_catalogue().data:
            if service := self.roles.tiers.get(record.name):
                value = with_host(key, value, service.name, record.name)
        return value


def _words_of(account: Account) -> set[str]:
    """Return words that name a data service in a variable, such as REDIS and CACHE."""
    record = common_catalogue().find(account.owner)
    return {word.upper() for word in (account.owner, *(record.products if record else ()))}


def is_secret(key: str, value: str) -> bool:
    """Return True if the name or the value of a variable looks like a secret. A variable for browsers, such as NEXT_PUBLIC_KEY, is public."""
    if _PUBLIC.match(key):
        return False
    return _has_secret_name(key, value) or bool(_USER_IN_URL.search(value) or SECRET_PARAMETER.search(value))


def _has_secret_name(key: str, value: str) -> bool:
    if _NO_SECRET_KEY.search(key) or re.fullmatch(r"(?i:true|false|yes|no|on|off)", value):
        return False
    # For a name such as DB_PASSWORD the value does not matter, because a password may be a number or begin with a slash.
    return bool(_SECRET_NAME.search(key) or (_SECRET.search(key) and not _NO_SECRET_VALUE.fullmatch(value)))
