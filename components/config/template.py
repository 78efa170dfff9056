"""Templates of environment variables and files: texts with placeholders such as `${database.password}`.

A template is parsed without knowledge of the application. `app_checks` then refuses placeholders that the application can't fill, and
`components.rendering` fills the others.
"""

import re
from dataclasses import dataclass

from .grammar import RefusalError, describe

SECRETS, PUBLIC, PASSWORD, URL = "secrets", "public", "password", "url"
"""Owners and fields of placeholders that are no environment variable: `${secrets.NAME}`, `${public.url}`, `${database.password}`
and `${api.url}`."""
PUBLIC_FIELDS = ("url", "host")
OWN_ADDRESS_FIELDS = ("public_url", "public_host")
"""Fields of a service with a host of its own: the address at which users reach it."""
EXAMPLE = "postgresql://${database.user}:${database.password}@${database.host}/${database.name}"
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_FIELD = re.compile(r"([a-z][a-z0-9-]*)\.([a-z][a-z0-9_-]*)")


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """A placeholder `${OWNER.FIELD}` in a template."""

    owner: str
    """Name of a service, `secrets` or `public`."""
    field: str
    """Name of the value, such as `host`; for the owner `secrets` the name of a secret."""
    encoded: bool = False
    """True if the value is a part of a URL, and must be percent-encoded (RFC 3986)."""

    def __str__(self) -> str:
        return f"${{{self.owner}.{self.field}}}"


Template = tuple[str | Placeholder, ...]
"""Parts of a template, in order: literal texts and placeholders."""


def parse(text: str) -> Template:
    """Return the parts of a template.

    A placeholder after the text `://` is part of a URL. `$${` stands for the literal text `${`.

    Raises:
        RefusalError: a placeholder is not closed, or is not `${OWNER.FIELD}`.

    Example:
        parse("redis://:${cache.password}@${cache.host}:6379")
    """
    parts: list[str | Placeholder] = []
    position, literal = 0, ""
    for match in _PLACEHOLDER.finditer(text):
        literal += text[position : match.start()]
        position = match.end()
        if match[0] == "$${":
            literal += "${"
            continue
        if match[1] is None:
            raise RefusalError(
                "a placeholder has no closing brace", "write ${OWNER.FIELD}, or $${ for the literal text ${"
            )
        field = _FIELD.fullmatch(match[1])
        if not field:
            raise RefusalError(
                f"the placeholder {describe('${' + match[1] + '}')} names no value",
                "write ${SERVICE.FIELD} or ${secrets.NAME}, or $${ for the literal text ${",
            )
        parts += [literal] if literal else []
        is_in_url = "://" in text[: match.start()]
        parts.append(Placeholder(owner=field[1], field=field[2], encoded=is_in_url and _is_encoded(field[1], field[2])))
        literal = ""
    literal += text[position:]
    return (*parts, *([literal] if literal else []))


def placeholders(text: str) -> tuple[Placeholder, ...]:
    """Return the placeholders of a valid template."""
    return tuple(part for part in parse(text) if isinstance(part, Placeholder))


def checked(value: object) -> str:
    """Check the text of a template.

    Raises:
        RefusalError: the value is no text, has a NUL character, or has an invalid placeholder.
    """
    if not isinstance(value, str):
        raise RefusalError(f"{describe(value)} is not a text", "write it in quotes")
    if "\x00" in value:
        raise RefusalError("the text has a NUL character, which a variable can't contain", "remove it")
    parse(value)
    return value


def _is_encoded(owner: str, field: str) -> bool:
    """Return whether a value in a URL is percent-encoded. Host names, ports and URLs are already valid parts of a URL."""
    return (owner != PUBLIC and not field.endswith(("host", "port", URL))) or owner == SECRETS
