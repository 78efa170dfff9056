"""Tests of the stored form of workloads and routes.

The digest of a release is a hash of this form. The checkpoint of a stack contains the stored routes.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

from components.model.schedules import Schedule
from components.model.workload import (
    Image,
    Job,
    Mount,
    Probe,
    Resources,
    Route,
    Script,
    Secret,
    Task,
    Volume,
    Workload,
    Zone,
)
from components.release import content
from components.release.checkpoint import SLOT
from components.release.planner import identify

from .program import TIERS, deploy, environment

WORKLOAD = Workload(
    tier="api",
    image=Image(
        reference="api:1", context="api", target="run", base="a:1", path="app.api.build", pull_secrets=("pull",)
    ),
    resources=Resources(cpu=0.5, memory=2**29, reserve=0.25),
    command=("serve", "--port", "8000"),
    env=(("LOG_LEVEL", "debug"), ("PUBLIC_URL", "https://shop.test")),
    secrets=(Secret(name="api-key", version="4be1a0c2", plain=False, pairable=False),),
    port=8000,
    probe=Probe(path="/health", port=8000),
    ready=Probe(command=("is-ready",)),
    zones=(Zone.EDGE, Zone.DATA),
    egress=True,
    autoscaled=0.4,
    priority="high",
    writable=("/tmp",),
    scratch=2**20,
    volumes=(Volume(name="uploads", path="/data", read_only=True, size=2**31, storage_class="nfs"),),
    mounts=(Mount(source="/src", path="/app", writable=True),),
    scripts=(Script(name="1.sql", text="SELECT 1"),),
    user=10002,
    start_within=61,
    stop_within=31,
    tasks=(Task(name="migrate", command=("migrate",), timeout=120, env=(("HOST", "db"),), path="app.api.migrate"),),
    needs=("cache", "database"),
    belongs_to="api",
    path="app.services.api",
    former=("serve",),
)
"""A workload of an earlier version of the program, in which no field has its default value."""
ROUTE = Route(
    tier="api",
    prefixes=("/api", "/v2"),
    port=8000,
    health="/health",
    hosts=("shop.test",),
    gateway="watched",
    hidden=("/metrics",),
    sticky=False,
)
"""A route of an earlier version of the program, in which no field has its default value."""
_SECRET_ENV = (("DATABASE_URL", Secret(name="env.DATABASE_URL", version="3", parts=("x",))),)
WORKLOAD_TODAY = replace(
    WORKLOAD,
    entrypoint=("/tini",),
    single=True,
    jobs=(
        Job(
            name="digest",
            command=("digest",),
            timeout=60,
            cron="0 7 * * *",
            overlaps=True,
            retries=2,
            makes_up=True,
            schedule=Schedule(minutes=(0,), hours=(7,), days=(1,), months=(1,), weekdays=(0,), zone="Europe/Berlin"),
        ),
    ),
    secret_env=_SECRET_ENV,
    probe=replace(WORKLOAD.probe, host="shop.test") if WORKLOAD.probe else None,
    tasks=tuple(replace(task, secret_env=_SECRET_ENV) for task in WORKLOAD.tasks),
)
ROUTE_TODAY = replace(ROUTE, health_host="shop.test", host="admin.shop.test")
"""The same workload and route with the fields that later versions added. Their names are stored only if they have a value."""

BOARD = {
    "dev": {
        "digest": "4b178e36a9cf",
        "parts": {
            "api": "846d1e8877af",
            "api.migrate": "d78c9af490bb",
            "api.route": "b8c3c0bb9ea2",
            "api.seed": "8e32bd76354b",
            "web": "4ab13ad085b7",
            "web.route": "0ab70bac286c",
            "worker": "b9c1b42e05aa",
        },
    },
    "staging": {
        "digest": "aaa4ef02dfec",
        "parts": {
            "api": "f21baf7bdbf6",
            "api.migrate": "d78c9af490bb",
            "api.route": "736d77377903",
            "web": "b758d8e47b3d",
            "web.route": "dc8e934744ca",
            "worker": "209e9889f03e",
        },
    },
}
"""Stack → expected digest and part digests of the release of `board`, with pinned images.

Stack `dev` runs on Docker, `staging` on Kubernetes. Change a digest here only if you change a setting of `board`. If a digest
changes for another reason, every deployed stack gets a new release.
"""


@pytest.mark.parametrize("stack", BOARD)
def test_release_of_the_board_has_the_same_digest_as_in_earlier_versions(stack: str) -> None:
    env = environment(stack) | {"images": {tier: f"registry.test/{tier}@sha256:{'0' * 64}" for tier in TIERS}}
    env.pop("reload", None)  # Live reload mounts folders of this machine, which are part of the digest.
    [slot] = [entry for entry in deploy(env=env, stack=stack) if entry.type == SLOT]
    assert {key: slot.inputs[key] for key in ("digest", "parts")} == BOARD[stack]


def test_digest_of_a_release_with_all_fields_is_the_same_as_in_earlier_versions() -> None:
    release = identify("1.0.0", [WORKLOAD, ROUTE])
    assert release.parts == {"api": "91dfd2d3b44b", "api.migrate": "1ac44182f54f", "api.route": "3164d3eb5dbc"}
    assert release.digest == "0d1361b5d2f5"


STATE = content.to_state(WORKLOAD_TODAY)
STORED = [
    (WORKLOAD_TODAY, STATE),
    (WORKLOAD_TODAY.image, STATE["image"]),
    (WORKLOAD_TODAY.resources, STATE["resources"]),
    (WORKLOAD_TODAY.probe, STATE["probe"]),
    (WORKLOAD_TODAY.secrets[0], STATE["secrets"][0]),
    (WORKLOAD_TODAY.volumes[0], STATE["volumes"][0]),
    (WORKLOAD_TODAY.mounts[0], STATE["mounts"][0]),
    (WORKLOAD_TODAY.scripts[0], STATE["scripts"][0]),
    (WORKLOAD_TODAY.tasks[0], STATE["tasks"][0]),
    (WORKLOAD_TODAY.jobs[0], STATE["jobs"][0]),
    (ROUTE_TODAY, content.to_state(ROUTE_TODAY)),
]
STORED_NAMES: Mapping[type, Mapping[str, str | None]] = {
    Image: {"context": None, "dockerfile": None, "target": None, "args": None, "base": None, "path": None},
    Job: {"path": None, "env": None, "secret_env": None, "schedule": "zone"},
    Mount: {"writable": None},
    Secret: {"plain": None, "pairable": None, "parts": None},
    Task: {"path": None},
    Volume: {"size": None, "storage_class": None, "access": None},
    Workload: {"belongs_to": None, "path": None, "former": None, "reads_store": None},
}
"""Field → stored name, for fields whose stored name differs from the field's name. None: the field is not part of a release."""


@pytest.mark.parametrize(("value", "state"), STORED, ids=[type(value).__name__ for value, _ in STORED])
def test_every_field_has_a_stored_name_or_is_not_part_of_a_release(value: Any, state: Mapping[str, Any]) -> None:
    names = STORED_NAMES.get(type(value), {})
    expected = {names.get(field.name, field.name) for field in fields(value)} - {None}
    assert state.keys() == expected, "decide in STORED_NAMES; see the docstring of components/release/content.py"


def test_stored_route_is_read_back_unchanged() -> None:
    assert content.route_from_state(json.loads(json.dumps(content.to_state(ROUTE)))) == ROUTE


def test_stored_route_of_another_version_loses_unknown_fields_and_gets_defaults_for_missing_ones() -> None:
    stored = {"tier": "api", "prefixes": ["/api"], "port": 8000, "health": "/health", "unknown": 1}
    assert content.route_from_state(stored) == Route(tier="api", prefixes=("/api",), port=8000, health="/health")
