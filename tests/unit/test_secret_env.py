"""Tests of environment variables and files with secrets (`secret_env`, `secret_files`), of `entrypoint`, and of BusyBox on Docker."""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import ConfigError, load_app, load_environment, template
from components.config.grammar import RefusalError
from components.model.workload import Secret, SecretPart
from components.platforms.docker import programs
from components.release.checkpoint import SLOT

from . import invariants, test_kubernetes
from .program import IMAGE_PROCESS, SECRETS, Deployment, deploy, environment, project

URL = template.EXAMPLE
PASSWORD = "p@ss:w/o#rd%"
VALUES = SECRETS | {"database-password": PASSWORD, "session-key": "the-session-key"}
SECRET_ENV = {"DATABASE_URL": URL, "SESSION_KEY": "${secrets.session-key}", "UPSTREAM": "${public.host} $${HOME}"}
EXPECTED_URL = f"postgresql://board:{quote(PASSWORD, safe='')}@database/board"


def app(**api: Any) -> dict[str, Any]:
    described = project()
    described["api"] |= {"secret_env": dict(SECRET_ENV), "secret_files": {"database-url": URL}, **api}
    described["worker"] |= {"secret_env": {"API": "${api.url}/jobs"}, "needs": [*described["worker"]["needs"], "api"]}
    return described


def deployed(stack: str, **env: Any) -> Deployment:
    return deploy(app(), environment(stack) | env, stack=stack, secrets=VALUES)


DEV, STAGING = deployed("dev"), deployed("staging")


def uploads(deployment: Deployment, prefix: str) -> dict[str, str]:
    """Return the files that the container of a service's secrets copies, by path."""
    [entry] = [entry for entry in deployment if entry.name.startswith(prefix) and "uploads" in entry.inputs]
    return {upload["file"]: upload["content"] for upload in entry.inputs["uploads"]}


# ---------------------------------------------------------------------- values


def test_variables_with_secrets_are_encrypted_files_on_docker() -> None:
    files = uploads(DEV, "blue-api-secrets")
    assert files["/run/secrets/.env/DATABASE_URL"] == EXPECTED_URL == files["/run/secrets/database-url"]
    assert files["/run/secrets/.env/SESSION_KEY"] == "the-session-key"
    assert files["/run/secrets/.env/UPSTREAM"] == "127.0.0.1 ${HOME}"
    assert uploads(DEV, "blue-worker-secrets")["/run/secrets/.env/API"] == "http://api-blue:8000/jobs"
    assert "DATABASE_URL_FILE=/run/secrets/database-url" in DEV.by_name["blue-api-1"].inputs["envs"]


def test_variables_with_secrets_come_from_a_kubernetes_secret() -> None:
    [container] = STAGING.get_object("Deployment", "api-blue").inputs["spec"]["template"]["spec"]["containers"]
    references = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if "valueFrom" in entry
    }
    assert references.keys() == SECRET_ENV.keys()
    data = STAGING.get_object("Secret", references["DATABASE_URL"]["name"]).inputs["stringData"]
    assert {name: data[reference["key"]] for name, reference in references.items()} == {
        "DATABASE_URL": EXPECTED_URL, "SESSION_KEY": "the-session-key", "UPSTREAM": "board-staging.localhost ${HOME}"
    }  # fmt: skip
    assert data["database-url"] == EXPECTED_URL


@pytest.mark.parametrize("deployment", [DEV, STAGING], ids=["docker", "kubernetes"])
def test_no_value_of_a_template_is_in_a_plain_input(deployment: Deployment) -> None:
    invariants.no_secret_is_in_a_plain_input(deployment, [*VALUES.values(), quote(PASSWORD, safe="")])


def test_containers_with_secret_variables_satisfy_every_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    for assert_invariant, entry in invariants.cases(DEV):
        assert_invariant(entry)
    test_kubernetes.assert_every_invariant(STAGING, monkeypatch)


def test_tasks_connect_to_the_database_without_the_pooler() -> None:
    env = environment("staging")
    env["tiers"] = {**env.get("tiers", {}), "database": {"ha": True, "storage": "1Gi"}}
    clustered = deploy(app(), env, stack="staging", secrets=VALUES)

    def url(kind: str, name: str) -> str:
        [container] = clustered.get_object(kind, name).inputs["spec"]["template"]["spec"]["containers"]
        [reference] = [
            entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if entry["name"] == "DATABASE_URL"
        ]
        return clustered.get_object("Secret", reference["name"]).inputs["stringData"][reference["key"]]

    assert "@database-pooler/" in url("Deployment", "api-blue")
    assert "@database-ha-rw/" in url("Job", "blue-api-migrate")


def test_secret_in_the_cluster_is_read_from_there() -> None:
    env = environment("staging")
    env["kubernetes"]["secrets"] = {
        "session-key": {"secret": "shop", "key": "session"},
        "other-key": {"store": "vault", "key": "other"},
    }
    described = app(secret_env={"SESSION_KEY": "${secrets.session-key}", "OTHER": "${secrets.other-key}"})
    deployment = deploy(described, env, stack="staging", secrets=SECRETS)
    [container] = deployment.get_object("Deployment", "api-blue").inputs["spec"]["template"]["spec"]["containers"]
    references = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if "valueFrom" in entry
    }
    assert references["SESSION_KEY"] == {"name": "shop", "key": "session"}
    [external] = [
        entry for entry in deployment.of_type("ExternalSecret") if "api-blue" in entry.inputs["metadata"]["name"]
    ]
    assert references["OTHER"] == {
        "name": external.inputs["spec"]["target"]["name"],
        "key": external.inputs["spec"]["data"][0]["secretKey"],
    }


@pytest.mark.parametrize("changed", [{"secret_env": {"DATABASE_URL": URL}}, {"secret_files": {}}])
def test_changed_template_is_a_new_release(changed: dict[str, Any]) -> None:
    assert deploy(app(**changed), environment(), secrets=VALUES).release != DEV.release


def test_changed_value_of_a_secret_is_a_new_release_of_the_services_that_use_it() -> None:
    changed = deploy(app(), environment(), secrets=VALUES | {"session-key": "another"})
    [before], [after] = ([entry for entry in run if entry.type == SLOT] for run in (DEV, changed))
    parts = {name for name, digest in after.inputs["parts"].items() if before.inputs["parts"][name] != digest}
    assert parts == {"api"}


# ---------------------------------------------------------------------- templates

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@given(TEXTS)
def test_text_without_placeholders_is_a_template_of_itself(text: str) -> None:
    assert "".join(part for part in template.parse(text.replace("${", "$${")) if isinstance(part, str)) == text


@given(password=TEXTS)
def test_url_with_any_password_is_parsed_back(password: str) -> None:
    from urllib.parse import unquote, urlsplit

    secret = Secret(
        name="url", version="1", parts=("redis://:", SecretPart(secret="cache-password", encoded=True), "@cache:6379")
    )
    url = urlsplit(secret.value({"cache-password": password}, {}))
    assert (unquote(url.password or ""), url.hostname, url.port) == (password, "cache", 6379)


@pytest.mark.parametrize("text", ["${", "${a", "${}", "${DATABASE_URL}", "${a.b.c}", "${database}"])
def test_placeholder_without_owner_and_field_is_refused(text: str) -> None:
    with pytest.raises(RefusalError):
        template.parse(text)


@pytest.mark.parametrize(
    ("api", "message"),
    [
        ({"secret_env": {"A": "${databse.host}"}}, r"api\.secret_env\.A: \${databse\.host} names no service of the application"),
        ({"secret_env": {"A": "${worker.host}"}}, r"add worker to app\.api\.needs"),
        ({"secret_env": {"A": "${database.pasword}"}}, r"did you mean \${database\.password}"),
        ({"secret_env": {"A": "${public.port}"}}, r"write \${public\.url} or \${public\.host}"),
        ({"secret_env": {"A": "${secrets.a_b}"}}, "contains an invalid secret name"),
        ({"secret_env": {"DATABASE_HOST": "x"}}, r"secret_env\.DATABASE_HOST: the program sets this variable"),
        ({"secret_env": {"LOG_LEVEL": "x"}, "env": {"LOG_LEVEL": "y"}}, "LOG_LEVEL is in `env` and in `secret_env`"),
        ({"secrets": ["key"], "secret_files": {"key": "x"}}, "key is in `secrets` and in `secret_files`"),
        ({"secret_files": {"key": "x"}, "writable": ["/run/secrets/x"]}, "mounts secrets at"),
    ],
)  # fmt: skip
def test_template_that_can_not_be_filled_is_refused(api: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_app(app(**api))


def test_variable_of_the_environment_that_is_also_a_template_is_refused() -> None:
    env = environment("dev") | {"tiers": {"api": {"env": {"DATABASE_URL": "x"}}}}
    with pytest.raises(
        ConfigError, match=r"environment\.tiers\.api\.env\.DATABASE_URL: app\.api or the program sets this variable too"
    ):
        load_environment(env, load_app(app()))


def test_secret_in_the_cluster_can_not_be_part_of_a_longer_text() -> None:
    env = environment("staging")
    env["kubernetes"]["secrets"] = {"database-password": {"secret": "shop", "key": "password"}}
    with pytest.raises(
        ConfigError, match=r"DATABASE_URL: environment\.kubernetes\.secrets\.database-password keeps this value"
    ):
        load_environment(env, load_app(app()))


@pytest.mark.parametrize(("value", "message"), [("a\x00b", "NUL character"), ("x" * 131_000, "a process accepts")])
def test_value_that_no_variable_can_contain_is_refused(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        deploy(app(), environment(), secrets=VALUES | {"session-key": value})
    assert value not in str(error.value)


# ---------------------------------------------------------------------- command and entrypoint


@pytest.mark.parametrize("entrypoint", [[], ["/tini", "--"]])
def test_command_and_entrypoint_replace_the_same_parts_of_the_image_on_both_platforms(entrypoint: list[str]) -> None:
    described = project()
    described["api"] |= {"command": ["serve", "--fast"], "entrypoint": entrypoint}
    [container] = (
        deploy(described, environment("staging"), stack="staging")
        .get_object("Deployment", "api-blue")
        .inputs["spec"]["template"]["spec"]["containers"]
    )
    on_docker = deploy(described, environment("dev") | {"reload": False}).by_name["blue-api-1"].inputs
    assert container["args"] == on_docker["command"] == ["serve", "--fast"]
    assert container.get("command") == on_docker.get("entrypoints") == (entrypoint or None)


def test_entrypoint_of_the_service_starts_its_tasks() -> None:
    described = app(entrypoint=["/tini", "--"])
    task = deploy(described, environment(), secrets=VALUES).by_name["blue-api-migrate"].inputs
    assert task["entrypoints"][-2:] == ["/tini", "--"]
    assert task["command"] == list(described["api"]["migrate"]["command"])


def test_wrapper_starts_the_entrypoint_and_the_command_of_the_image() -> None:
    worker = DEV.by_name["blue-web-1"].inputs
    assert "entrypoints" not in worker
    described = project()
    described["web"]["secret_env"] = {"A": "b"}
    web = deploy(described, environment() | {"reload": False}).by_name["blue-web-1"].inputs
    assert web["entrypoints"] == [*programs.export([programs.ENV_FOLDER]), *IMAGE_PROCESS.entrypoint]
    assert web["command"] == IMAGE_PROCESS.command


# ---------------------------------------------------------------------- health checks


def test_health_checks_send_the_host_that_users_open_unless_the_service_names_another() -> None:
    described = project()
    described["web"]["health_host"] = "internal.test"
    on_docker = deploy(described, environment())
    on_cluster = deploy(described, environment("staging"), stack="staging")
    for name, docker_host, cluster_host in (
        ("api", "127.0.0.1:8080", "board-staging.localhost:8000"),
        ("web", "internal.test", "internal.test"),
    ):
        tests = on_docker.by_name[f"blue-{name}-1"].inputs["healthcheck"]["tests"]
        assert f"Host: {docker_host}" in tests
        [container] = on_cluster.get_object("Deployment", f"{name}-blue").inputs["spec"]["template"]["spec"][
            "containers"
        ]
        headers = {entry["name"]: entry["value"] for entry in container["startupProbe"]["httpGet"]["httpHeaders"]}
        assert headers == {"Host": cluster_host, "X-Forwarded-Proto": "http"}


# ---------------------------------------------------------------------- BusyBox


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the scripts of `programs` with the shell of this machine, whose `sh -c` has the same syntax."""
    monkeypatch.setattr(programs, "BUSYBOX", str(Path(__file__).with_name("busybox.sh")))


@pytest.mark.usefixtures("shell")
def test_exported_variables_have_the_bytes_of_their_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, files in ((first, {"KEY": 'one\ntwo $HOME `id` "x"\n', "URL": "pooled"}), (second, {"URL": "direct"})):
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    program = "import json, os; print(json.dumps([os.environ['KEY'], os.environ['URL']]))"
    words = [*programs.export([str(first), str(second)]), "python3", "-c", program]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == ['one\ntwo $HOME `id` "x"\n', "direct"]


@pytest.mark.usefixtures("shell")
@pytest.mark.parametrize(
    ("command", "seconds", "code"),
    [
        ("exit 3", 20, 3),
        ("exit 0", 20, 0),
        ("exec sleep 60", 0.2, 124),
        ("trap 'exit 0' TERM; while :; do sleep 0.1; done", 0.2, 124),
    ],
)
def test_limit_ends_a_command_that_takes_too_long(command: str, seconds: float, code: int) -> None:
    words = [*programs.limit(seconds), "sh", "-c", command]
    assert subprocess.run(words, capture_output=True, timeout=20, check=False).returncode == code


def test_command_of_docker_exec_gets_the_variables_of_its_container() -> None:
    variables = programs.export([programs.ENV_FOLDER])
    assert programs.export_of([*variables, "/entrypoint"]) == variables
    assert programs.export_of(["/entrypoint"]) == []
