"""Whether an environment is what it was made, and what the files say: `python -m ci.drift STACK`. It changes nothing.

What somebody else has changed is found by a refresh, and it would not be in a slot that is kept: that one ignores all changes
(`components/kept.py`), and a refresh heeds it. So a copy of the checkpoint is asked that ignores only what is others' to change.
"""

import json
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pulumi import RunError

from . import edge
from .described import ROOT, project, state

Found = dict[str, Any]
CHANGES = 7
"""Pulumi's exit code where `--expect-no-changes` was said and there are some."""


def main(stack: str) -> None:
    """Say what differs.

    Raises:
        RunError: something does, or it can't be told.
    """
    drifted = _changed_by_others(stack)
    # A refresh leaves out what the files would do: make anew what was deleted, or a release.
    drifted |= _differs(ROOT, os.environ, "preview", "--stack", stack, "--refresh")
    if drifted:
        raise RunError(f"stack {stack} is not what it was made, or not what its files say; see above")


def _changed_by_others(stack: str) -> bool:
    with TemporaryDirectory(prefix="drift-") as name:
        folder = Path(name)
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": project(), "runtime": "python"}))
        (folder / "checkpoint.json").write_text(json.dumps(seeing(state(stack))))
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
    """A checkpoint, as `pulumi stack export` prints it, in which only what an autoscaler changes is ignored."""
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
    return resource | {"ignoreChanges": ["spec.replicas"] if theirs else []}


if __name__ == "__main__":
    words = edge.arguments("drift STACK", 1, 1)
    edge.end("drift", lambda: main(*words))
