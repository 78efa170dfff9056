"""Commands in the pods of a stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import RunError

from ...model.names import LABEL_INSTANCE
from ..base import Location
from .client import core, sdk
from .errors import label_selector
from .objects import OF_SERVICES


@dataclass(frozen=True, kw_only=True)
class PodSelector:
    """Selection of pods of a stack by their labels."""

    location: Location
    """Cluster, namespace and name of the stack."""
    labels: Mapping[str, str]
    """Labels of the pods, in addition to the stack's labels."""


def find(selector: PodSelector) -> tuple[str, str]:
    """Return the name of the first running pod that matches the selector, and the name of the pod's first container.

    Raises:
        RunError: no pod with these labels runs.
    """
    location = selector.location
    chosen = f"{label_selector({LABEL_INSTANCE: location.instance, **selector.labels})},{OF_SERVICES}"
    api, running = core(location.context), "status.phase=Running"
    pods = api.list_namespaced_pod(location.namespace, label_selector=chosen, field_selector=running).items
    if not pods:
        raise RunError(f"no running pod has the labels {chosen}; run `make up` first")
    return pods[0].metadata.name, pods[0].spec.containers[0].name


def execute(selector: PodSelector, command: Sequence[str], line: str = "", within: float = 60) -> str:
    """Run a command in the first running pod that matches the selector, and return the command's output.

    The Kubernetes user needs the permission to create `pods/exec`.

    Args:
        selector: selection of the pod.
        command: the command, with arguments.
        line: line for the command's standard input.
        within: time limit in seconds.

    Raises:
        RunError: no pod runs, the command does not end in time, or it exits with a code other than 0.
    """
    location = selector.location
    api = core(location.context)
    name, first = find(selector)
    options = {
        "container": first,
        "stdout": True,
        "stderr": True,
        "stdin": bool(line),
        "tty": False,
        "_preload_content": False,
    }
    try:
        session = sdk().stream.stream(
            api.connect_get_namespaced_pod_exec, name, location.namespace, command=list(command), **options
        )
    except sdk().client.ApiException as error:
        raise RunError(f"the cluster refuses to run `{' '.join(command)}`: {error.reason}") from None
    if line:
        session.write_stdin(f"{line}\n")
    session.run_forever(timeout=within)
    # Read the exit code before the output, because reading the output discards the exit code.
    code = None if session.is_open() else session.returncode
    text = session.read_all().strip()
    if code != 0:
        outcome = f"did not end within {within:g} s" if code is None else f"ended with exit code {code}"
        raise RunError(f"`{' '.join(command)}` {outcome}: {text[-500:] or 'it printed nothing'}")
    return text


def sql(location: Location, labels: Mapping[str, str], *queries: str, user: str = "", database: str = "") -> str:
    """Run SQL queries in the first running pod with these labels, and return the output of the last query.

    If a query fails, the queries after it do not run.

    Raises:
        RunError: no pod runs, or a query fails.
    """
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    command += ["--username", user] if user else []
    command += ["--dbname", database] if database else []
    command += [word for query in queries for word in ("--command", query)]
    # Return only the last line, which is the output of the last query, because earlier lines may be warnings.
    return execute(PodSelector(location=location, labels=labels), command).rpartition("\n")[2]
