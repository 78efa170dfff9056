"""External database and cache: they are reached by address, port and the stack's secrets, and no object is created for them."""

import json
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

import docker
import pytest

from .stack import SECRETS, DockerStack, Stack, admin, deployed, eventually, free_port, on, requests_flowing

pytestmark = pytest.mark.long
DATABASE, CACHE = "postgres:15-bookworm", "redis:7-bookworm"
LOGIN = {"POSTGRES_USER": "board", "POSTGRES_DB": "board", "POSTGRES_PASSWORD": SECRETS["database-password"]}
SERVE = ["redis-server", "--requirepass", SECRETS["cache-password"]]
ELSEWHERE, USER = "e-elsewhere", 999


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    board = on(request.param, tmp_path_factory.mktemp(request.param), "e2e-external")
    with published() if isinstance(board, DockerStack) else served() as at:
        tiers = board.environment.setdefault("tiers", {})
        tiers |= {tier: {"external": {"host": host, "port": port}} for tier, (host, port) in at.items()}
        with deployed(board):
            yield board


@contextmanager
def published() -> Generator[dict[str, tuple[str, int]]]:
    """Run both servers as containers of another network, on ports of the address of the engine's own bridge."""
    engine = docker.from_env()
    [bridge] = engine.networks.get("bridge").attrs["IPAM"]["Config"]
    host = str(bridge["Gateway"])
    at = {tier: (host, free_port()) for tier in ("database", "cache")}
    with ExitStack() as ends:
        for image, words, env, ports in (
            (DATABASE, None, LOGIN, {"5432/tcp": at["database"]}),
            (CACHE, SERVE, {}, {"6379/tcp": at["cache"]}),
        ):
            container = engine.containers.run(image, words, user=str(USER), environment=env, ports=ports, detach=True)
            ends.callback(container.remove, force=True, v=True)
        yield at


@contextmanager
def served() -> Generator[dict[str, tuple[str, int]]]:
    """Run both servers as pods of another namespace, on other ports than their own."""
    login = [f"--env={name}={value}" for name, value in LOGIN.items()]
    overrides = "--overrides=" + json.dumps({"spec": {"securityContext": {"runAsUser": USER}}})
    kubectl("create", "namespace", ELSEWHERE)
    try:
        kubectl("run", "database", f"--image={DATABASE}", *login, overrides, "--port=5432")
        kubectl("run", "cache", f"--image={CACHE}", overrides, "--port=6379", "--", *SERVE)
        for tier, port in (("database", 15432), ("cache", 16379)):
            kubectl("expose", "pod", tier, f"--port={port}", f"--target-port={port - 10000}")
        kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=90s")
        yield {"database": (f"database.{ELSEWHERE}", 15432), "cache": (f"cache.{ELSEWHERE}", 16379)}
    finally:
        kubectl("delete", "namespace", ELSEWHERE)


def kubectl(*words: str) -> None:
    admin("--namespace", ELSEWHERE, *words)


def test_message_in_the_external_database_is_processed(stack: Stack) -> None:
    message = stack.post("kept by somebody else")["id"]
    eventually(lambda: stack.get(f"/api/messages/{message}").json()["processed"] == 1, 60)


def test_no_object_is_created_for_external_services(stack: Stack) -> None:
    resources = json.loads(stack.pulumi("stack", "export", check=True).text)["deployment"]["resources"]
    holding = {"Container", "Volume", "StatefulSet", "Deployment", "Service", "PersistentVolumeClaim"}
    names = {
        resource["urn"].rpartition("::")[2] for resource in resources if resource["type"].rpartition(":")[2] in holding
    }
    assert {name.partition("-")[0] for name in names} & {"blue", "api"}, names
    assert not [name for name in names if name.startswith(("database", "cache"))]


def test_second_update_changes_nothing(stack: Stack) -> None:
    assert set(stack.up().changed) == {"unchanged"}


def test_release_with_external_services_loses_no_request(stack: Stack) -> None:
    stack.app["version"] = "2.0.0"
    with requests_flowing(stack) as seen:
        stack.up()
    assert set(seen) == {"200", "201"}, seen


def test_wrong_password_fails_a_gate_and_leaves_live_untouched(stack: Stack) -> None:
    before = stack.live()
    stack.pulumi("config", "set", "--secret", "--path", "secrets.cache-password", "another", check=True)
    stack.app["version"] = "3.0.0"
    with requests_flowing(stack) as seen:
        failed = stack.up(check=False)
    assert failed.code
    assert "what is live was not touched" in failed.text, failed.text
    assert set(seen) == {"200", "201"}, seen
    assert stack.live() == before
