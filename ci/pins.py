"""Digests of an environment's images, passed on so that the next environment runs the images verified in this one.

- `python -m ci.pins save STACK` writes the digests of the stack file, which `make images PIN=yes` has set, to
  `release.json`.
- `python -m ci.pins use STACK` writes those of `release.json` to the stack file. Images that only this environment
  runs keep the digests of the stack file.
- `python -m ci.pins recall STACK` writes the digests of the last update, if the files still describe those images.
  With them a preview shows the right changes. An image that would have to be built gets a digest of zeros if the
  environment requires digests.
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
"""Digest of an image that has not been built yet, for previews."""
Pins = dict[str, str]
"""Config path → name:tag@digest."""


def save(stack: str) -> None:
    """Write the digests of the stack file to `release.json`.

    Raises:
        RunError: an image that the files describe has no digest in the stack file.
    """
    pins = checked(wanted(stack), named(stack), f"Pulumi.{stack}.yaml")
    FILE.write_text(json.dumps(pins, indent=2) + "\n")
    print(f"  {FILE.name}: the images of stack {stack}")


def use(stack: str) -> None:
    """Write the digests of `release.json` to a stack file.

    Raises:
        RunError: the file is missing, or is not of what this commit's files describe.
    """
    if not FILE.exists():
        raise RunError(f"there is no {FILE.name}; run `make pins-save` where it is proven, and bring the file here")
    described, saved = wanted(stack), json.loads(FILE.read_text())
    write(stack, checked(described, saved | _only_here(stack, described, saved), FILE.name))


def _only_here(stack: str, described: Mapping[str, Image], saved: Pins) -> Pins:
    """Return the stack file's digests of images that the other environment does not run, such as those of its data tiers.

    Images of a slot are excluded: a release uses only images that were verified in the other environment.
    """
    app, stack_pins = load(stack)[0], named(stack)
    released = {f"environment.images.{tier}" for tier in app.services}
    return {
        path: stack_pins[path]
        for path in (described.keys() & stack_pins.keys()) - released
        if _tagged(saved, path) != described[path].reference.partition("@")[0]
    }


def recall(stack: str) -> None:
    """Write the digests of the last update to the stack file, of images that the files still describe."""
    _, environment = load(stack)
    before: dict[str, Any] = last_update(stack).get("config", {}).get(f"{project()}:environment", {})
    last_pins = given(before.get("objectValue") or {})
    tags = {path: described.reference.partition("@")[0] for path, described in wanted(stack).items()}
    unchanged = {path: last_pins[path] for path, tagged in tags.items() if _tagged(last_pins, path) == tagged}
    unbuilt = {path: f"{tagged}@{NOT_BUILT}" for path, tagged in tags.items() if environment.pinned}
    write(stack, unbuilt | unchanged)


def wanted(stack: str) -> dict[str, Image]:
    """Return config path → image, of every image that will run. The tag of a built image is the digest of its folder."""
    app, environment = load(stack)
    description = Description(app=app, environment=environment, secrets={}, root=ROOT)
    backups = environment.size(TierName.DATABASE).backup
    return {
        **{f"environment.images.{tier}": image(tier, service, description) for tier, service in app.services.items()},
        **{
            f"environment.images.{tier}": data_image(tier, service, description)
            for tier, service in environment.data(app).items()
        },
        **{path: Image(reference=reference, path=path) for path, reference in _tools(app, environment).items()},
        **({BACKUP: backup.image(backups, description)} if backups else {}),
    }


def _tools(app: App, environment: Environment) -> Pins:
    """Return config path → image of the tools that run beside the tiers."""
    pooler = {"environment.pooler": environment.pooler} if environment.pooled(app) else {}
    proxy = {"environment.proxy": environment.proxy} if environment.size(TierName.CACHE).ha else {}
    vault = {"environment.vault": environment.vault} if environment.archived else {}
    return {"environment.toolbox": environment.toolbox, **proxy, **pooler, **vault}


def named(stack: str) -> Pins:
    """Return the images that a stack file names."""
    return given(stack_file(stack).environment)


def given(environment: Mapping[str, Any]) -> Pins:
    """Return the images that an environment's plain settings name.

    Raises:
        ConfigError: an image's value is not a text.
    """
    tool_names = ("toolbox", "proxy", "pooler", "vault")
    tools = {f"environment.{name}": environment[name] for name in tool_names if name in environment}
    backups = backups_of(environment)
    tools |= {BACKUP: backups["image"]} if "image" in backups else {}
    images: object = environment.get("images", {})
    if not isinstance(images, Mapping):
        raise ConfigError("environment.images: it is not a mapping; run `make images PIN=yes`, which writes it")
    references = tools | {
        f"environment.images.{tier}": reference for tier, reference in cast(Mapping[str, Any], images).items()
    }
    if wrong := [path for path, reference in references.items() if not isinstance(reference, str)]:
        raise ConfigError(f"{wrong[0]}: it is not a text; write it like name:1.4@sha256:…")
    return references


def checked(described: Mapping[str, Image], known: Pins, where: str) -> Pins:
    """Return the digests of exactly the images in `asked`.

    Raises:
        RunError: a digest is missing, or is of another image.
    """
    if problems := "\n".join(_problems(described, known, where)):
        raise RunError(problems)
    return {path: known[path] for path in described}


def _problems(described: Mapping[str, Image], known: Pins, where: str) -> Iterator[str]:
    for path, expected in described.items():
        tagged = expected.reference.partition("@")[0]
        if "@sha256:" not in known.get(path, ""):
            yield f"{path}: {where} names no digest of {tagged}; run `make images PIN=yes` for it first"
        elif _tagged(known, path) != tagged:
            yield f"{path}: {where} has {known[path]}, and the files describe {tagged}; check out the commit it is of"


def _tagged(known: Pins, path: str) -> str:
    return known.get(path, "").partition("@")[0]


def write(stack: str, pins: Pins) -> None:
    """Write images with their digests to a stack file."""
    if pins:
        pairs = [word for path, reference in pins.items() for word in ("--plaintext", f"{path}={reference}")]
        subprocess.run(["pulumi", "config", "set-all", "--stack", stack, "--path", *pairs], check=True, cwd=ROOT)
        print(f"  Pulumi.{stack}.yaml: {len(pins)} images by their digests")


if __name__ == "__main__":
    words = edge.arguments("pins save | use | recall STACK", 2, 2)
    edge.end("pins", lambda: {"save": save, "use": use, "recall": recall}[words[0]](words[1]))
