"""Settings from environment variables. Passwords come from files whose paths are in the variables."""

import os
from functools import cache
from pathlib import Path

RELEASE = os.environ.get("RELEASE", "unreleased")
SLOT = os.environ.get("SLOT", "none")


@cache
def _secret(name: str) -> str:
    return Path(os.environ[name]).read_text().strip()


def database() -> dict[str, str]:
    """Return the keyword arguments for psycopg."""
    return {
        "host": os.environ["DATABASE_HOST"],
        "port": os.environ["DATABASE_PORT"],
        "dbname": os.environ["DATABASE_NAME"],
        "user": os.environ["DATABASE_USER"],
        "password": _secret("DATABASE_PASSWORD_FILE"),
        "application_name": f"board-{SLOT}",
    }


def cache_server() -> dict[str, object]:
    """Return the keyword arguments for redis-py."""
    return {
        "host": os.environ["CACHE_HOST"],
        "port": int(os.environ["CACHE_PORT"]),
        "password": _secret("CACHE_PASSWORD_FILE"),
        "socket_connect_timeout": 5,
        "health_check_interval": 15,
    }
