"""Tests of restores and of anonymised copies.

A restore loads old data into a second database. The next release uses this database, and a rollback returns to the first database.
"""

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import s3

from .stack import SECRETS, ClusterStack, DockerStack, Stack, create_board, deployment, eventually, steady_requests

KEYS = ("backup-key", "backup-access", "backup-secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stack"


def database(stack: Stack) -> dict[str, Any]:
    return stack.environment.setdefault("tiers", {}).setdefault("database", {})


def configure_backups(stack: Stack, target: dict[str, Any]) -> None:
    """Set the secrets and the target of the backups."""
    access, secret = s3.keys() if "s3" in target else ("", "")
    for name, value in zip(KEYS, (f"e2e-{stack.name}-key", access, secret), strict=True):
        if value:
            stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value, check=True)
    database(stack)["backup"] = {"target": target}


@pytest.fixture
def empty_bucket() -> None:
    """Remove the archives of an earlier run from the bucket, because a new stack of the same name must not use these archives."""
    for archive in (s3.HERE / "data" / s3.BUCKET).glob("board-e2e-*"):
        shutil.rmtree(archive)


def bucket(client: str) -> dict[str, Any]:
    """Return the setting `backup.target` for the lab's S3 server.

    Args:
        client: key of `lab.s3.endpoints`: `machine`, `containers` or `pods`.
    """
    keys = {"access_key": "backup-access", "secret_key": "backup-secret"}
    return {"s3": {"endpoint": s3.endpoints()[client], "bucket": s3.BUCKET, **keys}}


def run_ci(stack: Stack, module: str, *words: str, check: bool = True) -> str:
    """Run a module of `ci`, and return its output and errors. Then read the stack file again, because the module may change the file."""
    stack.write()
    process = subprocess.run(
        [sys.executable, "-m", f"ci.{module}", stack.name, *words],
        cwd=stack.app_folder, env=stack.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=590,
    )  # fmt: skip
    assert not check or not process.returncode, process.stdout
    stack.environment = yaml.safe_load(stack.settings.read_text())["config"][stack.key]
    return process.stdout


def message_bodies(stack: Stack) -> set[str]:
    """Return the texts of all messages that the api returns."""
    answer = stack.get("/api/messages?limit=100").json()
    return {message["body"] for message in (answer if isinstance(answer, list) else answer["messages"])}


def backed_up_database(stack: DockerStack) -> str:
    """Return the name of the database that the backup container saves."""
    [backup_container] = [container for container in stack.containers() if container.name.endswith("-backup-1")]
    return backup_container.exec_run(["printenv", "DATABASE_NAME"]).output.decode().strip()


def release_under_load(stack: Stack) -> None:
    """Deploy a release under load, and check that no request failed."""
    with steady_requests(stack) as statuses:
        stack.up()
        time.sleep(1)
    assert set(statuses) <= {"200", "201"}, statuses


def test_release_uses_the_restored_database_and_rollback_uses_the_first_database(folder: Path) -> None:
    with deployment_with_backups(create_board("docker", folder, "e2e-restore"), {"volume": True}) as stack:
        stack.post("before")
        run_ci(stack, "backup", "backup")
        stack.post("after")

        output = run_ci(stack, "restore", "latest")
        assert "equal to the backup" in output
        # The live database is unchanged, and the restored database has another name.
        assert {"before", "after"} <= message_bodies(stack)
        assert database(stack)["name"].startswith("board_r")

        release_under_load(stack)
        eventually(lambda: "before" in message_bodies(stack))
        assert "after" not in message_bodies(stack)
        assert backed_up_database(stack) == database(stack)["name"]

        stack.up(TIERS_RELEASE="previous")
        assert {"before", "after"} <= message_bodies(stack)
        assert backed_up_database(stack) == "board"


def deployment_with_backups(stack: Stack, target: dict[str, Any]) -> Any:
    """Configure backups, and return the context manager that deploys the stack."""
    configure_backups(stack, target)
    return deployment(stack)


@pytest.mark.long
def test_damaged_backup_is_not_restored(folder: Path) -> None:
    with deployment_with_backups(create_board("docker", folder, "e2e-broken"), {"volume": True}) as stack:
        stack.post("before")
        run_ci(stack, "backup", "backup")
        [backup_container] = [container for container in stack.containers() if container.name.endswith("-backup-1")]
        damage = (
            "import glob\n"
            "for name in glob.glob('/var/lib/backup/data/*/*'):\n"
            "  with open(name, 'r+b') as file: file.seek(40); file.write(bytes(64))"
        )
        code, output = backup_container.exec_run(["sh", "-c", f'chmod -R u+w /var/lib/backup; python3 -c "{damage}"'])
        assert not code, output
        assert "restore: " in run_ci(stack, "restore", "latest", check=False)
        assert "name" not in database(stack)
        assert "there is no backup nowhere" in run_ci(stack, "restore", "nowhere", check=False)


@pytest.mark.long
@pytest.mark.usefixtures("empty_bucket")
def test_data_of_another_environment_is_anonymised(tmp_path: Path) -> None:
    source = DockerStack(tmp_path / "source", "e2e-source")
    source.environment |= {"reload": False, "seed": False}
    copy = DockerStack(tmp_path / "copy", "e2e-copy")
    copy.environment |= {"reload": False, "seed": False}
    with deployment_with_backups(source, bucket("containers")), deployment_with_backups(copy, bucket("containers")):
        source.post("what a person wrote")
        run_ci(source, "backup", "backup")
        # Copy the stack file and the state of `source` to `copy`. In practice both stacks have one repository and one backend.
        (copy.app_folder / source.settings.name).write_text(source.settings.read_text())
        state = Path(".pulumi", "stacks", "board", f"{source.name}.json")
        (copy.folder / ".state" / state).write_text((source.folder / ".state" / state).read_text())

        assert "because copy_of is not set" in run_ci(copy, "restore", "--from", source.name, check=False)
        database(copy)["copy_of"] = source.name
        assert "there is no backup verified" in run_ci(copy, "restore", "--from", source.name, check=False)
        run_ci(source, "backup", "verify")
        anonymise = copy.app["database"].pop("anonymise")
        assert "app.database.anonymise" in run_ci(copy, "restore", "--from", source.name, check=False)
        copy.app["database"]["anonymise"] = anonymise

        run_ci(copy, "restore", "--from", source.name)
        release_under_load(copy)
        # Leave out the messages that `release_under_load` has written.
        assert {entry[:9] for entry in message_bodies(copy) if not entry.startswith("message ")} == {"Message 1"}
        # Copying in the other direction is refused, because the environment of the source has no key `copy_of`.
        assert "because copy_of is not set" in run_ci(source, "restore", "--from", copy.name, check=False)
        # Check that no backup container of the copy has the backup key of the source.
        for backup_container in (container for container in copy.containers() if container.name.endswith("-backup-1")):
            assert (
                f"e2e-{source.name}-key" not in backup_container.exec_run("grep -r . /tmp /run/secrets").output.decode()
            )


@pytest.mark.long
@pytest.mark.usefixtures("empty_bucket")
def test_database_cluster_is_restored_to_any_moment(folder: Path) -> None:
    stack = ClusterStack(folder, "e2e-moment")
    stack.environment |= {"reload": False, "seed": False, "protect_data": False}
    stack.environment["kubernetes"]["apart"] = "anywhere"
    # Set default limits, because the namespace's quota requires limits and a container of the pooler has none.
    stack.environment["kubernetes"]["namespace"]["limits"] = {"cpu": 0.5, "memory": "256Mi"}
    database(stack)["ha"] = True
    with deployment_with_backups(stack, bucket("pods")):
        stack.post("first")
        eventually(lambda: has_completed_backup(stack), 300)
        # The operator reports the last attempt to archive, and the first attempts may have failed.
        is_archived = "every change of the database is archived: from 20"
        eventually(lambda: is_archived in run_ci(stack, "check", check=False), 180)
        assert is_archived in stack.run_ci("check")
        time.sleep(2)
        moment = datetime.now(UTC)
        time.sleep(2)
        stack.post("second")
        run_ci(stack, "restore", moment.isoformat())
        assert {"first", "second"} <= message_bodies(stack)
        release_under_load(stack)
        assert "first" in message_bodies(stack)
        assert "second" not in message_bodies(stack)
        stack.up(TIERS_RELEASE="previous")
        assert {"first", "second"} <= message_bodies(stack)
        # Check that the restore has removed its temporary database server.
        assert stack.kubectl("get", "clusters.postgresql.cnpg.io", "--output=name").split() == [
            "cluster.postgresql.cnpg.io/database-ha"
        ]
        assert "in the future" in run_ci(stack, "restore", "2999-01-01T00:00:00Z", check=False)
        check_no_secret_is_leaked(stack, {*s3.keys(), f"e2e-{stack.name}-key", *SECRETS.values()})
        # Check that rclone has encrypted all archived files.
        archived_files = [
            file for file in (s3.HERE / "data" / s3.BUCKET / "board-e2e-moment-changes").rglob("*") if file.is_file()
        ]
        assert archived_files
        assert all(file.read_bytes()[:6] == b"RCLONE" for file in archived_files)


def check_no_secret_is_leaked(stack: ClusterStack, secrets: set[str]) -> None:
    """Check that the state, Kubernetes objects, events, logs and processes contain no secret value. Secret objects are not checked.

    Processes of the archive proxy (rclone) are not checked either, because rclone reads its keys only from environment variables
    (docs/secrets-and-state.md).
    """
    kinds = (
        "all,configmaps,events,clusters.postgresql.cnpg.io,poolers.postgresql.cnpg.io,objectstores.barmancloud.cnpg.io"
    )
    sources = {
        "state": stack.pulumi("stack", "export", check=True).text,
        "objects": stack.kubectl("get", kinds, "--output=yaml"),
    }
    for pod in stack.kubectl("get", "pods", "--output=name").split():
        sources[pod] = stack.kubectl("logs", pod, "--all-containers", check=False)
        sources[f"{pod}'s processes"] = stack.kubectl(
            "exec", pod, "--", "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'", check=False
        )
    # Check that the command above can read the environment of processes: the environment of the archive proxy contains a key.
    proxy_processes = sources.pop("pod/vault-0's processes")
    assert "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY=" in proxy_processes
    assert not [source for source, text in sources.items() for secret in secrets if secret in text]


def has_completed_backup(stack: ClusterStack) -> bool:
    """Return whether a base backup of the database cluster is completed."""
    return "completed" in stack.kubectl(
        "get", "backups.postgresql.cnpg.io", "--output=jsonpath={.items[*].status.phase}"
    )
