"""Tests of protected data on both platforms.

An update that would delete data is refused, and data outlives a destroy and the renaming of a component.
"""

import copy
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually

pytestmark = pytest.mark.long

DATA = {
    "docker": {"board-e2e-guard-database-data", "board-e2e-guard-cache-data"},
    "kubernetes": {"persistentvolumeclaim/database-data", "persistentvolumeclaim/cache-data"},
}


@pytest.fixture(scope="module", params=["docker", "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    board = create_board(request.param, tmp_path_factory.mktemp("guard"), "e2e-guard")
    board.environment["protect_data"] = True
    with deployment(board):
        yield board
        # Remove the protection, because protected data would remain after `destroy`.
        board.environment["protect_data"] = False
        board.up(check=False)
        board.pulumi("state", "unprotect", "--all", "--yes", "--stack", board.name)
    if isinstance(board, DockerStack):
        for name in volumes(board):
            board.engine.volumes.get(name).remove()


def volumes(stack: Stack) -> dict[str, str]:
    """Return volume name → id for the data volumes of the stack. A new volume of the same name has another id."""
    if isinstance(stack, ClusterStack):
        claims = json.loads(stack.kubectl("get", "pvc", "--output=json"))["items"]
        return {f"persistentvolumeclaim/{entry['metadata']['name']}": entry["metadata"]["uid"] for entry in claims}
    assert isinstance(stack, DockerStack)
    # Use the creation time of a Docker volume as its id, except for the cache's volume. Docker reads this time from the volume's
    # folder, and the time of the cache's folder changes while the cache runs.
    volumes = {str(volume.name): volume.attrs["CreatedAt"] for volume in stack.engine.volumes.list()}
    return {name: created if "database" in name else "" for name, created in volumes.items() if name in DATA["docker"]}


def messages(stack: Stack) -> list[str]:
    return [message["body"] for message in stack.get("/api/messages").json()]


def without_cache(stack: Stack) -> None:
    """Remove the cache from the application."""
    stack.app.pop("cache")
    stack.environment.get("tiers", {}).pop("cache", None)
    for tier in ("api", "worker"):
        stack.app[tier]["needs"] = ["database"]


def check_update_is_refused(stack: Stack, *expected_messages: str, **variables: str) -> None:
    """Check that an update is refused with the expected error messages, and changes no object, no volume and no data."""
    live, before = stack.generations("blue"), volumes(stack)
    failed = stack.up(check=False, **variables)
    assert failed.code
    for message in expected_messages:
        assert message in " ".join(failed.text.split()), failed.text
    assert (stack.generations("blue"), volumes(stack)) == (live, before)
    assert not failed.changes.keys() - {"unchanged"}, failed.changes
    assert "kept" in messages(stack)


def test_plan_that_loses_data_is_refused_and_touches_nothing(stack: Stack) -> None:
    stack.post("kept")
    app, environment = copy.deepcopy(stack.app), copy.deepcopy(stack.environment)
    without_cache(stack)
    reasons = ("app.cache: this tier was removed", "set environment.protect_data: false, `make up`, then")
    check_update_is_refused(stack, *reasons)
    check_update_is_refused(stack, *reasons, TIERS_FORCE="data")
    stack.project["config"]["app"]["value"] = stack.app = app
    stack.environment = environment
    stack.app["database"] = {**app["database"], "image": "postgres:16-bookworm"}
    check_update_is_refused(stack, "app.database.image: PostgreSQL 16 can't read the files of 15")
    stack.app["database"].pop("image")
    assert set(stack.up().changes) == {"unchanged"}


def test_volume_claim_never_shrinks_and_grows_only_in_an_expandable_storage_class(stack: Stack) -> None:
    if not isinstance(stack, ClusterStack):
        stack.environment["tiers"] = {"database": {"storage": "2Gi"}}
        check_update_is_refused(stack, "environment.tiers.database.storage: it has no effect on Docker")
        stack.environment.pop("tiers")
        return
    sizes = copy.deepcopy(stack.environment.get("tiers", {}))
    stack.environment["tiers"] = sizes | {"database": {**sizes.get("database", {}), "storage": "64Mi"}}
    check_update_is_refused(
        stack, "environment.tiers.database.storage: the claim has", "and can't shrink to 64Mi; use at least"
    )
    stack.environment["tiers"]["database"]["storage"] = "40Gi"
    # The preview must show that the PersistentVolumeClaim is updated, not replaced. The update itself fails, because the lab's
    # StorageClass does not allow volumes to grow.
    preview = stack.pulumi("preview", "--stack", stack.name, "--diff") if stack.write() is None else None
    assert preview and "replace" not in preview.text, preview
    failed = stack.up(check=False)
    assert "the StorageClass does not allow volumes to grow (allowVolumeExpansion)" in failed.text
    stack.environment["tiers"] = sizes
    stack.up()
    assert "kept" in messages(stack)


def test_retained_data_outlives_a_destroy_and_is_adopted_by_the_next_update(stack: Stack) -> None:
    before = volumes(stack)
    assert before.keys() >= DATA[stack.environment["platform"]]
    stack.pulumi("state", "unprotect", "--all", "--yes", "--stack", stack.name, check=True)
    stack.destroy()
    assert volumes(stack) == before
    stack.up()
    assert volumes(stack) == before
    eventually(lambda: messages(stack) == ["kept"])


def test_renamed_component_keeps_its_volume(stack: Stack) -> None:
    before = volumes(stack)
    rename_database_component(stack.folder)
    changed = stack.up().changes
    assert changed.keys() <= {"unchanged", "updated"}, changed
    assert volumes(stack) == before
    assert messages(stack) == ["kept"]
    references = urns(stack)
    assert [urn for urn in references if "tiers:postgres:Postgres$" in urn]
    assert not [urn for urn in references if "tiers:database:Database" in urn]
    assert set(stack.up().changes) == {"unchanged"}


def urns(stack: Stack) -> set[str]:
    """Return the URNs of all resources in the checkpoint, with the URNs of their parents and dependencies.

    Leave out the URNs in the memory of a slot (components/release/memory.py). If a component is renamed after the deployment of a
    slot, the slot's memory still contains the old name. The program uses these URNs only to sort the resources of the slot.
    """
    exported = json.loads(stack.pulumi("stack", "export", check=True).text)
    return {
        urn
        for resource in exported["deployment"]["resources"]
        for urn in (
            resource["urn"],
            *(resource.get(key, "") for key in ("parent", "provider", "deletedWith")),
            *resource.get("dependencies", ()),
            *chain.from_iterable(resource.get("propertyDependencies", {}).values()),
        )
    }


def rename_database_component(folder: Path) -> None:
    """Rename the component `database` to `postgres` in the source of the program, and change the component's type.

    The new component has an alias with the old name and the old type (docs/data.md#renaming).
    """
    replace_text(
        folder / "__main__.py",
        "name: DataService(name, ",
        'name: DataService(name.replace("database", "postgres"), ',
    )
    service = folder / "components/service.py"
    replace_text(service, "from pulumi import ComponentResource,", "from pulumi import Alias, ComponentResource,")
    constructor_call = "super().__init__({}, name, None, opts)"
    old_type = "services.type_token(args.data.tier, belongs_to)"
    replace_text(
        service,
        constructor_call.format(old_type),
        f"""type_token = {old_type}
        if args.data.tier == "database":
            type_token = "tiers:postgres:Postgres"
            alias = Alias(name="database", type_="tiers:database:Database")
            opts = ResourceOptions.merge(opts, ResourceOptions(aliases=[alias]))
        {constructor_call.format("type_token")}""",
    )


def replace_text(file: Path, old: str, new: str) -> None:
    """Replace a text that occurs exactly once in a file."""
    text = file.read_text()
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new))


def test_destroy_of_unprotected_data_leaves_nothing(stack: Stack) -> None:
    stack.environment["protect_data"] = False
    stack.up()
    stack.destroy()
    assert isinstance(stack, DockerStack | ClusterStack)
    assert stack.leftovers() == []
