"""Settings from environment variables. The password comes from a file whose path is in a variable."""

import os
from pathlib import Path

from sqlalchemy import URL

RELEASE = os.environ.get("RELEASE", "unreleased")
SLOT = os.environ.get("SLOT", "none")


def database() -> URL:
    return URL.create(
        "postgresql+psycopg",
        os.environ["DATABASE_USER"],
        Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip(),
        os.environ["DATABASE_HOST"],
        int(os.environ["DATABASE_PORT"]),
        os.environ["DATABASE_NAME"],
        {"application_name": f"pmanager-{SLOT}"},
    )
