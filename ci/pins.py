"""Transfer of image digests between environments, so that the next environment runs the images that were verified.

- `python -m ci.pins save STACK` copies the digests of the stack file to `release.json`. Run `make images PIN=yes` first,
  which writes the digests to the stack file.
- `python -m ci.pins use STACK` copies the digests of `release.json` to the stack file. An image that only this
  environment runs keeps its digest in the stack file.
- `python -m ci.pins recall STACK` reads the digests that the last update used, and writes them to the stack file. A preview then shows only
  images that have changed. If the environment requires digests, an image that is not built yet gets a digest of zeros.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pulumi import RunError

from components import backup
from components.config import App, ConfigError, Environment
from components.context import Description
from components.model.services import CACHE
from components.model.workload import Image
from components.rendering import data_image, image

from . import command_line
from .pulumi_stack import ROOT, backups_of, last_update, load, project, pulumi, stack_file

FILE = ROOT / "release.json"
NOT_BUILT = f"sha256:{'0' * 64}"
"""Digest that a preview uses for an image that has not been built yet."""
Pins = dict[str, str]
"""Images as `name:tag@digest`, by config path such as `environment.images.api`."""


def save(stack: str) -> None:
    """Write the digests of the stack file to `release.json`.

    Raises:
        RunError: an image of the environment has no digest in the stack file.
    """
    pins = check_pins(required_images(stack), stack_file_pins(stack), f"Pulumi.{stack}.yaml")
    FILE.write_text(json.dumps(pins, indent=2) + "\n")
    print(f"  {FILE.name}: saved the images of stack {stack}")


def use(stack: str) -> None:
    """Write the digests of `release.json` to a stack file.

    Raises:
        RunError: `release.json` is missing, lacks the digest of an image, or has another tag than this commit needs.
    """
    if not FILE.exists():
        raise RunError(
            f"there is no {FILE.name}; run `make pins-save` in the environment where the release was verified, and copy the file here"
        )
    images, saved = required_images(stack), json.loads(FILE.read_text())
    write(stack, check_pins(images, saved | _unsaved_pins(stack, images, saved), FILE.name))


def _unsaved_pins(stack: str, images: Mapping[str, Image], saved: Pins) -> Pins:
    """Return the stack file's pins for images that `saved` lacks, or has with another tag.

    An example is a database image that only this environment uses. Images of web, api and worker are left out, because a
    release may only use the images in `saved`.
    """
    app, stack_pins = load(stack)[0], stack_file_pins(stack)
    slot_paths = {f"environment.images.{tier}" for tier in app.slot_services}
    return {
        path: stack_pins[path]
        for path in (images.keys() & stack_pins.keys()) - slot_paths
        if _without_digest(saved, path) != images[path].reference.partition("@")[0]
    }


def recall(stack: str) -> None:
    """Write the digests of the last update to the stack file, except for images that have changed since.

    If `environment.pinned` is true, changed images get the digest `NOT_BUILT`.
    """
    _, environment = load(stack)
    before: dict[str, Any] = last_update(stack).get("config", {}).get(f"{project()}:environment", {})
    last_pins = pins_in(before.get("objectValue") or {})
    tags = {path: described.reference.partition("@")[0] for path, described in required_images(stack).items()}
    unchanged = {path: last_pins[path] for path, tagged in tags.items() if _without_digest(last_pins, path) == tagged}
    unbuilt = {path: f"{tagged}@{NOT_BUILT}" for path, tagged in tags.items() if environment.pinned}
    write(stack, unbuilt | unchanged)


def required_images(stack: str) -> dict[str, Image]:
    """Return all images of the environment by config path. The tag of a built image is the digest of its build folder."""
    app, environment = load(stack)
    description = Description(app=app, environment=environment, secrets={}, stack=stack, root=ROOT)
    return {
        **{
            f"environment.images.{tier}": image(tier, service, description)
            for tier, service in app.slot_services.items()
        },
        **{
            f"environment.images.{tier}": data_image(tier, service, description)
            for tier, service in environment.data(app).items()
        },
        **{path: Image(reference=reference, path=path) for path, reference in _tool_images(app, environment).items()},
        **{
            f"environment.tiers.{tier}.backup.image": backup.image(
                backups, description, f"environment.tiers.{tier}.backup"
            )
            for tier, backups in environment.backups.items()
        },
    }


def _tool_images(app: App, environment: Environment) -> Pins:
    """Return the images of tools, such as the toolbox and the pooler, by config path."""
    pooler = {"environment.pooler": environment.pooler} if environment.pooled(app) else {}
    proxy = {"environment.proxy": environment.proxy} if environment.tier_settings(CACHE.name).ha else {}
    vault = {"environment.vault": environment.vault} if environment.archived else {}
    return {"environment.toolbox": environment.toolbox, **proxy, **pooler, **vault}


def stack_file_pins(stack: str) -> Pins:
    """Return the images in a stack file, by config path."""
    return pins_in(stack_file(stack).environment)


def pins_in(environment: Mapping[str, Any]) -> Pins:
    """Return the images in the raw settings of an environment, by config path.

    Raises:
        ConfigError: an image's value is not a text.
    """
    tool_names = ("toolbox", "proxy", "pooler", "vault")
    tools = {f"environment.{name}": environment[name] for name in tool_names if name in environment}
    tools |= {
        f"environment.tiers.{tier}.backup.image": backups["image"]
        for tier, backups in backups_of(environment).items()
        if "image" in backups
    }
    images: object = environment.get("images", {})
    if not isinstance(images, Mapping):
        raise ConfigError("environment.images: the value is not a mapping; run `make images PIN=yes` to write this key")
    references = tools | {
        f"environment.images.{tier}": reference for tier, reference in cast(Mapping[str, Any], images).items()
    }
    if invalid := [path for path, reference in references.items() if not isinstance(reference, str)]:
        raise ConfigError(f"{invalid[0]}: it is not a text; write it like name:1.4@sha256:…")
    return references


def check_pins(images: Mapping[str, Image], pins: Pins, where: str) -> Pins:
    """Check that `pins` has a digest of each image in `images`, and return only the pins of these images.

    Args:
        images: images by config path.
        pins: images as `name:tag@digest`, by config path.
        where: file that contains the pins, for error messages.

    Raises:
        RunError: a digest is missing, or belongs to another image.
    """
    if problems := "\n".join(_problems(images, pins, where)):
        raise RunError(problems)
    return {path: pins[path] for path in images}


def _problems(images: Mapping[str, Image], pins: Pins, where: str) -> Iterator[str]:
    for path, expected in images.items():
        tagged = expected.reference.partition("@")[0]
        if "@sha256:" not in pins.get(path, ""):
            yield f"{path}: {where} has no digest of {tagged}; run `make images PIN=yes` first"
        elif _without_digest(pins, path) != tagged:
            yield f"{path}: {where} has {pins[path]}, but the configuration needs {tagged}; check out the commit of that image"


def _without_digest(pins: Pins, path: str) -> str:
    return pins.get(path, "").partition("@")[0]


def write(stack: str, pins: Pins) -> None:
    """Write images with their digests to a stack file."""
    if pins:
        pairs = [word for path, reference in pins.items() for word in ("--plaintext", f"{path}={reference}")]
        pulumi("config", "set-all", "--stack", stack, "--path", *pairs)
        print(f"  Pulumi.{stack}.yaml: pinned {len(pins)} images by digest")


if __name__ == "__main__":
    words = command_line.arguments("pins save | use | recall STACK", 2, 2)
    command_line.run_and_exit("pins", lambda: {"save": save, "use": use, "recall": recall}[words[0]](words[1]))
