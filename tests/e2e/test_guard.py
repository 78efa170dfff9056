"""Data about to be lost, on both platforms: refused plans, state emptied by hand, renamed components."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stack import ClusterStack, DockerStack, Stack, deployed, eventually, on

pytestmark = pytest.mark.long

DATA = {
    "docker": {"board-e2e-guard-database-data", "board-e2e-guard-cache-data"},
    "kubernetes": {"persistentvolumeclaim/database-data", "persistentvolumeclaim/cache-data"},
}


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    board = on(request.param, tmp_path_factory.mktemp("guard"), "e2e-guard")
    board.environment["protect_data"] = True
    with deployed(board):
        yield board
        # Otherwise its data would stay, as intended.
        board.environment["protect_data"] = False
        board.up(check=False)
        board.pulumi("state", "unprotect", "--all", "--yes", "--stack", board.name)
    if isinstance(board, DockerStack):
        for name in volumes(board):
            board.engine.volumes.get(name).remove()


def platform(stack: Stack) -> str:
    return stack.environment["platform"]


def volumes(stack: Stack) -> dict[str, str]:
    """Return the volumes of the stack's data, each with an id that differs for another volume of the same name."""
    if isinstance(stack, ClusterStack):
        claims = json.loads(stack.kubectl("get", "pvc", "--output=json"))["items"]
        return {f"persistentvolumeclaim/{entry['metadata']['name']}": entry["metadata"]["uid"] for entry in claims}
    assert isinstance(stack, DockerStack)
    # Docker reports the folder's time as the time of the volume, and a cache changes its folder.
    volumes = {str(volume.name): volume.attrs["CreatedAt"] for volume in stack.engine.volumes.list()}
    return {name: created if "database" in name else "" for name, created in volumes.items() if name in DATA["docker"]}


def messages(stack: Stack) -> list[str]:
    return [message["body"] for message in stack.get("/api/messages").json()]


def without_cache(stack: Stack) -> None:
    stack.app.pop("cache")
    stack.environment.get("tiers", {}).pop("cache", None)
    for tier in ("api", "worker"):
        stack.app[tier]["needs"] = ["database"]


def refused(stack: Stack, *parts: str, **variables: str) -> None:
    """Assert that an update is refused with these words and touches nothing."""
    live, before = stack.generations("blue"), volumes(stack)
    failed = stack.up(check=False, **variables)
    assert failed.code
    for words in parts:
        assert words in " ".join(failed.text.split()), failed.text
    assert (stack.generations("blue"), volumes(stack)) == (live, before)
    assert not failed.changed.keys() - {"unchanged"}, failed.changed
    assert "kept" in messages(stack)


def test_plan_that_loses_data_is_refused_and_touches_nothing(stack: Stack) -> None:
    stack.post("kept")
    app, environment = copy.deepcopy(stack.app), copy.deepcopy(stack.environment)
    without_cache(stack)
    gone = ("app.cache: it is not described any more", "set environment.protect_data: false, `make up`, then")
    refused(stack, *gone)
    refused(stack, *gone, TIERS_FORCE="data")
    stack.project["config"]["app"]["value"] = stack.app = app
    stack.environment = environment
    stack.app["database"] = {**app["database"], "image": "postgres:16-bookworm"}
    refused(stack, "app.database.image: PostgreSQL 16 can't read the files of 15")
    stack.app["database"].pop("image")
    assert set(stack.up().changed) == {"unchanged"}


def test_claim_grows_if_its_class_allows_it_and_never_shrinks(stack: Stack) -> None:
    if not isinstance(stack, ClusterStack):
        stack.environment["tiers"] = {"database": {"storage": "2Gi"}}
        refused(stack, "environment.tiers.database.storage: a Docker engine has no such thing")
        stack.environment.pop("tiers")
        return
    sizes = copy.deepcopy(stack.environment.get("tiers", {}))
    stack.environment["tiers"] = sizes | {"database": {**sizes.get("database", {}), "storage": "64Mi"}}
    refused(stack, "environment.tiers.database.storage: it is", "can't become 64Mi, because a claim can't shrink")
    stack.environment["tiers"]["database"]["storage"] = "40Gi"
    # The lab's StorageClass does not allow expansion, and the cluster reports that for the change in place.
    planned = stack.pulumi("preview", "--stack", stack.name, "--diff") if stack.write() is None else None
    assert planned and "replace" not in planned.text, planned
    failed = stack.up(check=False)
    assert "its StorageClass lets no volume grow (allowVolumeExpansion)" in failed.text
    stack.environment["tiers"] = sizes
    stack.up()
    assert "kept" in messages(stack)


def test_data_deleted_from_the_state_stays_and_is_adopted_again(stack: Stack) -> None:
    before = volumes(stack)
    assert before.keys() >= DATA[platform(stack)]
    stack.pulumi("state", "unprotect", "--all", "--yes", "--stack", stack.name, check=True)
    stack.destroy()
    assert volumes(stack) == before
    stack.up()
    assert volumes(stack) == before
    eventually(lambda: messages(stack) == ["kept"])


def test_renamed_component_keeps_its_volume(stack: Stack) -> None:
    before, shared, tier = (
        volumes(stack),
        stack.folder / "components/shared.py",
        stack.folder / "components/database.py",
    )
    renamed(shared, "[name](name, platform, data)", '[name](name.replace("database", "postgres"), platform, data)')
    renamed(tier, "from pulumi import ResourceOptions", "from pulumi import Alias, ResourceOptions")
    called = '"tiers:{0}", name, platform, args, opts'
    was = 'ResourceOptions(aliases=[Alias(name="database", type_="tiers:database:Database")])'
    opts = f"ResourceOptions.merge(opts, {was})"
    renamed(tier, called.format("database:Database"), called.format("postgres:Postgres").replace("opts", opts))
    changed = stack.up().changed
    assert changed.keys() <= {"unchanged", "updated"}, changed
    assert volumes(stack) == before
    assert messages(stack) == ["kept"]
    state = stack.pulumi("stack", "export", check=True).text
    assert "tiers:postgres:Postgres$" in state
    assert "tiers:database:Database" not in state.replace('"aliases"', "")
    assert set(stack.up().changed) == {"unchanged"}


def renamed(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new))


def test_destroy_of_unprotected_data_leaves_nothing(stack: Stack) -> None:
    stack.environment["protect_data"] = False
    stack.up()
    stack.destroy()
    assert isinstance(stack, DockerStack | ClusterStack)
    assert stack.left() == []
