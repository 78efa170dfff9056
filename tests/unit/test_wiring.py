"""Tests of a deployment on Docker: networks, order of creation, gates, switch and standby."""

import re
from typing import Any

import pytest
from pulumi import RunError

from components.release.checkpoint import observe, parse
from components.release.planner import ReleaseError, Slot

from .program import (
    CONTAINER,
    IMAGE,
    NETWORK,
    Deployment,
    Registered,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    project,
    second_release,
)

DEPLOYED = first_release()
TIERS = ("gateway", "web", "api", "worker", "database", "cache")
# Pairs of tiers that must share a network. No other pair may share a network.
GRAPH = {
    ("gateway", "web"), ("gateway", "api"), ("web", "api"), ("api", "web"), ("web", "gateway"), ("api", "gateway"),
    ("api", "database"), ("api", "cache"), ("api", "worker"), ("worker", "api"), ("worker", "database"),
    ("worker", "cache"), ("database", "api"), ("database", "worker"), ("database", "cache"), ("cache", "api"),
    ("cache", "worker"), ("cache", "database"),
}  # fmt: skip


def networks_of(deployed: Deployment, tier: str) -> set[str]:
    name = {"gateway": "gateway", "database": "database-1", "cache": "cache-1"}.get(tier, f"blue-{tier}-1")
    return {network["name"] for network in deployed.by_name[name].inputs["networksAdvanced"]}


@pytest.mark.parametrize("first_tier", TIERS)
@pytest.mark.parametrize("second_tier", TIERS)
def test_two_tiers_share_a_docker_network_only_if_the_tier_graph_connects_them(
    first_tier: str, second_tier: str
) -> None:
    if first_tier != second_tier:
        assert bool(networks_of(DEPLOYED, first_tier) & networks_of(DEPLOYED, second_tier)) == (
            (first_tier, second_tier) in GRAPH
        )


def test_tier_networks_are_internal_and_have_no_host_address() -> None:
    for network in DEPLOYED.of_type(NETWORK):
        inside = network.name in ("edge", "data")
        assert bool(network.inputs.get("internal")) == inside
        assert (network.inputs.get("options") == {"com.docker.network.bridge.inhibit_ipv4": "true"}) == inside


def test_only_the_gateway_joins_the_outside_network() -> None:
    outside = {
        entry.name
        for entry in DEPLOYED.of_type(CONTAINER)
        for network in entry.inputs.get("networksAdvanced") or ()
        if network["name"] == "board-dev-outside"
    }
    assert outside == {"gateway"}


def test_tier_with_egress_joins_the_outside_network() -> None:
    app = project()
    app["worker"]["egress"] = True
    assert "board-dev-outside" in networks_of(deploy(app), "worker")


@pytest.mark.parametrize(
    ("later", "earlier"),
    [
        ("blue-api-migrate", {"database-1", "cache-1"}),
        ("blue-api-seed", {"blue-api-migrate"}),
        ("blue-api-1", {"blue-api-migrate", "database-1", "cache-1"}),
        ("blue-worker-1", {"blue-api-migrate", "database-1", "cache-1"}),
        ("blue-smoke", {"gateway", "blue-web-1", "blue-api-1", "blue-worker-1", "blue-api-seed"}),
        ("switch-1", {"blue-smoke", "gateway"}),
    ],
)
def test_resource_is_created_after_its_dependencies(later: str, earlier: set[str]) -> None:
    assert earlier <= DEPLOYED.dependencies_of(later)


def test_no_resource_depends_on_the_switch() -> None:
    assert not [entry.name for entry in DEPLOYED if any("::switch-1" in urn for urn in entry.waits_for)]


def test_gateway_and_web_depend_on_no_other_tier() -> None:
    for name in ("gateway", "blue-web-1"):
        assert not DEPLOYED.dependencies_of(name) & {"database-1", "cache-1", "blue-api-1", "blue-api-migrate"}


def test_web_that_needs_the_api_starts_after_the_api_and_receives_the_url_of_the_api() -> None:
    app = project()
    app["web"]["needs"] = ["api"]
    deployed = deploy(app)
    assert "blue-api-1" in deployed.dependencies_of("blue-web-1")
    assert "API_URL=http://api-blue:8000" in deployed.by_name["blue-web-1"].inputs["envs"]


def test_tier_receives_the_addresses_of_the_services_that_it_needs() -> None:
    for name in ("blue-api-1", "blue-worker-1"):
        envs = set(DEPLOYED.by_name[name].inputs["envs"])
        assert {"DATABASE_HOST=database", "DATABASE_PASSWORD_FILE=/run/secrets/database-password"} <= envs
        assert {"CACHE_HOST=cache", "CACHE_PASSWORD_FILE=/run/secrets/cache-password", "SLOT=blue"} <= envs
    assert not [env for env in DEPLOYED.by_name["blue-web-1"].inputs["envs"] if env.startswith(("DATABASE", "CACHE"))]


@pytest.mark.parametrize("failing_gate", ["blue-api-migrate", "blue-api-seed", "blue-smoke"])
def test_failed_gate_stops_the_update_before_the_switch_and_the_error_shows_the_log_of_the_gate(
    failing_gate: str,
) -> None:
    registrations: list[Registered] = []
    with pytest.raises(RunError, match=r"exit code 3; no slot was live before.*\n    first line\n    last line"):
        deploy(fail=lambda name: 3 if name == failing_gate else 0, registrations=registrations)
    names = {entry.name for entry in registrations}
    assert failing_gate in names
    assert not any(re.fullmatch(r"switch-\d+", name) for name in names)


def test_failed_one_shot_container_is_created_again_by_the_next_update() -> None:
    export = checkpoint_of(DEPLOYED)
    for resource in export["deployment"]["resources"]:
        if resource["urn"].endswith("::blue-smoke"):
            resource["outputs"]["exitCode"] = 1
        if resource["urn"].endswith("::switch-1"):
            resource["outputs"]["exitCode"] = 1
        if not resource["custom"]:
            # Pulumi stores no outputs of a component if one of the outputs is unknown, as after a failed update.
            resource["outputs"] = {}
    repeated = deploy(export=export)
    for name in ("blue-smoke", "switch-1"):
        assert repeated.by_name[name].labels["tiers.attempt"] == "2"
        assert repeated.by_name[name].inputs["labels"] != DEPLOYED.by_name[name].inputs["labels"]


def test_container_that_never_became_healthy_is_created_again_by_the_next_update() -> None:
    export = checkpoint_of(DEPLOYED)
    for resource in export["deployment"]["resources"]:
        if resource["urn"].endswith("::database-1"):
            resource["initErrors"] = ["container failed to be in healthy state"]
    assert deploy(export=export).by_name["database-1"].labels["tiers.attempt"] == "2"


def test_live_slot_is_read_from_the_checkpoint() -> None:
    before = observe(parse(checkpoint_of(DEPLOYED)))
    assert (before.live, before.switches, before.slots[Slot.BLUE].proven) == (Slot.BLUE, 1, True)
    after = observe(parse(checkpoint_of(second_release())))
    assert (after.live, after.switches, after.slots[Slot.GREEN].release.version) == (Slot.GREEN, 2, "2.0.0")


def test_update_that_failed_before_its_switch_keeps_the_live_slot() -> None:
    export: dict[str, Any] = checkpoint_of(second_release())
    for resource in export["deployment"]["resources"]:
        if resource["urn"].endswith(("::green-smoke", "::switch-2")):
            resource["outputs"]["exitCode"] = 1
        if not resource["custom"]:
            resource["outputs"] = {}
    # Add the old switch again, because Pulumi deletes the old switch only at the end of a successful update.
    export["deployment"]["resources"] += [
        resource
        for resource in checkpoint_of(DEPLOYED)["deployment"]["resources"]
        if resource["urn"].endswith("::switch-1")
    ]
    observed = observe(parse(export))
    assert (observed.live, observed.slots[Slot.GREEN].proven) == (Slot.BLUE, False)


def test_rollback_moves_traffic_and_starts_the_suspended_workers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app, after = project() | {"version": "2.0.0"}, checkpoint_of(second_release())
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    rollback = deploy(app, export=after)
    monkeypatch.delenv("TIERS_RELEASE")
    assert rollback.by_name["switch-3"].labels["tiers.slot"] == "blue"
    created = {entry.name for entry in rollback if entry.custom} - {
        entry.name for entry in second_release() if entry.custom
    }
    assert created == {"switch-3", "blue-worker-1"}
    assert rollback.by_name["blue-worker-1"].inputs == DEPLOYED.by_name["blue-worker-1"].inputs
    assert "blue-worker-1" in rollback.dependencies_of("switch-3")
    assert "green-worker-1" not in rollback.by_name
    repeated = deploy(export=checkpoint_of(rollback))
    assert {entry.urn for entry in repeated} == {entry.urn for entry in rollback}
    assert repeated.by_name["blue-worker-1"].ignores == ("*",)


@pytest.mark.parametrize(
    ("release", "running"),
    [
        ({"workers": "both"}, {"blue-web-1", "blue-api-1", "blue-worker-1"}),
        ({}, {"blue-web-1", "blue-api-1"}),
        ({"standby": "cold"}, set[str]()),
    ],
)
def test_standby_runs_the_containers_of_its_mode(
    release: dict[str, str], running: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env, app = environment() | {"release": release}, project() | {"version": "2.0.0"}
    before = deploy(env=env) if "standby" in release else DEPLOYED
    after = deploy(app, env, export=checkpoint_of(before))
    assert {name for name in after.by_name if re.fullmatch(r"blue-[a-z]+-\d", name)} == running
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    rollback = deploy(app, env, export=checkpoint_of(after))
    suspended = {"blue-web-1", "blue-api-1", "blue-worker-1"} - running
    assert suspended <= rollback.dependencies_of("switch-3")
    assert {name for name in rollback.by_name if re.fullmatch(r"green-[a-z]+-\d", name)} == {
        name.replace("blue", "green") for name in running
    }


def test_gateway_sends_no_requests_to_a_suspended_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that an update closes the cookie route to a suspended slot, because no web, api or worker runs in this slot.

    A rollback must first start all tiers of the slot. Only then may the rollback open the cookie route again.
    """
    cold, app = environment() | {"release": {"standby": "cold"}}, project() | {"version": "2.0.0"}
    claimed = DEPLOYED.by_name["blue-claim"]
    slot, release = claimed.inputs["command"][6:8]
    assert (slot, release) == ("blue", claimed.labels["tiers.release"])
    after = deploy(app, cold, export=checkpoint_of(DEPLOYED))
    assert after.by_name["blue-claim"].inputs["command"] == [*claimed.inputs["command"][:6], "blue"]
    assert "blue-claim" in after.dependencies_of("switch-2")
    assert after.by_name["green-claim"].inputs["command"][7] == after.by_name["green-claim"].labels["tiers.release"]
    repeated = deploy(app, cold, export=checkpoint_of(after))
    assert repeated.by_name["blue-claim"].ignores == ("*",)
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    rollback = deploy(app, cold, export=checkpoint_of(repeated))
    assert rollback.by_name["blue-claim"].inputs["command"] == [*claimed.inputs["command"][:6], "blue", release]
    assert {"blue-web-1", "blue-api-1", "blue-worker-1"} <= rollback.dependencies_of("blue-claim")
    assert "blue-claim" in rollback.dependencies_of("switch-3")
    assert rollback.by_name["green-claim"].inputs["command"][6:] == ["green"]
    monkeypatch.delenv("TIERS_RELEASE")
    settled = deploy(export=checkpoint_of(rollback))
    assert {name for name, entry in settled.by_name.items() if "claim" in name and entry.ignores != ("*",)} == set()


@pytest.mark.parametrize("action", ["configured", "previous"])
def test_lost_cookie_route_is_open_after_a_rollback_and_closed_after_any_other_update(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, app = environment() | {"release": {"standby": "cold"}}, project() | {"version": "2.0.0"}
    export = checkpoint_of(deploy(app, cold, export=checkpoint_of(DEPLOYED)))
    resources = export["deployment"]["resources"]
    export["deployment"]["resources"] = [
        resource for resource in resources if not resource["urn"].endswith("::blue-claim")
    ]
    monkeypatch.setenv("TIERS_RELEASE", action)
    command = deploy(app, cold, export=export).by_name["blue-claim"].inputs["command"]
    assert command[6:] == (["blue"] if action == "configured" else ["blue", DEPLOYED.release])


def test_failure_to_close_a_cookie_route_stops_the_update_before_the_switch() -> None:
    env, app = environment() | {"release": {"standby": "cold"}}, project() | {"version": "2.0.0"}
    registrations: list[Registered] = []
    with pytest.raises(RunError, match="blue-claim: the container ended with exit code 3; blue was probed"):
        deploy(
            app,
            env,
            export=checkpoint_of(DEPLOYED),
            fail=lambda name: 3 * (name == "blue-claim"),
            registrations=registrations,
        )
    assert "switch-2" not in {entry.name for entry in registrations}


def test_release_with_manual_promotion_does_not_switch_before_the_promotion(monkeypatch: pytest.MonkeyPatch) -> None:
    env, app = environment() | {"release": {"promote": "manual"}}, project() | {"version": "2.0.0"}
    initial = deploy(env=env)
    assert "switch-1" in initial.by_name, "the first release goes live without promotion"
    waiting = deploy(app, env, export=checkpoint_of(initial))
    assert "green-smoke" in waiting.by_name
    assert [name for name in waiting.by_name if name.startswith("switch")] == ["switch-1"]
    repeated = deploy(app, env, export=checkpoint_of(waiting))
    assert {entry.urn for entry in repeated} == {entry.urn for entry in waiting}
    assert {"blue-worker-1", "green-worker-1"} <= set(repeated.by_name)
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    with pytest.raises(ReleaseError, match=r"slot green has no release that was live \(2\.0\.0-\w+ waits"):
        deploy(app, env, export=checkpoint_of(repeated))
    monkeypatch.setenv("TIERS_RELEASE", "promote")
    promoted = deploy(app, env, export=checkpoint_of(repeated))
    assert promoted.by_name["switch-2"].labels["tiers.slot"] == "green"
    assert "blue-worker-1" not in promoted.by_name
    created = {entry.name for entry in promoted if entry.custom} - {entry.name for entry in repeated if entry.custom}
    assert created == {"switch-2"}


def test_rollback_past_contract_migration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    app: dict[str, Any] = project() | {"version": "2.0.0"}
    app["api"] = {**app["api"], "migrate": {**app["api"]["migrate"], "contract": True}}
    released = deploy(app, export=checkpoint_of(DEPLOYED))
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    with pytest.raises(ReleaseError, match="contract: true"):
        deploy(app, export=checkpoint_of(released))
    monkeypatch.setenv("TIERS_FORCE", "contract")
    assert "switch-3" in deploy(app, export=checkpoint_of(released)).by_name


def test_update_with_pending_operations_is_refused_with_the_advice_to_run_make_heal() -> None:
    export = checkpoint_of(DEPLOYED)
    urn = "urn:pulumi:dev::board::docker:index/container:Container::green-api-1"
    export["deployment"]["pending_operations"] = [{"type": "creating", "resource": {"urn": urn}}]
    with pytest.raises(RunError, match=r"creating green-api-1; run `make heal ENV=dev`"):
        deploy(export=export)


def test_changed_text_of_the_toolbox_does_not_change_a_deployed_switch() -> None:
    export = checkpoint_of(DEPLOYED)
    [switch] = [entry for entry in export["deployment"]["resources"] if entry["urn"].endswith("::switch-1")]
    switch["inputs"]["command"][2] = "the program of an earlier version"
    assert deploy(export=export).by_name["switch-1"].ignores == ("*",)


def test_update_is_refused_if_the_stack_has_another_application() -> None:
    with pytest.raises(RunError, match=r"app\.name: this stack contains the application board"):
        deploy(project() | {"name": "shop"}, export=checkpoint_of(DEPLOYED))


def test_health_check_uses_the_path_or_command_of_the_tier() -> None:
    def command(name: str) -> str:
        return " ".join(DEPLOYED.by_name[name].inputs["healthcheck"]["tests"])

    assert "http://127.0.0.1:8000/ready" in command("blue-api-1")
    assert "http://127.0.0.1:8080/health" in command("blue-web-1")
    assert "/tmp/alive" in command("blue-worker-1")
    assert "pg_isready" in command("database-1")
    assert "redis-cli ping" in command("cache-1")


def test_changed_replicas_do_not_change_the_release_digest() -> None:
    scaled = deploy(env=environment() | {"tiers": {"api": {"replicas": 3}}})
    assert scaled.release == DEPLOYED.release


def test_tasks_run_after_the_migration_and_before_the_start_of_the_tier() -> None:
    app = project()
    app["api"] |= {"tasks": {"collect": {"command": ["collect"]}, "warm": {"command": ["warm"]}}}
    app["api"]["volumes"], app["web"]["volumes"] = {"static": "/srv"}, {"static": "/srv:ro"}
    deployed = deploy(app)
    assert "blue-api-migrate" in deployed.dependencies_of("blue-api-collect")
    assert "blue-api-collect" in deployed.dependencies_of("blue-api-warm")
    assert {"blue-api-collect", "blue-api-warm"} <= deployed.dependencies_of("blue-api-1")
    for name in ("blue-api-collect", "blue-api-1", "blue-web-1"):
        [static] = [volume for volume in deployed.by_name[name].inputs["volumes"] if volume["containerPath"] == "/srv"]
        assert static["volumeName"] == "board-dev-static"
        assert bool(static.get("readOnly")) == (name == "blue-web-1")
    with pytest.raises(RunError, match=re.escape("app.api.tasks.collect: the command ended with exit code 3")):
        deploy(app, fail=lambda name: 3 if name == "blue-api-collect" else 0)


def test_sql_files_initialise_a_new_database_and_do_not_change_an_existing_database() -> None:
    app, env = project(), environment() | {"seed": False}
    del app["api"]["seed"]
    app["database"] |= {"init": ["tests/unit/made.sql"], "seed": ["tests/unit/made.sql"]}
    before, seeded = deploy(app, env), deploy(app, env | {"seed": True})
    files = {name: [upload["file"] for upload in deployed.by_name["database-scripts-files"].inputs["uploads"]]
             for name, deployed in (("plain", before), ("seeded", seeded))}  # fmt: skip
    first, second = "/docker-entrypoint-initdb.d/00-made.sql", "/docker-entrypoint-initdb.d/01-made.sql"
    assert files == {"plain": [first], "seeded": [first, second]}
    assert "database-scripts-files" in before.dependencies_of("database-1")
    assert before.by_name["database-1"].inputs == seeded.by_name["database-1"].inputs
    assert before.release == seeded.release


@pytest.mark.parametrize(
    ("name", "reason"), [("tests/unit/nothing.sql", "does not exist"), ("tests/unit", "is not a file")]
)
def test_init_sql_path_that_is_missing_or_a_folder_is_refused(name: str, reason: str) -> None:
    app = project()
    app["database"]["init"] = [name]
    with pytest.raises(RunError, match=rf"app\.database\.init.0: {re.escape(name)} {reason}"):
        deploy(app)


def test_image_for_hot_reload_is_separate_if_the_reload_setting_has_a_build_target() -> None:
    app, env = project(), environment()
    app["web"]["reload"] |= {"target": "dev", "writable": ["/cache"], "start_within": "3m"}
    built = [entry.inputs for entry in deploy(app, env).of_type(IMAGE) if "build" in entry.inputs]
    assert [entry["build"].get("target") for entry in built if "board-web" in entry["name"]] == ["dev"]
    assert all(entry["name"].endswith("-dev") == ("board-web" in entry["name"]) for entry in built)
    released = deploy(app, env | {"reload": False})
    assert not [entry.name for entry in released.of_type(IMAGE) if "target" in (entry.inputs.get("build") or {})]
    for deployed, writable, within in ((deploy(app, env), {"/tmp", "/cache"}, 180), (released, {"/tmp"}, 60)):
        web = deployed.by_name["blue-web-1"].inputs
        assert (set(web["tmpfs"]), web["waitTimeout"]) == (writable, within)


def test_standby_without_its_smoke_test_container_still_counts_as_verified() -> None:
    export = checkpoint_of(second_release())
    resources = export["deployment"]["resources"]
    export["deployment"]["resources"] = [resource for resource in resources if not resource["urn"].endswith("-smoke")]
    assert all(slot.proven for slot in observe(parse(export)).slots.values())
    failed = checkpoint_of(second_release())
    for resource in failed["deployment"]["resources"]:
        if resource["urn"].endswith("::blue-smoke"):
            resource["outputs"] = {"exitCode": 1}
    assert not observe(parse(failed)).slots[Slot.BLUE].proven
