"""Runs the whole program to its end against a stand-in for Pulumi's engine, and returns the resources it registered."""

import asyncio
import copy
import json
import runpy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pulumi
import yaml
from google.protobuf import json_format
from pulumi.runtime import mocks, rpc
from pulumi.runtime import stack as program
from pulumi.runtime.proto import source_pb2

from components import checkpoint, memory, platforms
from components.live import Routing
from components.platforms import cluster, engine, impact
from components.platforms.manifests import Manifest
from components.platforms.reachability import Labels
from components.tier import POSTGRES_PORT

ROOT = Path(__file__).parents[2]
SECRETS = {"database-password": "the-database-secret", "cache-password": "the-cache-secret"}
TIERS = ("web", "api", "worker", "database", "cache")
CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/remoteImage:RemoteImage"
_SECRET = rpc._special_sig_key  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, kw_only=True)
class Registered:
    """Registration of one resource, as the engine received it. `plain` is the inputs as JSON, without secrets."""

    urn: str
    type: str
    name: str
    parent: str
    custom: bool
    inputs: dict[str, Any]
    plain: str
    waits_for: frozenset[str]
    protect: bool
    retained: bool
    aliases: tuple[str, ...]
    ignores: tuple[str, ...]
    secret_outputs: tuple[str, ...]
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    """The outputs of a component, once all of them are known."""

    @property
    def labels(self) -> dict[str, str]:
        if "metadata" in self.inputs:
            return self.inputs["metadata"].get("labels") or {}
        return {label["label"]: label["value"] for label in self.inputs.get("labels") or ()}

    @property
    def kind(self) -> str:
        return self.type.rsplit(":", 1)[1]

    @property
    def runs(self) -> bool:
        """Tell whether this is a container that is ever started."""
        return self.type == CONTAINER and self.inputs.get("start", True)


STACK = "pulumi:pulumi:Stack"


class Recorder(mocks.MockMonitor):
    """Stand-in for the engine: answers each request and records each registration."""

    def __init__(self, fail: Callable[[str], int], registered: list[Registered]) -> None:
        super().__init__(_Answers(fail))
        self.registered = registered

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 (the protocol's name)
        answer = super().RegisterResource(request)
        if request.type == STACK:
            return answer  # The stack belongs to the process: only its first program registers it.
        plain = json_format.MessageToDict(request.object)
        self.registered.append(
            Registered(
                urn=answer.urn,
                type=request.type,
                name=request.name,
                parent=request.parent,
                custom=request.custom,
                inputs=_unwrapped(rpc.deserialize_properties(request.object)),
                plain=json.dumps(_without_secrets(plain)),
                waits_for=frozenset(request.dependencies),
                protect=request.protect,
                retained=request.retainOnDelete,
                aliases=tuple(str(json_format.MessageToDict(entry)) for entry in request.aliases),
                ignores=tuple(request.ignoreChanges),
                secret_outputs=tuple(request.additionalSecretOutputs),
            )
        )
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        for entry in self.registered:
            if entry.urn == request.urn:
                entry.outputs.update(_unwrapped(rpc.deserialize_properties(request.outputs)))
        return super().RegisterResourceOutputs(request)


class _Answers(mocks.Mocks):
    def __init__(self, fail: Callable[[str], int]) -> None:
        self.fail = fail

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"the program called a function of a provider: {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ.endswith(":Job") and self.fail(args.name):
            raise RuntimeError(f"the Job {args.name} has failed")
        if args.typ == IMAGE:
            outputs["imageId"] = f"sha256:{args.inputs.get('name', args.name)}"
        if args.typ == CONTAINER and args.inputs.get("mustRun") is False:
            outputs |= {"exitCode": self.fail(args.name), "containerLogs": "first line\nlast line\n"}
        return f"{args.name}-id", outputs


def _unwrapped(value: Any) -> Any:
    if rpc.is_rpc_secret(value):
        return _unwrapped(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: _unwrapped(part) for key, part in cast(dict[str, Any], value).items()}
    return [_unwrapped(part) for part in cast(list[Any], value)] if isinstance(value, list) else value


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        if _SECRET in value:
            return "[secret]"
        return {key: _without_secrets(part) for key, part in cast(dict[str, Any], value).items()}
    return [_without_secrets(part) for part in cast(list[Any], value)] if isinstance(value, list) else value


@cache
def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())["config"]


def project() -> dict[str, Any]:
    """Return a copy of `app` from the repository's own Pulumi.yaml."""
    return copy.deepcopy(_read("Pulumi.yaml")["app"]["value"])


def environment(stack: str = "dev") -> dict[str, Any]:
    """Return a copy of `environment` from one of the repository's stack files, with images pinned if it requires that."""
    settings = copy.deepcopy(_read(f"Pulumi.{stack}.yaml")["board:environment"])
    if settings.get("pinned"):
        settings["images"] = {tier: f"registry.test/{tier}@sha256:{'0' * 64}" for tier in TIERS}
        settings["toolbox"] = f"python@sha256:{'1' * 64}"
        settings["proxy"] = f"haproxy@sha256:{'2' * 64}"
        settings["pooler"] = f"registry.test/pgbouncer@sha256:{'3' * 64}"
    return settings


class Deployment:
    """Registrations and outputs of one run of the program."""

    def __init__(self, registered: list[Registered], outputs: Mapping[str, Any], export: Mapping[str, Any]) -> None:
        self.export = export
        self.all = registered
        self.outputs = outputs
        self.by_name = {entry.name: entry for entry in registered if entry.custom}
        self.release = next(
            (entry.labels["tiers.release"] for entry in registered if "tiers.release" in entry.labels), None
        )
        self.by_urn = {entry.urn: entry for entry in registered}

    def of_type(self, type_: str) -> list[Registered]:
        """Return the resources of a type, or of a kind of Kubernetes objects, sorted by URN."""
        entries = [
            entry for entry in self.sorted if type_ in (entry.type, entry.type.startswith("kubernetes:") and entry.kind)
        ]
        assert entries, f"nothing of type {type_} was registered"
        return entries

    @property
    def sorted(self) -> list[Registered]:
        """All registrations, sorted by URN: the order of registration differs from run to run."""
        return sorted(self.all, key=lambda entry: entry.urn)

    @property
    def objects(self) -> list[Registered]:
        """All Kubernetes objects, sorted by URN."""
        entries = [entry for entry in self.sorted if entry.type.startswith("kubernetes:")]
        assert entries
        return entries

    def one(self, kind: str, name: str) -> Registered:
        """Return the Kubernetes object of that kind and name."""
        [entry] = [entry for entry in self.of_type(kind) if entry.name == name and entry.ignores != ("*",)]
        return entry

    def inside(self, entry: Registered, type_: str) -> bool:
        """Tell whether a resource is below a component of that type."""
        while entry.parent in self.by_urn:
            entry = self.by_urn[entry.parent]
            if entry.type == type_:
                return True
        return False

    def before(self, what: str | Registered) -> set[str]:
        """Return the names of all custom resources that are created before a resource."""
        todo, seen = [self.by_name[what] if isinstance(what, str) else what], set[str]()
        while todo:
            for urn in todo.pop().waits_for:
                if urn in self.by_urn and urn not in seen:
                    seen.add(urn)
                    todo.append(self.by_urn[urn])
        return {self.by_urn[urn].name for urn in seen if self.by_urn[urn].custom}

    def __iter__(self) -> Iterator[Registered]:
        return iter(self.all)


def deploy(
    app: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
    *,
    export: Mapping[str, Any] | None = None,
    fail: Callable[[str], int] = lambda name: 0,
    stack: str = "dev",
    secrets: Mapping[str, str] = SECRETS,
    seen: list[Registered] | None = None,
    absent: Collection[str] = (),
    name: str = "board",
    root: Path = ROOT,
    routing: Routing = Routing(source="the platform"),  # noqa: B008 (it is frozen)
) -> Deployment:
    """Run `__main__.py` to its end with this configuration and checkpoint, and return its registrations.

    Args:
        fail: Returns the exit code of a one-shot container or Job, by its name.
        seen: Receives the registrations, also if the program fails.
        absent: Images that the engine does not have.
        name: Name of the Pulumi project.
        root: Folder of the Pulumi project.
        routing: Answer of the platform about the live slot; by default no slot is live.
    """
    registered = [] if seen is None else seen
    _hooks.clear()
    asyncio.set_event_loop(asyncio.new_event_loop())
    recorder = Recorder(fail, registered)
    mocks.set_mocks(recorder.mocks, project=name, stack=stack, monitor=recorder)
    values = {"app": project() if app is None else app, "environment": environment(stack) if env is None else env}
    config = {f"{name}:{key}": json.dumps(value) for key, value in values.items()}
    pulumi.runtime.set_all_config(config | {f"{name}:secrets": json.dumps(secrets)}, [f"{name}:secrets"])
    exported: dict[str, Any] = {}
    parsed = checkpoint.parse(export or {})
    with (
        mock.patch.object(checkpoint, "Asked", return_value=mock.Mock(answer=lambda: parsed)),
        # This reads the checkpoint while the update runs.
        mock.patch.object(memory, "record", return_value=memory.remember([])),
        mock.patch.object(platforms, "routing", return_value=routing),
        mock.patch.object(impact, "describe", lambda live, *_: f"{live} was asked" if live else "nothing was live"),
        mock.patch.object(engine, "check", return_value=None),
        mock.patch.object(engine, "absent_images", lambda _, images: [image for image in images if image in absent]),
        mock.patch.object(cluster, "check", return_value=None),
        mock.patch.object(cluster, "check_served", return_value=None),
        mock.patch.object(pulumi, "export", exported.__setitem__),
        # The stand-in has no server for callbacks; hooks are tested where the engine calls them (tests/e2e).
        mock.patch("pulumi.resource_hooks.register_error_hook", _registered),
        mock.patch("pulumi.resource_hooks.register_resource_hook", _registered),
        mock.patch.object(pulumi, "get_root_directory", return_value=str(root)),
        # Pulumi reads the call stack for each resource; below a test runner that took a fifth of the time.
        mock.patch("pulumi.runtime.resource._get_stack_trace", source_pb2.StackTrace),
    ):
        _finish(lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"))
    return Deployment(registered, exported, export or {})


def pods(manifest: Manifest) -> dict[str, tuple[Labels, int | None]]:
    """Return the pods that an object creates, one for all replicas alike: their labels, and the port they listen on.

    Pods of a Cluster and a Pooler are created by their operator, whose labels override the configured ones
    (CloudNativePG 1.27: pkg/specs/pods.go, pkg/specs/pgbouncer/deployments.go).
    """
    name, spec = manifest["metadata"]["name"], manifest.get("spec", {})
    if manifest["kind"] == "Cluster":
        inherited = spec["inheritedMetadata"]["labels"]
        added = {"cnpg.io/cluster": name, "cnpg.io/podRole": "instance"}
        numbered = [f"{name}-{number}" for number in range(1, int(spec["instances"]) + 1)]
        return {entry: (inherited | added | {"cnpg.io/instanceName": entry}, POSTGRES_PORT) for entry in numbered}
    if "template" not in spec:
        return {}
    labels = spec["template"]["metadata"]["labels"]
    if manifest["kind"] == "Pooler":
        added = {"cnpg.io/cluster": spec["cluster"]["name"], "cnpg.io/podRole": "pooler", "cnpg.io/poolerName": name}
        return {name: (labels | added, POSTGRES_PORT)}
    listens = [port["containerPort"] for port in spec["template"]["spec"]["containers"][0].get("ports", ())]
    return {name: (labels, listens[0] if listens else None)}


_hooks: set[str] = set()
"""Names of the hooks that the running program has registered."""


def _registered(hook: Any) -> asyncio.Future[None]:
    assert hook.name not in _hooks, f"Pulumi refuses a second hook of the name {hook.name}"
    _hooks.add(hook.name)
    done: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    done.set_result(None)
    return done


def _finish(body: Callable[[], object]) -> None:
    """Wait for everything that the program began; otherwise a test sees only the registrations that were quick."""
    runtime = cast(Any, mocks).SETTINGS
    runtime.rpc_manager.clear()
    runtime.outputs.clear()

    async def run() -> None:
        await program.run_pulumi_func(lambda: cast(None, body()))

    asyncio.get_event_loop().run_until_complete(run())


@cache
def first(stack: str = "dev") -> Deployment:
    """Return the deployment of the board's first release. Tests share it: do not change it."""
    return deploy(stack=stack)


@cache
def second(stack: str = "dev") -> Deployment:
    """Return the deployment of the board's second release, live after the first even where promotion is manual.

    Tests share it: do not change it.
    """
    app, settings = project() | {"version": "2.0.0"}, environment(stack) | {"release": {}}
    return deploy(app, settings, export=exported(first(stack)), stack=stack)


def exported(deployment: Deployment) -> dict[str, Any]:
    """Return the checkpoint (`pulumi stack export`) that the deployment would leave."""
    before = {resource["urn"]: resource for resource in deployment.export.get("deployment", {}).get("resources", ())}
    resources: list[dict[str, Any]] = []
    for entry in deployment:
        if entry.ignores == ("*",):  # A resource that ignores all changes keeps its state.
            resources.append(before[entry.urn])
            continue
        outputs = {"exitCode": 0} if entry.inputs.get("mustRun") is False and entry.runs else dict(entry.outputs)
        if entry.type == IMAGE:
            outputs = {"imageId": f"sha256:{entry.inputs['name']}"}
        resources.append(
            {
                "urn": entry.urn,
                "type": entry.type,
                "parent": entry.parent,
                "custom": entry.custom,
                "inputs": entry.inputs,
                "outputs": outputs,
                "dependencies": sorted(entry.waits_for),
                "protect": entry.protect,
            }
        )
    return {"deployment": {"resources": resources}}
