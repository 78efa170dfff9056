"""Rules for secrets that database, cache, backups and their clients read. A secret is refused before any deployment, or passed on unchanged.

Each rule names the reader that needs it. The application's other secrets are not restricted (docs/adr/025-secrets-of-any-bytes.md).
"""

import re
from collections.abc import Callable, Mapping

LONGEST = 1000
"""Limit of a password in bytes. PgBouncer takes 2047, and older PostgreSQL clients 1023 (PQconnectdb)."""
LONGEST_KEY = 64 * 1024
_BACKUP = "environment.tiers.database.backup"


def problem(path: str, value: str) -> str:
    """Return the reason why the setting at `path` can't have this secret, or an empty text. The reason never contains the value."""
    rule = _RULES.get(path)
    return (_unreadable(value) or rule(value)) if rule else ""


def plain(value: str) -> bool:
    """Tell whether Redis' configuration reads this text as one word without quotes (sdssplitargs in sds.c)."""
    return bool(value) and not re.search(r"[ \t\r\n\v\f\x00\"']", value)


def pairable(value: str) -> bool:
    """Tell whether a list of `key=value` pairs can hold this text: postgres_exporter 0.11 splits it at spaces and equals signs."""
    return not set(" =") & set(value)


def _unreadable(value: str) -> str:
    """Return the problem that every reader has: a file must be UTF-8 text, and the shell drops NUL."""
    if "\x00" in value:
        return "it has a NUL character, which no variable and no command can hold"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character of UTF-8"
    return ""


def _edges(value: str) -> str:
    """Return the problem at the ends of a value: restic, postgres_exporter, the shell and clients strip what they read from files."""
    if value.strip() != value or value.startswith("\ufeff"):
        return "it begins or ends with white space (or a byte order mark), which most programs drop when they read its file"
    return ""


def _password(value: str) -> str:
    """Return the problem of a password for PostgreSQL or Redis. initdb reads one line, and .pgpass has one line for each entry."""
    if re.search(r"[\r\n]", value.strip()):
        return "it has more than one line, and PostgreSQL and its clients read the first one"
    if len(value.encode()) > LONGEST:
        return f"it has more than {LONGEST} bytes, which clients cut off or refuse"
    return _edges(value)


def _key(value: str) -> str:
    """Return the problem of a backup key.

    rclone gets the key in a variable, in a form that is a third longer. Linux allows 128 KiB for a variable.
    """
    if len(value.encode()) > LONGEST_KEY:
        return f"it has more than {LONGEST_KEY} bytes, which is too long for a variable of a process"
    return _edges(value)


def _s3_key(value: str) -> str:
    """Return the problem of an S3 key. It is an unquoted value of an INI file (restic, go-ini) and of a comma-separated list (rclone)."""
    if not re.fullmatch(r"(?!['`])(?!.*%\()[!-~]*(?<!\\)", value) or re.search('["#;,]', value):
        return (
            "it has a character that the file of S3 credentials can't hold (white space, a quote, #, ;, a comma, %( or a "
            "backslash at its end)"
        )
    return ""


_RULES: Mapping[str, Callable[[str], str]] = {
    "app.database.password": _password,
    "app.cache.password": _password,
    f"{_BACKUP}.key": _key,
    f"{_BACKUP}.target.s3.access_key": _s3_key,
    f"{_BACKUP}.target.s3.secret_key": _s3_key,
}
