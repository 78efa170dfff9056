"""Tests of paths in the configuration: files must be in the repository, and backups must not go to system folders."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from components import database, rendering
from components.config import ConfigError, load_app, load_environment
from components.config.own_files import find_in_repository
from components.context import Description
from components.model.services import API
from components.model.workload import Secret

from .program import deploy

APP: dict[str, Any] = {"name": "shop", "version": "1", "api": {"image": "x:1", "port": 8000}, "database": {}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of an application in a new repository. Some symbolic links in the folder lead out of the repository."""
    (tmp_path / "outside.sql").write_text("SELECT 1")
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    (tmp_path / "repository" / "shared").mkdir()
    (tmp_path / "repository" / "shared" / "all.sql").write_text("SELECT 2")
    app = tmp_path / "repository" / "app"
    (app / "src").mkdir(parents=True)
    (app / "own.sql").write_text("SELECT 3")
    (app / "link.sql").symlink_to(tmp_path / "outside.sql")
    (app / "sibling.sql").symlink_to("../shared/all.sql")
    (app / "folder").symlink_to(tmp_path)
    (app / "system").symlink_to("/etc")
    return app


OUTSIDE = ["/etc/passwd", "/etc", "/", "//", "/var/run/docker.sock", "../../outside.sql", "../..", "link.sql", "folder", "folder/outside.sql",
           "system/passwd", "../../../../../../../../etc/passwd"]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_path_outside_of_the_repository_is_refused(root: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^app\.x: .*(absolute|outside of the repository).*; copy it into the repository"
    ):
        find_in_repository(name, "app.x", root)


@pytest.mark.parametrize("name", ["own.sql", "sibling.sql", "../shared/all.sql", "src", ".", "src/../own.sql"])
def test_path_in_the_repository_is_accepted(root: Path, name: str) -> None:
    assert find_in_repository(name, "app.x", root).is_relative_to(root.parent)


def test_absolute_path_into_the_repository_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="absolute"):
        find_in_repository(str(root / "own.sql"), "app.x", root)


def test_configured_path_of_a_socket_is_refused(root: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        with pytest.raises(ConfigError, match="neither a file nor a folder"):
            find_in_repository("s", "app.x", root)


def test_application_outside_of_a_repository_may_use_its_own_folder_only(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "other").mkdir()
    assert find_in_repository(".", "app.x", tmp_path / "app") == tmp_path / "app"
    with pytest.raises(ConfigError, match="outside"):
        find_in_repository("../other", "app.x", tmp_path / "app")


def description_of(root: Path, app: dict[str, Any]) -> Description:
    app_ = load_app(app)
    environment = load_environment({"platform": "docker", "reload": True, "seed": True}, app_)
    secrets = {"database-password": Secret(name="database-password", version="1")}
    return Description(app=app_, environment=environment, secrets=secrets, stack="dev", root=root)


def render(root: Path, app: dict[str, Any]) -> None:
    """Render the workloads of the tier `api` and of the database."""
    description = description_of(root, app)
    assert description.app.database and description.app.api
    database.workload(description.app.database, description)
    rendering.render_service(API.name, description.app.api, description)


@pytest.mark.parametrize("key", ["init", "seed"])
@pytest.mark.parametrize("name", ["/etc/passwd", "link.sql"])
def test_sql_file_outside_of_the_repository_is_refused(root: Path, key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^app\.database\.{key}.*{name}"):
        render(root, APP | {"database": {key: [name]}})


@pytest.mark.parametrize("name", ["/var/run/docker.sock", "/", "/etc", "../..", "folder"])
def test_mount_from_outside_of_the_repository_is_refused(root: Path, name: str) -> None:
    api = APP["api"] | {"reload": {"mounts": {name: "/app"}}}
    with pytest.raises(ConfigError, match=r"^app\.api\.reload\.mounts\."):
        render(root, APP | {"api": api})


SYSTEM = ["/", "//", "/.", "/etc", "//etc", "/etc/", "/etc/restic", "/./etc", "/usr", "/usr/bin", "/dev/sda", "/proc/1/root", "/var/run/docker.sock",
          "/run", "/var/lib/docker/volumes", "/home", "/root", "/tmp", "/var"]  # fmt: skip
DEDICATED = [
    "/srv/backups",
    "/backups",
    "/mnt",
    "/mnt/nas",
    "/usr/local/backups",
    "/run/media/me/disk",
    "/home/me/backups",
    "/var/backups",
    "/etcetera",
]


def environment_with_target(directory: str) -> dict[str, Any]:
    return {"platform": "docker", "tiers": {"database": {"backup": {"target": {"directory": directory}}}}}


@pytest.mark.parametrize("directory", SYSTEM)
def test_system_folder_is_refused_as_a_backup_target(directory: str) -> None:
    with pytest.raises(ConfigError, match=r"^environment\.tiers\.database\.backup\.target\.directory: .*; "):
        load_environment(environment_with_target(directory), load_app(APP))


@pytest.mark.parametrize("directory", DEDICATED)
def test_dedicated_folder_is_accepted_as_a_backup_target(directory: str) -> None:
    load_environment(environment_with_target(directory), load_app(APP))


@pytest.mark.parametrize("host", ["*.db", "*", "db.*", "db..example", "-db", "DB", "db_1"])
def test_external_host_that_is_not_a_host_name_is_refused(host: str) -> None:
    environment = {"platform": "docker", "tiers": {"database": {"external": {"host": host}}}}
    with pytest.raises(ConfigError, match=r"^environment\.tiers\.database\.external\.host: .*; write it"):
        load_environment(environment, load_app(APP))


@pytest.mark.parametrize("context", ["my cluster; $(id)", "it's", "a&b"])
def test_kubernetes_context_is_quoted_in_printed_commands(context: str) -> None:
    """Check that the context is quoted, because users paste the commands of `pulumi stack output logs` into a shell."""
    gateway = {"name": "g", "namespace": "gw", "inside": "http://g.gw"}
    cluster = {"context": context, "url": "http://shop.localhost", "gateway": gateway}
    deployment = deploy(APP, {"platform": "kubernetes", "kubernetes": cluster}, secrets={"database-password": "x"})
    for command in deployment.outputs["logs"].values():
        assert shlex.split(command)[:3] == ["kubectl", "--context", context]
