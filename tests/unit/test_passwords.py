"""Secrets of database, cache, backups and their clients: values that every reader accepts unchanged are accepted, others are refused by path."""

import json
import subprocess
from functools import cache as memo
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import cache, passwords, sentinel
from components.config import ConfigError, check_secrets, load_app
from components.workload import Secret

from .program import Deployment, deploy, environment, exported

ODD = ["correct horse", 'a"b', "a'b", "back\\slash", "#hash", "100%d", "$HOME $(id) `id`", "ünïcode", "\x01", "x" * 300, "-dash",
       "😀Ё\x85x", "\\x41 b", '"quoted"', "tab\there"]  # fmt: skip
LINES = ["two\nlines", "carriage\rreturn"]
EDGES = [" leading", "trailing ", "newline\n", "\ttab", "\ufeffbom"]
BACKUP = "environment.tiers.database.backup"
PASSWORDS = ["app.database.password", "app.cache.password"]
S3 = [f"{BACKUP}.target.s3.access_key", f"{BACKUP}.target.s3.secret_key"]
FORMER = (
    "exec redis-server - --appendonly yes --appendfsync always --maxmemory-policy noeviction --dir /data <<EOF\n"
    "requirepass $(cat /run/secrets/cache-password)\nEOF"
)


@pytest.mark.parametrize("path", PASSWORDS)
@pytest.mark.parametrize("value", ODD, ids=ascii)
def test_password_of_one_line_is_accepted(path: str, value: str) -> None:
    assert passwords.problem(path, value) == ""


@pytest.mark.parametrize("path", PASSWORDS)
@pytest.mark.parametrize("value", [*LINES, *EDGES, "nul\x00", "half \ud800", "x" * 1001], ids=ascii)
def test_password_that_a_reader_changes_is_refused(path: str, value: str) -> None:
    assert passwords.problem(path, value)


@pytest.mark.parametrize("value", [*EDGES, "nul\x00"], ids=ascii)
def test_backup_key_that_restic_trims_is_refused(value: str) -> None:
    assert passwords.problem(f"{BACKUP}.key", value)


@pytest.mark.parametrize("value", [*ODD, *LINES, "y" * 5000], ids=ascii)
def test_backup_key_of_several_lines_is_accepted(value: str) -> None:
    assert passwords.problem(f"{BACKUP}.key", value) == ""


@pytest.mark.parametrize("path", S3)
@pytest.mark.parametrize(
    "value", ["a b", 'a"b', "a#b", "a;b", "a,b", "a\\", "%(name)s", "'a'", "`a`", "ä", "a\n", "\x01"]
)
def test_s3_key_that_the_credentials_file_cannot_store_is_refused(path: str, value: str) -> None:
    assert passwords.problem(path, value)


@pytest.mark.parametrize("path", S3)
@pytest.mark.parametrize("value", ["AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=", "minio-$100%!"])
def test_s3_key_of_printable_characters_is_accepted(path: str, value: str) -> None:
    assert passwords.problem(path, value) == ""


def test_secret_of_the_application_is_not_restricted() -> None:
    assert passwords.problem("app.api.secrets", " -----BEGIN\nKEY-----\n") == ""


@pytest.mark.parametrize("name", ["database-password", "cache-password"])
def test_refusal_names_the_secret_and_hides_its_value(name: str) -> None:
    app = load_app({"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000}, "database": {}, "cache": {}})
    values = {"database-password": "one", "cache-password": "two"} | {name: "hunter2\nhunter3"}
    with pytest.raises(ConfigError, match=rf"^secrets\.{name}: app\..*more than one line.*pulumi config set") as error:
        check_secrets(values, app)
    assert "hunter" not in str(error.value)


@pytest.mark.parametrize("where", [f"{BACKUP}.key", S3[0]])
def test_secret_with_two_uses_obeys_the_rules_of_both(where: str) -> None:
    app = load_app({"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000, "secrets": ["shared"]}})
    assert check_secrets({"shared": "a#b "}, app) == {"shared": "a#b "}
    with pytest.raises(ConfigError, match=rf"secrets\.shared: {where} uses it"):
        check_secrets({"shared": "a#b "}, app, (), {"shared": where})


# ---------------------------------------------------------------------- Redis


def split(line: bytes) -> list[bytes]:
    """Split a line of Redis' configuration as sdssplitargs does (Redis 7.0, sds.c), written from its documentation."""
    words, at = list[bytes](), 0
    while True:
        while at < len(line) and line[at : at + 1] in b" \t\n\v\f\r":
            at += 1
        if at == len(line):
            return words
        word = b""
        while at < len(line) and line[at : at + 1] not in b" \t\n\r\x00":
            if line[at : at + 1] == b'"':
                at += 1
                while line[at : at + 1] != b'"':
                    assert at < len(line), "unbalanced"
                    if line[at : at + 2] == b"\\x":
                        word += bytes.fromhex(line[at + 2 : at + 4].decode())
                        at += 4
                    else:
                        word += line[at : at + 1]
                        at += 1
                at += 1
                assert line[at : at + 1] in (b"", b" "), "a closing quote ends a word"
            else:
                assert line[at : at + 1] != b"'"
                word += line[at : at + 1]
                at += 1
        words.append(word)


def configured(password: str, folder: Path) -> bytes:
    """Return what the command of the cache writes to Redis' standard input, by the shell of this machine."""
    file = folder / "password"
    file.write_bytes(password.encode())
    secret = Secret(name="cache-password", version="1", plain=passwords.plain(password))
    [shell, flag, script], _ = cache._commands(secret)  # pyright: ignore[reportPrivateUsage]
    script = script.replace(secret.path, str(file)).replace(" ".join(cache.SERVER), "cat")
    return subprocess.run([shell, flag, script], capture_output=True, check=True).stdout


@pytest.mark.parametrize("password", ODD, ids=ascii)
def test_redis_reads_the_password_as_one_word(password: str, tmp_path: Path) -> None:
    [line] = configured(password, tmp_path).splitlines()
    assert split(line) == [b"requirepass", password.encode()]


@given(st.text(st.characters(exclude_characters="\x00\r\n", exclude_categories=["Cs"]), min_size=1))
def test_password_without_quotes_is_one_word_for_redis(value: str) -> None:
    if passwords.plain(value):
        assert split(b"requirepass " + value.encode()) == [b"requirepass", value.encode()]


def test_quoted_password_is_not_in_the_configuration(tmp_path: Path) -> None:
    """Redis prints a line that it can't read."""
    assert b"correct horse" not in configured("correct horse", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_redis_does_not_start_with_an_empty_password(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    script = sentinel.QUOTE.format(file) + "\necho started"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "can't be read" in done.stderr


def test_members_read_the_password_as_one_word(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct 'horse'")
    script = sentinel.quoting().replace("until follow=$(place)", "until follow=replicaof")
    words = ["sh", "-euc", script, "server", str(file), "cache-0", "cat"]
    done = subprocess.run(words, capture_output=True, check=True, env={"MEMBER": "cache-0", "PATH": "/usr/bin:/bin"})
    lines = [split(line) for line in done.stdout.splitlines()]
    assert [b"requirepass", b"correct 'horse'"] in lines
    assert [b"masterauth", b"correct 'horse'"] in lines


# ---------------------------------------------------------------------- state of deployed stacks

APP: dict[str, Any] = {
    "name": "shop",
    "version": "1.0.0",
    "api": {"image": "x:1", "port": 8000, "needs": ["cache"]},
    "cache": {},
}


def cluster(**more: Any) -> dict[str, Any]:
    gateway = {"name": "g", "namespace": "gw", "inside": "http://g.gw"}
    settings = {"context": "lab", "url": "http://x.localhost", "gateway": gateway, **more}
    return {"platform": "kubernetes", "kubernetes": settings}


def commands(deployment: Deployment) -> dict[str, list[str]]:
    """Return the command of each member of the cache."""
    pods = {entry.name: entry.inputs["spec"]["template"]["spec"] for entry in deployment.of_type("StatefulSet")}
    return {name: spec["containers"][0]["command"] for name, spec in pods.items()}


@memo
def _unknown(version: str = "1") -> Deployment:
    reference = {"secret": "own", "key": "password", "version": version}
    return deploy(APP, cluster(secrets={"cache-password": reference}), stack="prod", secrets={})


def test_ordinary_password_keeps_the_command_on_both_platforms() -> None:
    docker = environment() | {"reload": False, "seed": False, "tiers": {}}
    deployment = deploy(APP, docker, secrets={"cache-password": "ordinary#$%"})
    assert deployment.by_name["cache-1"].inputs["command"] == ["sh", "-c", FORMER]
    deployment = deploy(APP, cluster(), stack="prod", secrets={"cache-password": "ordinary#$%"})
    assert commands(deployment) == {"cache": ["sh", "-c", FORMER]}


def test_unknown_value_of_the_cluster_is_quoted() -> None:
    assert 'requirepass "$quoted"' in commands(_unknown())["cache"][2]


def _earlier(deployment: Deployment, *command: str) -> dict[str, Any]:
    """Return the checkpoint as an earlier version left it, with its command of the cache."""
    text = json.dumps(exported(deployment))
    export = cast(dict[str, Any], json.loads(text))
    for entry in export["deployment"]["resources"]:
        if entry["type"].endswith(":StatefulSet"):
            entry["inputs"]["spec"]["template"]["spec"]["containers"][0]["command"] = list(command)
    return export


@pytest.mark.parametrize(("version", "same"), [("1", True), ("2", False)])
def test_running_cache_keeps_its_command_until_its_secret_changes(version: str, same: bool) -> None:
    reference = {"secret": "own", "key": "password", "version": version}
    env = cluster(secrets={"cache-password": reference})
    export = _earlier(_unknown(), "sh", "-c", FORMER)
    deployment = deploy(APP, env, stack="prod", secrets={}, export=export)
    assert (commands(deployment)["cache"] == ["sh", "-c", FORMER]) is same


def test_cache_with_a_quoted_password_keeps_its_command() -> None:
    deployment = deploy(
        APP,
        cluster(secrets={"cache-password": {"secret": "own", "key": "password"}}),
        stack="prod",
        secrets={},
        export=exported(_unknown()),
    )
    assert commands(deployment) == commands(_unknown())


def test_backup_key_too_long_for_a_variable_is_refused() -> None:
    """The archive proxy receives the key in an environment variable, a third longer (rclone obscure)."""
    path = "environment.tiers.database.backup.key"
    assert not passwords.problem(path, "x" * 64 * 1024)
    assert "it has more than 65536 bytes" in passwords.problem(path, "x" * (64 * 1024 + 1))
