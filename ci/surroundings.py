"""The environment variables that Pulumi runs with here, as `make shell` has them. A value that is set already stays."""

import os
from collections.abc import MutableMapping
from pathlib import Path

from .call import Call

STATE = Path.home() / ".local" / "state" / "tiers"


def prepare(call: Call, variables: MutableMapping[str, str]) -> None:
    """Say where state is kept and, for dev, its passphrase.

    `backend:` of Pulumi.yaml is Pulumi's own setting and comes first. Only dev's passphrase is known: its secrets protect a
    sample on one machine (docs/adr/004-dev-secrets.md).
    """
    from components import files

    if not files.has_backend(call.folder):
        STATE.mkdir(parents=True, exist_ok=True)
        variables.setdefault("PULUMI_BACKEND_URL", STATE.as_uri())
    if call.env == "dev":
        variables.setdefault("PULUMI_CONFIG_PASSPHRASE", "dev")


def lock(call: Call) -> Path:
    """Return the lock file of a stack: the same for each way to write the application's folder."""
    folder = os.path.relpath(call.folder.resolve(), Path(__file__).parents[1])
    place = "" if folder == "." else str(call.folder.resolve()) if folder.startswith("..") else folder
    return STATE / f"{call.env}{place.replace('/', '-')}.lock"
