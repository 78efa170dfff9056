"""Compare an environment with its state and its files: `python -m ci.drift STACK`. It changes nothing.

Changes by others are found by a refresh of a copy of the checkpoint. In the copy a slot that stays ignores only what others may change
(`components/kept.py` ignores all, and a refresh heeds that), and no container has to run: reading one that is stopped, the
upstream provider of 2022 removes it. What is stopped is found by asking the platform instead.
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
"""Pulumi's exit code where `--expect-no-changes` was said and there are some."""


def main(stack: str) -> None:
    """Print what differs.

    Raises:
        RunError: something does, or it can't be told.
    """
    left = state(stack)
    drifted = _not_running(stack, left)
    drifted |= _changed_by_others(stack, left)
    # A refresh leaves out what the files would do. It is not repeated here: that would read, and with the stand-in remove.
    drifted |= _differs(ROOT, os.environ, "preview", "--stack", stack)
    if drifted:
        raise RunError(f"stack {stack} is not what it was made, or not what its files say; see above")


def _not_running(stack: str, left: Found) -> bool:
    """Print which containers of the stack are stopped; `make up` starts them. Return whether any is."""
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
    """Return a checkpoint in which only what an autoscaler changes is ignored, and no container has to run."""
    deployment: Found = left["deployment"]
    resources: list[Found] = deployment.get("resources") or []
    scaled = {_target(each["inputs"]) for each in resources if each["type"].endswith(":HorizontalPodAutoscaler")}
    return left | {"deployment": deployment | {"resources": [_seen(each, scaled) for each in resources]}}


def _target(inputs: Found) -> tuple[str, str]:
    return inputs["spec"]["scaleTargetRef"]["name"], inputs["metadata"]["namespace"]


def _seen(resource: Found, scaled: Collection[tuple[str, str]]) -> Found:
    inputs: Found = resource.get("inputs") or {}
    metadata: Found = inputs.get("metadata") or {}
    theirs = resource["type"].endswith(":Deployment") and (metadata.get("name"), metadata.get("namespace")) in scaled
    seen = resource | {"ignoreChanges": ["spec.replicas"] if theirs else []}
    outputs: Found = resource.get("outputs") or {}
    return seen | ({"outputs": outputs | {"mustRun": False}} if outputs.get("mustRun") else {})


if __name__ == "__main__":
    words = edge.arguments("drift STACK", 1, 1)
    edge.end("drift", lambda: main(*words))
