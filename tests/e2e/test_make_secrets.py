"""Tests of `make secrets` with the real Pulumi.

The command must write encrypted values to the stack file, and ask a person at a terminal for missing values.
"""

import os
import pty
import subprocess
from pathlib import Path

import pytest
import yaml

from .stack import copy_repository

PASSPHRASE = "of-this-test"
ENTERED = "from the mail provider"


class Staging:
    """Environment `staging` of the board in a copy of the repository. Its api reads the secret `mail-password`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stack_file = folder, folder / "Pulumi.staging.yaml"
        folder.mkdir()
        copy_repository(folder)
        state = folder / ".state"
        state.mkdir()
        self.variables = os.environ | {"PULUMI_BACKEND_URL": f"file://{state}", "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}
        project = yaml.safe_load((folder / "Pulumi.yaml").read_text())
        project["config"]["app"]["value"]["api"]["secrets"] = ["mail-password"]
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))

    def make_secrets(self, entered: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `make secrets`. If `entered` is a text, the command has a terminal at which a person enters the text."""
        words = ["make", "secrets", "ENV=staging"]
        controller, terminal = pty.openpty()
        try:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self.variables, text=True, start_new_session=True,
                stdin=subprocess.DEVNULL if entered is None else terminal,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert process.stdout
            printed = ""
            # The prompt discards all input before it.
            while entered is not None and not printed.endswith("value): ") and (character := process.stdout.read(1)):
                printed += character
            if entered is not None:
                os.write(controller, f"{entered}\n".encode())
            printed += process.communicate(timeout=300)[0]
        finally:
            os.close(controller)
            os.close(terminal)
        return subprocess.CompletedProcess(words, process.returncode, printed)

    def secret(self, name: str) -> str:
        """Return the decrypted value of a secret."""
        words = ["config", "get", "--path", f"secrets.{name}", "--stack", "staging"]
        done = subprocess.run(
            ["pulumi", *words], cwd=self.folder, env=self.variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Staging:
    return Staging(tmp_path_factory.mktemp("secrets") / "clone")


def test_missing_passphrase_is_reported_before_a_stack_is_created(staging: Staging) -> None:
    del staging.variables["PULUMI_CONFIG_PASSPHRASE"]
    done = staging.make_secrets()
    staging.variables["PULUMI_CONFIG_PASSPHRASE"] = PASSPHRASE
    assert done.returncode
    assert "PULUMI_CONFIG_PASSPHRASE is not set; export the passphrase" in done.stdout
    assert not (staging.folder / ".state" / ".pulumi" / "stacks").exists()


def test_passwords_are_generated_and_other_secrets_are_listed_without_a_terminal(staging: Staging) -> None:
    done = staging.make_secrets()
    assert done.returncode
    assert "secrets.mail-password: app.api.secrets uses this secret, but its value is missing" in done.stdout
    passwords = {staging.secret("database-password"), staging.secret("cache-password")}
    assert sorted(map(len, passwords)) == [48, 48]
    written = staging.stack_file.read_text() + done.stdout
    assert not [password for password in passwords if password in written]


def test_person_at_a_terminal_enters_the_missing_secret(staging: Staging) -> None:
    password = staging.secret("database-password")
    done = staging.make_secrets(ENTERED)
    assert not done.returncode, done.stdout
    assert "mail-password, for app.api.secrets (Enter generates a random value): " in done.stdout
    assert staging.secret("mail-password") == ENTERED
    assert staging.secret("database-password") == password
    assert ENTERED not in done.stdout + staging.stack_file.read_text()


def test_complete_stack_file_is_not_changed(staging: Staging) -> None:
    before = staging.stack_file.read_bytes()
    done = staging.make_secrets()
    assert not done.returncode, done.stdout
    assert staging.stack_file.read_bytes() == before
