"""Environment variables for Pulumi in every make target. A variable that the user has set is not changed."""

import os
from collections.abc import MutableMapping
from pathlib import Path

from .make_call import Call

STATE = Path.home() / ".local" / "state" / "tiers"


def set_variables(call: Call, variables: MutableMapping[str, str]) -> None:
    """Set the environment variables for Pulumi's backend, and for the passphrase of dev.

    If Pulumi.yaml names a backend, the backend's variable is not set. The passphrase of dev is public, because the secrets
    of dev only protect sample data (docs/adr/004-dev-secrets.md).
    """
    from components.config import files

    if not files.has_backend(call.folder):
        STATE.mkdir(parents=True, exist_ok=True)
        variables.setdefault("PULUMI_BACKEND_URL", STATE.as_uri())
    if call.env == "dev":
        variables.setdefault("PULUMI_CONFIG_PASSPHRASE", "dev")


def lock_file(call: Call) -> Path:
    """Return the path of a stack's lock file. The path is the same for all spellings of the application's folder."""
    folder = os.path.relpath(call.folder.resolve(), Path(__file__).parents[1])
    suffix = "" if folder == "." else str(call.folder.resolve()) if folder.startswith("..") else folder
    return STATE / f"{call.env}{suffix.replace('/', '-')}.lock"
