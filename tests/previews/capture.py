"""Record the previews in this folder with `python -m tests.previews.capture docker kubernetes`.

For each platform in its arguments, the command deploys two releases of the application `board` on a real Docker engine or
cluster. One platform takes several minutes. A recording is the output of `pulumi preview --json --show-sames` for one change.
The function `trimmed_preview` shortens the output as follows:

- Each step keeps the operation, the resource and the reasons.
- Each state of a resource keeps the type, the parent, the inputs, the protection, the exit code and the image.
- In a step without a change, the new state has no inputs, because they equal the inputs of the old state.
- In a step without a change, the inputs of the old state are reduced to the labels. Exceptions are workloads and the
  kinds in `_RECORDED_WHOLE`.
- The input `rested` of a suspended slot, which contains copies of resources, is omitted.
- Long texts are replaced by their beginning and a digest.
- The folder and the port of the run are replaced by fixed values.

The command fails if a recording would contain the value of a secret.
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

from tests.e2e.stack import SECRETS, ClusterStack, Stack, create_board

FOLDER = Path(__file__).parent
STACK = "demo"
LONG = 300
"""Maximum number of recorded characters of a text. A digest of the whole text replaces the rest."""
PORT = 8080

_STATE = ("urn", "type", "custom", "parent", "protect", "inputs", "additionalSecretOutputs", "dependencies")
_RECORDED_WHOLE = ("NetworkPolicy", "HTTPRoute", "Gateway", "Service", "Network", "Slot", "Switch", "Namespace")
"""Kinds of resources whose inputs are recorded in every step. The inputs of workloads are recorded in every step too."""


# ---------------------------------------------------------------------- recorded parts of a preview


def trimmed_preview(preview: Mapping[str, Any], stack: Stack) -> dict[str, Any]:
    """Return the recording of a preview, shortened as the docstring of this module says."""
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


def json_with_one_line_per_step(preview: Mapping[str, Any]) -> str:
    """Return the preview as JSON with one line per step, to make differences between recordings readable."""
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
    is_recorded_whole = state["type"].endswith(_RECORDED_WHOLE) or '"tier"' in json.dumps(inputs) or "ports" in inputs
    if same and not is_recorded_whole:
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


def promote_manually(stack: Stack) -> None:
    new_image(stack)
    stack.environment["release"] = {"promote": "manual"}
    stack.app["api"]["migrate"]["contract"] = True


def env(stack: Stack) -> None:
    tier_settings(stack, "api")["env"] = {"LOG_LEVEL": "warning"}


def replicas(stack: Stack) -> None:
    tier_settings(stack, "web")["replicas"] = 3


def database_storage(stack: Stack) -> None:
    tier_settings(stack, "database")["storage"] = "3Gi"


def database_memory(stack: Stack) -> None:
    tier_settings(stack, "database")["memory"] = "768Mi"


def database_deleted(stack: Stack) -> None:
    stack.app.pop("database")
    stack.app["api"].pop("migrate")
    stack.app["api"].pop("seed")
    for tier in ("api", "worker"):
        stack.app[tier]["needs"] = ["cache"]
    stack.environment["tiers"].pop("database", None)


def remove_protection(stack: Stack) -> None:
    stack.environment["protect_data"] = False


def widen_access(stack: Stack) -> None:
    stack.app["api"]["egress"] = True
    if isinstance(stack, ClusterStack):
        stack.environment["kubernetes"]["gateway"]["cidrs"] = ["0.0.0.0/0"]
        stack.environment["kubernetes"]["hostnames"] = ["board.example.com"]
    else:
        stack.environment["gateway"]["address"] = "0.0.0.0"


def break_settings(stack: Stack) -> None:
    stack.app["api"] |= {"port": "8000", "helth": "/health"}


def make_platform_unreachable(stack: Stack) -> None:
    if isinstance(stack, ClusterStack):
        kubeconfig = yaml.safe_load(Path(stack.variables["KUBECONFIG"]).read_text())
        for cluster in kubeconfig["clusters"]:
            cluster["cluster"]["server"] = "https://127.0.0.1:9"
        kubeconfig_file = stack.folder / "kubeconfig"
        kubeconfig_file.write_text(yaml.safe_dump(kubeconfig))
        stack.variables["KUBECONFIG"] = str(kubeconfig_file)
    else:
        stack.environment["docker"] = {"host": "tcp://127.0.0.1:9"}


def roll_back(stack: Stack) -> None:
    stack.variables["TIERS_RELEASE"] = "previous"


def no_change(stack: Stack) -> None:
    pass


CHANGES: dict[str, Callable[[Stack], None]] = {
    "no-change": no_change, "new-image": new_image, "waits": promote_manually, "env": env, "replicas": replicas, "back": roll_back,
    "database-storage": database_storage, "database-memory": database_memory, "opened": widen_access,
    "unprotected": remove_protection, "protected": database_deleted, "broken": break_settings, "unreachable": make_platform_unreachable,
}  # fmt: skip
"""Name of a recording → function that makes one change to a stack with protected data and two releases."""


def tier_settings(stack: Stack, tier: str) -> dict[str, Any]:
    return stack.environment.setdefault("tiers", {}).setdefault(tier, {})


@contextmanager
def undo_afterwards(stack: Stack) -> Generator[Stack]:
    """Yield the stack, then undo the changes that the caller made to the stack."""
    app_and_environment, variables = copy.deepcopy((stack.app, stack.environment)), dict(stack.variables)
    source = stack.folder / "examples/board/api/board/main.py"
    text = source.read_text()
    yield stack
    stack.app, stack.environment = app_and_environment
    stack.project["config"]["app"]["value"], stack.variables = stack.app, variables
    source.write_text(text)


def record(stack: Stack, platform: str, name: str) -> None:
    stack.write()
    command = ["pulumi", "preview", "--json", "--show-sames", "--non-interactive", "--stack", stack.name]
    # Without this variable the program would refuse a plan that loses data.
    variables = stack.variables | {"TIERS_FORCE": "data"}
    result = subprocess.run(command, cwd=stack.folder, env=variables, capture_output=True, text=True, timeout=300)
    (FOLDER / platform).mkdir(exist_ok=True)
    text = json_with_one_line_per_step(trimmed_preview(json.loads(result.stdout), stack))
    (FOLDER / platform / f"{name}.json").write_text(text)
    print(f"  {platform}/{name}: ended with {result.returncode}, {len(text)} bytes", flush=True)


def main(platform: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="previews-"))
    stack = create_board(platform, folder / "stack", STACK)
    try:
        stack.environment["protect_data"] = True
        stack.build_images()
        record(stack, platform, "first")
        stack.up()
        stack.app["version"] = "1.1.0"
        tier_settings(stack, "api")["env"] = {"LOG_LEVEL": "info"}
        stack.up()
        for name, change in CHANGES.items():
            if (platform, name) != ("docker", "database-storage"):  # A Docker volume has no size to change.
                with undo_afterwards(stack):
                    change(stack)
                    record(stack, platform, name)
        remove_protection(stack)
        stack.up()
        with undo_afterwards(stack):
            database_deleted(stack)
            record(stack, platform, "database-deleted")
    finally:
        stack.destroy(check=False)
        stack.remove_leftovers()
        shutil.rmtree(folder)


if __name__ == "__main__":
    for entry in sys.argv[1:]:
        main(entry)
