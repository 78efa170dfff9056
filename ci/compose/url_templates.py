"""Templates (`secret_env`) of variables that contain a URL.

Placeholders replace the parts that differ between environments or slots: addresses, and the accounts of data services.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from components.config import template

from .compose_service import ComposeService, names_host
from .secret_values import Account

SECRET_PARAMETER = re.compile(r"\b\w*(password|passwd|pwd|secret|token|api_?key|signature)=[^\s&;]", re.IGNORECASE)
"""Pattern of a secret in a query, or in another list of settings such as `host=db password=…`."""
_URL = re.compile(r"([a-z][\w+.:-]*://)([^/?#]*)([^?#]*)(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)
"""Pattern of a URL: scheme, user and address, path, and the rest."""
_PARAMETER = re.compile(r"(?<=[?&;])([\w.-]+)=([^&;#]*)")
_FIELDS = {
    "host": "host", "port": "port", "user": "user", "username": "user", "dbname": "name", "database": "name",
    "password": template.PASSWORD, "pass": template.PASSWORD, "auth": template.PASSWORD,
}  # fmt: skip
"""Names of parameters in a query, and the fields of a data service that they contain."""
_REDIS = ("redis", "valkey")
"""Beginnings of schemes whose URLs get a password even if they have no user."""

Store = Callable[[str], str]
"""Function that records a secret in the value of a variable, and returns the name of the secret."""


def escape(text: str) -> str:
    """Return the template of a text without placeholders."""
    return text.replace("${", "$${")


def placeholder(owner: str, field: str) -> str:
    """Return the text of a placeholder, such as `${database.host}`."""
    return str(template.Placeholder(owner=owner, field=field))


def data_template(value: str, accounts: Iterable[Account], store: Store) -> str | None:
    """Return the template of a URL that leads to a data service, or None for any other value.

    Args:
        value: value of a variable.
        accounts: accounts of the data services that the service needs.
        store: records a password in the URL that is not the password of the data service.

    Example:
        data_template("redis://redis:6379/0", [cache], store)  # redis://:${cache.password}@${cache.host}:${cache.port}/0
    """
    for account in accounts:
        url = _parse(_with_encoded_password(value, account))
        if url and account.host in ([url.host] if url.host else url.hosts_in_query):
            return _Writer(account, store).write(url)
    return None


def http_template(key: str, value: str, services: Mapping[str, ComposeService]) -> str | None:
    """Return the template of a value with addresses of HTTP services, such as `http://api:4000/v1`.

    Args:
        key: name of the variable.
        value: value of the variable.
        services: HTTP services that the service needs, by their names in the new application.

    Returns:
        The template, or None if a placeholder can't replace each address, for example because it has no `http://`.
    """
    by_host = {service.name: (name, service) for name, service in services.items()}

    def replacement(match: re.Match[str]) -> str:
        name, service = by_host.get(match[1], ("", None))
        is_its_port = service and (match[2] is None or service.port in (None, int(match[2])))
        return placeholder(name, template.URL) if is_its_port else match[0]

    # A dollar sign before a placeholder would make the placeholder a literal text.
    filled = re.sub(r"(?<![\w$+.-])http://([\w.-]+)(?::(\d{1,5}))?(?=[/?#,\s]|$)", replacement, escape(value))
    return None if any(names_host(key, filled, host) for host in by_host) else filled


@dataclass(frozen=True, kw_only=True)
class _Url:
    """Parts of a URL, percent-encoded as in the original text."""

    scheme: str
    user: str
    password: str | None
    """Password; None if no colon follows the user."""
    host: str
    port: str
    path: str
    rest: str
    """Query and fragment, with `?` and `#`."""

    @property
    def hosts_in_query(self) -> list[str]:
        return [match[2] for match in _PARAMETER.finditer(self.rest) if match[1] == "host"]


def _parse(value: str) -> _Url | None:
    """Split a URL. Return None for any other text, several URLs or hosts, and bytes that are not UTF-8."""
    match = _URL.fullmatch(value)
    if not match or "://" in match[3]:
        return None
    userinfo, _, address = match[2].rpartition("@")
    user, colon, password = userinfo.partition(":")
    host, separator, port = address.partition(":")
    try:
        unquote(value, errors="strict").encode()
    except UnicodeError:
        return None
    if separator and not re.fullmatch(r"\d{1,5}", port, re.ASCII):
        return None
    return _Url(
        scheme=match[1],
        user=user,
        password=password if colon else None,
        host=host,
        port=port,
        path=match[3],
        rest=match[4],
    )


def _with_encoded_password(value: str, account: Account) -> str:
    """Return a URL whose password is percent-encoded if the password contains characters that end the host part of a URL."""
    password = account.password or ""
    if not re.search(r"[/?#]", password):
        return value
    encoded = quote(password, safe="", errors="replace")
    return value.replace(f":{password}@{account.host}", f":{encoded}@{account.host}", 1)


@dataclass(frozen=True)
class _Writer:
    """Writer of the template of a URL that leads to a data service."""

    account: Account
    store: Store

    def write(self, url: _Url) -> str:
        """Return the template of a URL."""
        is_owner = unquote(url.user) in ("", self.account.user or "default")
        user = self._field("user", url.user)
        if url.password is not None:
            user += f":{self._password(url.password, is_owner=is_owner)}"
        elif self._lacks_password(url) and is_owner:
            user += f":{placeholder(self.account.owner, template.PASSWORD)}"
        address = self._field("host", url.host) + (f":{self._field('port', url.port)}" if url.port else "")
        path = f"/{self._field('name', url.path[1:])}" if url.path else ""
        return f"{url.scheme}{f'{user}@' if user else ''}{address}{path}{self._query(url.rest)}"

    def _lacks_password(self, url: _Url) -> bool:
        """Return True if a URL without a password needs one, because every data service has a password."""
        fields = [_FIELDS.get(match[1].lower()) for match in _PARAMETER.finditer(url.rest)]
        if not self.account.has_password or template.PASSWORD in fields:
            return False
        is_redis = self.account.user is None and url.scheme.lower().startswith(_REDIS)
        return is_redis if not url.user else self.account.is_new

    def _query(self, text: str) -> str:
        """Return the template of a query, which may contain an account too, as in `?user=shop&password=…`."""
        parts, end = list[str](), 0
        for match in _PARAMETER.finditer(text):
            parts += [escape(text[end : match.start(2)]), self._parameter(match[1], match[2])]
            end = match.end()
        return "".join([*parts, escape(text[end:])])

    def _parameter(self, name: str, value: str) -> str:
        field = _FIELDS.get(name.lower())
        if value and (field == template.PASSWORD or SECRET_PARAMETER.match(f"{name}={value}")):
            return self._password(value, is_owner=field == template.PASSWORD)
        return self._field(field, value) if field else escape(value)

    def _field(self, field: str, text: str) -> str:
        """Return the placeholder of a field if `text` is its value, else the template of the text."""
        value = {
            "host": self.account.host,
            "port": str(self.account.port),
            "user": self.account.user,
            "name": self.account.name,
        }[field]
        return placeholder(self.account.owner, field) if value and unquote(text) == value else escape(text)

    def _password(self, text: str, *, is_owner: bool) -> str:
        """Return the placeholder of a password. `is_owner` is True if it is the password of the account's user."""
        password = unquote(text)
        # If the Compose file does not have the password, the URL can contain no other one.
        is_unknown = self.account.password is None and is_owner
        if self.account.has_password and (is_unknown or (password and password == self.account.password)):
            return placeholder(self.account.owner, template.PASSWORD)
        return placeholder(template.SECRETS, self.store(password)) if password else ""
