"""Where things are: from the environment, the password from the file it names."""

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
