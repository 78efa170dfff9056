"""Which images an environment runs, by digest, so that the next one runs what this one has proven.

`python -m ci.pins save STACK`: the digests in its stack file, which `make images PIN=yes` wrote, into `release.json`.
`python -m ci.pins use STACK`: those of `release.json` into its stack file, which names itself what only runs there.
`python -m ci.pins recall STACK`: those its last update had, where they are still what the files describe. A preview is right
with them about what changes; what would have to be built gets a digest of zeros where the environment wants one.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pulumi import RunError

from components import backup
from components.config import App, ConfigError, Environment, TierName
from components.tier import Description, data_image, image
from components.workload import Image

from . import edge
from .described import ROOT, backups_of, last_update, load, project, stack_file

FILE = ROOT / "release.json"
BACKUP = f"{backup.PATH}.image"
NOT_BUILT = f"sha256:{'0' * 64}"
Pins = dict[str, str]
"""Config path → name:tag@digest."""


def save(stack: str) -> None:
    """Write what the stack file names.

    Raises:
        RunError: an image of what the files describe has no digest there.
    """
    pins = checked(wanted(stack), named(stack), f"Pulumi.{stack}.yaml")
    FILE.write_text(json.dumps(pins, indent=2) + "\n")
    print(f"  {FILE.name}: the images of stack {stack}")


def use(stack: str) -> None:
    """Put what was saved into a stack file.

    Raises:
        RunError: nothing was saved, or it is not what this commit's files describe.
    """
    if not FILE.exists():
        raise RunError(f"there is no {FILE.name}; run `make pins-save` where it is proven, and bring the file here")
    asked, proven = wanted(stack), json.loads(FILE.read_text())
    write(stack, checked(asked, proven | _only_here(stack, asked, proven), FILE.name))


def _only_here(stack: str, asked: Mapping[str, Image], proven: Pins) -> Pins:
    """What a stack file names of images that the other environment does not run, as where its data is kept once.

    Never those of a slot: what is released was proven, or it is not released.
    """
    app, own = load(stack)[0], named(stack)
    released = {f"environment.images.{tier}" for tier in app.services}
    return {
        path: own[path]
        for path in (asked.keys() & own.keys()) - released
        if _tagged(proven, path) != asked[path].reference.partition("@")[0]
    }


def recall(stack: str) -> None:
    """Put what the last update had into the stack file, where the files describe it still."""
    _, environment = load(stack)
    before: dict[str, Any] = last_update(stack).get("config", {}).get(f"{project()}:environment", {})
    known = given(before.get("objectValue") or {})
    asked = {path: each.reference.partition("@")[0] for path, each in wanted(stack).items()}
    same = {path: known[path] for path, tagged in asked.items() if _tagged(known, path) == tagged}
    unbuilt = {path: f"{tagged}@{NOT_BUILT}" for path, tagged in asked.items() if environment.pinned}
    write(stack, unbuilt | same)


def wanted(stack: str) -> dict[str, Image]:
    """Config path → image, of everything that will run; named by tag, that of what is built is the digest of its folder."""
    app, environment = load(stack)
    description = Description(app=app, environment=environment, secrets={}, root=ROOT)
    backups = environment.size(TierName.DATABASE).backup
    return {
        **{f"environment.images.{tier}": image(tier, each, description) for tier, each in app.services.items()},
        **{
            f"environment.images.{tier}": data_image(tier, each, description)
            for tier, each in environment.data(app).items()
        },
        **{path: Image(reference=reference, path=path) for path, reference in _tools(app, environment).items()},
        **({BACKUP: backup.image(backups, description)} if backups else {}),
    }


def _tools(app: App, environment: Environment) -> Pins:
    """What runs beside the tiers."""
    pooler = {"environment.pooler": environment.pooler} if environment.pooled(app) else {}
    proxy = {"environment.proxy": environment.proxy} if environment.size(TierName.CACHE).ha else {}
    vault = {"environment.vault": environment.vault} if environment.archived else {}
    return {"environment.toolbox": environment.toolbox, **proxy, **pooler, **vault}


def named(stack: str) -> Pins:
    """The images a stack file names."""
    return given(stack_file(stack).environment)


def given(environment: Mapping[str, Any]) -> Pins:
    """Return the images that an environment's plain settings name.

    Raises:
        ConfigError: the value at the place of an image is no text.
    """
    own = ("toolbox", "proxy", "pooler", "vault")
    tools = {f"environment.{name}": environment[name] for name in own if name in environment}
    backups = backups_of(environment)
    tools |= {BACKUP: backups["image"]} if "image" in backups else {}
    images: object = environment.get("images", {})
    if not isinstance(images, Mapping):
        raise ConfigError("environment.images: it is not a mapping; run `make images PIN=yes`, which writes it")
    found = tools | {f"environment.images.{tier}": each for tier, each in cast(Mapping[str, Any], images).items()}
    if wrong := [path for path, reference in found.items() if not isinstance(reference, str)]:
        raise ConfigError(f"{wrong[0]}: it is not a text; write it like name:1.4@sha256:…")
    return found


def checked(asked: Mapping[str, Image], known: Pins, where: str) -> Pins:
    """The digests for exactly what is asked for.

    Raises:
        RunError: one is missing, or is of something else.
    """
    if problems := "\n".join(_problems(asked, known, where)):
        raise RunError(problems)
    return {path: known[path] for path in asked}


def _problems(asked: Mapping[str, Image], known: Pins, where: str) -> Iterator[str]:
    for path, each in asked.items():
        tagged = each.reference.partition("@")[0]
        if "@sha256:" not in known.get(path, ""):
            yield f"{path}: {where} names no digest of {tagged}; run `make images PIN=yes` for it first"
        elif _tagged(known, path) != tagged:
            yield f"{path}: {where} has {known[path]}, and the files describe {tagged}; check out the commit it is of"


def _tagged(known: Pins, path: str) -> str:
    return known.get(path, "").partition("@")[0]


def write(stack: str, pins: Pins) -> None:
    """Name these images in a stack file."""
    if pins:
        pairs = [word for path, reference in pins.items() for word in ("--plaintext", f"{path}={reference}")]
        subprocess.run(["pulumi", "config", "set-all", "--stack", stack, "--path", *pairs], check=True, cwd=ROOT)
        print(f"  Pulumi.{stack}.yaml: {len(pins)} images by their digests")


if __name__ == "__main__":
    words = edge.arguments("pins save | use | recall STACK", 2, 2)
    edge.end("pins", lambda: {"save": save, "use": use, "recall": recall}[words[0]](words[1]))
