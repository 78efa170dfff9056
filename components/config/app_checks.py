"""Check the application: refuse values that contradict each other."""

import json
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError

from ..model import names, services
from ..model.services import API, WEB
from . import explain, grammar, template, units
from .app import SECRETS, App, ProcessSettings, ServiceSettings, Step, checks_as_json, program_variables
from .grammar import describe
from .paths import covers, normalise
from .template import Placeholder

CHECKS_SIZE = 120_000
"""Maximum size in bytes of `checks`, and of `visits`, each as JSON. A process gets each of these texts as one argument or one
environment variable. Linux limits an argument or a variable to 128 KiB."""
FIGURES_SIZE = 256 * 1024
"""Maximum size in bytes of all `figures` (business metrics) as JSON. The dashboard contains each figure several times, and must
fit into a ConfigMap of at most 1 MiB."""
GATEWAY_PATHS = "/.gateway"
"""Prefix of the paths that the gateway answers itself."""
VARIABLES_SIZE = 2**20
"""Maximum size in bytes of all environment variables of a process. The same limit applies to the command of the process.

Linux allows 2 MiB for variables and command together (a quarter of the stack limit). Kubernetes allows a pod object of 1.5 MiB.
"""


def app_errors(app: App) -> Iterator[str]:
    """Yield an error for each value of the application that contradicts another value, or that no platform accepts."""
    data = {record.name for record in app.catalogue.data}
    yield from _name_errors(app)
    yield from _store_name_errors(app)
    yield from _template_errors(app)
    yield from _routing_errors(app)
    yield from _need_errors(app)
    for tier, service in app.processes.items():
        for key, variables in (("env", service.env), ("secret_env", service.secret_env)):
            for variable in sorted(set(variables) & program_variables(app, service)):
                yield f"{app.path(tier)}.{key}.{variable}: the program sets this variable; remove the variable"
        yield from _long_commands(app.path(tier), service)
        needed = data & set(service.needs) if isinstance(service, ServiceSettings) else set[str]()
        for key, path in service.mounted if service.secrets or service.secret_files or needed else ():
            if grammar.within(path, SECRETS) or grammar.within(path, f"/var{SECRETS}"):  # /var/run is a link to /run.
                yield f"{app.path(tier)}.{key}: the program mounts secrets at {path}; use a path outside of {SECRETS}"
    for key, requests in (("checks", checks_as_json(app.checks)), ("visits", app.visits)):
        if (size := len(json.dumps(requests).encode())) > CHECKS_SIZE:
            yield f"app.{key}: all {key} together have {size} bytes, but the smoke test accepts {CHECKS_SIZE}; shorten {key}"
    yield from _contradicting_checks(app)
    yield from _gateway_path_errors(app)
    size = len(json.dumps([figure.model_dump() for figure in app.figures.values()]).encode())
    if size > FIGURES_SIZE:
        fix = "remove some figures, or shorten their texts"
        yield f"app.figures: all figures together have {size} bytes, but a dashboard accepts {FIGURES_SIZE}; {fix}"
    if app.figures and not app.measured:
        yield "app.figures: figures need a tier with metrics; set app.web.metrics or app.api.metrics"
    yield from _hidden_path_errors(app)
    yield from _volume_errors(app)
    yield from _job_errors(app)
    for tier, service in app.slot_services.items():
        for name in filter(names.is_reserved_task, service.tasks):
            yield f"{app.path(tier)}.tasks.{name}: the program uses this name for another container; use another name"


def _name_errors(app: App) -> Iterator[str]:
    """Yield an error for each further service with a reserved name, or with the name of another service's container.

    For example, `api-migrate` (a task) and `api-2` (a replica) are containers of the service `api`.
    """
    for name in sorted(app.services):
        path = f"app.services.{name}"
        if name in services.common_catalogue().names:
            yield f"{path}: the name {name} is reserved for app.{name}; move the service to app.{name}, or use another name"
        elif names.is_reserved_workload(name):
            yield f"{path}: the program uses this name itself; use another name"
        for other in app.hosts:
            if (variable := services.public_variable(other)) == f"{services.prefix(name)}_URL":
                yield f"{path}: the variable {variable} is the public address of {other}; use another name"
        for other, settings in app.slot_services.items():
            rest = name.removeprefix(f"{other}-") if name != other else name
            if rest != name and names.is_service_object(rest, settings.tasks):
                yield f"{path}: {app.path(other)} already has a container with the name {name}; use another name"


def _store_name_errors(app: App) -> Iterator[str]:
    """Yield an error for each store whose name, or the name of one of its objects, is the name of another object."""
    for name in app.stores:
        path = f"app.services.{name}"
        if names.is_reserved_store(name):
            yield f"{path}: the program uses this name itself, or a name that begins or ends as it does; use another name"
        for other in app.stores:
            rest = name.removeprefix(f"{other}-")
            if rest != name and names.is_store_object(rest):
                yield f"{path}: {app.path(other)} has an object of the name {name}; use another name"


def _volume_errors(app: App) -> Iterator[str]:
    """Yield an error for each volume with a reserved name, and for each volume of a store that another service mounts too."""
    owners = {name: tier for tier, service in app.slot_services.items() for name in service.volumes}
    for tier, service in app.processes.items():
        for name in service.volumes:
            path = f"{app.path(tier)}.volumes.{name}"
            if names.is_reserved_volume(name) or any(names.is_file_volume(name, store) for store in app.stores):
                yield f"{path}: the program uses this name for another volume; use another name"
            if tier in app.stores and (owner := owners.setdefault(name, tier)) != tier:
                yield f"{path}: {app.path(owner)} has a volume of this name, and a store shares no volume; use another name"


def _job_errors(app: App) -> Iterator[str]:
    """Yield an error for each scheduled job whose service is not in a slot, whose command is too long, or whose name is taken."""
    for name, job in app.jobs.items():
        path = f"app.jobs.{name}"
        if job.service not in app.slot_services:
            yield f"{path}.service: {describe(job.service)} is no service in a slot; {explain.write_one_of(sorted(app.slot_services), job.service)}"
        if (size := sum(len(word.encode()) for word in job.command)) > VARIABLES_SIZE:
            yield f"{path}.command: the command has {size} bytes, but a process accepts {VARIABLES_SIZE}; move the command into a file of the image"
    if app.jobs and names.JOB_STATE in app.volumes:
        owner = app.path(
            next(tier for tier, service in app.slot_services.items() if names.JOB_STATE in service.volumes)
        )
        yield f"{owner}.volumes.{names.JOB_STATE}: the program uses this name for the volume of scheduled jobs; use another name"
    for service in sorted(app.services) if app.jobs else ():
        if service == names.JOB or service.startswith(f"{names.JOB}-"):
            yield f"app.services.{service}: scheduled jobs use names that begin with {names.JOB}-; use another name for the service"


def _routing_errors(app: App) -> Iterator[str]:
    """Yield an error for each path prefix that two services have, and for each path in `visits` or `checks` that no service serves.

    Without any routed service, yield a single error.
    """
    routed = [record.name for record in services.SERVICES if record.routed]
    if not app.routes:
        yield f"app: neither {' nor '.join(routed)} is set, so users can't reach the application; add {' or '.join(routed)}"
        return
    if not app.routes.keys() - app.hosts.keys():
        yield "app: every service that users reach has a `host`, so none answers at the environment's own address; remove one `host`"
        return
    for host in (None, *dict.fromkeys(app.hosts.values())):
        yield from _same_paths(route_paths(app, host), host)
    prefixes = [prefix for name, paths in app.routes.items() if name not in app.hosts for prefix in paths]
    for key, path in _served_paths(app).items():
        if not any(covers(prefix, path) for prefix in prefixes):
            yield f"{key}: no service gets requests for {path}; add the path to the `paths` of a service, or remove it here"


def _same_paths(paths: Mapping[str, str], host: str | None) -> Iterator[str]:
    """Yield an error for each path prefix that two services have at the same host.

    Args:
        paths: path prefixes at the host: config path → prefix.
        host: name of the host; None for the application's host.
    """
    owners: dict[bytes, str] = {}
    where = f" at the host {host}" if host else ""
    for key, path in paths.items():
        first = owners.setdefault(normalise(path), key)
        if first != key and first.rpartition(".")[0] != key.rpartition(".")[0]:
            yield f"{key}: {first} already has the path {path}{where}; use another prefix"


def _served_paths(app: App) -> dict[str, str]:
    """Return the URL paths in `visits` and `checks`: config path → URL path. Skip checks that expect 404.

    Their requests go to the application's host.
    """
    paths = {f"app.visits.{number}": path for number, path in enumerate(app.visits)}
    checks = {f"app.checks.{number}.path": check.path for number, check in enumerate(app.checks) if check.status != 404}
    return paths | checks


def all_route_paths(app: App) -> dict[str, str]:
    """Return the path prefixes in the `paths` of services at all hosts: config path → prefix."""
    return {key: path for host in (None, *app.hosts.values()) for key, path in route_paths(app, host).items()}


def route_paths(app: App, host: str | None = None) -> dict[str, str]:
    """Return the path prefixes in the `paths` of services at one host: config path → prefix.

    Skip web, which has no `paths`. Without web, skip the api if it gets all requests, because its `paths` then has no effect.

    Args:
        app: the application.
        host: name of the host; None for the application's host.
    """
    return {
        f"{app.path(name)}.paths.{number}": path
        for name, paths in app.routes.items()
        if app.host_name(name) == host and name != WEB.name
        if host or not (name == API.name and not app.web and paths == ("/",))
        for number, path in enumerate(paths)
    }


def _need_errors(app: App) -> Iterator[str]:
    """Yield an error for each invalid name in the `needs` of a service, and for a cycle of needs.

    A name is invalid if the application has no such service, or if the service may not connect to it.
    """
    catalogue = app.catalogue
    for tier, service in app.slot_services.items():
        path, allowed = f"{app.path(tier)}.needs", catalogue.may_need(tier)
        for number, need in enumerate(service.needs):
            if need not in catalogue.names:
                yield f"{path}.{number}: {unknown_service(app, need)}"
            elif need not in allowed:
                yield f"{path}: {tier} can't need {need}; remove {need}, because {tier} may only need {', '.join(sorted(allowed))}"
            elif need not in app.names:
                yield f"{path}: the application has no {need}; add app.{need}, or remove {need} from needs"
    try:
        catalogue.start_order({name: service.needs for name, service in app.slot_services.items()}, app.slot_services)
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        yield f"app: services need each other ({circle}), so none of them can start first; remove one of them from `needs`"


def unknown_service(app: App, name: str) -> str:
    """Return the text of an error for a name that is not a service. The text has no config path."""
    names = list(dict.fromkeys((*services.common_catalogue().names, *sorted(app.services))))
    return f"{describe(name)} is not a tier; {explain.write_one_of(names, name)}, or add app.services.{name}"


def _template_errors(app: App) -> Iterator[str]:
    """Yield an error for each placeholder that the application can't fill."""
    for tier, service in app.processes.items():
        for key, text in service.templates.items():
            for placeholder in template.placeholders(text):
                if problem := _placeholder_problem(app, tier, service, placeholder):
                    yield f"{app.path(tier)}.{key}: {placeholder} {problem}"


def _placeholder_problem(app: App, tier: str, service: ProcessSettings, placeholder: Placeholder) -> str:
    """Return the reason why a placeholder can't be filled and the fix, or an empty text for a valid placeholder."""
    owner, field = placeholder.owner, placeholder.field
    if owner == template.SECRETS:
        is_name = re.fullmatch(units.NAME, field)
        return "" if is_name else "contains an invalid secret name; use lower-case letters, digits and single dashes"
    if owner == template.PUBLIC:
        fields: tuple[str, ...] = template.PUBLIC_FIELDS
    elif owner in app.hosts and field in template.OWN_ADDRESS_FIELDS:
        return ""
    elif not isinstance(service, ServiceSettings):
        return "is no value that a store can read; use ${secrets.NAME}, ${public.url} or ${public.host}"
    elif owner not in app.names:
        return f"names no service of the application; add app.{owner}, or use {template.SECRETS} or {template.PUBLIC}"
    elif owner not in service.needs:
        return f"is a value of {owner}, but {tier} does not need {owner}; add {owner} to {app.path(tier)}.needs"
    else:
        fields = app.template_fields(owner)
    if field in fields:
        return ""
    if not fields:
        return f"is unknown, because {owner} has no values; remove it"
    return f"is unknown; {explain.write_one_of([f'${{{owner}.{name}}}' for name in fields], str(placeholder))}"


def _long_commands(path: str, service: ProcessSettings) -> Iterator[str]:
    steps: dict[str, Step | None] = {}
    if isinstance(service, ServiceSettings):
        steps = {"migrate": service.migrate, "seed": service.seed}
        steps |= {f"tasks.{name}": step for name, step in service.tasks.items()}
    commands = {"command": service.command} | {f"{key}.command": step.command for key, step in steps.items() if step}
    for key, command in commands.items():
        if (size := sum(len(word.encode()) for word in command)) > VARIABLES_SIZE:
            yield (
                f"{path}.{key}: the command has {size} bytes, but a process accepts {VARIABLES_SIZE}; move the command into a file of the image"
            )


def _contradicting_checks(app: App) -> Iterator[str]:
    """Yield an error for each check that contradicts another check of the same path, or `visits`.

    Two checks of a path must expect the same status. A check must not expect an error status for a path in `visits`, because
    requests to these paths must succeed.
    """
    first: dict[str, tuple[str, int]] = {}
    for number, check in enumerate(app.checks):
        name, status = first.setdefault(check.path, (f"app.checks.{number}", check.status))
        if status != check.status:
            yield f"app.checks.{number}.status: {name} also requests {check.path}, but expects status {status}; remove one of the two checks"
        if check.status >= 400 and check.path in app.visits:
            yield (
                f"app.checks.{number}.status: app.visits contains {check.path}, so this check must not expect {check.status}; "
                "remove the path from app.checks or from app.visits"
            )


def _gateway_path_errors(app: App) -> Iterator[str]:
    """Yield an error for each path that the gateway answers itself.

    With web, also yield an error if another service has the path prefix `/`, because web would get no requests.
    """
    paths = {f"app.visits.{number}": path for number, path in enumerate(app.visits)}
    paths |= {f"app.checks.{number}.path": check.path for number, check in enumerate(app.checks)}
    paths |= all_route_paths(app)
    paths |= {f"{app.path(tier)}.metrics": service.metrics or "" for tier, service in app.measured.items()}
    if app.web:
        for key, path in route_paths(app).items():
            if covers(path, "/"):
                yield f"{key}: {path} routes all requests to {key.split('.')[-3]}, so none reach web; use a longer prefix, such as /api, or set `host`"
    for name, path in paths.items():
        if covers(GATEWAY_PATHS, path):
            yield f"{name}: the gateway itself answers {GATEWAY_PATHS} and all paths below it; use another path"


def _hidden_path_errors(app: App) -> Iterator[str]:
    """Yield an error for each path prefix, probe, visit or check that a `metrics` path hides.

    The gateway answers 404 for the `metrics` path of a service and for all paths below it, even for the paths of another service.
    """
    needed = _served_paths(app)
    needed |= {key: path for key, path in all_route_paths(app).items() if not covers(path, "/")}
    for tier, service in app.listening.items():
        probes = {f"{app.path(tier)}.health": service.health, f"{app.path(tier)}.ready": service.ready}
        needed |= {name: path for name, path in probes.items() if path}
    for tier, service in app.measured.items():
        hidden = service.metrics or "/"
        for name, path in needed.items():
            if covers(hidden, path):
                yield (
                    f"{app.path(tier)}.metrics: the gateway answers 404 to {hidden} and all paths below it, but {name} needs {path}; "
                    "serve the metrics at a separate path, such as /metrics"
                )
