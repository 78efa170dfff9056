"""After a passphrase is lost: `python -m ci.reseal STACK`. The state forgets the secrets that nobody can decrypt any more.

The stack file has been given its secrets anew, under another passphrase. The state's own copies are taken out of it, and the next
update writes them again: what holds them is made anew with what it held, and what is released is the same.
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


def resealed(left: Found, salt: str) -> Found:
    """A checkpoint, as `pulumi stack export` prints it, without what is encrypted, to be encrypted under another salt."""
    deployment: Found = left["deployment"]
    keeper = deployment.get("secrets_providers") or {"type": "passphrase"}
    if keeper["type"] != "passphrase":
        raise RunError(f"the state is under {keeper['type']}, no passphrase: `pulumi stack change-secrets-provider`")
    resources: list[Found] = deployment.get("resources") or []
    provider = {"type": "passphrase", "state": {"salt": salt}}
    return left | {
        "deployment": deployment | {"secrets_providers": provider, "resources": [_opened(each) for each in resources]}
    }


def _opened(resource: Found) -> Found:
    if "ciphertext" not in json.dumps(resource):
        return resource
    opened: Found = _without(resource)
    # What the bridge keeps to undo its own reading of the outputs: it fits only all of them.
    cast(Found, opened.get("outputs") or {}).pop("__pulumi_raw_state_delta", None)
    return opened


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        given = cast(Found, value)
        return {key: _without(each) for key, each in given.items() if not _sealed(each)}
    return (
        [_without(each) for each in cast(list[Any], value) if not _sealed(each)] if isinstance(value, list) else value
    )


def _sealed(value: object) -> bool:
    return isinstance(value, dict) and "ciphertext" in value


if __name__ == "__main__":
    words = edge.arguments("reseal STACK", 1, 1)
    edge.end("reseal", lambda: main(*words))
