"""Tests of passwords with special characters, with real servers and with common clients such as psql and redis-cli."""

import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import docker
import pytest
import requests

from components import cache, database, monitoring
from components.config import load_app, load_environment, passwords
from components.context import Description
from components.model.services import CACHE, DATABASE
from components.model.workload import Secret, Workload

from .stack import ROOT, ClusterStack, DockerStack, Stack, create_board, deployment, eventually

ODD = 'it\'s "so" $(id) \\ #5 é😀 100% \x01'
PASSWORDS = [ODD, 'a"b', "'quoted'", "back\\slash\\", "# no comment", "%s $HOME $$ `id`", "ünïcode Ёж", "-dash", "tab\there", "x" * 300,
             "a:b\\:c", "p@ss/w?rd&x=1", "\\x41\\n"]  # fmt: skip
TEXT = "a$$b $(SLOT) 5$ü"
NAMES = {"database": "database-password", "cache": "cache-password"}


def description_with_password(password: str) -> Description:
    """Return the `Description` of an application whose database, cache and exporters use this password."""
    services = {"api": {"image": "x:1", "port": 8000, "metrics": "/metrics"}, "database": {}, "cache": {}}
    app = load_app({"name": "passwords", "version": "1", **services})
    environment = load_environment({"platform": "docker", "monitoring": True}, app)
    plain, pairable = passwords.needs_no_quotes(password), passwords.fits_key_value_list(password)
    secrets = {name: Secret(name=name, version="1", plain=plain, pairable=pairable) for name in NAMES.values()}
    return Description(app=app, environment=environment, secrets=secrets, stack="e2e", root=ROOT)


def archive(texts: Mapping[str, str]) -> bytes:
    """Return a tar archive of files (path → text) that every user can read."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name.removeprefix("/"))
            entry.size, entry.mode = len(text.encode()), 0o444
            archive.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue()


@contextmanager
def running_container(workload: Workload, password: str, neighbour: Any = None) -> Generator[Any]:
    """Run the container of a workload as the program does on Docker.

    Args:
        neighbour: container whose network the new container shares.
    """
    engine = docker.from_env()
    command = list(workload.command)
    options = {"entrypoint": command[:1], "command": command[1:]} if neighbour and command else {"command": command}
    network = {"network_mode": f"container:{neighbour.id}"} if neighbour else {}
    # Keep the data in memory, because initdb takes minutes on a busy disk.
    data = {volume.path: f"mode=1777,uid={workload.user},gid={workload.user}" for volume in workload.volumes}
    env = dict(workload.env)
    if neighbour:
        env = {
            name: value.replace("//cache", "//localhost").replace("database:", "localhost:")
            for name, value in env.items()
        }
    create: Any = engine.containers.create  # The type stubs of docker accept no mapping of keyword arguments.
    container = create(
        workload.image.reference, user=str(workload.user), environment=env, init=True, tmpfs=data, **options, **network
    )
    try:
        container.put_archive("/", archive({secret.path: password for secret in workload.secrets}))
        container.start()
        yield container
    finally:
        container.remove(force=True, v=True)


def run_in_container(container: Any, *command: str, **variables: str) -> tuple[int, str]:
    """Run a command in a container, and return its exit code and its output."""
    code, text = container.exec_run(list(command), environment=variables)
    return code, text.decode()


def wait_until_healthy(container: Any, workload: Workload) -> None:
    """Wait until the probe of a workload succeeds."""
    assert workload.probe
    command = workload.probe.command
    eventually(lambda: run_in_container(container, *command)[0] == 0, 150)


@contextmanager
def running_server(tier: str, password: str) -> Generator[Any]:
    """Run the database or the cache, and yield its container when the server is ready."""
    description = description_with_password(password)
    assert description.app.database and description.app.cache
    data = (
        database.workload(description.app.database, description)
        if tier == DATABASE.name
        else cache.workload(description.app.cache, description)
    )
    assert isinstance(data, Workload)
    with running_container(data, password) as container:
        wait_until_healthy(container, data)
        yield container


def wait_for_exporter_login(tier: str, password: str, neighbour: Any, series: str) -> bool:
    """Wait until the exporter of the database or the cache reports a successful login in the metric `series`, and return True."""
    description = description_with_password(password)
    exporter = monitoring.exporters(description)[tier]
    neighbour.reload()
    address = neighbour.attrs["NetworkSettings"]["IPAddress"]
    with running_container(exporter, password, neighbour) as container:
        url = f"http://{address}:{exporter.port}/metrics"
        eventually(lambda: f"{series} 1" in requests.get(url, timeout=5).text, 120)
        assert password not in container.logs().decode()
    return True


@pytest.mark.long
@pytest.mark.parametrize("password", PASSWORDS, ids=ascii)
def test_redis_and_its_clients_accept_special_characters_in_the_password(password: str) -> None:
    with running_server(CACHE.name, password) as container:
        assert run_in_container(container, "redis-cli", "ping", REDISCLI_AUTH=password) == (0, "PONG\n")
        assert run_in_container(container, "redis-cli", "-a", password, "--no-auth-warning", "ping") == (0, "PONG\n")
        assert "NOAUTH" in run_in_container(container, "redis-cli", "ping")[1]
        assert wait_for_exporter_login(CACHE.name, password, container, "redis_up")
        assert password not in container.logs().decode()


@pytest.mark.long
@pytest.mark.parametrize("password", PASSWORDS, ids=ascii)
def test_postgres_and_its_clients_accept_special_characters_in_the_password(password: str, tmp_path: Path) -> None:
    with running_server(DATABASE.name, password) as container:
        container.put_archive("/", archive({"/tmp/pgpass": backup_pgpass(password, tmp_path)}))
        # Copy the password file with mode 600, because psql refuses a password file that other users can read.
        assert run_in_container(container, "install", "-m", "600", "/tmp/pgpass", "/tmp/own")[0] == 0
        address = (
            container.attrs["NetworkSettings"]["IPAddress"] or run_in_container(container, "hostname", "-i")[1].strip()
        )
        command = ["psql", "-h", address, "-U", "app", "-d", "app", "--no-password", "-Atc", "SELECT 1"]
        assert run_in_container(container, *command, PGPASSWORD=password) == (0, "1\n")
        assert run_in_container(container, *command, PGPASSFILE="/tmp/own") == (0, "1\n")
        assert run_in_container(container, *command, PGPASSWORD=f"{password}x")[0] == 2
        assert wait_for_exporter_login(DATABASE.name, password, container, "pg_up")
        assert password not in container.logs().decode()


def backup_pgpass(password: str, folder: Path) -> str:
    """Return the text of the password file that the program of the backup image writes."""
    variables = {"DATABASE_PASSWORD_FILE": str(folder / "password"), "DATABASE_HOST": "h", "DATABASE_PORT": "5432"}
    variables |= {"DATABASE_USER": "app", "DATABASE_NAME": "app"}
    (folder / "password").write_text(password)
    drivers = {name: ModuleType(name) for name in ("psycopg2", "psycopg2.sql")}
    path = [str(ROOT / "images" / "backup"), *sys.path]
    with (
        mock.patch.dict(sys.modules, drivers),
        mock.patch.object(sys, "path", path),
        mock.patch.dict(os.environ, variables),
    ):
        from backup import postgres  # pyright: ignore[reportMissingImports,reportUnknownVariableType]

        postgres.write_credentials()  # pyright: ignore[reportUnknownMemberType]
        return Path(os.environ["PGPASSFILE"]).read_text()


# ---------------------------------------------------------------------- whole stacks


def with_odd_passwords(stack: Stack) -> Stack:
    """Set the password `ODD` for database and cache, pass `TEXT` to api and worker, and return the stack.

    The api gets `TEXT` in an environment variable. The commands of a task of the api and of the worker's probe get `TEXT` as an
    argument, and fail if the argument was altered.
    """
    for name in NAMES.values():
        stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", ODD, check=True)
    stack.app["api"]["env"] = stack.app["api"].get("env", {}) | {"PRICE": TEXT}
    compare = 'test "$(printf %s "$1" | sha256sum | cut -d " " -f 1)" = "$2"'
    check_command = ["sh", "-c", compare, "sh", TEXT, hashlib.sha256(TEXT.encode()).hexdigest()]
    stack.app["api"]["tasks"] = stack.app["api"].get("tasks", {}) | {"dollars": {"command": check_command}}
    stack.app["worker"]["alive"] = check_command
    return stack


def run_in_tier(stack: Stack, tier: str, *command: str) -> str:
    """Run a command in a container of a tier, and return its output."""
    if isinstance(stack, ClusterStack):
        pod = stack.pods(tier)[-1].metadata.name
        return stack.kubectl("exec", pod, "--", *command)
    assert isinstance(stack, DockerStack)
    [name] = [
        container.name
        for container in stack.containers()
        if container.name.endswith(f"{tier}-1") and container.status == "running"
    ]
    return run_in_container(stack.engine.containers.get(name), *command)[1]


def logs_of_tiers(stack: Stack, tiers: Sequence[str]) -> str:
    """Return the logs of all containers of the given tiers."""
    if isinstance(stack, ClusterStack):
        names = [pod.metadata.name for tier in tiers for pod in stack.pods(tier)]
        return "".join(stack.kubectl("logs", name, "--all-containers") for name in names)
    assert isinstance(stack, DockerStack)
    return "".join(stack.engine.containers.get(f"{stack.prefix}-{tier}-1").logs().decode() for tier in tiers)


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with deployment(
        with_odd_passwords(create_board(request.param, tmp_path_factory.mktemp(request.param), "e2e-secrets-odd"))
    ) as board:
        yield board


def test_application_works_with_special_characters_in_passwords(stack: Stack) -> None:
    """Check both passwords by posting a message: the api writes the message to the database, and queues its job in the cache."""
    assert stack.post("a message")["body"] == "a message"
    assert ODD not in logs_of_tiers(stack, ["database", "cache"])


def test_texts_with_dollar_signs_reach_the_containers_unchanged(stack: Stack) -> None:
    """Check the environment variable. An altered argument would already have failed the release (`with_odd_passwords`)."""
    assert run_in_tier(stack, "api", "printenv", "PRICE") == f"{TEXT}\n"


def test_second_update_changes_nothing(stack: Stack) -> None:
    assert set(stack.up().changes) == {"unchanged"}


@pytest.mark.parametrize("value", ["two\nlines", " edge"])
def test_password_that_clients_would_alter_is_refused_before_any_change(stack: Stack, value: str) -> None:
    before = stack.generations("blue")
    text = stack.settings.read_text()
    try:
        stack.pulumi("config", "set", "--secret", "--path", "secrets.database-password", value, check=True)
        update = stack.up(check=False)
    finally:
        stack.settings.write_text(text)
    assert update.code
    assert "secrets.database-password: app.database.password uses this secret" in update.text
    assert value not in update.text
    assert stack.generations("blue") == before


@pytest.mark.long
def test_replicated_database_and_cache_accept_special_characters_in_passwords(tmp_path: Path) -> None:
    """Check that the api can use a database cluster and a replicated Redis, before and after a failover of Redis."""
    stack = ClusterStack(tmp_path / "board", "e2e-secrets-ha")
    with_odd_passwords(stack)
    stack.environment |= {"seed": False}
    stack.environment["kubernetes"]["apart"] = "anywhere"
    for tier in ("database", "cache"):
        stack.environment["tiers"].setdefault(tier, {}).update({"ha": True, "storage": "1Gi"})
    with deployment(stack):
        assert stack.post("a message")["body"] == "a message"
        [first_primary] = [pod for pod in stack.pods("cache") if "role:master" in replication(stack, pod)]
        assert "connected_slaves:2" in replication(stack, first_primary)
        stack.kubectl("delete", "pod", first_primary.metadata.name, "--wait=false")
        eventually(lambda: has_other_primary(stack, first_primary), 120)
        eventually(lambda: stack.post("another")["body"] == "another", 120)
        cache_logs = "".join(
            stack.kubectl("logs", pod.metadata.name, "--all-containers") for pod in stack.pods("cache")
        )
        assert ODD not in cache_logs
        assert ODD not in stack.kubectl("logs", "--selector=cnpg.io/cluster=database-ha", "--tail=-1")


def replication(stack: ClusterStack, pod: Any) -> str:
    """Return the replication state of a member of the cache."""
    login = 'REDISCLI_AUTH="$(cat /run/secrets/cache-password)" redis-cli info replication'
    return stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", login, check=False)


def has_other_primary(stack: ClusterStack, first_primary: Any) -> bool:
    """Return whether a pod other than `first_primary` is the primary and has a connected replica."""
    others = [pod for pod in stack.pods("cache") if pod.metadata.uid != first_primary.metadata.uid]
    return any("role:master" in (text := replication(stack, pod)) and "state=online" in text for pod in others)
