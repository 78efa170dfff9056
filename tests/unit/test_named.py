"""Tests of configured files and folders: build folders, project files in build folders, and SQL files."""

import gzip
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import build_context, database
from components.config import ConfigError, load_app, load_environment
from components.config.own_files import find, read_text
from components.context import Description
from components.model.workload import Image, Secret
from components.rendering import image

API: dict[str, Any] = {"build": "w", "port": 8000}
DOCKER = {"platform": "docker"}


def description_of(root: Path, app: dict[str, Any], env: dict[str, Any] = DOCKER) -> Description:
    app_ = load_app({"name": "x", "version": "1"} | app)
    secrets = {name: Secret(name=name, version="0") for name in app_.secrets}
    return Description(app=app_, environment=load_environment(env, app_), secrets=secrets, stack="dev", root=root)


def image_of(root: Path, build: str | dict[str, Any] = "w", env: dict[str, Any] = DOCKER) -> Image:
    description = description_of(root, {"api": API | {"build": build}}, env)
    assert description.app.api
    return image(next(iter(description.app.slot_services)), description.app.api, description)


def error_of(root: Path, build: str | dict[str, Any] = "w") -> str:
    with pytest.raises(ConfigError) as error:
        image_of(root, build)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def build_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


# ---------------------------------------------------------------------- paths in settings


@pytest.mark.parametrize("name", ["a" * 300, "x/" * 3000, "nope", "w/Dockerfile/x"])
def test_build_folder_that_does_not_exist_is_refused(build_folder: Path, name: str):
    assert " does not exist; use a path relative to Pulumi.yaml" in error_of(build_folder.parent, name)


def test_build_folder_that_is_a_link_to_itself_is_refused(build_folder: Path):
    (build_folder.parent / "loop").symlink_to("loop")
    assert (
        error_of(build_folder.parent, "loop")
        == "app.api.build: loop is a link to itself; make it a link to a file or folder"
    )


def test_build_context_that_is_a_file_is_refused(build_folder: Path):
    assert error_of(build_folder.parent, "w/Dockerfile").startswith(
        "app.api.build: w/Dockerfile is not a folder; write the path of the folder"
    )


def test_build_without_dockerfile_is_refused(build_folder: Path):
    (build_folder / "Dockerfile").unlink()
    assert (
        error_of(build_folder.parent)
        == "app.api.build: w has no Dockerfile; add a Dockerfile, or replace `build` by `image`"
    )
    (build_folder / "Dockerfile").mkdir()
    assert "w has no Dockerfile" in error_of(build_folder.parent)
    (build_folder / "Dockerfile").rmdir()
    (build_folder / "Dockerfile").symlink_to("Dockerfile")
    assert "w has no Dockerfile" in error_of(build_folder.parent)


def test_build_folder_without_read_permission_is_refused(build_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> bool:
        raise PermissionError(13, "Permission denied", str(build_folder))

    monkeypatch.setattr(Path, "exists", refuse)
    assert error_of(build_folder.parent) == "app.api.build: w can't be read (permission denied); let this user read it"


@given(st.text(st.characters(codec=None), max_size=300))
@settings(max_examples=100)
def test_any_text_as_a_build_path_is_accepted_or_refused_with_the_path_of_the_setting(name: str):
    try:
        find(name, "app.api.build", Path("/nowhere"))
    except ConfigError as error:
        assert str(error).startswith("app.api.build: ")


# ---------------------------------------------------------------------- build contexts


def test_image_name_of_an_unchanged_build_folder_never_changes(build_folder: Path):
    (build_folder / "a").write_text("1")
    (build_folder / "link").symlink_to("a")
    (build_folder / "sub").mkdir()
    (build_folder / "sub" / "run.sh").write_text("2")
    (build_folder / "sub" / "run.sh").chmod(0o755)
    (build_folder / ".dockerignore").write_text("# not this\n*.log\n")
    (build_folder / "x.log").write_text("3")
    assert image_of(build_folder.parent).reference == "x-w:0accb0b4df18"


def test_build_folder_with_capitals_gives_an_image_name_in_lower_case(build_folder: Path):
    build_folder.rename(build_folder.parent / "Api")
    assert image_of(build_folder.parent, "Api").reference.startswith("x-api:")


def test_build_folder_without_latin_letters_gives_an_image_with_the_name_of_the_tier(build_folder: Path):
    build_folder.rename(build_folder.parent / "日本")
    assert image_of(build_folder.parent, "日本").reference.startswith("x-api:")


def test_image_repository_name_has_at_most_255_characters(build_folder: Path):
    build_folder.rename(build_folder.parent / ("x" * 240))
    env = DOCKER | {"registry": "registry.test/" + "y" * 80}
    assert len(image_of(build_folder.parent, "x" * 240, env).reference.partition(":")[0]) <= 255


def test_dockerignore_that_is_not_utf8_is_refused(build_folder: Path):
    (build_folder / ".dockerignore").write_bytes(b"caf\xe9\n")
    assert error_of(build_folder.parent) == "app.api.build: w/.dockerignore is not UTF-8; save it as UTF-8"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[z-a]", "an invalid pattern "),
        ("!", "a line with only `!`; "),
        ("[[:x", "an invalid pattern "),
        ("\\", "an invalid pattern "),
        ("**/[!", "an invalid pattern "),
    ],
)
def test_malformed_dockerignore_is_accepted_or_refused_with_the_reason(build_folder: Path, line: str, reason: str):
    (build_folder / ".dockerignore").write_text(f"{line}\n")
    try:
        image_of(build_folder.parent)
    except ConfigError as error:
        assert str(error).startswith(f"app.api.build: w/.dockerignore has {reason}")


def test_dockerignore_that_is_a_folder_is_refused(build_folder: Path):
    (build_folder / ".dockerignore").mkdir()
    assert error_of(build_folder.parent) == "app.api.build: w/.dockerignore is a folder; make it a file, or remove it"


def test_file_name_that_is_not_utf8_in_a_build_context_is_refused_unless_ignored(build_folder: Path):
    Path(os.fsdecode(os.fsencode(build_folder) + b"/caf\xe9")).write_text("")
    assert error_of(build_folder.parent) == (
        r"app.api.build: the file name 'caf\udce9' is not UTF-8; rename the file, or exclude it in .dockerignore"
    )
    (build_folder / ".dockerignore").write_text("caf?\n")
    assert image_of(build_folder.parent)


def test_sockets_and_pipes_in_a_build_context_are_ignored(build_folder: Path):
    before = image_of(build_folder.parent).reference
    os.mkfifo(build_folder / "pipe")
    (build_folder / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(build_folder / "s"))
        (build_folder / "loop").unlink()
        assert image_of(build_folder.parent).reference == before


def test_circular_links_in_a_build_context_are_accepted(build_folder: Path):
    (build_folder / "up").symlink_to("..")
    (build_folder / "loop").symlink_to("loop")
    assert image_of(build_folder.parent)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_unreadable_file_in_a_build_context_is_refused(
    build_folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
):
    (build_folder / "gone").write_text("x")

    def refuse(self: Path) -> bytes:
        raise type(error)(error.errno, error.strerror, str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert error_of(build_folder.parent).startswith("app.api.build: ") and "can't be read" in error_of(
        build_folder.parent
    )


# ---------------------------------------------------------------------- builds with options


OPTIONS: dict[str, Any] = {
    "context": "w",
    "dockerfile": "docker/api.Dockerfile",
    "args": {"MODE": "fast", "BASE": "x:1"},
}


@pytest.fixture
def folder_with_dockerfiles(build_folder: Path) -> Path:
    (build_folder / "docker").mkdir()
    for name in ("api.Dockerfile", "web.Dockerfile"):
        (build_folder / "docker" / name).write_text("FROM scratch\n")
    return build_folder


@pytest.mark.parametrize(
    ("build", "reference"),
    [
        ("w", "x-w:7ae57e6f42f9"),
        ({"context": "w", "dockerfile": "Dockerfile", "args": {}}, "x-w:7ae57e6f42f9"),
        ({"context": "w", "target": "run"}, "x-w:7ae57e6f42f9-run"),
        (OPTIONS, "x-w:0a1747e87e72"),
    ],
)
def test_image_name_of_an_unchanged_build_never_changes(
    folder_with_dockerfiles: Path, build: str | dict[str, Any], reference: str
):
    assert image_of(folder_with_dockerfiles.parent, build).reference == reference


def test_builds_of_one_folder_with_different_options_have_different_images(folder_with_dockerfiles: Path):
    builds: list[dict[str, Any]] = [
        {"context": "w"},
        {"context": "w", "target": "dev"},
        {"context": "w", "dockerfile": "docker/api.Dockerfile"},
        {"context": "w", "dockerfile": "docker/web.Dockerfile"},
        {"context": "w", "args": {"A": "1"}},
        {"context": "w", "args": {"A": ""}},
        {"context": "w", "args": {"A": "1", "B": "2"}},
        {"context": "w", "args": {"A": "1B2"}},
        OPTIONS,
    ]
    references = [image_of(folder_with_dockerfiles.parent, build).reference for build in builds]
    assert len(set(references)) == len(builds)


def test_image_has_the_options_of_its_build(folder_with_dockerfiles: Path):
    image = image_of(folder_with_dockerfiles.parent, OPTIONS | {"target": "run"})
    assert (image.dockerfile, image.target) == ("docker/api.Dockerfile", "run")
    assert image.build_args == {"BASE": "x:1", "MODE": "fast"}


def test_order_of_build_arguments_does_not_change_the_image(folder_with_dockerfiles: Path):
    reordered = OPTIONS | {"args": dict(reversed(OPTIONS["args"].items()))}
    images = [image_of(folder_with_dockerfiles.parent, build) for build in (OPTIONS, reordered)]
    assert images[0] == images[1]


def test_dockerfile_that_dockerignore_excludes_is_part_of_the_image_name(folder_with_dockerfiles: Path):
    (folder_with_dockerfiles / ".dockerignore").write_text("docker\n")
    before = image_of(folder_with_dockerfiles.parent, OPTIONS).reference
    (folder_with_dockerfiles / "docker" / "web.Dockerfile").write_text("FROM other\n")
    assert image_of(folder_with_dockerfiles.parent, OPTIONS).reference == before
    (folder_with_dockerfiles / "docker" / "api.Dockerfile").write_text("FROM other\n")
    assert image_of(folder_with_dockerfiles.parent, OPTIONS).reference != before


def test_missing_dockerfile_is_refused_with_its_path(folder_with_dockerfiles: Path):
    (folder_with_dockerfiles / "docker" / "api.Dockerfile").unlink()
    error = "app.api.build.dockerfile: w has no file docker/api.Dockerfile; write the path relative to `context`"
    assert error_of(folder_with_dockerfiles.parent, OPTIONS) == error
    (folder_with_dockerfiles / "docker" / "api.Dockerfile").mkdir()
    assert error_of(folder_with_dockerfiles.parent, OPTIONS) == error


def test_link_to_a_dockerfile_outside_of_the_build_context_is_refused(folder_with_dockerfiles: Path):
    dockerfile = folder_with_dockerfiles / "docker" / "api.Dockerfile"
    dockerfile.rename(folder_with_dockerfiles.parent / "api.Dockerfile")
    dockerfile.symlink_to("../../api.Dockerfile")
    assert error_of(folder_with_dockerfiles.parent, OPTIONS) == (
        "app.api.build.dockerfile: docker/api.Dockerfile leads out of the build context w; move the file into this folder"
    )


def test_dockerfile_with_an_ignore_file_of_its_own_is_refused(folder_with_dockerfiles: Path):
    (folder_with_dockerfiles / "docker" / "api.Dockerfile.dockerignore").write_text("x\n")
    assert error_of(folder_with_dockerfiles.parent, OPTIONS) == (
        "app.api.build.dockerfile: not every builder reads docker/api.Dockerfile.dockerignore; move its lines to w/.dockerignore"
    )


def test_dockerfile_that_also_exists_in_the_folder_of_the_program_is_refused(
    folder_with_dockerfiles: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder_with_dockerfiles)
    assert image_of(folder_with_dockerfiles.parent, OPTIONS)
    other = folder_with_dockerfiles.parent / "program"
    (other / "docker").mkdir(parents=True)
    (other / "docker" / "api.Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(other)
    assert error_of(folder_with_dockerfiles.parent, OPTIONS) == (
        "app.api.build.dockerfile: the engine would build program/docker/api.Dockerfile, which has the same name, instead of "
        "w/docker/api.Dockerfile; rename one of these two files"
    )


# ---------------------------------------------------------------------- project files in a build context


PROJECT_FILES = ("Pulumi.yaml", "Pulumi.dev.yaml", "release.json", "reports/drift.json")


def write_project_files(folder: Path) -> None:
    for name in PROJECT_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x: 1\n")


def test_changed_pulumi_file_in_the_project_folder_does_not_change_the_image_name(build_folder: Path):
    (build_folder / "Pulumi.yaml").write_text("x")
    before = build_context.digest(build_folder)
    write_project_files(build_folder)
    assert build_context.digest(build_folder) == before
    (build_folder / "app.py").write_text("")
    assert build_context.digest(build_folder) != before


def test_image_name_depends_on_release_json_if_the_build_folder_is_no_pulumi_project(build_folder: Path):
    before = build_context.digest(build_folder)
    (build_folder / "release.json").write_text("")
    assert build_context.digest(build_folder) != before


def test_changed_pulumi_file_in_a_subfolder_does_not_change_the_image_name(build_folder: Path):
    (build_folder / "deploy").mkdir()
    write_project_files(build_folder / "deploy")
    before = build_context.digest(build_folder, root=build_folder / "deploy")
    (build_folder / "deploy" / "Pulumi.dev.yaml").write_text("y: 2\n")
    assert build_context.digest(build_folder, root=build_folder / "deploy") == before


def test_build_folder_is_refused_if_dockerignore_does_not_exclude_its_pulumi_files(build_folder: Path):
    write_project_files(build_folder)
    assert error_of(build_folder, ".") == (
        "app.api.build: the image would contain files of Pulumi (Pulumi.yaml, Pulumi.*.yaml, reports, release.json); add "
        "Pulumi.yaml, Pulumi.*.yaml, reports and release.json, each on a line of its own, to .dockerignore"
    )
    (build_folder / ".dockerignore").write_text("Pulumi.yaml\nPulumi.*.yaml\nreports\nrelease.json\n")
    assert image_of(build_folder, ".").reference == f"x-w:{build_context.digest(build_folder)}"


# ---------------------------------------------------------------------- SQL files


def scripts(root: Path, *init: str, **more: Any) -> Any:
    description = description_of(
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
    assert str(error.value) == f"app.database.init.1: {name} is not UTF-8 text; {fix}"


def test_sql_file_that_is_a_folder_is_refused(build_folder: Path):
    with pytest.raises(ConfigError, match=r"app.database.init.0: w is not a file; list the path of each file"):
        scripts(build_folder.parent, "w")


def test_sql_file_name_with_a_space_becomes_a_valid_config_map_key(tmp_path: Path):
    (tmp_path / "my file.sql").write_text("SELECT 1;")
    (tmp_path / "my@file.sql").write_text("SELECT 2;")
    assert [entry.name for entry in scripts(tmp_path, "my file.sql", "my@file.sql")] == [
        "00-my-file.sql",
        "01-my-file.sql",
    ]


def test_sql_files_too_large_for_a_config_map_are_refused(tmp_path: Path):
    (tmp_path / "a.sql").write_text("x" * 2**20)
    with pytest.raises(ConfigError, match=r"app.database.init: all files together exceed 512 KiB"):
        scripts(tmp_path, "a.sql")


def test_dos_line_endings_of_sql_files_become_unix_line_endings(tmp_path: Path):
    (tmp_path / "a.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    assert read_text("a.sql", "p", tmp_path) == "SELECT 1;\nSELECT 2;\n"


def test_init_file_without_the_extension_sql_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("SELECT 1;\n")
    with pytest.raises(
        ConfigError, match=r"app.database.init.0: a.txt does not end with .sql or .sh, .*; rename the file"
    ):
        scripts(tmp_path, "a.txt")


def test_more_than_100_sql_files_keep_their_order(tmp_path: Path) -> None:
    for number in range(101):
        (tmp_path / f"{number}.sql").write_text("SELECT 1;\n")
    names = [script.name for script in scripts(tmp_path, *(f"{number}.sql" for number in range(101)))]
    assert names == sorted(names)
    assert names[0] == "000-0.sql"
