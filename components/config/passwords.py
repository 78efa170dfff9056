"""Rules for the secrets of database, cache and backups. A secret that a program can't read is refused before the deployment.

Docstrings and messages name the programs that require a rule. A secret without a rule may have any value
(docs/adr/025-secrets-of-any-bytes.md).
"""

import re
from collections.abc import Callable, Mapping

LONGEST = 1000
"""Maximum length of a password in bytes. PgBouncer reads 2047 bytes, older PostgreSQL clients 1023 (PQconnectdb)."""
LONGEST_KEY = 64 * 1024
"""Maximum length of a backup key in bytes."""
_BACKUP = "environment.tiers.TIER.backup"


def problem(path: str, value: str) -> str:
    """Return the reason why the value of a secret is invalid, or an empty text for a valid value. The reason never contains
    the value.

    Args:
        path: config path of the setting that names the secret. The path decides which rule applies.
        value: value of the secret.
    """
    rule = _RULES.get(re.sub(r"(?<=^environment\.tiers\.)[^.]+", "TIER", path))
    return (_unreadable(value) or rule(value)) if rule else ""


def needs_no_quotes(value: str) -> bool:
    """Return whether a value needs no quotes in Redis' configuration (sdssplitargs in sds.c)."""
    return bool(value) and not re.search(r"[ \t\r\n\v\f\x00\"']", value)


def fits_key_value_list(value: str) -> bool:
    """Return whether a value can be part of a list of `key=value` pairs, which postgres_exporter 0.11 splits at spaces and `=`."""
    return not set(" =") & set(value)


def _unreadable(value: str) -> str:
    """Return the problem of a value with a NUL character, or with half of a surrogate pair, which UTF-8 can't encode."""
    if "\x00" in value:
        return "it has a NUL character, which environment variables and commands can't contain"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character of UTF-8"
    return ""


def _edges(value: str) -> str:
    """Return the problem of a value that begins or ends with white space, which restic, postgres_exporter and shells strip."""
    if value.strip() != value or value.startswith("\ufeff"):
        return "it begins or ends with white space (or a byte order mark), which most programs remove when they read a secret from a file"
    return ""


def _password(value: str) -> str:
    """Return the problem of a password of PostgreSQL or Redis.

    A password must be one line, because initdb reads only the first line, and each line of .pgpass is one entry."""
    if re.search(r"[\r\n]", value.strip()):
        return "it has more than one line, but PostgreSQL and its clients read only the first line"
    if len(value.encode()) > LONGEST:
        return f"it has more than {LONGEST} bytes, which clients cut off or refuse"
    return _edges(value)


def _key(value: str) -> str:
    """Return the problem of a backup key.

    Linux limits an environment variable to 128 KiB. rclone gets the key in a variable, encoded and therefore a third longer.
    """
    if len(value.encode()) > LONGEST_KEY:
        return f"it has more than {LONGEST_KEY} bytes, which is too long for a variable of a process"
    return _edges(value)


def _s3_key(value: str) -> str:
    """Return the problem of an S3 key.

    Some characters are invalid, because the key is written without quotes into an INI file (restic, go-ini) and into a
    comma-separated list (rclone)."""
    if not re.fullmatch(r"(?!['`])(?!.*%\()[!-~]*(?<!\\)", value) or re.search('["#;,]', value):
        return (
            "it has a character that a file of S3 credentials can't contain (white space, a quote, #, ;, a comma, %( or a "
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
