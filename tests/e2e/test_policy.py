"""Tests of the rules in `policy/` with Pulumi: a permitted deployment passes, and the preview of a forbidden deployment fails."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.settings import SETTINGS

from .stack import ClusterStack, DockerStack, Result, Stack

POLICY = ("--policy-pack", "policy")


def docker_stack(folder: Path) -> Stack:
    """Return a Docker stack that complies with the rules."""
    stack = DockerStack(folder, "e2e-policy")
    settings = {"replicas": 2}
    stack.environment |= {
        "reload": False,
        "protect_data": True,
        "tiers": {"web": settings, "api": settings, "worker": settings},
    }
    return stack


def cluster_stack(folder: Path) -> Stack:
    """Return a cluster stack that complies with the rules."""
    stack = ClusterStack(folder, "e2e-policy", template="prod")
    stack.environment |= {"pinned": False}
    stack.environment["kubernetes"]["namespace"] = {"name": "board-policy"}
    return stack


@pytest.fixture(scope="module", params=[docker_stack, cluster_stack], ids=["docker", "cluster"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Create a stack to which the rules for prod apply.

    The rules apply because the name of the stack is not in `relaxed` in policy/settings.py.
    """
    board: Stack = request.param(tmp_path_factory.mktemp("policy"))
    try:
        yield board
    finally:
        board.destroy(check=False)
        board.remove_leftovers()


def preview(stack: Stack) -> Result:
    """Run a preview with the policy."""
    stack.write()
    return stack.pulumi("preview", "--stack", stack.name, *POLICY)


def test_permitted_deployment_passes_the_policy(stack: Stack) -> None:
    result = preview(stack)
    assert result.code == 0, result.text
    assert "tiers@v1.0.0 (local: policy)" in result.text
    assert "mandatory" not in result.text
    assert "can't run policy" not in result.text


def test_forbidden_deployment_ends_the_preview(stack: Stack) -> None:
    valid = copy.deepcopy((stack.app, stack.environment))
    stack.environment["tiers"]["worker"] = {"replicas": 1}
    stack.app["cache"]["image"] = "quay.io/somebody/redis:7"
    stack.app["api"]["env"] = {"MAIL_PASSWORD": "hunter2"}
    result = preview(stack)
    assert result.code != 0
    for rule, message in {
        "known-registries": f"quay.io/somebody/redis:7 is not from a trusted registry ({', '.join(SETTINGS.registries)}); use an image",
        "no-plain-secrets": "MAIL_PASSWORD looks like a secret in plain text; set MAIL_PASSWORD in app.api.secret_env",
        "replicas": "set environment.tiers.worker.replicas: 2 or more",
    }.items():
        assert re.search(rf"\[mandatory\]  {rule}[^\[]*{re.escape(message)}", result.text), result.text
    stack.app["api"].pop("env")
    stack.app["cache"]["image"], stack.environment["tiers"] = valid[0]["cache"]["image"], valid[1]["tiers"]


def test_forbidden_deployment_creates_no_data(stack: Stack) -> None:
    stack.environment["protect_data"] = False
    stack.write()
    result = stack.pulumi("up", "--yes", "--skip-preview", "--stack", stack.name, *POLICY)
    assert result.code != 0
    assert "set environment.protect_data: true" in result.text
    assert not resource_names(stack) & {"database-data", "database-ha", "cache-data", "board-policy"}


def resource_names(stack: Stack) -> set[str]:
    """Return the names of all resources in the state except components."""
    exported = json.loads(stack.pulumi("stack", "export", "--stack", stack.name, check=True).text)
    resources = exported["deployment"].get("resources") or ()
    return {resource["urn"].rpartition("::")[2] for resource in resources if resource["custom"]}
