"""Check that values of secrets fit into a Kubernetes Secret. No error contains a value."""

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from . import template
from .app import App
from .template import Placeholder

SECRET_SIZE = 2**20
"""Maximum size of a Kubernetes Secret in bytes. The limit applies to one value, and to all values of a tier
together."""
VARIABLE_SIZE = 128 * 1024 - 256
"""Maximum size of a variable in bytes, with its name. Linux limits each variable to 128 KiB (MAX_ARG_STRLEN)."""


def secret_problem(value: str) -> str:
    """Return the reason why a Kubernetes Secret can't contain a value, or an empty text for a valid value."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character of UTF-8"
    return f"it has {size} bytes, but a Secret accepts {SECRET_SIZE}" if size > SECRET_SIZE else ""


def secret_size_errors(app: App, secrets: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each tier whose secrets together exceed the size of a Kubernetes Secret."""
    for tier, service in app.processes.items():
        size = sum(len(secrets[name].encode()) for name in service.secrets if name in secrets)
        size += sum(_filled_size(app, text, secrets) for text in service.templates.values())
        if size > SECRET_SIZE:
            yield f"{app.path(tier)}.secrets: all secrets together have {size} bytes, but a Secret accepts {SECRET_SIZE}; remove some secrets"


def variable_errors(app: App, secrets: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each variable in `secret_env` that a process can't get, because of its size or a NUL character."""
    for tier, service in app.processes.items():
        for name, text in service.secret_env.items():
            path = f"{app.path(tier)}.secret_env.{name}"
            if (size := len(name) + _filled_size(app, text, secrets)) > VARIABLE_SIZE:
                yield f"{path}: the variable has {size} bytes, but a process accepts {VARIABLE_SIZE}; use secret_files"
            for secret in _secrets_in(app, text):
                if "\x00" in secrets.get(secret, ""):
                    yield f"secrets.{secret}: {path} uses this secret, but it has a NUL character, which a variable can't contain; use secret_files"


def _filled_size(app: App, text: str, secrets: Mapping[str, str]) -> int:
    """Return the size of a template with its secrets, in bytes. Other values are short, so their placeholders count instead."""
    size = len(text.encode())
    for placeholder in template.placeholders(text):
        value = secrets.get(app.secret_of(placeholder) or "", "")
        size += len(quote(value, safe="") if placeholder.encoded else value.encode())
    return size


def _secrets_in(app: App, text: str) -> list[str]:
    names = (app.secret_of(part) for part in template.parse(text) if isinstance(part, Placeholder))
    return [name for name in names if name]
