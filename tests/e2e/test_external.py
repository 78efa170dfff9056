"""Tests of a database and a cache that run outside the stack.

The tiers connect to both servers with the configured host, port and password.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

import docker
import pytest

from .stack import (
    SECRETS,
    DockerStack,
    Stack,
    create_board,
    deployment,
    eventually,
    free_port,
    run_kubectl,
    steady_requests,
)

pytestmark = pytest.mark.long
DATABASE, CACHE = "postgres:15-bookworm", "redis:7-bookworm"
LOGIN = {"POSTGRES_USER": "board", "POSTGRES_DB": "board", "POSTGRES_PASSWORD": SECRETS["database-password"]}
REDIS_COMMAND = ["redis-server", "--requirepass", SECRETS["cache-password"]]
OTHER_NAMESPACE, USER = "e-elsewhere", 999


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    board = create_board(request.param, tmp_path_factory.mktemp(request.param), "e2e-external")
    with run_containers() if isinstance(board, DockerStack) else run_pods() as addresses:
        tiers = board.environment.setdefault("tiers", {})
        tiers |= {tier: {"external": {"host": host, "port": port}} for tier, (host, port) in addresses.items()}
        with deployment(board):
            yield board


@contextmanager
def run_containers() -> Generator[dict[str, tuple[str, int]]]:
    """Run PostgreSQL and Redis as containers in another network, and yield service → (host, port).

    The ports of the servers are published at the address of the engine's default bridge.
    """
    engine = docker.from_env()
    [bridge] = engine.networks.get("bridge").attrs["IPAM"]["Config"]
    # Compute the gateway's address from the subnet. The key Gateway is missing until the engine that created the bridge restarts.
    host = str(next(ip_network(bridge["Subnet"]).hosts()))
    addresses = {tier: (host, free_port()) for tier in ("database", "cache")}
    with ExitStack() as cleanup:
        for image, words, env, ports in (
            (DATABASE, None, LOGIN, {"5432/tcp": addresses["database"]}),
            (CACHE, REDIS_COMMAND, {}, {"6379/tcp": addresses["cache"]}),
        ):
            container = engine.containers.run(image, words, user=str(USER), environment=env, ports=ports, detach=True)
            cleanup.callback(container.remove, force=True, v=True)
        yield addresses


@contextmanager
def run_pods() -> Generator[dict[str, tuple[str, int]]]:
    """Run PostgreSQL and Redis as pods in another namespace, and yield service → (host, port).

    The ports are not the default ports, because the tests check that the tiers use the configured ports.
    """
    login = [f"--env={name}={value}" for name, value in LOGIN.items()]
    overrides = "--overrides=" + json.dumps({"spec": {"securityContext": {"runAsUser": USER}}})
    kubectl("create", "namespace", OTHER_NAMESPACE)
    try:
        kubectl("run", "database", f"--image={DATABASE}", *login, overrides, "--port=5432")
        kubectl("run", "cache", f"--image={CACHE}", overrides, "--port=6379", "--", *REDIS_COMMAND)
        for tier, port in (("database", 15432), ("cache", 16379)):
            kubectl("expose", "pod", tier, f"--port={port}", f"--target-port={port - 10000}")
        kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=90s")
        yield {"database": (f"database.{OTHER_NAMESPACE}", 15432), "cache": (f"cache.{OTHER_NAMESPACE}", 16379)}
    finally:
        kubectl("delete", "namespace", OTHER_NAMESPACE)


def kubectl(*words: str) -> None:
    """Run kubectl in the namespace of the external servers."""
    run_kubectl("--namespace", OTHER_NAMESPACE, *words)


def test_message_in_the_external_database_is_processed(stack: Stack) -> None:
    message = stack.post("kept by somebody else")["id"]
    eventually(lambda: stack.get(f"/api/messages/{message}").json()["processed"] == 1, 60)


def test_no_object_is_created_for_external_services(stack: Stack) -> None:
    resources = json.loads(stack.pulumi("stack", "export", check=True).text)["deployment"]["resources"]
    stateful_types = {"Container", "Volume", "StatefulSet", "Deployment", "Service", "PersistentVolumeClaim"}
    names = {
        resource["urn"].rpartition("::")[2]
        for resource in resources
        if resource["type"].rpartition(":")[2] in stateful_types
    }
    assert {name.partition("-")[0] for name in names} & {"blue", "api"}, names
    assert not [name for name in names if name.startswith(("database", "cache"))]


def test_second_update_changes_nothing(stack: Stack) -> None:
    assert set(stack.up().changes) == {"unchanged"}


def test_release_with_external_services_loses_no_request(stack: Stack) -> None:
    stack.app["version"] = "2.0.0"
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) == {"200", "201"}, statuses


def test_wrong_password_fails_a_gate_and_leaves_the_live_slot_unchanged(stack: Stack) -> None:
    before = stack.live()
    stack.pulumi("config", "set", "--secret", "--path", "secrets.cache-password", "another", check=True)
    stack.app["version"] = "3.0.0"
    with steady_requests(stack) as statuses:
        failed = stack.up(check=False)
    assert failed.code
    assert "the live slot was not changed" in failed.text, failed.text
    assert set(statuses) == {"200", "201"}, statuses
    assert stack.live() == before
