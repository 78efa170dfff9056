"""Files and folders named in the configuration: each is used, or refused with the path of its setting."""

import gzip
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import context, database
from components.config import ConfigError, load_app, load_environment
from components.named import find, read_text
from components.tier import Description, image
from components.workload import Image, Secret

API: dict[str, Any] = {"build": "w", "port": 8000}
DOCKER = {"platform": "docker"}


def described(root: Path, app: dict[str, Any], env: dict[str, Any] = DOCKER) -> Description:
    app_ = load_app({"name": "x", "version": "1"} | app)
    secrets = {name: Secret(name=name, version="0") for name in app_.secrets}
    return Description(app=app_, environment=load_environment(env, app_), secrets=secrets, root=root)


def built(root: Path, build: str = "w", env: dict[str, Any] = DOCKER) -> Image:
    description = described(root, {"api": API | {"build": build}}, env)
    assert description.app.api
    return image(next(iter(description.app.services)), description.app.api, description)


def refusal(root: Path, build: str = "w") -> str:
    with pytest.raises(ConfigError) as error:
        built(root, build)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def w(tmp_path: Path) -> Path:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


# ---------------------------------------------------------------------- paths in settings


@pytest.mark.parametrize("name", ["a" * 300, "x/" * 3000, "nope", "w/Dockerfile/x"])
def test_build_folder_that_does_not_exist_is_refused(w: Path, name: str):
    assert " is not there; give a path relative to Pulumi.yaml" in refusal(w.parent, name)


def test_build_of_a_link_to_itself_is_refused(w: Path):
    (w.parent / "loop").symlink_to("loop")
    assert refusal(w.parent, "loop") == "app.api.build: loop leads to itself; have the link lead to a file or folder"


def test_build_of_a_file_is_refused(w: Path):
    assert refusal(w.parent, "w/Dockerfile").startswith("app.api.build: w/Dockerfile is not a folder; name the folder")


def test_build_without_dockerfile_is_refused(w: Path):
    (w / "Dockerfile").unlink()
    assert refusal(w.parent) == "app.api.build: w has no Dockerfile; add one, or name an image instead"
    (w / "Dockerfile").mkdir()
    assert "w has no Dockerfile" in refusal(w.parent)
    (w / "Dockerfile").rmdir()
    (w / "Dockerfile").symlink_to("Dockerfile")
    assert "w has no Dockerfile" in refusal(w.parent)


def test_folder_that_may_not_be_read_is_refused(w: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> bool:
        raise PermissionError(13, "Permission denied", str(w))

    monkeypatch.setattr(Path, "exists", refuse)
    assert refusal(w.parent) == "app.api.build: w can't be read (permission denied); let this user read it"


@given(st.text(st.characters(codec=None), max_size=300))
@settings(max_examples=100)
def test_any_text_names_a_file_or_is_refused(name: str):
    try:
        find(name, "app.api.build", Path("/nowhere"))
    except ConfigError as error:
        assert str(error).startswith("app.api.build: ")


# ---------------------------------------------------------------------- a build context


def test_image_names_never_change(w: Path):
    (w / "a").write_text("1")
    (w / "link").symlink_to("a")
    (w / "sub").mkdir()
    (w / "sub" / "run.sh").write_text("2")
    (w / "sub" / "run.sh").chmod(0o755)
    (w / ".dockerignore").write_text("# not this\n*.log\n")
    (w / "x.log").write_text("3")
    assert built(w.parent).reference == "x-w:0accb0b4df18"


def test_folder_with_capitals_gives_an_image_in_lower_case(w: Path):
    w.rename(w.parent / "Api")
    assert built(w.parent, "Api").reference.startswith("x-api:")


def test_folder_without_latin_letters_gives_an_image_named_like_its_tier(w: Path):
    w.rename(w.parent / "日本")
    assert built(w.parent, "日本").reference.startswith("x-api:")


def test_repository_has_at_most_255_characters(w: Path):
    w.rename(w.parent / ("x" * 240))
    env = DOCKER | {"registry": "registry.test/" + "y" * 80}
    assert len(built(w.parent, "x" * 240, env).reference.partition(":")[0]) <= 255


def test_dockerignore_that_is_not_utf8_is_refused(w: Path):
    (w / ".dockerignore").write_bytes(b"caf\xe9\n")
    assert refusal(w.parent) == "app.api.build: w/.dockerignore is not UTF-8; save it as UTF-8"


@pytest.mark.parametrize("line", ["[z-a]", "!", "[[:x", "\\", "**/[!"])
def test_odd_dockerignore_is_read_or_refused(w: Path, line: str):
    (w / ".dockerignore").write_text(f"{line}\n")
    try:
        built(w.parent)
    except ConfigError as error:
        assert str(error).startswith("app.api.build: w/.dockerignore has a ")


def test_dockerignore_that_is_a_folder_is_refused(w: Path):
    (w / ".dockerignore").mkdir()
    assert refusal(w.parent) == "app.api.build: w/.dockerignore is a folder; make it a file, or remove it"


def test_file_name_that_is_not_utf8_is_refused_unless_ignored(w: Path):
    Path(os.fsdecode(os.fsencode(w) + b"/caf\xe9")).write_text("")
    assert refusal(w.parent) == (
        r"app.api.build: the name of 'caf\udce9' is not UTF-8; rename that file, or exclude it in .dockerignore"
    )
    (w / ".dockerignore").write_text("caf?\n")
    assert built(w.parent)


def test_sockets_and_pipes_in_a_context_are_skipped(w: Path):
    before = built(w.parent).reference
    os.mkfifo(w / "pipe")
    (w / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(w / "s"))
        (w / "loop").unlink()
        assert built(w.parent).reference == before


def test_circular_links_are_part_of_a_context(w: Path):
    (w / "up").symlink_to("..")
    (w / "loop").symlink_to("loop")
    assert built(w.parent)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_file_that_can_not_be_read_is_refused(w: Path, monkeypatch: pytest.MonkeyPatch, error: OSError):
    (w / "gone").write_text("x")

    def refuse(self: Path) -> bytes:
        raise type(error)(error.errno, error.strerror, str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refusal(w.parent).startswith("app.api.build: ") and "can't be read" in refusal(w.parent)


# ---------------------------------------------------------------------- a project's own files in a context


OWN = ("Pulumi.yaml", "Pulumi.dev.yaml", "release.json", "reports/drift.json")


def project_in(folder: Path) -> None:
    for name in OWN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x: 1\n")


def test_project_files_are_no_part_of_the_image_name(w: Path):
    (w / "Pulumi.yaml").write_text("x")
    before = context.digest(w)
    project_in(w)
    assert context.digest(w) == before
    (w / "app.py").write_text("")
    assert context.digest(w) != before


def test_files_named_like_project_files_count_in_another_context(w: Path):
    before = context.digest(w)
    (w / "release.json").write_text("")
    assert context.digest(w) != before


def test_project_files_in_a_subfolder_are_no_part_of_the_image_name(w: Path):
    (w / "deploy").mkdir()
    project_in(w / "deploy")
    before = context.digest(w, root=w / "deploy")
    (w / "deploy" / "Pulumi.dev.yaml").write_text("y: 2\n")
    assert context.digest(w, root=w / "deploy") == before


def test_project_files_in_an_image_are_refused(w: Path):
    project_in(w)
    assert refusal(w, ".") == (
        "app.api.build: files of Pulumi would be in the image (Pulumi.yaml, Pulumi.*.yaml, reports, release.json); write "
        "Pulumi.yaml, Pulumi.*.yaml, reports and release.json, each on a line of its own, into .dockerignore"
    )
    (w / ".dockerignore").write_text("Pulumi.yaml\nPulumi.*.yaml\nreports\nrelease.json\n")
    assert built(w, ".").reference == f"x-w:{context.digest(w)}"


# ---------------------------------------------------------------------- SQL


def scripts(root: Path, *init: str, **more: Any) -> Any:
    description = described(
        root, {"api": {"image": "x:1", "port": 8000}, "database": {"init": list(init)}}, DOCKER | more
    )
    assert description.app.database
    workload = database.workload(description.app.database, description)
    return getattr(workload, "scripts")  # noqa: B009


@pytest.mark.parametrize(
    ("name", "content", "fix"),
    [
        ("dump.sql.gz", gzip.compress(b"SELECT 1;", mtime=0), "unpack it"),
        ("l.sql", "-- café".encode("latin-1"), "save it as UTF-8"),
        ("w.sql", "SELECT 1;".encode("utf-16"), "save it as UTF-8"),
        ("n.sql", b"SELECT 1;\0", "save it as UTF-8"),
    ],
)
def test_sql_file_that_is_not_utf8_is_refused(tmp_path: Path, name: str, content: bytes, fix: str):
    (tmp_path / "a.sql").write_text("SELECT 1;")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        scripts(tmp_path, "a.sql", name)
    assert str(error.value) == f"app.database.init.1: {name} is no text in UTF-8; {fix}"


def test_sql_file_that_is_a_folder_is_refused(w: Path):
    with pytest.raises(ConfigError, match=r"app.database.init.0: w is not a file; name each file"):
        scripts(w.parent, "w")


def test_sql_file_name_with_a_space_becomes_a_valid_config_map_key(tmp_path: Path):
    (tmp_path / "my file.sql").write_text("SELECT 1;")
    (tmp_path / "my@file.sql").write_text("SELECT 2;")
    assert [entry.name for entry in scripts(tmp_path, "my file.sql", "my@file.sql")] == [
        "00-my-file.sql",
        "01-my-file.sql",
    ]


def test_sql_files_too_large_for_a_config_map_are_refused(tmp_path: Path):
    (tmp_path / "a.sql").write_text("x" * 2**20)
    with pytest.raises(ConfigError, match=r"app.database.init: these files are too large"):
        scripts(tmp_path, "a.sql")


def test_dos_line_ends_are_read_as_unix_line_ends(tmp_path: Path):
    (tmp_path / "a.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    assert read_text("a.sql", "p", tmp_path) == "SELECT 1;\nSELECT 2;\n"


def test_sql_file_that_the_image_would_ignore_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("SELECT 1;\n")
    with pytest.raises(ConfigError, match=r"app.database.init.0: a.txt does not end with .sql, .*; rename it"):
        scripts(tmp_path, "a.txt")


def test_more_than_a_hundred_files_keep_their_order(tmp_path: Path) -> None:
    for number in range(101):
        (tmp_path / f"{number}.sql").write_text("SELECT 1;\n")
    names = [script.name for script in scripts(tmp_path, *(f"{number}.sql" for number in range(101)))]
    assert names == sorted(names)
    assert names[0] == "000-0.sql"
