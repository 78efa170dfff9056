"""Environment variables of Pulumi, the same as in `make shell`. Variables that are set already keep their value."""

import os
from collections.abc import MutableMapping
from pathlib import Path

from .call import Call

STATE = Path.home() / ".local" / "state" / "tiers"


def prepare(call: Call, variables: MutableMapping[str, str]) -> None:
    """Set the backend of the state and, for dev, the passphrase.

    A `backend:` in Pulumi.yaml is Pulumi's own setting and takes precedence. Only dev's passphrase is public: its
    secrets protect sample data on one machine (docs/adr/004-dev-secrets.md).
    """
    from components import files

    if not files.has_backend(call.folder):
        STATE.mkdir(parents=True, exist_ok=True)
        variables.setdefault("PULUMI_BACKEND_URL", STATE.as_uri())
    if call.env == "dev":
        variables.setdefault("PULUMI_CONFIG_PASSPHRASE", "dev")


def lock(call: Call) -> Path:
    """Return the lock file of a stack, which is the same for every spelling of the application's folder."""
    folder = os.path.relpath(call.folder.resolve(), Path(__file__).parents[1])
    suffix = "" if folder == "." else str(call.folder.resolve()) if folder.startswith("..") else folder
    return STATE / f"{call.env}{suffix.replace('/', '-')}.lock"
