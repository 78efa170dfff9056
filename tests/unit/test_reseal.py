"""Tests of `without_secrets`, which removes the encrypted values from Pulumi's state after the passphrase is lost."""

import json
from typing import Any

import pytest
from pulumi import RunError

from ci.reseal import without_secrets

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x:y"}
PLAIN = {"urn": "urn:plain", "inputs": {"name": "board"}, "outputs": {"__pulumi_raw_state_delta": {"obj": {}}}}
RESOURCE_WITH_SECRET = {
    "urn": "urn:holder",
    "inputs": {"name": "files", "uploads": [{"file": "/run/secrets/password", "content": SECRET}]},
    "outputs": {"name": "files", "uploads": SECRET, "__pulumi_raw_state_delta": {"obj": {}}},
    "protect": True,
}


def state_with(*resources: Any, secrets_provider: str = "passphrase") -> dict[str, Any]:
    provider = {"type": secrets_provider, "state": {"salt": "old"}}
    return {"version": 3, "deployment": {"manifest": {}, "secrets_providers": provider, "resources": [*resources]}}


def test_reseal_removes_encrypted_values_and_keeps_all_others() -> None:
    new_state = without_secrets(state_with(PLAIN, RESOURCE_WITH_SECRET), "new")
    assert new_state["version"] == 3
    assert new_state["deployment"]["secrets_providers"]["state"] == {"salt": "new"}
    plain, resource_with_secret = new_state["deployment"]["resources"]
    assert plain == PLAIN
    assert resource_with_secret == {
        "urn": "urn:holder",
        "inputs": {"name": "files", "uploads": [{"file": "/run/secrets/password"}]},
        "outputs": {"name": "files"},
        "protect": True,
    }
    assert "ciphertext" not in json.dumps(new_state)


def test_reseal_of_a_state_encrypted_by_a_key_service_is_refused() -> None:
    with pytest.raises(RunError, match="the state is encrypted with cloud"):
        without_secrets(state_with(PLAIN, secrets_provider="cloud"), "new")
