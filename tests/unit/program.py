"""Functions that run `__main__.py` with a mock of Pulumi's engine and return the registered resources."""

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

from components import context
from components.model.names import LABEL_DATA
from components.model.services import POSTGRES_PORT
from components.platforms import impact
from components.platforms.docker import inspect as docker
from components.platforms.docker.inspect import DockerInspector
from components.platforms.kubernetes import inspect as kubernetes
from components.platforms.kubernetes import kubeconfig
from components.platforms.kubernetes.inspect import KubernetesInspector
from components.platforms.kubernetes.objects import Manifest
from components.platforms.kubernetes.reachability import Labels
from components.release import checkpoint, memory
from components.release.live import Routing

ROOT = Path(__file__).parents[2]
SECRETS = {"database-password": "the-database-secret", "cache-password": "the-cache-secret"}
TIERS = ("web", "api", "worker", "database", "cache")
CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/remoteImage:RemoteImage"
IMAGE_PROCESS = docker.ImageProcess(entrypoint=["/entrypoint"], command=["serve"])
"""Entrypoint and command of every image on the mocked engine."""
_SECRET = rpc._special_sig_key  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One resource as the program registered it with Pulumi's engine."""

    urn: str
    type: str
    name: str
    parent: str
    custom: bool
    inputs: dict[str, Any]
    plain: str
    """Inputs as JSON, with `[secret]` in place of each secret value."""
    waits_for: frozenset[str]
    """URNs of the resources that this resource depends on."""
    protect: bool
    retained: bool
    aliases: tuple[str, ...]
    ignores: tuple[str, ...]
    secret_outputs: tuple[str, ...]
    provider: str = ""
    """URN and id of the provider, as `URN::ID`; empty for the default provider."""
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Outputs of a component; empty until the component registers its outputs."""

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
        """Return whether this resource is a container that is started after its creation."""
        return self.type == CONTAINER and self.inputs.get("start", True)


STACK = "pulumi:pulumi:Stack"


class Recorder(mocks.MockMonitor):
    """Mock of Pulumi's engine that answers every request and records every registration."""

    def __init__(self, fail: Callable[[str], int], registered: list[Registered]) -> None:
        super().__init__(_ProviderMocks(fail))
        self.registered = registered

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 (the protocol sets the name)
        answer = super().RegisterResource(request)
        if request.type == STACK:
            # Do not record the stack resource, because only the first program run of a process registers it.
            return answer
        plain = json_format.MessageToDict(request.object)
        self.registered.append(
            Registered(
                urn=answer.urn,
                type=request.type,
                name=request.name,
                parent=request.parent,
                custom=request.custom,
                inputs=_unwrap_secrets(rpc.deserialize_properties(request.object)),
                plain=json.dumps(_mask_secrets(plain)),
                waits_for=frozenset(request.dependencies),
                protect=request.protect,
                retained=request.retainOnDelete,
                aliases=tuple(str(json_format.MessageToDict(entry)) for entry in request.aliases),
                ignores=tuple(request.ignoreChanges),
                secret_outputs=tuple(request.additionalSecretOutputs),
                provider=request.provider,
            )
        )
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        for entry in self.registered:
            if entry.urn == request.urn:
                entry.outputs.update(_unwrap_secrets(rpc.deserialize_properties(request.outputs)))
        return super().RegisterResourceOutputs(request)


class _ProviderMocks(mocks.Mocks):
    def __init__(self, fail: Callable[[str], int]) -> None:
        self.fail = fail

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"the program called a function of a provider: {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ.endswith(":Job") and self.fail(args.name):
            raise RuntimeError(f"the Job {args.name} failed")
        if args.typ == IMAGE:
            outputs["imageId"] = f"sha256:{args.inputs.get('name', args.name)}"
        if args.typ == CONTAINER and args.inputs.get("mustRun") is False:
            outputs |= {"exitCode": self.fail(args.name), "containerLogs": "first line\nlast line\n"}
        return f"{args.name}-id", outputs


def _unwrap_secrets(value: Any) -> Any:
    if rpc.is_rpc_secret(value):
        return _unwrap_secrets(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: _unwrap_secrets(part) for key, part in cast(dict[str, Any], value).items()}
    return [_unwrap_secrets(part) for part in cast(list[Any], value)] if isinstance(value, list) else value


def _mask_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        if _SECRET in value:
            return "[secret]"
        return {key: _mask_secrets(part) for key, part in cast(dict[str, Any], value).items()}
    return [_mask_secrets(part) for part in cast(list[Any], value)] if isinstance(value, list) else value


@cache
def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())["config"]


def project() -> dict[str, Any]:
    """Return a copy of the configuration of the example application `board` (key `app` in its Pulumi.yaml)."""
    return copy.deepcopy(_read("Pulumi.yaml")["app"]["value"])


def environment(stack: str = "dev") -> dict[str, Any]:
    """Return a copy of the key `environment` in the stack file of `stack`.

    If the stack file requires pinned images, the copy also names an image with a digest for each service.
    """
    settings = copy.deepcopy(_read(f"Pulumi.{stack}.yaml")["board:environment"])
    if settings.get("pinned"):
        settings["images"] = {tier: f"registry.test/{tier}@sha256:{'0' * 64}" for tier in TIERS}
        settings["toolbox"] = f"python@sha256:{'1' * 64}"
        settings["proxy"] = f"haproxy@sha256:{'2' * 64}"
        settings["pooler"] = f"registry.test/pgbouncer@sha256:{'3' * 64}"
    return settings


class Deployment:
    """Registered resources and stack outputs of one program run."""

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
        """Return the resources with this type token or Kubernetes kind, sorted by URN. Fail if the list is empty."""
        entries = [
            entry for entry in self.sorted if type_ in (entry.type, entry.type.startswith("kubernetes:") and entry.kind)
        ]
        assert entries, f"nothing of type {type_} was registered"
        return entries

    @property
    def sorted(self) -> list[Registered]:
        """All registered resources, sorted by URN because the order of registration differs from run to run."""
        return sorted(self.all, key=lambda entry: entry.urn)

    @property
    def objects(self) -> list[Registered]:
        """All Kubernetes objects, sorted by URN."""
        entries = [entry for entry in self.sorted if entry.type.startswith("kubernetes:")]
        assert entries
        return entries

    def get_object(self, kind: str, name: str) -> Registered:
        """Return the Kubernetes object with this kind and name. Fail unless exactly one exists.

        Objects that ignore all changes don't count.
        """
        [entry] = [entry for entry in self.of_type(kind) if entry.name == name and entry.ignores != ("*",)]
        return entry

    def inside(self, entry: Registered, type_: str) -> bool:
        """Return whether the resource is inside a component of this type, directly or at any depth."""
        while entry.parent in self.by_urn:
            entry = self.by_urn[entry.parent]
            if entry.type == type_:
                return True
        return False

    def dependencies_of(self, resource: str | Registered) -> set[str]:
        """Return the names of all custom resources that this resource depends on, directly or indirectly."""
        todo, seen = [self.by_name[resource] if isinstance(resource, str) else resource], set[str]()
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
    registrations: list[Registered] | None = None,
    missing_images: Collection[str] = (),
    name: str = "board",
    root: Path = ROOT,
    routing: Routing = Routing(source="the platform"),  # noqa: B008 (it is frozen)
    body: Callable[[], object] = lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"),
) -> Deployment:
    """Run `__main__.py` with this configuration and checkpoint, and return the registered resources.

    Args:
        export: Checkpoint of the previous update, as `pulumi stack export` prints it.
        fail: Function that gets the name of a one-shot container or Job and returns the exit code.
        registrations: List to which the registered resources are added, even if the program fails.
        missing_images: Images that the Docker engine does not have.
        name: Name of the Pulumi project.
        root: Folder of the Pulumi project.
        routing: Routing that the platform reports. By default, no slot is live.
        body: Function to run instead of `__main__.py`.
    """
    recorded = [] if registrations is None else registrations
    _hooks.clear()
    asyncio.set_event_loop(asyncio.new_event_loop())
    recorder = Recorder(fail, recorded)
    mocks.set_mocks(recorder.mocks, project=name, stack=stack, monitor=recorder)
    values = {"app": project() if app is None else app, "environment": environment(stack) if env is None else env}
    config = {f"{name}:{key}": json.dumps(value) for key, value in values.items()}
    pulumi.runtime.set_all_config(config | {f"{name}:secrets": json.dumps(secrets)}, [f"{name}:secrets"])
    outputs: dict[str, Any] = {}
    parsed = checkpoint.parse(export or {})
    with (
        mock.patch.object(context, "CheckpointExport", return_value=mock.Mock(answer=lambda: parsed)),
        # `memory.record` would read the checkpoint of the running update, but the mocked engine has none.
        mock.patch.object(memory, "record", return_value=memory.remember([])),
        mock.patch.object(DockerInspector, "routing", return_value=routing),
        mock.patch.object(KubernetesInspector, "routing", return_value=routing),
        mock.patch.object(
            impact, "describe", lambda live, *_: f"{live} was probed" if live else "no slot was live before"
        ),
        mock.patch.object(docker, "check_engine", return_value=None),
        mock.patch.object(DockerInspector, "image_process", return_value=IMAGE_PROCESS),
        mock.patch.object(
            DockerInspector, "absent_images", lambda _, images: [image for image in images if image in missing_images]
        ),
        mock.patch.object(kubeconfig, "check", return_value=None),
        mock.patch.object(kubernetes, "check_served", return_value=None),
        mock.patch.object(pulumi, "export", outputs.__setitem__),
        # The mocked engine cannot call hooks. Therefore tests/e2e tests the hooks with the real engine.
        mock.patch("pulumi.resource_hooks.register_error_hook", _register_hook),
        mock.patch("pulumi.resource_hooks.register_resource_hook", _register_hook),
        mock.patch.object(pulumi, "get_root_directory", return_value=str(root)),
        # Pulumi would read the call stack for each resource. The reading takes a fifth of the time under pytest.
        mock.patch("pulumi.runtime.resource._get_stack_trace", source_pb2.StackTrace),
    ):
        _run_to_end(body)
    return Deployment(recorded, outputs, export or {})


def pods(manifest: Manifest) -> dict[str, tuple[Labels, int | None]]:
    """Return the labels and the listening port of each pod that a Kubernetes object creates, by pod name.

    Identical replicas count as one pod. In the pods of a Cluster or Pooler, the labels of CloudNativePG override the
    configured labels (version 1.27: pkg/specs/pods.go, pkg/specs/pgbouncer/deployments.go).
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


def _register_hook(hook: Any) -> asyncio.Future[None]:
    assert hook.name not in _hooks, f"Pulumi refuses a second hook of the name {hook.name}"
    _hooks.add(hook.name)
    done: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    done.set_result(None)
    return done


def _run_to_end(body: Callable[[], object]) -> None:
    """Run the program and wait until all its resources are registered."""
    runtime = cast(Any, mocks).SETTINGS
    runtime.rpc_manager.clear()
    runtime.outputs.clear()

    async def run() -> None:
        await program.run_pulumi_func(lambda: cast(None, body()))

    asyncio.get_event_loop().run_until_complete(run())


@cache
def first_release(stack: str = "dev") -> Deployment:
    """Return the deployment of the first release of the application `board`. Tests share the result and must not change it."""
    return deploy(stack=stack)


@cache
def second_release(stack: str = "dev") -> Deployment:
    """Return the deployment of the second release of the application `board`, which goes live without manual promotion.

    Tests share the result and must not change it.
    """
    app, settings = project() | {"version": "2.0.0"}, environment(stack) | {"release": {}}
    return deploy(app, settings, export=checkpoint_of(first_release(stack)), stack=stack)


def checkpoint_of(deployment: Deployment) -> dict[str, Any]:
    """Return the checkpoint after the deployment, as `pulumi stack export` prints it."""
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


def preview_output(before: Mapping[str, Any], after: Deployment) -> dict[str, Any]:
    """Return the output of `pulumi preview --json --show-sames` for an update from a checkpoint to a deployment.

    In the preview a changed Docker resource is replaced, and a changed Kubernetes object is updated.
    """
    old, new = (
        {resource["urn"]: resource for resource in with_whole_urns(export)["deployment"]["resources"]}
        for export in (before, checkpoint_of(after))
    )
    steps: list[dict[str, Any]] = []
    for urn in sorted(old.keys() | new.keys()):
        one, other = old.get(urn), new.get(urn)
        if one and other:
            changed = "replace" if one["type"].startswith("docker:") else "update"
            op = "same" if one["inputs"] == other["inputs"] else changed
        else:
            op = "create" if other else "delete"
        steps.append({"op": op, "urn": urn, "oldState": one, "newState": other})
    return {"steps": steps}


def with_whole_urns(export: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint with complete URNs.

    The real engine writes the types of all parents into a URN. The mock writes only the type of the nearest parent.
    """
    resources = export["deployment"]["resources"]
    by_urn = {resource["urn"]: resource for resource in resources}

    def whole(urn: str) -> str:
        resource = by_urn.get(urn)
        if not resource:
            return urn
        parent = whole(resource["parent"]).split("::")[2] if resource["parent"] in by_urn else ""
        begin, name = urn.split("::")[:2], urn.split("::")[3]
        return "::".join([*begin, f"{parent}${resource['type']}" if parent else resource["type"], name])

    renamed = [
        resource
        | {"urn": whole(resource["urn"]), "parent": whole(resource["parent"])}
        | {"dependencies": [whole(urn) for urn in resource.get("dependencies", ())]}
        for resource in resources
    ]
    return {"deployment": {"resources": renamed}}


def unlabelled(export: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint without the label `tiers.data`, which older versions of the program did not write."""
    copied: dict[str, Any] = copy.deepcopy(dict(export))
    for resource in copied["deployment"]["resources"]:
        inputs = resource["inputs"]
        if "metadata" in inputs:
            (inputs["metadata"].get("labels") or {}).pop(LABEL_DATA, None)
        elif labels := inputs.get("labels"):
            inputs["labels"] = [label for label in labels if label["label"] != LABEL_DATA]
    return copied
