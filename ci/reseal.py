"""Recovery from a lost passphrase: `python -m ci.reseal STACK` removes the encrypted secrets from the state.

Before this command, set all secrets in the stack file again, under a new passphrase. After the command, the next update
writes these secrets to the state. That update replaces each resource that contains a secret, but changes neither the
values nor the release.
"""

import json
from typing import Any, cast

from pulumi import RunError

from . import command_line
from .pulumi_stack import pulumi_import, stack_file, state

State = dict[str, Any]


def main(stack: str) -> None:
    salt = stack_file(stack).salt
    if not salt:
        raise RunError(
            f"Pulumi.{stack}.yaml: encryptionsalt is missing; set each secret again, encrypted with the new passphrase: "
            "`pulumi config set --secret` (docs/runbook.md#lost-passphrase)"
        )
    pulumi_import(stack, without_secrets(state(stack), salt))
    print(f"  the state of {stack} now uses the passphrase of its stack file; run `pulumi up`, or make up")


def without_secrets(exported: State, salt: str) -> State:
    """Return a copy of a state (`pulumi stack export`) without its encrypted values, and with `salt` as its encryption salt."""
    deployment: State = exported["deployment"]
    secrets_provider = deployment.get("secrets_providers") or {"type": "passphrase"}
    if secrets_provider["type"] != "passphrase":
        raise RunError(
            f"the state is encrypted with {secrets_provider['type']}, not with a passphrase; run `pulumi stack change-secrets-provider`"
        )
    resources: list[State] = deployment.get("resources") or []
    provider = {"type": "passphrase", "state": {"salt": salt}}
    return exported | {
        "deployment": deployment
        | {"secrets_providers": provider, "resources": [_without_secrets(resource) for resource in resources]}
    }


def _without_secrets(resource: State) -> State:
    if "ciphertext" not in json.dumps(resource):
        return resource
    cleaned: State = _without_ciphertexts(resource)
    # Remove the delta that Pulumi's Terraform bridge has stored, because the delta fits only complete outputs.
    cast(State, cleaned.get("outputs") or {}).pop("__pulumi_raw_state_delta", None)
    return cleaned


def _without_ciphertexts(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(State, value)
        return {key: _without_ciphertexts(item) for key, item in items.items() if not _is_ciphertext(item)}
    return (
        [_without_ciphertexts(item) for item in cast(list[Any], value) if not _is_ciphertext(item)]
        if isinstance(value, list)
        else value
    )


def _is_ciphertext(value: object) -> bool:
    return isinstance(value, dict) and "ciphertext" in value


if __name__ == "__main__":
    words = command_line.arguments("reseal STACK", 1, 1)
    command_line.run_and_exit("reseal", lambda: main(*words))
