"""Records the previews beside this file again: `python -m tests.previews.capture docker kubernetes`.

Each is the output of the real `pulumi preview --json --show-sames` for the board, deployed twice on a real engine or cluster
(a few minutes each), without the parts that no reader needs. `kept` makes all changes to it:

- A step keeps its operation, its resource and its reasons. A state keeps its type, its parent, its inputs, its protection, the
  exit code of its outputs, and the image it depends on.
- A step that changes nothing has one state. Resources that neither run nor admit connections keep their labels only.
- The memory of a suspended slot is left out. A long text is replaced by its beginning and a digest.
- Folder and ports of this run become the same in every run.

The recording fails if it contains the value of a secret.
"""

import copy
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.stack import SECRETS, ClusterStack, Stack, on

FOLDER = Path(__file__).parent
STACK = "demo"
LONG = 300
"""Characters of a text that are kept; of a longer text a digest shows whether it differs."""
PORT = 8080

_STATE = ("urn", "type", "custom", "parent", "protect", "inputs", "additionalSecretOutputs", "dependencies")
_SEEN_WHOLE = ("NetworkPolicy", "HTTPRoute", "Gateway", "Service", "Network", "Slot", "Switch", "Namespace")
"""Kinds whose inputs are read even if unchanged, besides those that run."""


# ---------------------------------------------------------------------- recorded parts of a preview


def trimmed(preview: Mapping[str, Any], stack: Stack) -> dict[str, Any]:
    """Return a preview as it is recorded, without traces of this run."""
    whole = {
        "steps": [_step(step) for step in preview.get("steps") or ()],
        "diagnostics": preview.get("diagnostics") or [],
        "changeSummary": preview.get("changeSummary"),
    }
    text = json.dumps(whole, ensure_ascii=False).replace(str(stack.folder), "/app")
    if port := stack.environment.get("gateway", {}).get("port"):
        text = text.replace(f": {port}", f": {PORT}").replace(f":{port}", f":{PORT}")
    leaked = [name for name, value in SECRETS.items() if value in text]
    assert not leaked, f"the value of {leaked} is in the preview"
    return json.loads(text)


def written(preview: Mapping[str, Any]) -> str:
    """Return JSON with one line for each step, to make differences readable."""
    fields = {
        name: "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]"
        if isinstance(value, list)
        else json.dumps(value)
        for name, value in preview.items()
    }
    return "{" + ",\n".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}\n"


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    same = step["op"] == "same"
    recorded = {name: step[name] for name in ("op", "urn", "replaceReasons", "diffReasons") if step.get(name)}
    for name in ("oldState", "newState"):
        if state := step.get(name):
            recorded[name] = _state(state, same)
    if same and "oldState" in recorded and "newState" in recorded:
        recorded["newState"] = {
            key: recorded["newState"].get(key) for key in ("urn", "type", "custom", "parent", "protect")
        }
    return recorded


def _state(state: Mapping[str, Any], same: bool) -> dict[str, Any]:
    recorded = {name: state[name] for name in _STATE if state.get(name) is not None}
    recorded["dependencies"] = [urn for urn in recorded.get("dependencies", ()) if "RemoteImage" in urn]
    recorded["outputs"] = (
        {"exitCode": code} if (code := (state.get("outputs") or {}).get("exitCode")) is not None else {}
    )
    inputs: dict[str, Any] = {key: value for key, value in recorded.get("inputs", {}).items() if key != "rested"}
    seen = state["type"].endswith(_SEEN_WHOLE) or '"tier"' in json.dumps(inputs) or "ports" in inputs
    if same and not seen:
        labels = {"labels": inputs.get("metadata", {}).get("labels") or {}}
        inputs = {"metadata": labels} if "metadata" in inputs else {"labels": inputs.get("labels") or []}
    return recorded | {"inputs": _shorter(inputs)}


def _shorter(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shorter(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shorter(entry) for entry in value]
    if isinstance(value, str) and len(value) > LONG:
        return f"{value[:LONG]} … {hashlib.sha256(value.encode()).hexdigest()[:12]}"
    return value


# ---------------------------------------------------------------------- previewed changes


def new_image(stack: Stack) -> None:
    stack.app["version"] = "1.2.0"
    source = stack.folder / "examples/board/api/board/main.py"
    source.write_text(source.read_text() + "\n# another image\n")


def waits(stack: Stack) -> None:
    new_image(stack)
    stack.environment["release"] = {"promote": "manual"}
    stack.app["api"]["migrate"]["contract"] = True


def env(stack: Stack) -> None:
    size(stack, "api")["env"] = {"LOG_LEVEL": "warning"}


def replicas(stack: Stack) -> None:
    size(stack, "web")["replicas"] = 3


def database_storage(stack: Stack) -> None:
    size(stack, "database")["storage"] = "3Gi"


def database_memory(stack: Stack) -> None:
    size(stack, "database")["memory"] = "768Mi"


def database_deleted(stack: Stack) -> None:
    stack.app.pop("database")
    stack.app["api"].pop("migrate")
    stack.app["api"].pop("seed")
    for tier in ("api", "worker"):
        stack.app[tier]["needs"] = ["cache"]
    stack.environment["tiers"].pop("database", None)


def unprotected(stack: Stack) -> None:
    stack.environment["protect_data"] = False


def opened(stack: Stack) -> None:
    stack.app["api"]["egress"] = True
    if isinstance(stack, ClusterStack):
        stack.environment["kubernetes"]["gateway"]["cidrs"] = ["0.0.0.0/0"]
        stack.environment["kubernetes"]["hostnames"] = ["board.example.com"]
    else:
        stack.environment["gateway"]["address"] = "0.0.0.0"


def broken(stack: Stack) -> None:
    stack.app["api"] |= {"port": "8000", "helth": "/health"}


def unreachable(stack: Stack) -> None:
    if isinstance(stack, ClusterStack):
        kubeconfig = yaml.safe_load(Path(stack.variables["KUBECONFIG"]).read_text())
        for cluster in kubeconfig["clusters"]:
            cluster["cluster"]["server"] = "https://127.0.0.1:9"
        elsewhere = stack.folder / "kubeconfig"
        elsewhere.write_text(yaml.safe_dump(kubeconfig))
        stack.variables["KUBECONFIG"] = str(elsewhere)
    else:
        stack.environment["docker"] = {"host": "tcp://127.0.0.1:9"}


def back(stack: Stack) -> None:
    stack.variables["TIERS_RELEASE"] = "previous"


def no_change(stack: Stack) -> None:
    pass


PROTECTED: dict[str, Callable[[Stack], None]] = {
    "no-change": no_change, "new-image": new_image, "waits": waits, "env": env, "replicas": replicas, "back": back,
    "database-storage": database_storage, "database-memory": database_memory, "opened": opened,
    "unprotected": unprotected, "protected": database_deleted, "broken": broken, "unreachable": unreachable,
}  # fmt: skip
"""Change before each preview of a stack with protected data. Each begins from the second release."""


def size(stack: Stack, tier: str) -> dict[str, Any]:
    return stack.environment.setdefault("tiers", {}).setdefault(tier, {})


@contextmanager
def changed(stack: Stack) -> Generator[Stack]:
    """Yield the stack for one change, and undo it afterwards."""
    described, variables = copy.deepcopy((stack.app, stack.environment)), dict(stack.variables)
    source = stack.folder / "examples/board/api/board/main.py"
    text = source.read_text()
    yield stack
    stack.app, stack.environment = described
    stack.project["config"]["app"]["value"], stack.variables = stack.app, variables
    source.write_text(text)


def keep(stack: Stack, platform: str, name: str) -> None:
    stack.write()
    command = ["pulumi", "preview", "--json", "--show-sames", "--non-interactive", "--stack", stack.name]
    # A plan that would lose data must be shown, not refused.
    variables = stack.variables | {"TIERS_FORCE": "data"}
    done = subprocess.run(command, cwd=stack.folder, env=variables, capture_output=True, text=True, timeout=300)
    (FOLDER / platform).mkdir(exist_ok=True)
    text = written(trimmed(json.loads(done.stdout), stack))
    (FOLDER / platform / f"{name}.json").write_text(text)
    print(f"  {platform}/{name}: ended with {done.returncode}, {len(text)} bytes", flush=True)


def main(platform: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="previews-"))
    stack = on(platform, folder / "stack", STACK)
    try:
        stack.environment["protect_data"] = True
        stack.images()
        keep(stack, platform, "first")
        stack.up()
        stack.app["version"] = "1.1.0"
        size(stack, "api")["env"] = {"LOG_LEVEL": "info"}
        stack.up()
        for name, change in PROTECTED.items():
            if (platform, name) != ("docker", "database-storage"):  # A Docker volume has no size.
                with changed(stack):
                    change(stack)
                    keep(stack, platform, name)
        unprotected(stack)
        stack.up()
        with changed(stack):
            database_deleted(stack)
            keep(stack, platform, "database-deleted")
    finally:
        stack.destroy(check=False)
        stack.clear()
        shutil.rmtree(folder)


if __name__ == "__main__":
    for entry in sys.argv[1:]:
        main(entry)
