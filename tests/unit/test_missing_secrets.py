"""Tests of `make secrets`, which generates the missing secrets of an environment or asks for them."""

from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import RunError

from ci import missing_secrets
from components.config import load_app, load_environment

from .program import environment, project

S3 = {"endpoint": "https://s3.example.org", "bucket": "b", "access_key": "s3-name", "secret_key": "s3-key"}
BACKUP = {"key": "backup-key", "schedule": "0 3 * * *", "target": {"s3": S3}}


class Stack:
    """Stack file and state of a stack, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.is_deployed = False
        self.app: dict[str, Any] = project() | {"api": project()["api"] | {"secrets": ["mail-password"]}}
        self.environment: dict[str, Any] = environment("dev")

    def load(self, stack: str) -> tuple[Any, Any]:
        app = load_app(self.app)
        return app, load_environment(self.environment, app)

    def write(self, stack: str, name: str, value: str) -> None:
        self.values[name] = value


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Replace the stack file and the state by a stack in memory. The process has no terminal."""
    stack = Stack()
    monkeypatch.setattr(missing_secrets.pulumi_stack, "load", stack.load)
    monkeypatch.setattr(missing_secrets.pulumi_stack, "secrets", lambda _: stack.values)
    monkeypatch.setattr(missing_secrets, "_is_deployed", lambda _: stack.is_deployed)
    monkeypatch.setattr(missing_secrets.pulumi_stack, "set_secret", stack.write)
    monkeypatch.setattr(missing_secrets.sys, "stdin", SimpleNamespace(isatty=lambda: False))
    return stack


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Simulate a terminal on which a person enters these lines. Return a list that gets each prompt when it is shown."""
    lines, prompts = iter(answers), list[str]()

    def enter(prompt: str) -> str:
        prompts.append(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(missing_secrets.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(missing_secrets, "getpass", enter)
    return prompts


def test_passwords_are_generated_and_secrets_of_the_application_are_listed_without_a_terminal(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError) as error:
        missing_secrets.main("dev")
    assert set(stack.values) == {"database-password", "cache-password"}
    assert len(set(stack.values.values())) == 2
    assert all(len(value) == 48 for value in stack.values.values())
    assert str(error.value).startswith(
        "secrets.mail-password: app.api.secrets uses this secret, but its value is missing\n"
    )
    printed = capsys.readouterr().out + str(error.value)
    assert not any(value in printed for value in stack.values.values())


def test_secret_of_the_application_is_asked_for_once_on_a_terminal(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = answer(monkeypatch, "from the provider")
    missing_secrets.main("dev")
    assert stack.values["mail-password"] == "from the provider"
    assert prompts == ["  mail-password, for app.api.secrets (Enter generates a random value): "]
    before = dict(stack.values)
    missing_secrets.main("dev")
    assert stack.values == before


def test_empty_answer_generates_a_secret_and_the_end_of_the_input_is_reported_as_an_error(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "")
    missing_secrets.main("dev")
    assert len(stack.values.pop("mail-password")) == 48
    answer(monkeypatch)
    with pytest.raises(RunError, match=r"secrets\.mail-password: no value was entered; run the same command again"):
        missing_secrets.main("dev")


def test_password_of_a_deployed_stack_is_never_generated(stack: Stack) -> None:
    stack.is_deployed = True
    with pytest.raises(RunError, match=r"secrets\.database-password: app\.database\.password uses this secret"):
        missing_secrets.main("dev")
    assert not stack.values


def test_invalid_password_of_an_external_service_is_refused_and_asked_for_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    external = {"external": {"host": "192.0.2.7"}}
    stack.environment = environment("staging") | {"tiers": {"database": external}}
    prompts = answer(monkeypatch, " padded ", "valid", "mail")
    missing_secrets.main("staging")
    assert [prompt.split(",")[0].strip() for prompt in prompts] == ["database-password"] * 2 + ["mail-password"]
    assert stack.values["database-password"] == "valid"
    printed = capsys.readouterr().out
    assert "it begins or ends with white space" in printed
    assert "padded" not in printed


def test_backup_key_is_generated_and_keys_of_the_bucket_are_asked_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.environment = environment("staging") | {"tiers": {"database": {"backup": BACKUP}}}
    prompts = answer(monkeypatch, "the-secret", "the-name", "mail")
    missing_secrets.main("staging")
    assert len(stack.values["backup-key"]) == 48
    assert [prompt.split(",")[0].strip() for prompt in prompts] == ["mail-password", "s3-key", "s3-name"]


def test_secret_that_exists_in_the_cluster_is_neither_generated_nor_asked_for(stack: Stack) -> None:
    settings = environment("staging")
    in_cluster = {"mail-password": {"secret": "mail", "key": "password"}}
    stack.environment = settings | {"kubernetes": settings["kubernetes"] | {"secrets": in_cluster}}
    missing_secrets.main("staging")
    assert set(stack.values) == {"database-password", "cache-password"}
