"""Tests of the rules for passwords and keys of database, cache, backups and bucket.

A value is accepted if all programs that read the value receive it unchanged. Other values are refused.
"""

import json
import subprocess
from functools import cache as memo
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import cache, sentinel
from components.config import ConfigError, check_secrets, load_app, passwords
from components.model.workload import Secret

from .program import Deployment, checkpoint_of, deploy, environment

ONE_LINE = ["correct horse", 'a"b', "a'b", "back\\slash", "#hash", "100%d", "$HOME $(id) `id`", "ünïcode", "\x01", "x" * 300, "-dash",
       "😀Ё\x85x", "\\x41 b", '"quoted"', "tab\there"]  # fmt: skip
LINES = ["two\nlines", "carriage\rreturn"]
EDGES = [" leading", "trailing ", "newline\n", "\ttab", "\ufeffbom"]
BACKUP = "environment.tiers.database.backup"
PASSWORDS = ["app.database.password", "app.cache.password"]
S3 = [f"{BACKUP}.target.s3.access_key", f"{BACKUP}.target.s3.secret_key"]
UNQUOTED_COMMAND = (
    "exec redis-server - --appendonly yes --appendfsync always --maxmemory-policy noeviction --dir /data <<EOF\n"
    "requirepass $(cat /run/secrets/cache-password)\nEOF"
)


@pytest.mark.parametrize("path", PASSWORDS)
@pytest.mark.parametrize("value", ONE_LINE, ids=ascii)
def test_password_of_one_line_is_accepted(path: str, value: str) -> None:
    assert passwords.problem(path, value) == ""


@pytest.mark.parametrize("path", PASSWORDS)
@pytest.mark.parametrize("value", [*LINES, *EDGES, "nul\x00", "half \ud800", "x" * 1001], ids=ascii)
def test_password_that_a_program_would_change_is_refused(path: str, value: str) -> None:
    assert passwords.problem(path, value)


@pytest.mark.parametrize("value", [*EDGES, "nul\x00"], ids=ascii)
def test_backup_key_that_restic_trims_is_refused(value: str) -> None:
    assert passwords.problem(f"{BACKUP}.key", value)


@pytest.mark.parametrize("value", [*ONE_LINE, *LINES, "y" * 5000], ids=ascii)
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


def test_secret_of_the_application_may_have_any_value() -> None:
    assert passwords.problem("app.api.secrets", " -----BEGIN\nKEY-----\n") == ""


@pytest.mark.parametrize("name", ["database-password", "cache-password"])
def test_error_about_an_invalid_password_names_the_secret_and_hides_the_password(name: str) -> None:
    app = load_app({"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000}, "database": {}, "cache": {}})
    values = {"database-password": "one", "cache-password": "two"} | {name: "hunter2\nhunter3"}
    with pytest.raises(ConfigError, match=rf"^secrets\.{name}: app\..*more than one line.*pulumi config set") as error:
        check_secrets(values, app)
    assert "hunter" not in str(error.value)


@pytest.mark.parametrize("path", [f"{BACKUP}.key", S3[0]])
def test_secret_with_two_uses_must_satisfy_the_rules_of_both_uses(path: str) -> None:
    app = load_app({"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000, "secrets": ["shared"]}})
    assert check_secrets({"shared": "a#b "}, app) == {"shared": "a#b "}
    with pytest.raises(ConfigError, match=rf"secrets\.shared: {path} uses this secret"):
        check_secrets({"shared": "a#b "}, app, (), {"shared": path})


# ---------------------------------------------------------------------- Redis


def split_redis_line(line: bytes) -> list[bytes]:
    """Split a line of a Redis configuration into words, like the function sdssplitargs in sds.c of Redis 7.0."""
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


def redis_configuration(password: str, folder: Path) -> bytes:
    """Run the start command of the cache in a local shell. Return the configuration that the command passes to Redis."""
    file = folder / "password"
    file.write_bytes(password.encode())
    secret = Secret(name="cache-password", version="1", plain=passwords.needs_no_quotes(password))
    [shell, flag, script], _ = cache._commands(secret)  # pyright: ignore[reportPrivateUsage]
    script = script.replace(secret.path, str(file)).replace(" ".join(cache.SERVER), "cat")
    return subprocess.run([shell, flag, script], capture_output=True, check=True).stdout


@pytest.mark.parametrize("password", ONE_LINE, ids=ascii)
def test_redis_reads_the_password_as_one_word(password: str, tmp_path: Path) -> None:
    [line] = redis_configuration(password, tmp_path).splitlines()
    assert split_redis_line(line) == [b"requirepass", password.encode()]


@given(st.text(st.characters(exclude_characters="\x00\r\n", exclude_categories=["Cs"]), min_size=1))
def test_redis_reads_a_password_that_needs_no_quotes_as_one_word(value: str) -> None:
    if passwords.needs_no_quotes(value):
        assert split_redis_line(b"requirepass " + value.encode()) == [b"requirepass", value.encode()]


def test_plain_text_of_a_quoted_password_is_not_in_the_redis_configuration(tmp_path: Path) -> None:
    """Check that the configuration contains the password as hexadecimal codes only.

    Redis prints each line that it can't parse. With a password in plain text, the printed line would reveal the password.
    """
    assert b"correct horse" not in redis_configuration("correct horse", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_redis_does_not_start_with_an_empty_password(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    script = sentinel.QUOTE.format(file) + "\necho started"
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert "can't be read" in result.stderr


def test_cache_members_read_the_password_as_one_word(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct 'horse'")
    script = sentinel.quoting_script().replace("until follow=$(place)", "until follow=replicaof")
    words = ["sh", "-euc", script, "server", str(file), "cache-0", "cat"]
    result = subprocess.run(words, capture_output=True, check=True, env={"MEMBER": "cache-0", "PATH": "/usr/bin:/bin"})
    lines = [split_redis_line(line) for line in result.stdout.splitlines()]
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
    """Return container commands by StatefulSet name."""
    pods = {entry.name: entry.inputs["spec"]["template"]["spec"] for entry in deployment.of_type("StatefulSet")}
    return {name: spec["containers"][0]["command"] for name, spec in pods.items()}


@memo
def _deploy_with_cluster_secret(version: str = "1") -> Deployment:
    reference = {"secret": "own", "key": "password", "version": version}
    return deploy(APP, cluster(secrets={"cache-password": reference}), stack="prod", secrets={})


def test_ordinary_password_is_not_quoted_in_the_cache_command() -> None:
    docker = environment() | {"reload": False, "seed": False, "tiers": {}}
    deployment = deploy(APP, docker, secrets={"cache-password": "ordinary#$%"})
    assert deployment.by_name["cache-1"].inputs["command"] == ["sh", "-c", UNQUOTED_COMMAND]
    deployment = deploy(APP, cluster(), stack="prod", secrets={"cache-password": "ordinary#$%"})
    assert commands(deployment) == {"cache": ["sh", "-c", UNQUOTED_COMMAND]}


def test_cache_password_from_a_cluster_secret_is_quoted() -> None:
    assert 'requirepass "$quoted"' in commands(_deploy_with_cluster_secret())["cache"][2]


def _checkpoint_with_command(deployment: Deployment, *command: str) -> dict[str, Any]:
    """Return the checkpoint of a deployment after setting the command of the cache's container to `command`."""
    text = json.dumps(checkpoint_of(deployment))
    export = cast(dict[str, Any], json.loads(text))
    for entry in export["deployment"]["resources"]:
        if entry["type"].endswith(":StatefulSet"):
            entry["inputs"]["spec"]["template"]["spec"]["containers"][0]["command"] = list(command)
    return export


@pytest.mark.parametrize(("version", "keeps_command"), [("1", True), ("2", False)])
def test_deployed_cache_keeps_its_start_command_until_the_password_secret_changes(
    version: str, keeps_command: bool
) -> None:
    reference = {"secret": "own", "key": "password", "version": version}
    env = cluster(secrets={"cache-password": reference})
    export = _checkpoint_with_command(_deploy_with_cluster_secret(), "sh", "-c", UNQUOTED_COMMAND)
    deployment = deploy(APP, env, stack="prod", secrets={}, export=export)
    assert (commands(deployment)["cache"] == ["sh", "-c", UNQUOTED_COMMAND]) is keeps_command


def test_deployed_cache_with_a_quoted_password_keeps_its_start_command() -> None:
    deployment = deploy(
        APP,
        cluster(secrets={"cache-password": {"secret": "own", "key": "password"}}),
        stack="prod",
        secrets={},
        export=checkpoint_of(_deploy_with_cluster_secret()),
    )
    assert commands(deployment) == commands(_deploy_with_cluster_secret())


def test_backup_key_too_long_for_an_environment_variable_is_refused() -> None:
    """Check that a key of 64 KiB is accepted and a longer key is refused.

    The archive proxy gets the key in an environment variable. Linux limits a variable to 128 KiB, and `rclone obscure` makes the
    key a third longer.
    """
    path = "environment.tiers.database.backup.key"
    assert not passwords.problem(path, "x" * 64 * 1024)
    assert "it has more than 65536 bytes" in passwords.problem(path, "x" * (64 * 1024 + 1))
