"""Tests of applications that the program knows nothing about: an image without a shell, and one that reads only DATABASE_URL.

The tests run in file order, from the first deployment to the removal.
"""

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually, repeat_requests

STRANGERS = Path(__file__).parent / "strangers"
PASSWORD = "p@ss:w/o#rd%?&= ü\"'$x"
KEY = 'line one\nline two $HOME `id` "quoted"\n'


def describe(stack: Stack) -> None:
    """Replace the board by a static web service, an api and a worker that read DATABASE_URL and SECRET_KEY."""
    for folder in STRANGERS.iterdir():
        shutil.copytree(folder, stack.app_folder / "strangers" / folder.name, dirs_exist_ok=True)
    reads = {
        "build": "strangers/url",
        "needs": ["database"],
        "secret_env": {
            "DATABASE_URL": "postgresql://${database.user}:${database.password}@${database.host}:${database.port}/${database.name}",
            "SECRET_KEY": "${secrets.session-key}",
        },
    }
    database = {key: value for key, value in stack.app["database"].items() if key in ("name", "user", "image")}
    for key in list(stack.app):
        if key not in ("name", "version"):
            del stack.app[key]
    host = urlsplit(stack.address).hostname
    stack.app |= {
        "web": {"build": "strangers/scratch", "port": 8080},
        "api": {
            **reads, "port": 8000, "health": "/api/health", "env": {"ALLOWED_HOST": host},
            "migrate": {"command": ["migrate"], "check": ["python3", "/srv/app.py", "alive"]},
        },
        "worker": {**reads, "command": ["work"], "alive": ["python3", "/srv/app.py", "alive"]},
        "database": database,
    }  # fmt: skip
    stack.environment["tiers"] = {}
    stack.environment.pop("monitoring", None)


def set_secret(stack: Stack, name: str, value: str) -> None:
    stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", "--stack", stack.name, value, check=True)


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("strangers"), "e2e-strangers")
    describe(stack)
    set_secret(stack, "session-key", KEY)
    set_secret(stack, "database-password", PASSWORD)
    with deployment(stack):
        yield stack


def visits(stack: Stack) -> int:
    return int(stack.get("/api/visits").text)


def test_application_without_shell_and_application_with_a_database_url_run(stack: Stack) -> None:
    assert "<h1>static</h1>" in stack.get("/").text
    before = visits(stack)
    eventually(lambda: visits(stack) > before)
    assert set(stack.up().changes) == {"unchanged"}


def test_value_of_a_secret_reaches_the_process_unchanged(stack: Stack) -> None:
    assert stack.get("/api/key").text == hashlib.sha256(KEY.encode()).hexdigest()


def test_commands_in_a_container_get_the_variables_with_secrets(stack: Stack) -> None:
    program = "import os; print(len(os.environ['SECRET_KEY']), os.environ['DATABASE_URL'][:13])"
    assert (
        stack.run_ci("container", "api", shlex.join(["python3", "-c", program])).strip() == f"{len(KEY)} postgresql://"
    )
    assert "the check of api succeeds" in stack.run_ci("check")


def test_secrets_are_in_no_plain_text_of_state_or_platform(stack: Stack) -> None:
    texts = [stack.pulumi("stack", "export", check=True).text]
    if isinstance(stack, DockerStack):
        texts += [json.dumps(container.attrs) for container in stack.containers()]
    if isinstance(stack, ClusterStack):
        texts.append(stack.kubectl("get", "deployments,pods,jobs", "--output=json"))
    for text in texts:
        assert "line two" not in text
        assert "p@ss" not in text
        assert "p%40ss" not in text


def test_release_under_load_loses_no_request_and_goes_back(stack: Stack) -> None:
    def request(number: int) -> int:
        return stack.get("/api/visits" if number % 2 else "/").status_code

    with repeat_requests(request, 0.05) as statuses:
        stack.app["version"] = "9.9.9"
        stack.up()
        stack.up(TIERS_RELEASE="previous")
    assert set(statuses) == {"200"}, statuses


def test_changed_secret_is_a_new_release(stack: Stack) -> None:
    set_secret(stack, "session-key", "another key")
    stack.up()
    eventually(lambda: stack.get("/api/key").text == hashlib.sha256(b"another key").hexdigest())


def test_task_that_exceeds_its_timeout_is_ended_and_live_is_unchanged(stack: Stack) -> None:
    release = stack.serving_release()
    stack.app["api"]["tasks"] = {"slow": {"command": ["slow"], "timeout": "5s"}}
    refused = stack.up(check=False)
    del stack.app["api"]["tasks"]
    assert refused.code
    assert "did not finish in time" in refused.text or "DeadlineExceeded" in refused.text
    assert stack.serving_release() == release
