"""Benchmarks on the lab's cluster."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.stack import ClusterStack

from . import empty_program
from .pairs import pair

HERE = Path(__file__).parent


def cold_up(stack: ClusterStack) -> str:
    """Compare the first `pulumi up` of staging with `kubectl apply` of the same manifests. The images are already built.

    kubectl applies the manifests in several steps. Applying all of them at once would fail, because the worker gives up
    before its database tables exist.
    """
    stack.build_images()
    stack.up()
    objects = _objects(stack)
    files = _files(stack.folder, objects)
    stack.destroy()

    def kubectl(*words: str) -> None:
        done = subprocess.run(["kubectl", "--context", "lab", *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    def rollout(*kinds: str) -> None:
        for item in (item for item in objects if item["kind"] in kinds):
            what = f"{item['kind']}/{item['metadata']['name']}"
            kubectl("rollout", "status", what, f"--namespace={stack.namespace}", "--timeout=200s")

    def job(name: str) -> None:
        kubectl("wait", "--for=condition=Complete", f"job/{name}", f"--namespace={stack.namespace}", "--timeout=200s")

    def in_order() -> None:
        kubectl("apply", "--server-side", "-f", str(files["shared"]))
        rollout("StatefulSet")
        kubectl("apply", "--server-side", "-f", str(files["migration"]))
        job("blue-api-migrate")
        kubectl("apply", "--server-side", "-f", str(files["slot"]))
        rollout("Deployment")
        kubectl("apply", "--server-side", "-f", str(files["smoke"]))
        job("blue-smoke")
        kubectl("apply", "--server-side", "-f", str(files["switch"]))

    def clear() -> None:
        stack.destroy()
        kubectl("delete", "namespace", stack.namespace, "--ignore-not-found", "--wait")

    name = "`pulumi up` of staging, cold, against kubectl in the order the tiers need"
    return pair(name, 1.5, stack.up, in_order, clear, pairs=3)


def _objects(stack: ClusterStack) -> list[dict[str, Any]]:
    """Return the applied manifests of a stack, the namespace first."""
    export = json.loads(stack.pulumi("stack", "export", "--show-secrets", check=True).text)
    resources = export["deployment"]["resources"]
    manifests = [resource["inputs"] for resource in resources if resource["type"].startswith("kubernetes:")]
    return sorted((_plain(manifest) for manifest in manifests), key=lambda manifest: manifest["kind"] != "Namespace")


def _plain(value: Any) -> Any:
    """Return a value of the checkpoint with each secret replaced by its plain value."""
    if isinstance(value, dict):
        if "plaintext" in value:
            return json.loads(str(value["plaintext"]))  # pyright: ignore[reportUnknownArgumentType]
        return {key: _plain(part) for key, part in value.items() if key != "__defaults"}  # pyright: ignore[reportUnknownVariableType]
    return [_plain(part) for part in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def _files(folder: Path, objects: list[dict[str, Any]]) -> dict[str, Path]:
    """Write one file of manifests for each deployment step. Return the paths by name of the step."""

    def step(manifest: dict[str, Any]) -> str:
        labels = manifest["metadata"]["labels"]
        role = labels["tiers.role"]
        if manifest["kind"] == "Job":
            return "migration" if role == "task" else "smoke"
        if role == "switch":
            return "switch"
        early = manifest["kind"] in ("Secret", "ServiceAccount", "NetworkPolicy")
        return "shared" if early or "tiers.slot" not in labels else "slot"

    files: dict[str, Path] = {}
    for name in ("shared", "migration", "slot", "smoke", "switch"):
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump_all([manifest for manifest in objects if step(manifest) == name]))
    return files


def preview(stack: ClusterStack) -> str:
    """Compare the preview of an unchanged prod with the preview of an empty program."""
    stack.build_images()
    stack.up()
    row = empty_program.preview(stack, "prod", 1.6)
    stack.environment["protect_data"] = False
    stack.up()
    stack.destroy()
    return row


def per_resource(stack: ClusterStack) -> str:
    """Measure the processor time and memory of the Python program, with 10 and with 100 services."""
    folder = stack.folder / "many"
    folder.mkdir()
    for file in (HERE / "many").iterdir():
        (folder / file.name).write_text(file.read_text().replace("../../.venv", "../.venv"))
    (folder / "components").symlink_to(stack.folder / "components")

    def measured(services: int) -> dict[str, float]:
        variables = stack.variables | {"SERVICES": str(services), "MEASURED": str(folder / "measured.json")}

        def pulumi(*words: str) -> None:
            done = subprocess.run(["pulumi", *words], cwd=folder, env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

        pulumi("stack", "select", "--create", "many")
        pulumi("preview", "--non-interactive")
        return json.loads((folder / "measured.json").read_text())

    rows: list[str] = []
    empty = measured(0)
    for services in (10, 100):
        used = measured(services)
        count = used["resources"] - empty["resources"]
        milliseconds = (used["seconds"] - empty["seconds"]) / count * 1000
        cell = f"{milliseconds:.1f} ms for each resource, {used['megabytes']:.0f} MB at most"
        rows.append(
            f"| the program's own processor time, {services} services, {count:.0f} resources | {cell} | | | 10 ms |"
        )
    return "\n".join(rows)


ALL: dict[str, tuple[str, Callable[[ClusterStack], str]]] = {
    "cluster-cold": ("staging", cold_up),
    "cluster-preview": ("prod", preview),
    "cluster-resources": ("staging", per_resource),
}
