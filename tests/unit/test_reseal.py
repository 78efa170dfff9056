"""A state whose passphrase is lost: what nobody can decrypt is taken out of it, and nothing else."""

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


def test_what_is_sealed_is_forgotten_and_all_else_stays() -> None:
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


def test_a_key_service_has_its_own_way() -> None:
    with pytest.raises(RunError, match="the state is under cloud"):
        resealed(left(PLAIN, keeper="cloud"), "new")
