"""Tests of state and secrets: state in a bucket, lost state, changed secrets provider, changed passphrase, lost passphrase."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lab import aws

from .stack import SECRETS, DockerStack, deployment, eventually, free_port

pytestmark = pytest.mark.long


class CloudStack(DockerStack):
    """A stack whose state is in a bucket and whose secrets are encrypted by a key of a key service."""

    secrets_provider = "awskms://alias/tiers?region=us-east-1"


@pytest.fixture(scope="module")
def cloud_address() -> Iterator[str]:
    """Start moto, which serves S3 and KMS. Create a bucket and a key, and yield the address (host:port)."""
    address = f"127.0.0.1:{free_port()}"
    host, _, port = address.partition(":")
    if not aws.SERVER.exists():
        raise RuntimeError("moto, which serves S3 and KMS, is missing; run `make lab`, then `make e2e`")
    server = subprocess.Popen(
        [aws.SERVER, "-H", host, "-p", port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: requests.put(f"http://{address}/tiers", timeout=5).ok)
        key = call_kms(address, "CreateKey")["KeyMetadata"]["KeyId"]
        call_kms(address, "CreateAlias", AliasName="alias/tiers", TargetKeyId=key)
        yield address
    finally:
        server.terminate()
        server.wait()


def call_kms(address: str, verb: str, **parameters: str) -> dict[str, dict[str, str]]:
    """Send a request to the KMS of moto, and return the answer."""
    headers = {"X-Amz-Target": f"TrentService.{verb}", **service_header("kms")}
    answer = requests.post(f"http://{address}/", json=parameters, headers=headers, timeout=10)
    answer.raise_for_status()
    return json.loads(answer.text or "{}")


def service_header(service: str) -> dict[str, str]:
    """Return an Authorization header for a service. moto reads only the name of the service from this header."""
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential=e2e/20260101/us-east-1/{service}/aws4_request"}


@pytest.fixture(scope="module")
def stack(cloud_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    board = CloudStack(
        tmp_path_factory.mktemp("state"),
        "e2e-state",
        PULUMI_BACKEND_URL=f"s3://tiers?region=us-east-1&endpoint={cloud_address}&disableSSL=true&s3ForcePathStyle=true",
        AWS_ENDPOINT_URL=f"http://{cloud_address}",
        AWS_ACCESS_KEY_ID="e2e",
        AWS_SECRET_ACCESS_KEY="e2e",
    )
    board.environment |= {"reload": False, "seed": False}
    try:
        board.up()
        yield board
    finally:
        board.destroy(check=False)


def test_state_is_in_a_bucket_and_secrets_are_encrypted_by_a_key(stack: DockerStack, cloud_address: str) -> None:
    assert set(stack.up().changes) == {"unchanged"}
    state = requests.get(
        f"http://{cloud_address}/tiers/.pulumi/stacks/board/e2e-state.json", headers=service_header("s3"), timeout=10
    )
    assert state.ok
    assert "awskms://alias/tiers" in state.text
    stored_text = state.text + stack.settings.read_text()
    assert not [value for value in SECRETS.values() if value in stored_text]
    assert not (stack.folder / ".state" / ".pulumi").exists()
    assert stack.run_ci("heal") == ""


def test_changed_secrets_provider_or_passphrase_causes_no_release(stack: DockerStack) -> None:
    stack.variables["PULUMI_CONFIG_PASSPHRASE"] = "the first"
    change_secrets_provider(stack, "passphrase")
    assert set(stack.up().changes) == {"unchanged"}
    change_secrets_provider(stack, "passphrase", "the second")
    assert "incorrect passphrase" in stack.up(check=False).text
    stack.variables["PULUMI_CONFIG_PASSPHRASE"] = "the second"
    assert set(stack.up().changes) == {"unchanged"}


def change_secrets_provider(stack: DockerStack, secrets_provider: str, passphrase: str = "") -> None:
    subprocess.run(
        ["pulumi", "stack", "change-secrets-provider", secrets_provider, "--stack", stack.name],
        cwd=stack.folder, env=stack.variables, input=f"{passphrase}\n", text=True, capture_output=True, check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lossy_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    """Deploy a stack. The tests lose its passphrase and its state."""
    stack = DockerStack(tmp_path_factory.mktemp("lossy"), "e2e-lost")
    stack.environment |= {"reload": False, "seed": False}
    with deployment(stack):
        yield stack
    assert stack.leftovers() == []


def test_secrets_are_read_from_a_container_after_the_passphrase_is_lost(lossy_stack: DockerStack) -> None:
    before = lossy_stack.live()
    lossy_stack.variables["PULUMI_CONFIG_PASSPHRASE"] = "another"
    assert "incorrect passphrase" in lossy_stack.up(check=False).text
    settings = re.sub(r"^encryptionsalt:.*\n|^ *secure:.*\n", "", lossy_stack.settings.read_text(), flags=re.MULTILINE)
    lossy_stack.settings.write_text(settings)
    for name in SECRETS:
        [api] = [container for container in lossy_stack.containers() if container.name.endswith("blue-api-1")]
        value = api.exec_run(["cat", f"/run/secrets/{name}"]).output.decode()
        lossy_stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value, check=True)
    assert "run `pulumi up`" in lossy_stack.run_ci("reseal")
    running = lossy_stack.generations("blue")
    lossy_stack.up()
    assert (lossy_stack.live(), lossy_stack.generations("blue")) == (before, running)
    assert set(lossy_stack.up().changes) == {"unchanged"}


def test_lost_state_without_a_copy_is_recreated_without_data_loss(lossy_stack: DockerStack) -> None:
    stack = lossy_stack
    message = stack.post("outlives the state")["id"]
    before, settings = stack.live(), stack.settings.read_text()
    shutil.rmtree(stack.folder / ".state")
    (stack.folder / ".state").mkdir()
    stack.pulumi("stack", "init", stack.name, check=True)
    stack.settings.write_text(settings)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        stack.run_ci("heal")
    assert "the state of stack e2e-lost is empty" in refused.value.stderr
    assert stack.live() == before, "healing with an empty state must not touch the live slot"
    stack.variables["TIERS_FORCE"] = "state"
    assert "removed board-e2e-lost-blue-api-1" in stack.run_ci("heal")
    stack.variables.pop("TIERS_FORCE")
    stack.up()
    assert stack.live() == before
    assert stack.get(f"/api/messages/{message}").json()["body"] == "outlives the state"
    assert set(stack.up().changes) == {"unchanged"}


def test_lost_state_is_restored_from_its_copy(stack: DockerStack, tmp_path: Path) -> None:
    before, copy = stack.live(), tmp_path / "copy.json"
    stack.pulumi("stack", "export", "--stack", stack.name, "--file", str(copy), check=True)
    settings = stack.settings.read_text()
    stack.variables["PULUMI_BACKEND_URL"] = f"file://{stack.folder / '.state'}"
    stack.pulumi("stack", "init", stack.name, check=True)
    stack.settings.write_text(settings)
    stack.pulumi("stack", "import", "--stack", stack.name, "--file", str(copy), check=True)
    assert set(stack.up().changes) == {"unchanged"}
    assert stack.live() == before
    stack.destroy()
    assert stack.leftovers() == []
