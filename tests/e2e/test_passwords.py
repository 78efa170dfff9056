"""Passwords with odd characters, read by real servers and by clients that were not written for this program."""

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

from components import cache, database, monitoring, passwords
from components.alerts import EXPORTER_PORTS, Watched
from components.config import TierName, load_app, load_environment
from components.tier import Description
from components.workload import Secret, Workload

from .stack import ROOT, ClusterStack, DockerStack, Stack, deployed, eventually, on

ODD = 'it\'s "so" $(id) \\ #5 é😀 100% \x01'
PASSWORDS = [ODD, 'a"b', "'quoted'", "back\\slash\\", "# no comment", "%s $HOME $$ `id`", "ünïcode Ёж", "-dash", "tab\there", "x" * 300,
             "a:b\\:c", "p@ss/w?rd&x=1", "\\x41\\n"]  # fmt: skip
TEXT = "a$$b $(SLOT) 5$ü"
NAMES = {"database": "database-password", "cache": "cache-password"}


def described(password: str) -> Description:
    """Return an application with database, cache and exporters, whose passwords are this one."""
    services = {"api": {"image": "x:1", "port": 8000, "metrics": "/metrics"}, "database": {}, "cache": {}}
    app = load_app({"name": "passwords", "version": "1", **services})
    environment = load_environment({"platform": "docker", "monitoring": True}, app)
    kinds = {"plain": passwords.plain(password), "pairable": passwords.pairable(password)}
    secrets = {name: Secret(name=name, version="1", **kinds) for name in NAMES.values()}
    return Description(app=app, environment=environment, secrets=secrets, root=ROOT)


def files(texts: Mapping[str, str]) -> bytes:
    """Return an archive of files that everybody in a container can read."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name.removeprefix("/"))
            entry.size, entry.mode = len(text.encode()), 0o444
            archive.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue()


@contextmanager
def running(workload: Workload, password: str, beside: Any = None) -> Generator[Any]:
    """Run a workload with the engine's options of the program; `beside` is a container that shares its network."""
    engine = docker.from_env()
    command = list(workload.command)
    options = {"entrypoint": command[:1], "command": command[1:]} if beside and command else {"command": command}
    network = {"network_mode": f"container:{beside.id}"} if beside else {}
    # The data is in memory: on a busy disk initdb takes minutes.
    data = {volume.path: f"mode=1777,uid={workload.user},gid={workload.user}" for volume in workload.volumes}
    env = dict(workload.env)
    if beside:
        env = {
            name: value.replace("//cache", "//localhost").replace("database:", "localhost:")
            for name, value in env.items()
        }
    create: Any = engine.containers.create  # The stubs of docker have no type for a mapping of keyword arguments.
    container = create(
        workload.image.reference, user=str(workload.user), environment=env, init=True, tmpfs=data, **options, **network
    )
    try:
        container.put_archive("/", files({secret.path: password for secret in workload.secrets}))
        container.start()
        yield container
    finally:
        container.remove(force=True, v=True)


def output(container: Any, *command: str, **variables: str) -> tuple[int, str]:
    """Run a command in a container; return its exit code and what it printed."""
    code, text = container.exec_run(list(command), environment=variables)
    return code, text.decode()


def healthy(container: Any, workload: Workload) -> None:
    """Wait until the probe of a workload succeeds."""
    assert workload.probe
    command = workload.probe.command
    eventually(lambda: output(container, *command)[0] == 0, 150)


@contextmanager
def server(tier: TierName, password: str) -> Generator[Any]:
    """Run the database or the cache until it is ready."""
    about = described(password)
    assert about.app.database and about.app.cache
    data = (
        database.workload(about.app.database, about)
        if tier is TierName.DATABASE
        else cache.workload(about.app.cache, about)
    )
    assert isinstance(data, Workload)
    with running(data, password) as container:
        healthy(container, data)
        yield container


def measured(tier: TierName, password: str, beside: Any, series: str) -> bool:
    """Wait until the exporter of a data tier has logged in, and return True."""
    about = described(password)
    watched = Watched(app=about.app, environment=about.environment, namespace="test")
    exporter = monitoring.exporters(watched, about)[tier]
    beside.reload()
    address = beside.attrs["NetworkSettings"]["IPAddress"]
    with running(exporter, password, beside) as container:
        url = f"http://{address}:{EXPORTER_PORTS[tier]}/metrics"
        eventually(lambda: f"{series} 1" in requests.get(url, timeout=5).text, 120)
        assert password not in container.logs().decode()
    return True


@pytest.mark.long
@pytest.mark.parametrize("password", PASSWORDS, ids=ascii)
def test_redis_and_its_clients_accept_the_password(password: str) -> None:
    with server(TierName.CACHE, password) as container:
        assert output(container, "redis-cli", "ping", REDISCLI_AUTH=password) == (0, "PONG\n")
        assert output(container, "redis-cli", "-a", password, "--no-auth-warning", "ping") == (0, "PONG\n")
        assert "NOAUTH" in output(container, "redis-cli", "ping")[1]
        assert measured(TierName.CACHE, password, container, "redis_up")
        assert password not in container.logs().decode()


@pytest.mark.long
@pytest.mark.parametrize("password", PASSWORDS, ids=ascii)
def test_postgres_and_its_clients_accept_the_password(password: str, tmp_path: Path) -> None:
    with server(TierName.DATABASE, password) as container:
        container.put_archive("/", files({"/tmp/pgpass": backup_pgpass(password, tmp_path)}))
        # A client refuses a file that others may read.
        assert output(container, "install", "-m", "600", "/tmp/pgpass", "/tmp/own")[0] == 0
        address = container.attrs["NetworkSettings"]["IPAddress"] or output(container, "hostname", "-i")[1].strip()
        command = ["psql", "-h", address, "-U", "app", "-d", "app", "--no-password", "-Atc", "SELECT 1"]
        assert output(container, *command, PGPASSWORD=password) == (0, "1\n")
        assert output(container, *command, PGPASSFILE="/tmp/own") == (0, "1\n")
        assert output(container, *command, PGPASSWORD=f"{password}x")[0] == 2
        assert measured(TierName.DATABASE, password, container, "pg_up")
        assert password not in container.logs().decode()


def backup_pgpass(password: str, folder: Path) -> str:
    """Return the password file that the backup image writes."""
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

        postgres.credentials()  # pyright: ignore[reportUnknownMemberType]
        return Path(os.environ["PGPASSFILE"]).read_text()


# ---------------------------------------------------------------------- whole stacks


def odd(stack: Stack) -> Stack:
    """Give both data tiers the odd password, and the api texts with dollars."""
    for name in NAMES.values():
        stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", ODD, check=True)
    stack.app["api"]["env"] = stack.app["api"].get("env", {}) | {"PRICE": TEXT}
    same = 'test "$(printf %s "$1" | sha256sum | cut -d " " -f 1)" = "$2"'
    checked = ["sh", "-c", same, "sh", TEXT, hashlib.sha256(TEXT.encode()).hexdigest()]
    stack.app["api"]["tasks"] = stack.app["api"].get("tasks", {}) | {"dollars": {"command": checked}}
    stack.app["worker"]["alive"] = checked
    return stack


def output_of(stack: Stack, tier: str, *command: str) -> str:
    """Return what a command prints in the container of a tier."""
    if isinstance(stack, ClusterStack):
        pod = stack.pods(tier)[-1].metadata.name
        return stack.kubectl("exec", pod, "--", *command)
    assert isinstance(stack, DockerStack)
    [name] = [
        container.name
        for container in stack.containers()
        if container.name.endswith(f"{tier}-1") and container.status == "running"
    ]
    return output(stack.engine.containers.get(name), *command)[1]


def logs(stack: Stack, tiers: Sequence[str]) -> str:
    """Return the logs of the containers of data tiers."""
    if isinstance(stack, ClusterStack):
        names = [pod.metadata.name for tier in tiers for pod in stack.pods(tier)]
        return "".join(stack.kubectl("logs", name, "--all-containers") for name in names)
    assert isinstance(stack, DockerStack)
    return "".join(stack.engine.containers.get(f"{stack.prefix}-{tier}-1").logs().decode() for tier in tiers)


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with deployed(odd(on(request.param, tmp_path_factory.mktemp(request.param), "e2e-secrets-odd"))) as board:
        yield board


def test_application_works_with_odd_passwords(stack: Stack) -> None:
    """The api of the board reads both files; the message goes through the queue to the worker."""
    assert stack.post("a message")["body"] == "a message"
    assert ODD not in logs(stack, ["database", "cache"])


def test_texts_with_dollars_arrive_as_written(stack: Stack) -> None:
    """A task checks the texts of its command, and the worker's probe checks its own; otherwise the release would not be live."""
    assert output_of(stack, "api", "printenv", "PRICE") == f"{TEXT}\n"


def test_second_update_changes_nothing(stack: Stack) -> None:
    assert set(stack.up().changed) == {"unchanged"}


@pytest.mark.parametrize("value", ["two\nlines", " edge"])
def test_password_that_clients_change_is_refused_before_anything_changes(stack: Stack, value: str) -> None:
    before = stack.generations("blue")
    text = stack.settings.read_text()
    try:
        stack.pulumi("config", "set", "--secret", "--path", "secrets.database-password", value, check=True)
        done = stack.up(check=False)
    finally:
        stack.settings.write_text(text)
    assert done.code
    assert "secrets.database-password: app.database.password uses it" in done.text
    assert value not in done.text
    assert stack.generations("blue") == before


@pytest.mark.long
def test_replicated_database_and_cache_accept_odd_passwords(tmp_path: Path) -> None:
    """This covers CloudNativePG's instances and pooler, and Redis' replicas, Sentinels and proxy, also after a failover."""
    stack = ClusterStack(tmp_path / "board", "e2e-secrets-ha")
    odd(stack)
    stack.environment |= {"seed": False}
    stack.environment["kubernetes"]["apart"] = "anywhere"
    for tier in ("database", "cache"):
        stack.environment["tiers"].setdefault(tier, {}).update({"ha": True, "storage": "1Gi"})
    with deployed(stack):
        assert stack.post("a message")["body"] == "a message"
        [first] = [pod for pod in stack.pods("cache") if "role:master" in replication(stack, pod)]
        assert "connected_slaves:2" in replication(stack, first)
        stack.kubectl("delete", "pod", first.metadata.name, "--wait=false")
        eventually(lambda: other_primary(stack, first), 120)
        eventually(lambda: stack.post("another")["body"] == "another", 120)
        containers = "".join(
            stack.kubectl("logs", pod.metadata.name, "--all-containers") for pod in stack.pods("cache")
        )
        assert ODD not in containers
        assert ODD not in stack.kubectl("logs", "--selector=cnpg.io/cluster=database-ha", "--tail=-1")


def replication(stack: ClusterStack, pod: Any) -> str:
    """Return the replication state of a member of the cache."""
    login = 'REDISCLI_AUTH="$(cat /run/secrets/cache-password)" redis-cli info replication'
    return stack.kubectl("exec", pod.metadata.name, "-c", "cache", "--", "sh", "-c", login, check=False)


def other_primary(stack: ClusterStack, first: Any) -> bool:
    """Tell whether another pod is primary and has a replica."""
    others = [pod for pod in stack.pods("cache") if pod.metadata.uid != first.metadata.uid]
    return any("role:master" in (text := replication(stack, pod)) and "state=online" in text for pod in others)
