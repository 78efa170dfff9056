"""Unit tests of this program. They use only the mocks of Pulumi, and no code of Tiers."""

import json
import runpy
from pathlib import Path
from typing import Any

import pulumi
import pytest

PROGRAM = Path(__file__).parents[1] / "__main__.py"
CREATED: dict[str, pulumi.runtime.MockResourceArgs] = {}


class Mocks(pulumi.runtime.Mocks):
    """Mocks that accept every resource and store its inputs by its name."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        CREATED[args.name] = args
        return f"{args.name}-id", dict(args.inputs) | {"imageId": f"sha256:{args.name}", "exitCode": 0}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    """Run the program once, as `pulumi up` would for a new stack."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROGRAM.parent)
        pulumi.runtime.set_mocks(Mocks(), project="visits", stack="dev")
        pulumi.runtime.set_all_config({"visits:cache-password": "never deployed"}, ["visits:cache-password"])
        pulumi.runtime.test(lambda: runpy.run_path(str(PROGRAM)) and None)()


def test_both_tiers_are_deployed() -> None:
    assert {"blue-api-1", "cache-1"} <= CREATED.keys()


def test_api_receives_the_address_of_the_cache() -> None:
    assert {"CACHE_HOST=cache", "CACHE_PORT=6379"} <= set(CREATED["blue-api-1"].inputs["envs"])


def test_password_is_in_no_variable_of_a_container() -> None:
    assert "never deployed" not in json.dumps([args.inputs.get("envs") for args in CREATED.values()])


def test_status_page_shows_the_live_release() -> None:
    [variable] = CREATED["status"].inputs["envs"]
    assert variable.startswith("RELEASE=1.0.0-")
