"""Comparison of an environment with its state and its files: `python -m ci.drift STACK`. The command changes nothing.

To find changes that were made without Pulumi, the command copies the checkpoint and refreshes the copy. The copy
differs from the checkpoint in two ways:

- Resources ignore only changes by an autoscaler. In the checkpoint, the resources of a slot that keeps its release
  ignore all changes (`components/kept.py`), so a refresh would report no change.
- Containers may be stopped (`mustRun: false`). Otherwise the lab's Docker provider of 2022 would remove stopped
  containers from the copy. The command finds stopped containers in the platform's inventory instead.
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

from . import command_line
from .heal import read_inventory
from .pulumi_stack import ROOT, project, state
from .repair import problems

State = dict[str, Any]
CHANGES = 7
"""Exit code of Pulumi with `--expect-no-changes` if there are changes."""


def main(stack: str) -> None:
    """Print all differences between the environment, its state and its files.

    Raises:
        RunError: there is a difference, or a comparison failed.
    """
    checkpoint = state(stack)
    drifted = _not_running(stack, checkpoint)
    drifted |= _changed_by_others(stack, checkpoint)
    # A preview is needed too, because a refresh does not show changes of the files. The preview runs without a
    # refresh, because during a refresh the Docker provider could remove resources from the state.
    drifted |= _differs(ROOT, os.environ, "preview", "--stack", stack)
    if drifted:
        raise RunError(
            f"the resources of stack {stack} differ from its state or from its files; see the differences above"
        )


def _not_running(stack: str, exported: State) -> bool:
    """Print the missing, stopped and unhealthy objects of the stack, and return True if there are any."""
    location = locate(exported, stack)
    lines = problems(exported, read_inventory(location, exported), stack) if location else ()
    for line in lines:
        print(f"  {line}")
    return bool(lines)


def _changed_by_others(stack: str, exported: State) -> bool:
    with TemporaryDirectory(prefix="drift-") as name:
        folder = Path(name)
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": project(), "runtime": "python"}))
        (folder / "checkpoint.json").write_text(json.dumps(comparable_checkpoint(exported)))
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


def comparable_checkpoint(exported: State) -> State:
    """Return a copy of the checkpoint that can be refreshed to find drift.

    In the copy, resources ignore only changes by an autoscaler. Containers may be stopped (`mustRun: false`).
    """
    deployment: State = exported["deployment"]
    resources: list[State] = deployment.get("resources") or []
    scaled = {
        _target(resource["inputs"]) for resource in resources if resource["type"].endswith(":HorizontalPodAutoscaler")
    }
    return exported | {
        "deployment": deployment | {"resources": [_comparable_resource(resource, scaled) for resource in resources]}
    }


def _target(inputs: State) -> tuple[str, str]:
    return inputs["spec"]["scaleTargetRef"]["name"], inputs["metadata"]["namespace"]


def _comparable_resource(resource: State, scaled: Collection[tuple[str, str]]) -> State:
    inputs: State = resource.get("inputs") or {}
    metadata: State = inputs.get("metadata") or {}
    autoscaled = (
        resource["type"].endswith(":Deployment") and (metadata.get("name"), metadata.get("namespace")) in scaled
    )
    result = resource | {"ignoreChanges": ["spec.replicas"] if autoscaled else []}
    outputs: State = resource.get("outputs") or {}
    return result | ({"outputs": outputs | {"mustRun": False}} if outputs.get("mustRun") else {})


if __name__ == "__main__":
    words = command_line.arguments("drift STACK", 1, 1)
    command_line.run_and_exit("drift", lambda: main(*words))
