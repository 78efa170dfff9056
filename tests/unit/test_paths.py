"""Files and folders named in the configuration: they are in the repository, or refused by path; host system folders are refused."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from components import database, tier
from components.config import ConfigError, TierName, load_app, load_environment
from components.tier import Description, own_path
from components.workload import Secret

from .program import deploy

APP: dict[str, Any] = {"name": "shop", "version": "1", "api": {"image": "x:1", "port": 8000}, "database": {}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Create an application in a folder of a repository, beside files outside of the repository."""
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
        own_path(name, "app.x", root)


@pytest.mark.parametrize("name", ["own.sql", "sibling.sql", "../shared/all.sql", "src", ".", "src/../own.sql"])
def test_path_in_the_repository_is_accepted(root: Path, name: str) -> None:
    assert own_path(name, "app.x", root).is_relative_to(root.parent)


def test_absolute_path_into_the_repository_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="absolute"):
        own_path(str(root / "own.sql"), "app.x", root)


def test_socket_is_refused(root: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        with pytest.raises(ConfigError, match="neither a file nor a folder"):
            own_path("s", "app.x", root)


def test_application_without_a_repository_may_use_its_own_folder_only(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "other").mkdir()
    assert own_path(".", "app.x", tmp_path / "app") == tmp_path / "app"
    with pytest.raises(ConfigError, match="outside"):
        own_path("../other", "app.x", tmp_path / "app")


def described(root: Path, app: dict[str, Any]) -> Description:
    app_ = load_app(app)
    environment = load_environment({"platform": "docker", "reload": True, "seed": True}, app_)
    secrets = {"database-password": Secret(name="database-password", version="1")}
    return Description(app=app_, environment=environment, secrets=secrets, root=root)


def rendered(root: Path, app: dict[str, Any]) -> None:
    """Describe the database and the api of an application, as the program does."""
    about = described(root, app)
    assert about.app.database and about.app.api
    database.workload(about.app.database, about)
    tier.service(TierName.API, about.app.api, about)


@pytest.mark.parametrize("key", ["init", "seed"])
@pytest.mark.parametrize("name", ["/etc/passwd", "link.sql"])
def test_sql_file_outside_of_the_repository_is_refused(root: Path, key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^app\.database\.{key}.*{name}"):
        rendered(root, APP | {"database": {key: [name]}})


@pytest.mark.parametrize("name", ["/var/run/docker.sock", "/", "/etc", "../..", "folder"])
def test_mount_from_outside_of_the_repository_is_refused(root: Path, name: str) -> None:
    api = APP["api"] | {"reload": {"mounts": {name: "/app"}}}
    with pytest.raises(ConfigError, match=r"^app\.api\.reload\.mounts\."):
        rendered(root, APP | {"api": api})


SYSTEM = ["/", "//", "/.", "/etc", "//etc", "/etc/", "/etc/restic", "/./etc", "/usr", "/usr/bin", "/dev/sda", "/proc/1/root", "/var/run/docker.sock",
          "/run", "/var/lib/docker/volumes", "/home", "/root", "/tmp", "/var"]  # fmt: skip
OWN = [
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


def with_target(directory: str) -> dict[str, Any]:
    return {"platform": "docker", "tiers": {"database": {"backup": {"target": {"directory": directory}}}}}


@pytest.mark.parametrize("directory", SYSTEM)
def test_folder_of_the_hosts_system_is_refused_for_backups(directory: str) -> None:
    with pytest.raises(ConfigError, match=r"^environment\.tiers\.database\.backup\.target\.directory: .*; "):
        load_environment(with_target(directory), load_app(APP))


@pytest.mark.parametrize("directory", OWN)
def test_dedicated_folder_is_accepted_for_backups(directory: str) -> None:
    load_environment(with_target(directory), load_app(APP))


@pytest.mark.parametrize("host", ["*.db", "*", "db.*", "db..example", "-db", "DB", "db_1"])
def test_external_host_that_is_no_address_is_refused(host: str) -> None:
    environment = {"platform": "docker", "tiers": {"database": {"external": {"host": host}}}}
    with pytest.raises(ConfigError, match=r"^environment\.tiers\.database\.external\.host: .*; write it"):
        load_environment(environment, load_app(APP))


@pytest.mark.parametrize("context", ["my cluster; $(id)", "it's", "a&b"])
def test_context_is_one_word_of_a_printed_command(context: str) -> None:
    """A person pastes the commands that `pulumi stack output logs` prints."""
    gateway = {"name": "g", "namespace": "gw", "inside": "http://g.gw"}
    cluster = {"context": context, "url": "http://shop.localhost", "gateway": gateway}
    deployment = deploy(APP, {"platform": "kubernetes", "kubernetes": cluster}, secrets={"database-password": "x"})
    for command in deployment.outputs["logs"].values():
        assert shlex.split(command)[:3] == ["kubectl", "--context", context]
