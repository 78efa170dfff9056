"""State and secrets: another backend, another secrets provider, another passphrase, and lost state."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lab import aws

from .stack import SECRETS, DockerStack, deployed, eventually, free_port

pytestmark = pytest.mark.long


class CloudStack(DockerStack):
    """A stack with its state in a bucket and its secrets under a key of a key service."""

    keeper = "awskms://alias/tiers?region=us-east-1"


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    """Start the stand-in for S3 and KMS with a bucket and a key, and yield its address."""
    address = f"127.0.0.1:{free_port()}"
    host, _, port = address.partition(":")
    if not aws.SERVER.exists():
        raise RuntimeError("no stand-in of S3 and KMS: run `make lab`, then `make e2e`")
    server = subprocess.Popen(
        [aws.SERVER, "-H", host, "-p", port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: requests.put(f"http://{address}/tiers", timeout=5).ok)
        key = kms(address, "CreateKey")["KeyMetadata"]["KeyId"]
        kms(address, "CreateAlias", AliasName="alias/tiers", TargetKeyId=key)
        yield address
    finally:
        server.terminate()
        server.wait()


def kms(address: str, verb: str, **parameters: str) -> dict[str, dict[str, str]]:
    """Send a request to the key service."""
    headers = {"X-Amz-Target": f"TrentService.{verb}", **signed("kms")}
    answer = requests.post(f"http://{address}/", json=parameters, headers=headers, timeout=10)
    answer.raise_for_status()
    return json.loads(answer.text or "{}")


def signed(service: str) -> dict[str, str]:
    """Return the header that names the service of a request; the stand-in checks nothing else."""
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential=e2e/20260101/us-east-1/{service}/aws4_request"}


@pytest.fixture(scope="module")
def stack(cloud: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    board = CloudStack(
        tmp_path_factory.mktemp("state"),
        "state",
        PULUMI_BACKEND_URL=f"s3://tiers?region=us-east-1&endpoint={cloud}&disableSSL=true&s3ForcePathStyle=true",
        AWS_ENDPOINT_URL=f"http://{cloud}",
        AWS_ACCESS_KEY_ID="e2e",
        AWS_SECRET_ACCESS_KEY="e2e",
    )
    board.environment |= {"reload": False, "seed": False}
    try:
        board.up()
        yield board
    finally:
        board.destroy(check=False)


def test_state_is_in_a_bucket_and_secrets_are_under_a_key(stack: DockerStack, cloud: str) -> None:
    assert set(stack.up().changed) == {"unchanged"}
    state = requests.get(f"http://{cloud}/tiers/.pulumi/stacks/board/state.json", headers=signed("s3"), timeout=10)
    assert state.ok
    assert "awskms://alias/tiers" in state.text
    written = state.text + stack.settings.read_text()
    assert not [value for value in SECRETS.values() if value in written]
    assert not (stack.folder / ".state" / ".pulumi").exists()
    assert stack.ci("heal") == ""


def test_changed_secrets_provider_or_passphrase_is_no_release(stack: DockerStack) -> None:
    stack.variables["PULUMI_CONFIG_PASSPHRASE"] = "the first"
    kept_by(stack, "passphrase")
    assert set(stack.up().changed) == {"unchanged"}
    kept_by(stack, "passphrase", "the second")
    assert "incorrect passphrase" in stack.up(check=False).text
    stack.variables["PULUMI_CONFIG_PASSPHRASE"] = "the second"
    assert set(stack.up().changed) == {"unchanged"}


def kept_by(stack: DockerStack, keeper: str, passphrase: str = "") -> None:
    subprocess.run(
        ["pulumi", "stack", "change-secrets-provider", keeper, "--stack", stack.name],
        cwd=stack.folder, env=stack.variables, input=f"{passphrase}\n", text=True, capture_output=True, check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bereft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    """Deploy a stack that loses its passphrase, and then its state."""
    stack = DockerStack(tmp_path_factory.mktemp("bereft"), "e2e-lost")
    stack.environment |= {"reload": False, "seed": False}
    with deployed(stack):
        yield stack
    assert stack.left() == []


def test_lost_passphrase_loses_no_secret(bereft: DockerStack) -> None:
    before = bereft.live()
    bereft.variables["PULUMI_CONFIG_PASSPHRASE"] = "another"
    assert "incorrect passphrase" in bereft.up(check=False).text
    settings = re.sub(r"^encryptionsalt:.*\n|^ *secure:.*\n", "", bereft.settings.read_text(), flags=re.MULTILINE)
    bereft.settings.write_text(settings)
    for name in SECRETS:
        [api] = [container for container in bereft.containers() if container.name.endswith("blue-api-1")]
        value = api.exec_run(["cat", f"/run/secrets/{name}"]).output.decode()
        bereft.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value, check=True)
    assert "run `pulumi up`" in bereft.ci("reseal")
    running = bereft.generations("blue")
    bereft.up()
    assert (bereft.live(), bereft.generations("blue")) == (before, running)
    assert set(bereft.up().changed) == {"unchanged"}


def test_lost_state_without_a_copy_is_rebuilt_around_the_data(bereft: DockerStack) -> None:
    stack = bereft
    message = stack.post("outlives the state")["id"]
    before, settings = stack.live(), stack.settings.read_text()
    shutil.rmtree(stack.folder / ".state")
    (stack.folder / ".state").mkdir()
    stack.pulumi("stack", "init", stack.name, check=True)
    stack.settings.write_text(settings)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        stack.ci("heal")
    assert "the state of stack e2e-lost is empty" in refused.value.stderr
    assert stack.live() == before, "healing with another backend must not touch the live slot"
    stack.variables["TIERS_FORCE"] = "state"
    assert "removed board-e2e-lost-blue-api-1" in stack.ci("heal")
    stack.variables.pop("TIERS_FORCE")
    stack.up()
    assert stack.live() == before
    assert stack.get(f"/api/messages/{message}").json()["body"] == "outlives the state"
    assert set(stack.up().changed) == {"unchanged"}


def test_lost_state_is_restored_from_its_copy(stack: DockerStack, tmp_path: Path) -> None:
    before, copy = stack.live(), tmp_path / "copy.json"
    stack.pulumi("stack", "export", "--stack", stack.name, "--file", str(copy), check=True)
    settings = stack.settings.read_text()
    stack.variables["PULUMI_BACKEND_URL"] = f"file://{stack.folder / '.state'}"
    stack.pulumi("stack", "init", stack.name, check=True)
    stack.settings.write_text(settings)
    stack.pulumi("stack", "import", "--stack", stack.name, "--file", str(copy), check=True)
    assert set(stack.up().changed) == {"unchanged"}
    assert stack.live() == before
    stack.destroy()
    assert stack.left() == []
