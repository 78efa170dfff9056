"""Settings from environment variables. The password comes from a file whose path is in a variable."""

import os
from pathlib import Path

RELEASE = os.environ.get("RELEASE", "unreleased")
SLOT = os.environ.get("SLOT", "none")


def database() -> dict[str, str]:
    """Return the keyword arguments for psycopg."""
    return {
        "host": os.environ["DATABASE_HOST"],
        "port": os.environ["DATABASE_PORT"],
        "dbname": os.environ["DATABASE_NAME"],
        "user": os.environ["DATABASE_USER"],
        "password": Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip(),
    }
