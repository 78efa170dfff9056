"""Comparison of an environment with its state and its files: `python -m ci.drift STACK`. It changes nothing.

Changes by others are found by refreshing a copy of the checkpoint. In the copy, a kept slot ignores only what others
may change; `components/kept.py` ignores everything, which a refresh respects. No container is required to run in the
copy, because the upstream provider of 2022 removes a stopped one when it reads it. Stopped containers are found by a
request to the platform instead.
"""

import json
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pulumi import RunError

from components.platforms.inventory import locate

from . import edge
from .described import ROOT, project, state
from .heal import look
from .repair import problems

Found = dict[str, Any]
CHANGES = 7
"""Exit code of Pulumi with `--expect-no-changes` if there are changes."""


def main(stack: str) -> None:
    """Print all differences.

    Raises:
        RunError: there is a difference, or a comparison failed.
    """
    checkpoint = state(stack)
    drifted = _not_running(stack, checkpoint)
    drifted |= _changed_by_others(stack, checkpoint)
    # A refresh does not show changes by the files. This preview does not refresh, as the docker stand-in could then
    # remove resources.
    drifted |= _differs(ROOT, os.environ, "preview", "--stack", stack)
    if drifted:
        raise RunError(f"stack {stack} is not what it was made, or not what its files say; see above")


def _not_running(stack: str, left: Found) -> bool:
    """Print the stopped containers of the stack, and tell whether there are any. `make up` starts them."""
    location = locate(left, stack)
    lines = problems(left, look(location, left), stack) if location else ()
    for line in lines:
        print(f"  {line}")
    return bool(lines)


def _changed_by_others(stack: str, left: Found) -> bool:
    with TemporaryDirectory(prefix="drift-") as name:
        folder = Path(name)
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": project(), "runtime": "python"}))
        (folder / "checkpoint.json").write_text(json.dumps(seeing(left)))
        variables = os.environ | {"PULUMI_BACKEND_URL": folder.as_uri()}
        for words in (["init", stack], ["import", "--stack", stack, "--file", "checkpoint.json"]):
            done = subprocess.run(
                ["pulumi", "stack", *words], cwd=folder, env=variables, capture_output=True, text=True
            )
            if done.returncode:
                raise RunError(f"the checkpoint of stack {stack} can't be copied: {done.stderr.strip()}")
        return _differs(folder, variables, "refresh", "--stack", stack, "--preview-only", "--diff")


def _differs(folder: Path, variables: Mapping[str, str], *words: str) -> bool:
    done = subprocess.run(["pulumi", *words, "--expect-no-changes", "--non-interactive"], cwd=folder, env=variables)
    if done.returncode not in (0, CHANGES):
        raise RunError(f"`pulumi {' '.join(words)}` failed: see above")
    return bool(done.returncode)


def seeing(left: Found) -> Found:
    """Return a checkpoint that ignores only what an autoscaler changes, and requires no container to run."""
    deployment: Found = left["deployment"]
    resources: list[Found] = deployment.get("resources") or []
    scaled = {
        _target(resource["inputs"]) for resource in resources if resource["type"].endswith(":HorizontalPodAutoscaler")
    }
    return left | {"deployment": deployment | {"resources": [_seen(resource, scaled) for resource in resources]}}


def _target(inputs: Found) -> tuple[str, str]:
    return inputs["spec"]["scaleTargetRef"]["name"], inputs["metadata"]["namespace"]


def _seen(resource: Found, scaled: Collection[tuple[str, str]]) -> Found:
    inputs: Found = resource.get("inputs") or {}
    metadata: Found = inputs.get("metadata") or {}
    autoscaled = (
        resource["type"].endswith(":Deployment") and (metadata.get("name"), metadata.get("namespace")) in scaled
    )
    result = resource | {"ignoreChanges": ["spec.replicas"] if autoscaled else []}
    outputs: Found = resource.get("outputs") or {}
    return result | ({"outputs": outputs | {"mustRun": False}} if outputs.get("mustRun") else {})


if __name__ == "__main__":
    words = edge.arguments("drift STACK", 1, 1)
    edge.end("drift", lambda: main(*words))
