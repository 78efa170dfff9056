"""Import of malformed Compose files: each is carried, or refused in one line that names the part."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pulumi import RunError

from ci.compose.__main__ import _existing, _from_files  # pyright: ignore[reportPrivateUsage]
from ci.compose.carried import _apart, carried  # pyright: ignore[reportPrivateUsage]

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


def imported(compose: Any) -> None:
    carried(compose, name="shop", base="/srv", folder="/srv/apps/shop", password=lambda: "made")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all parts of a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(inner for key in keys for inner in places(value[key], (*path, key)))]


def put(path: tuple[Any, ...], part: Any) -> Any:
    """Return the file with another part at a path."""
    if not path:
        return part
    changed = copy.deepcopy(FILE)
    *way, last = path
    inside: Any = changed
    for key in way:
        inside = inside[key]
    inside[last] = part
    return changed


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["99999", "a:b:c", "sh -c \"echo '", "$$", "-1", "1e9", "8000-", ":", "/", "0x10", "²", "٣", "postgres"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["target", "source", "context", "test", "limits", "x", "", "db"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def test_base_file_is_carried() -> None:
    imported(FILE)


@example(("services", "api", "user"), "²")
@given(st.sampled_from(places(FILE)), PARTS)
@settings(max_examples=300)
def test_any_part_at_any_path_is_carried_or_refused_in_one_line(path: tuple[Any, ...], part: Any) -> None:
    try:
        imported(put(path, part))
    except RunError as error:
        assert "; " in str(error) and "\n" not in str(error)


def nested(levels: int) -> Any:
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
        (("services", "api", "x-more"), nested(700)),
    ],
)
def test_odd_part_is_carried_or_refused_in_one_line(path: tuple[Any, ...], part: Any) -> None:
    try:
        imported(put(path, part))
    except RunError as error:
        assert "; " in str(error) and "\n" not in str(error)


def test_refusal_names_the_path_in_the_file() -> None:
    with pytest.raises(
        RunError, match=r"^services\.api\.ports\.0\.target: this is not what Compose has there; mend it$"
    ):
        imported(put(("services", "api", "ports", 0, "target"), 99999))


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
def test_script_that_needs_one_shell_is_not_split(script: str) -> None:
    assert _apart(["sh", "-c", script]) == [["sh", "-c", script]]


def test_script_of_steps_is_split() -> None:
    assert _apart(["sh", "-c", "flask db upgrade && echo 'a b' && exec serve --port $PORT"]) == [
        ["flask", "db", "upgrade"],
        ["echo", "a b"],
        ["sh", "-c", "serve --port $PORT"],
    ]


@given(st.text(st.sampled_from("ab &|;'\"\\\n$()=[]")))
@settings(max_examples=300)
def test_any_script_is_split_or_kept(script: str) -> None:
    parts = _apart(["sh", "-c", script])
    assert parts and all(parts)


def test_secret_without_its_file_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "good").write_text("value\n")
    files = {"db-password": "nope.txt", "l": "latin", "e": "empty", "g": "good"}
    values, notes = _from_files(
        {name: str(tmp_path / file) for name, file in files.items()}, {"secrets": {"db_password": {}}}
    )
    assert values == {"g": "value"}
    assert [f"{note.path}: {note.text}" for note in notes] == [
        "secrets.db_password: its file is not here; set it as secrets.db-password in `make shell`",
        "secrets.l: its file is no text in UTF-8; set it as secrets.l in `make shell`",
        "secrets.e: its file is empty; set it as secrets.e in `make shell`",
    ]


@pytest.mark.parametrize("file", ["", "nope.yml", "a" * 300, "loop", "a\0b", "."])
def test_compose_file_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(RunError, match="there is no such file; name one"):
        _existing(file)
