"""Rules of `policy/` in the real engine: they accept a permitted deployment, and end the preview of a forbidden one."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.settings import SETTINGS

from .stack import ClusterStack, DockerStack, Result, Stack

HELD_TO = ("--policy-pack", "policy")


def docker_stack(folder: Path) -> Stack:
    stack = DockerStack(folder, "e2e-policy")
    size = {"replicas": 2}
    stack.environment |= {"reload": False, "protect_data": True, "tiers": {"web": size, "api": size, "worker": size}}
    return stack


def cluster_stack(folder: Path) -> Stack:
    stack = ClusterStack(folder, "e2e-policy", template="prod")
    stack.environment |= {"pinned": False}
    stack.environment["kubernetes"]["namespace"] = {"name": "board-policy"}
    return stack


@pytest.fixture(scope="module", params=[docker_stack, cluster_stack], ids=["docker", "cluster"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Create a stack like prod: policy/settings.py does not list it as relaxed."""
    board: Stack = request.param(tmp_path_factory.mktemp("policy"))
    try:
        yield board
    finally:
        board.destroy(check=False)
        board.clear()


def preview(stack: Stack) -> Result:
    stack.write()
    return stack.pulumi("preview", "--stack", stack.name, *HELD_TO)


def test_permitted_deployment_passes_the_policy(stack: Stack) -> None:
    result = preview(stack)
    assert result.code == 0, result.text
    assert "tiers@v1.0.0 (local: policy)" in result.text
    assert "mandatory" not in result.text
    assert "can't run policy" not in result.text


def test_forbidden_deployment_ends_the_preview(stack: Stack) -> None:
    before = copy.deepcopy((stack.app, stack.environment))
    stack.environment["tiers"]["worker"] = {"replicas": 1}
    stack.app["cache"]["image"] = "quay.io/somebody/redis:7"
    stack.app["api"]["env"] = {"MAIL_PASSWORD": "hunter2"}
    result = preview(stack)
    assert result.code != 0
    for rule, problem in {
        "known-registries": f"quay.io/somebody/redis:7 is from none of {', '.join(SETTINGS.registries)}; take the image",
        "no-plain-secrets": "MAIL_PASSWORD looks like a secret in plain text; take it out of env",
        "replicas": "set environment.tiers.worker.replicas: 2 or more",
    }.items():
        assert re.search(rf"\[mandatory\]  {rule}[^\[]*{re.escape(problem)}", result.text), result.text
    stack.app["api"].pop("env")
    stack.app["cache"]["image"], stack.environment["tiers"] = before[0]["cache"]["image"], before[1]["tiers"]


def test_forbidden_deployment_creates_no_data(stack: Stack) -> None:
    stack.environment["protect_data"] = False
    stack.write()
    result = stack.pulumi("up", "--yes", "--skip-preview", "--stack", stack.name, *HELD_TO)
    assert result.code != 0
    assert "set environment.protect_data: true" in result.text
    assert not names(stack) & {"database-data", "database-ha", "cache-data", "board-policy"}


def names(stack: Stack) -> set[str]:
    """Return the names of all resources in the state, without components."""
    exported = json.loads(stack.pulumi("stack", "export", "--stack", stack.name, check=True).text)
    resources = exported["deployment"].get("resources") or ()
    return {resource["urn"].rpartition("::")[2] for resource in resources if resource["custom"]}
