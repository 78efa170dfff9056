"""Resealing a state with a lost passphrase: only values that nobody can decrypt are removed."""

import json
from typing import Any

import pytest
from pulumi import RunError

from ci.reseal import resealed

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x:y"}
PLAIN = {"urn": "urn:plain", "inputs": {"name": "board"}, "outputs": {"__pulumi_raw_state_delta": {"obj": {}}}}
HOLDER = {
    "urn": "urn:holder",
    "inputs": {"name": "files", "uploads": [{"file": "/run/secrets/password", "content": SECRET}]},
    "outputs": {"name": "files", "uploads": SECRET, "__pulumi_raw_state_delta": {"obj": {}}},
    "protect": True,
}


def left(*resources: Any, keeper: str = "passphrase") -> dict[str, Any]:
    provider = {"type": keeper, "state": {"salt": "old"}}
    return {"version": 3, "deployment": {"manifest": {}, "secrets_providers": provider, "resources": [*resources]}}


def test_encrypted_values_are_removed_and_all_others_stay() -> None:
    done = resealed(left(PLAIN, HOLDER), "new")
    assert done["version"] == 3
    assert done["deployment"]["secrets_providers"]["state"] == {"salt": "new"}
    plain, holder = done["deployment"]["resources"]
    assert plain == PLAIN
    assert holder == {
        "urn": "urn:holder",
        "inputs": {"name": "files", "uploads": [{"file": "/run/secrets/password"}]},
        "outputs": {"name": "files"},
        "protect": True,
    }
    assert "ciphertext" not in json.dumps(done)


def test_state_encrypted_by_a_key_service_is_refused() -> None:
    with pytest.raises(RunError, match="the state is under cloud"):
        resealed(left(PLAIN, keeper="cloud"), "new")
