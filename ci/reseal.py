"""Recovery from a lost passphrase: `python -m ci.reseal STACK` removes the secrets that can't be decrypted from the state.

Beforehand the stack file gets its secrets again, under another passphrase. The next update writes them to the state:
the resources that hold them are replaced with the same values, and the release stays the same.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from pulumi import RunError

from . import edge
from .described import pulumi, stack_file, state

Found = dict[str, Any]


def main(stack: str) -> None:
    salt = stack_file(stack).salt
    if not salt:
        raise RunError(
            f"Pulumi.{stack}.yaml: it has no encryptionsalt; set its secrets under the new passphrase first, with "
            "`pulumi config set --secret` (docs/runbook.md#lost-passphrase)"
        )
    with TemporaryDirectory(prefix="reseal-") as name:
        file = Path(name) / "state.json"
        file.write_text(json.dumps(resealed(state(stack), salt)))
        pulumi("stack", "import", "--stack", stack, "--file", str(file))
    print(f"  the state of {stack} is under the passphrase of its stack file: run `pulumi up`, or make up")


def resealed(exported: Found, salt: str) -> Found:
    """Return a state (in the form of `pulumi stack export`) without encrypted values, for encryption under another salt."""
    deployment: Found = exported["deployment"]
    keeper = deployment.get("secrets_providers") or {"type": "passphrase"}
    if keeper["type"] != "passphrase":
        raise RunError(f"the state is under {keeper['type']}, no passphrase: `pulumi stack change-secrets-provider`")
    resources: list[Found] = deployment.get("resources") or []
    provider = {"type": "passphrase", "state": {"salt": salt}}
    return exported | {
        "deployment": deployment
        | {"secrets_providers": provider, "resources": [_opened(resource) for resource in resources]}
    }


def _opened(resource: Found) -> Found:
    if "ciphertext" not in json.dumps(resource):
        return resource
    opened: Found = _without(resource)
    # The bridge's delta to the provider's raw outputs fits only the complete outputs.
    cast(Found, opened.get("outputs") or {}).pop("__pulumi_raw_state_delta", None)
    return opened


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(Found, value)
        return {key: _without(item) for key, item in items.items() if not _sealed(item)}
    return (
        [_without(item) for item in cast(list[Any], value) if not _sealed(item)] if isinstance(value, list) else value
    )


def _sealed(value: object) -> bool:
    return isinstance(value, dict) and "ciphertext" in value


if __name__ == "__main__":
    words = edge.arguments("reseal STACK", 1, 1)
    edge.end("reseal", lambda: main(*words))
