"""Check that values of secrets fit into a Kubernetes Secret. No error contains a value."""

from collections.abc import Iterator, Mapping

from .app import App

SECRET_SIZE = 2**20
"""Maximum size of a Kubernetes Secret in bytes. The limit applies to one value, and to all values of a tier
together."""


def secret_problem(value: str) -> str:
    """Return the reason why a Kubernetes Secret can't contain a value, or an empty text for a valid value."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character of UTF-8"
    return f"it has {size} bytes, but a Secret accepts {SECRET_SIZE}" if size > SECRET_SIZE else ""


def secret_size_errors(app: App, secrets: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each tier whose secrets together exceed the size of a Kubernetes Secret."""
    for tier, service in app.slot_services.items():
        size = sum(len(secrets[name].encode()) for name in service.secrets if name in secrets)
        if size > SECRET_SIZE:
            yield f"{app.path(tier)}.secrets: all secrets together have {size} bytes, but a Secret accepts {SECRET_SIZE}; remove some secrets"
