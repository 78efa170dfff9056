"""Random values of passwords and keys."""

import secrets


def random_secret() -> str:
    """Return a new secret of 24 random bytes, as 48 hexadecimal digits. Every program accepts these characters."""
    return secrets.token_hex(24)
