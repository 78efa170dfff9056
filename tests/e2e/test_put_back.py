"""Tests of `make heal` and of updates: both start stopped objects and recreate removed ones, with and without a refresh of the state.

The module also tests that `make drift` and `make status` report a stopped container and change nothing.
"""

import subprocess
from collections.abc import Iterator

import pytest

from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually, steady_requests

CONTAINERS = ("gateway", "database-1", "cache-1", "{live}-api-1", "{live}-web-1", "{live}-worker-1")
OBJECTS = (
    "httproute/board",
    "httproute/board-{live}",
    "deployment/web-{live}",
    "deployment/api-{live}",
    "deployment/worker-{live}",
    "service/web-{live}",
    "service/api-{live}",
    "networkpolicy/api-{live}",
    "poddisruptionbudget/api-{live}",
    "serviceaccount/api-{live}",
    "service/database",
    "statefulset/database",
    "statefulset/cache",
)


@pytest.fixture(scope="module")
def docker_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    """Deploy the example application board on Docker."""
    with deployment(create_board("docker", tmp_path_factory.mktemp("put-back"), "e2e-putback")) as board:
        assert isinstance(board, DockerStack)
        yield board


@pytest.fixture(scope="module")
def cluster_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """Deploy the board in the lab's cluster."""
    with deployment(create_board("kubernetes", tmp_path_factory.mktemp("put-back"), "e2e-putback")) as board:
        assert isinstance(board, ClusterStack)
        yield board


def heal_and_update(stack: Stack) -> None:
    """Run `heal` and an update, as `make up` does. Check that users get answers, and that a second heal and update change nothing."""
    stack.run_ci("heal")
    stack.up()
    eventually(lambda: stack.get("/api/release").status_code == 200)
    eventually(lambda: stack.get("/").status_code == 200)
    assert stack.run_ci("heal") == ""
    assert set(stack.up().changes) == {"unchanged"}


def remove_containers(stack: DockerStack, *names: str) -> None:
    """Remove containers by force. `names` are container names without the prefix of the stack."""
    for name in names:
        stack.engine.containers.get(f"{stack.prefix}-{name}").remove(force=True)


def test_stopped_and_removed_containers_are_restored(docker_stack: DockerStack) -> None:
    live = docker_stack.live()["slot"]
    release = docker_stack.live()["release"]
    for name in CONTAINERS:
        docker_stack.engine.containers.get(f"{docker_stack.prefix}-{name.format(live=live)}").stop(timeout=1)
    output = docker_stack.run_ci("heal")
    assert output.count("which was stopped") == len(CONTAINERS), output
    eventually(lambda: docker_stack.get("/api/release").status_code == 200, 60)
    assert docker_stack.live()["release"] == release
    assert set(docker_stack.up().changes) == {"unchanged"}
    remove_containers(docker_stack, *(name.format(live=live) for name in CONTAINERS))
    heal_and_update(docker_stack)
    assert docker_stack.live() == {"slot": live, "release": release}


@pytest.mark.long
@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("name", CONTAINERS)
def test_removed_container_is_restored(docker_stack: DockerStack, name: str, refreshed: bool) -> None:
    before = docker_stack.live()
    remove_containers(docker_stack, name.format(live=before["slot"]))
    if refreshed:
        docker_stack.pulumi("refresh", "--yes", "--stack", docker_stack.name, check=True)
    heal_and_update(docker_stack)
    assert docker_stack.live() == before


@pytest.mark.long
def test_release_and_rollback_work_after_one_shot_containers_are_pruned(docker_stack: DockerStack) -> None:
    """Remove stopped containers as `docker container prune` does, then release and roll back under load."""
    before = docker_stack.live()
    with steady_requests(docker_stack) as statuses:
        for refreshed in (False, True):
            stopped = [
                container for container in docker_stack.containers() if container.status in ("exited", "created")
            ]
            assert stopped
            for entry in stopped:
                entry.remove()
            if refreshed:
                docker_stack.pulumi("refresh", "--yes", "--stack", docker_stack.name, check=True)
            docker_stack.run_ci("heal")
            docker_stack.up()
            assert docker_stack.live() == before
        docker_stack.app["version"] = "2.0.0"
        docker_stack.run_ci("heal")
        docker_stack.up()
        assert docker_stack.live()["slot"] != before["slot"]
        docker_stack.run_ci("heal")
        docker_stack.up(TIERS_RELEASE="previous")
        assert docker_stack.live() == before
    assert set(statuses) <= {"200", "201"}, statuses


@pytest.mark.long
def test_make_drift_reports_a_stopped_container_and_changes_nothing(docker_stack: DockerStack) -> None:
    name = f"{docker_stack.prefix}-cache-1"
    docker_stack.engine.containers.get(name).stop(timeout=1)
    with pytest.raises(subprocess.CalledProcessError) as drift:
        docker_stack.run_ci("drift")
    assert f"{name} is stopped" in drift.value.stdout
    assert docker_stack.engine.containers.get(name).status == "exited"
    assert f"{name} is stopped" in docker_stack.run_ci("status")
    assert docker_stack.engine.containers.get(name).status == "exited"
    heal_and_update(docker_stack)


@pytest.mark.long
def test_make_heal_is_refused_without_force_if_a_protected_volume_is_lost(docker_stack: DockerStack) -> None:
    docker_stack.environment["protect_data"] = True
    docker_stack.up()
    remove_containers(docker_stack, "cache-1")
    docker_stack.engine.volumes.get(f"{docker_stack.prefix}-cache-data").remove()
    with pytest.raises(subprocess.CalledProcessError, match="") as refused:
        docker_stack.run_ci("heal")
    assert "cache-data: missing on" in refused.value.stderr
    assert "make heal FORCE=data" in refused.value.stderr
    docker_stack.variables["TIERS_FORCE"] = "data"
    try:
        docker_stack.run_ci("heal")
    finally:
        del docker_stack.variables["TIERS_FORCE"]
    docker_stack.environment["protect_data"] = False
    heal_and_update(docker_stack)


@pytest.mark.long
def test_rollback_to_a_release_without_its_image_is_refused(docker_stack: DockerStack) -> None:
    before = docker_stack.live()
    [old_container] = [
        container for container in docker_stack.containers() if container.name.endswith(f"-{before['slot']}-api-1")
    ]
    image = old_container.attrs["Image"]
    (docker_stack.app_folder / docker_stack.app["api"]["build"] / "mark").write_text("another image")
    docker_stack.up()
    after = docker_stack.live()
    assert after["slot"] != before["slot"]
    for container in docker_stack.containers():
        if container.attrs["Image"] == image:
            container.remove(force=True)
    docker_stack.engine.images.remove(image, force=True)
    assert "can't go live again" in docker_stack.run_ci("status")
    docker_stack.run_ci("heal")
    refused = docker_stack.up(check=False, TIERS_RELEASE="previous")
    assert refused.code
    assert "can't go live again" in refused.text
    assert docker_stack.live() == after
    heal_and_update(docker_stack)
    assert docker_stack.live() == after
    assert "nothing to go back to" in docker_stack.outputs()["go_back"]


@pytest.mark.long
def test_rollback_succeeds_with_an_invalid_stack_file(docker_stack: DockerStack) -> None:
    docker_stack.app["version"] = "4.0.0"
    docker_stack.up()
    before = docker_stack.live()
    valid = docker_stack.environment.get("tiers", {})
    docker_stack.environment["tiers"] = valid | {"api": {"nothing": 1}}
    try:
        docker_stack.run_ci("heal")
        assert "there is no such key" in docker_stack.up(check=False).text
        rollback = docker_stack.up(TIERS_RELEASE="previous")
        assert "the files are invalid" in rollback.text
        assert docker_stack.live()["slot"] != before["slot"]
    finally:
        docker_stack.environment["tiers"] = valid


@pytest.mark.long
@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("name", OBJECTS)
def test_deleted_object_is_restored(cluster_stack: ClusterStack, name: str, refreshed: bool) -> None:
    before = cluster_stack.live()
    cluster_stack.kubectl("delete", name.format(live=before["slot"]), "--wait=true")
    if refreshed:
        cluster_stack.pulumi("refresh", "--yes", "--stack", cluster_stack.name, check=True)
    heal_and_update(cluster_stack)
    assert cluster_stack.live() == before


def test_deleted_deployment_of_the_live_web_is_restored(cluster_stack: ClusterStack) -> None:
    before = cluster_stack.live()
    cluster_stack.kubectl("delete", f"deployment/web-{before['slot']}")
    eventually(lambda: cluster_stack.get("/").status_code >= 500)
    heal_and_update(cluster_stack)
    assert cluster_stack.live() == before
