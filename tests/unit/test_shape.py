"""Tests of the import of Compose files with unusual or wrong values.

The import must either convert a file, or refuse the file with one line that names the path of the wrong value.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pulumi import RunError

from ci.compose.__main__ import _existing_file, _read_secret_files  # pyright: ignore[reportPrivateUsage]
from ci.compose.commands import split_command
from ci.compose.conversion import convert

SERVICE: dict[str, Any] = {
    "image": "acme/shop:2.1",
    "build": {"context": "/srv/shop", "target": "run", "dockerfile": "Dockerfile", "args": {"A": "1"}},
    "command": ["sh", "-c", "alembic upgrade head && exec serve"],
    "entrypoint": ["/entry"],
    "environment": {"LOG_LEVEL": "info", "API_KEY": "x", "NOTHING": None},
    "ports": [{"target": 8000, "published": "8000"}, "127.0.0.1:9000:9000/tcp"],
    "expose": ["8000"],
    "volumes": [{"type": "volume", "source": "data", "target": "/data"}, "/srv/x:/x:ro"],
    "depends_on": {"db": {"condition": "service_healthy"}},
    "links": ["db:db"],
    "healthcheck": {"test": ["CMD", "curl", "http://localhost:8000/health"]},
    "deploy": {"replicas": 2, "resources": {"limits": {"cpus": "0.5", "memory": "512m"}}},
    "cpus": 0.5,
    "mem_limit": "512m",
    "scale": 1,
    "secrets": [{"source": "key"}],
    "profiles": [],
    "tmpfs": ["/run"],
    "user": "1000:1000",
    "restart": "always",
    "stop_grace_period": "1m30s",
}
FILE: dict[str, Any] = {
    "name": "shop",
    "services": {
        "api": SERVICE,
        "db": {"image": "postgres:15", "environment": {"POSTGRES_USER": "shop"}, "volumes": ["data:/var/lib"]},
        "cache": {"image": "redis:7", "command": "redis-server --requirepass x"},
        "job": {"image": "acme/shop:2.1", "command": "seed it", "restart": "no"},
    },
    "secrets": {"key": {"file": "/srv/key"}},
    "configs": {"c": {"file": "/srv/c"}},
}


def import_file(compose: Any) -> None:
    convert(compose, name="shop", base="/srv", folder="/srv/apps/shop", password=lambda: "generated")


def paths_inside(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of `value` and of each value nested in `value`. A path is a tuple of keys and indexes."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(inner for key in keys for inner in paths_inside(value[key], (*path, key)))]


def file_with(path: tuple[Any, ...], part: Any) -> Any:
    """Return a copy of FILE in which `part` replaces the value at `path`."""
    if not path:
        return part
    changed = copy.deepcopy(FILE)
    *parents, last = path
    target: Any = changed
    for key in parents:
        target = target[key]
    target[last] = part
    return changed


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["99999", "a:b:c", "sh -c \"echo '", "$$", "-1", "1e9", "8000-", ":", "/", "0x10", "²", "٣", "postgres"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["target", "source", "context", "test", "limits", "x", "", "db"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def test_well_formed_compose_file_is_imported() -> None:
    import_file(FILE)


@example(("services", "api", "user"), "²")
@given(st.sampled_from(paths_inside(FILE)), PARTS)
@settings(max_examples=300)
def test_compose_file_with_any_value_at_any_path_is_imported_or_refused_in_one_line(
    path: tuple[Any, ...], part: Any
) -> None:
    try:
        import_file(file_with(path, part))
    except RunError as error:
        assert "; " in str(error) and "\n" not in str(error)


def nested_mapping(levels: int) -> Any:
    parts: Any = "x"
    for _ in range(levels):
        parts = {"a": parts}
    return parts


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (("services", "api", "build", "context"), ""),
        (("services", "api", "build"), b"bytes"),
        (("services", "api", "depends_on"), {"db", "cache"}),
        (("services", "api", "volumes", 1), b"bytes"),
        (("services", "api", "ports", 0, "target"), "8000/tcp"),
        (("services", "api", "ports", 0, "target"), "x:8000"),
        (("services", "api", "x-more"), nested_mapping(700)),
    ],
)
def test_compose_file_with_an_unusual_value_is_imported_or_refused_in_one_line(
    path: tuple[Any, ...], part: Any
) -> None:
    try:
        import_file(file_with(path, part))
    except RunError as error:
        assert "; " in str(error) and "\n" not in str(error)


def test_import_error_names_the_path_of_the_wrong_value_in_the_compose_file() -> None:
    with pytest.raises(
        RunError,
        match=r"^services\.api\.ports\.0\.target: the value has a type that Compose does not accept; correct the value$",
    ):
        import_file(file_with(("services", "api", "ports", 0, "target"), 99999))


@pytest.mark.parametrize(
    "script",
    [
        "echo 'first && second' && exec shop serve",
        "cd /srv/shop && export MODE=x && sleep 5 && SHOP_ENV=dev python manage.py migrate && gunicorn shop.wsgi",
        "if [ -f /a ] && [ -f /b ]; then echo both; fi && exec shop-worker",
        "a && b || c",
        "a &&",
        "a && 'b",
        "a && b\\ c",
        "(a && b) && c",
    ],
)
def test_shell_script_whose_commands_need_one_shell_is_imported_without_splitting(script: str) -> None:
    assert split_command(["sh", "-c", script]) == [["sh", "-c", script]]


def test_shell_script_of_independent_commands_is_split_by_the_import() -> None:
    assert split_command(["sh", "-c", "flask db upgrade && echo 'a b' && exec serve --port $PORT"]) == [
        ["flask", "db", "upgrade"],
        ["echo", "a b"],
        ["sh", "-c", "serve --port $PORT"],
    ]


@given(st.text(st.sampled_from("ab &|;'\"\\\n$()=[]")))
@settings(max_examples=300)
def test_shell_script_of_any_content_is_split_by_the_import_without_an_empty_command(script: str) -> None:
    parts = split_command(["sh", "-c", script])
    assert parts and all(parts)


def test_compose_secret_without_a_readable_file_is_listed_in_a_note(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "good").write_text("value\n")
    files = {"db-password": "nope.txt", "l": "latin", "e": "empty", "g": "good"}
    values, notes = _read_secret_files(
        {name: str(tmp_path / file) for name, file in files.items()}, {"secrets": {"db_password": {}}}
    )
    assert values == {"g": "value"}
    assert [f"{note.path}: {note.text}" for note in notes] == [
        "secrets.db_password: its file does not exist here; set the value of secrets.db-password in `make shell`",
        "secrets.l: its file is not UTF-8 text; set the value of secrets.l in `make shell`",
        "secrets.e: its file is empty; set the value of secrets.e in `make shell`",
    ]


@pytest.mark.parametrize("file", ["", "nope.yml", "a" * 300, "loop", "a\0b", "."])
def test_compose_file_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(RunError, match="the file does not exist; name a Compose file"):
        _existing_file(file)
