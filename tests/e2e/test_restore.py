"""Restores: old data in a new database beside the current one, reached by a release and left by a rollback; and anonymised copies."""

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

from .stack import SECRETS, ClusterStack, DockerStack, Stack, deployed, eventually, on, requests_flowing

KEYS = ("backup-key", "backup-access", "backup-secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stack"


def database(stack: Stack) -> dict[str, Any]:
    return stack.environment.setdefault("tiers", {}).setdefault("database", {})


def backed_up(stack: Stack, target: dict[str, Any]) -> None:
    """Configure backups of the environment."""
    access, secret = s3.keys() if "s3" in target else ("", "")
    for name, value in zip(KEYS, (f"e2e-{stack.name}-key", access, secret), strict=True):
        if value:
            stack.pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value, check=True)
    database(stack)["backup"] = {"target": target}


@pytest.fixture
def emptied() -> None:
    """Remove the bucket's content of an earlier run: archives of a stack created again under its name must not mix."""
    for left in (s3.HERE / "data" / s3.BUCKET).glob("board-c-*"):
        shutil.rmtree(left)


def bucket(who: str) -> dict[str, Any]:
    keys = {"access_key": "backup-access", "secret_key": "backup-secret"}
    return {"s3": {"endpoint": s3.endpoints()[who], "bucket": s3.BUCKET, **keys}}


def ci(stack: Stack, module: str, *words: str, check: bool = True) -> str:
    """Run a module of `ci`, read the stack file that it may have changed, and return its output."""
    stack.write()
    done = subprocess.run(
        [sys.executable, "-m", f"ci.{module}", stack.name, *words],
        cwd=stack.here, env=stack.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=590,
    )  # fmt: skip
    assert not check or not done.returncode, done.stdout
    stack.environment = yaml.safe_load(stack.settings.read_text())["config"][stack.key]
    return done.stdout


def bodies(stack: Stack) -> set[str]:
    answer = stack.get("/api/messages?limit=100").json()
    return {message["body"] for message in (answer if isinstance(answer, list) else answer["messages"])}


def backed_up_is(stack: DockerStack) -> str:
    """Return the name of the database that is backed up."""
    [holder] = [container for container in stack.containers() if container.name.endswith("-backup-1")]
    return holder.exec_run(["printenv", "DATABASE_NAME"]).output.decode().strip()


def released_under_load(stack: Stack) -> None:
    """Release as usual: users notice nothing."""
    with requests_flowing(stack) as seen:
        stack.up()
        time.sleep(1)
    assert set(seen) <= {"200", "201"}, seen


def test_restore_goes_live_by_a_release_and_is_left_by_a_rollback(folder: Path) -> None:
    with deployed_with_backups(on("docker", folder, "e2e-restore"), {"volume": True}) as stack:
        stack.post("before")
        ci(stack, "backup", "backup")
        stack.post("after")

        output = ci(stack, "restore", "latest")
        assert "equal what was saved" in output
        # The live database is unchanged, and the restored one is another database.
        assert {"before", "after"} <= bodies(stack)
        assert database(stack)["name"].startswith("board_r")

        released_under_load(stack)
        eventually(lambda: "before" in bodies(stack))
        assert "after" not in bodies(stack)
        assert backed_up_is(stack) == database(stack)["name"]

        stack.up(TIERS_RELEASE="previous")
        assert {"before", "after"} <= bodies(stack)
        assert backed_up_is(stack) == "board"


def deployed_with_backups(stack: Stack, target: dict[str, Any]) -> Any:
    backed_up(stack, target)
    return deployed(stack)


@pytest.mark.long
def test_damaged_backup_is_not_restored(folder: Path) -> None:
    with deployed_with_backups(on("docker", folder, "e2e-broken"), {"volume": True}) as stack:
        stack.post("before")
        ci(stack, "backup", "backup")
        [holder] = [container for container in stack.containers() if container.name.endswith("-backup-1")]
        damage = (
            "import glob\n"
            "for name in glob.glob('/var/lib/backup/data/*/*'):\n"
            "  with open(name, 'r+b') as file: file.seek(40); file.write(bytes(64))"
        )
        code, output = holder.exec_run(["sh", "-c", f'chmod -R u+w /var/lib/backup; python3 -c "{damage}"'])
        assert not code, output
        assert "restore: " in ci(stack, "restore", "latest", check=False)
        assert "name" not in database(stack)
        assert "there is no backup nowhere" in ci(stack, "restore", "nowhere", check=False)


@pytest.mark.long
@pytest.mark.usefixtures("emptied")
def test_data_of_another_environment_is_anonymised(tmp_path: Path) -> None:
    source = DockerStack(tmp_path / "source", "e2e-source")
    source.environment |= {"reload": False, "seed": False}
    copy = DockerStack(tmp_path / "copy", "e2e-copy")
    copy.environment |= {"reload": False, "seed": False}
    with deployed_with_backups(source, bucket("containers")), deployed_with_backups(copy, bucket("containers")):
        source.post("what a person wrote")
        ci(source, "backup", "backup")
        # A restore reads both stack files from one state, as in a team.
        (copy.here / source.settings.name).write_text(source.settings.read_text())
        state = Path(".pulumi", "stacks", "board", f"{source.name}.json")
        (copy.folder / ".state" / state).write_text((source.folder / ".state" / state).read_text())

        assert "is nobody's copy" in ci(copy, "restore", "--from", source.name, check=False)
        database(copy)["copy_of"] = source.name
        assert "there is no backup verified" in ci(copy, "restore", "--from", source.name, check=False)
        ci(source, "backup", "verify")
        anonymise = copy.app["database"].pop("anonymise")
        assert "app.database.anonymise" in ci(copy, "restore", "--from", source.name, check=False)
        copy.app["database"]["anonymise"] = anonymise

        ci(copy, "restore", "--from", source.name)
        released_under_load(copy)
        # Messages written here since, under load, are left out.
        assert {entry[:9] for entry in bodies(copy) if not entry.startswith("message ")} == {"Message 1"}
        # In the other direction: the source has no copy_of.
        assert "is nobody's copy" in ci(source, "restore", "--from", copy.name, check=False)
        # The key of the source's backups is nowhere in the copy.
        for holder in (container for container in copy.containers() if container.name.endswith("-backup-1")):
            assert f"e2e-{source.name}-key" not in holder.exec_run("grep -r . /tmp /run/secrets").output.decode()


@pytest.mark.long
@pytest.mark.usefixtures("emptied")
def test_database_cluster_is_restored_to_any_moment(folder: Path) -> None:
    stack = ClusterStack(folder, "e2e-moment")
    stack.environment |= {"reload": False, "seed": False, "protect_data": False}
    stack.environment["kubernetes"]["apart"] = "anywhere"
    # A container of the pooler has no limits of its own, and the namespace has a quota.
    stack.environment["kubernetes"]["namespace"]["limits"] = {"cpu": 0.5, "memory": "256Mi"}
    database(stack)["ha"] = True
    with deployed_with_backups(stack, bucket("pods")):
        stack.post("first")
        eventually(lambda: first_backup(stack), 300)
        assert "every change of the database is archived: from 20" in stack.ci("check")
        time.sleep(2)
        moment = datetime.now(UTC)
        time.sleep(2)
        stack.post("second")
        ci(stack, "restore", moment.isoformat())
        assert {"first", "second"} <= bodies(stack)
        released_under_load(stack)
        assert "first" in bodies(stack)
        assert "second" not in bodies(stack)
        stack.up(TIERS_RELEASE="previous")
        assert {"first", "second"} <= bodies(stack)
        # The server that replayed the changes is gone.
        assert stack.kubectl("get", "clusters.postgresql.cnpg.io", "--output=name").split() == [
            "cluster.postgresql.cnpg.io/database-ha"
        ]
        assert "in the future" in ci(stack, "restore", "2999-01-01T00:00:00Z", check=False)
        no_secret_is_leaked(stack, {*s3.keys(), f"e2e-{stack.name}-key", *SECRETS.values()})
        # The bucket's content can't be read without the key.
        archived = [
            file for file in (s3.HERE / "data" / s3.BUCKET / "board-e2e-moment-changes").rglob("*") if file.is_file()
        ]
        assert archived
        assert all(file.read_bytes()[:6] == b"RCLONE" for file in archived)


def no_secret_is_leaked(stack: ClusterStack, secrets: set[str]) -> None:
    """Assert that no secret is in the state, in objects, events, logs or processes; Secrets may have them.

    The archive proxy is an exception: rclone reads its keys from environment variables only (docs/secrets-and-state.md).
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
    # The archive proxy also shows that the environment of processes is really read, not only that of the reader itself.
    vault = sources.pop("pod/vault-0's processes")
    assert "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY=" in vault
    assert not [source for source, text in sources.items() for secret in secrets if secret in text]


def first_backup(stack: ClusterStack) -> bool:
    return "completed" in stack.kubectl(
        "get", "backups.postgresql.cnpg.io", "--output=jsonpath={.items[*].status.phase}"
    )
