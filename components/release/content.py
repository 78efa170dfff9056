"""Stored form of a release's content: workloads and routes as JSON objects with fixed names.

The digest of a release is a hash of these objects, and checkpoints contain the routes. Don't change a name or the format of a
value, because every deployed stack would get a new release. Adding a field has the same effect. Add a field only if a change
of its value must make a new release. Other fields, such as the size of a volume, are not part of a release.
"""

from collections.abc import Mapping
from typing import Any

from ..model.workload import Image, Job, Mount, Probe, Resources, Route, Script, Secret, Task, Volume, Workload

State = dict[str, Any]


def to_state(part: Workload | Route) -> State:
    """Return a workload or a route as a JSON object."""
    return _route(part) if isinstance(part, Route) else _workload(part)


def route_from_state(state: Mapping[str, Any]) -> Route:
    """Return a route from a JSON object.

    Ignore unknown fields, which later versions may store. Use defaults for fields that earlier versions did not store.
    """
    return Route(
        tier=state["tier"],
        prefixes=tuple(state["prefixes"]),
        port=state["port"],
        health=state["health"],
        hosts=tuple(state.get("hosts", ())),
        gateway=state.get("gateway", ""),
        hidden=tuple(state.get("hidden", ())),
        sticky=state.get("sticky", True),
        health_host=state.get("health_host", ""),
        host=state.get("host", ""),
    )


def _route(route: Route) -> State:
    state = {
        "tier": route.tier,
        "prefixes": list(route.prefixes),
        "port": route.port,
        "health": route.health,
        "hosts": list(route.hosts),
        "gateway": route.gateway,
        "hidden": list(route.hidden),
        "sticky": route.sticky,
    }
    state |= {"health_host": route.health_host} if route.health_host else {}
    return state | ({"host": route.host} if route.host else {})


def _workload(workload: Workload) -> State:
    state = {
        "tier": workload.tier,
        "image": _image(workload.image),
        "resources": _resources(workload.resources),
        "command": list(workload.command),
        "env": _pairs(workload.env),
        "secrets": [_secret(secret) for secret in workload.secrets],
        "port": workload.port,
        "probe": _probe(workload.probe),
        "ready": _probe(workload.ready),
        "zones": list(workload.zones),
        "egress": workload.egress,
        "autoscaled": workload.autoscaled,
        "priority": workload.priority,
        "writable": list(workload.writable),
        "scratch": workload.scratch,
        "volumes": [_volume(volume) for volume in workload.volumes],
        "mounts": [_mount(mount) for mount in workload.mounts],
        "scripts": [_script(script) for script in workload.scripts],
        "user": workload.user,
        "start_within": workload.start_within,
        "stop_within": workload.stop_within,
        "tasks": [_task(task) for task in workload.tasks],
        "needs": list(workload.needs),
    }
    # Names without a value are absent, as in the state of stacks that an earlier version of the program deployed.
    state |= {"entrypoint": list(workload.entrypoint)} if workload.entrypoint else {}
    state |= {"single": True} if workload.single else {}
    state |= {"jobs": [_job(job) for job in workload.jobs]} if workload.jobs else {}
    return state | ({"secret_env": _secret_pairs(workload.secret_env)} if workload.secret_env else {})


def _image(image: Image) -> State:
    return {"reference": image.reference, "pull_secrets": list(image.pull_secrets)}


def _resources(resources: Resources) -> State:
    return {"cpu": resources.cpu, "memory": resources.memory, "reserve": resources.reserve}


def _secret(secret: Secret) -> State:
    return {"name": secret.name, "version": secret.version}


def _probe(probe: Probe | None) -> State | None:
    if not probe:
        return None
    state = {"path": probe.path, "port": probe.port, "command": list(probe.command)}
    return state | ({"host": probe.host} if probe.host else {})


def _volume(volume: Volume) -> State:
    return {"name": volume.name, "path": volume.path, "read_only": volume.read_only}


def _mount(mount: Mount) -> State:
    return {"source": mount.source, "path": mount.path}


def _script(script: Script) -> State:
    return {"name": script.name, "text": script.text}


def _task(task: Task) -> State:
    state = {"name": task.name, "command": list(task.command), "timeout": task.timeout, "env": _pairs(task.env)}
    return state | ({"secret_env": _secret_pairs(task.secret_env)} if task.secret_env else {})


def _job(job: Job) -> State:
    return {
        "name": job.name,
        "command": list(job.command),
        "timeout": job.timeout,
        "cron": job.cron,
        "zone": job.schedule.zone,
        "overlaps": job.overlaps,
        "retries": job.retries,
        "makes_up": job.makes_up,
    }


def _pairs(env: tuple[tuple[str, str], ...]) -> list[list[str]]:
    return [[name, value] for name, value in env]


def _secret_pairs(env: tuple[tuple[str, Secret], ...]) -> list[State]:
    return [{"variable": name, **_secret(secret)} for name, secret in env]
