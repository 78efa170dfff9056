"""Build and push of an environment's images: `python -m ci.images STACK [--unless-pinned | --pin | --build]`.

The command builds an image on the local engine and pushes it, if `app` has a build folder for the image and
`environment.registry` lacks the image. The tag of such an image is the digest of its build folder.

The digests of all images are written to the stack file if `--pin` is given, if `environment.pinned` is true, or if the
stack file already has digests. With `--unless-pinned` the command does nothing if `environment.pinned` is true. With
`--build` the command only builds the images, and needs no registry.
"""

from collections.abc import Sequence
from typing import Any

import docker
from docker.errors import APIError
from pulumi import RunError

from components.model.workload import Image

from . import command_line, pins
from .pulumi_stack import load


def main(stack: str, unless_pinned: bool, pin: bool) -> None:
    _, environment = load(stack)
    if environment.pinned and unless_pinned:
        return
    engine: Any = docker.from_env()
    digests = {path: _push(engine, image) for path, image in pins.required_images(stack).items()}
    # Replace the digests that the stack file already has. Otherwise the old images would be deployed.
    if environment.pinned or pin or pins.stack_file_pins(stack):
        pins.write(stack, digests)


def build(stack: str) -> list[str]:
    """Build all images with a build folder on the local engine, and return their names. Push nothing."""
    engine: Any = docker.from_env()
    built: list[str] = []
    for reference, image in {image.reference: image for image in pins.required_images(stack).values()}.items():
        if image.context:
            _build(engine, image, reference)
            print(f"  {reference}: built")
            built.append(reference)
    return built


def _build(engine: Any, source: Image, tag: str) -> Any:
    image, _ = engine.images.build(
        path=source.context,
        dockerfile=source.dockerfile,
        target=source.target,
        buildargs=source.build_args or None,
        tag=tag,
        rm=True,
    )
    return image


def _push(engine: Any, source: Image) -> str:
    """Return an image as `name:tag@digest`. If the registry lacks the image, build and push the image first.

    Raises:
        RunError: the image has no tag, or can't be pulled or pushed.
    """
    tagged = source.reference.partition("@")[0]
    repository, _, tag = tagged.rpartition(":")
    if not repository or "/" in tag:
        raise RunError(f"{source.path}: {source.reference} has no tag; write it like name:1.4 or name:1.4@sha256:…")
    try:
        image = engine.images.pull(repository, tag=tag)
        result = "already in the registry"
    except APIError:
        if not source.context:
            return _mirrored(engine, tagged)
        image = _build(engine, source, tagged)
        for line in engine.images.push(repository, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise RunError(f"{source.path}: {tagged} can't be pushed: {line['error']}") from None
        image.reload()
        result = "built and pushed"
    print(f"  {tagged}: {result}")
    return f"{tagged}@{digest(repository, image.attrs['RepoDigests'])}"


def _mirrored(engine: Any, tagged: str) -> str:
    """Return the reference `name:tag@digest` of a local image that was pulled from a registry mirror.

    The engine lists the digest under the mirror's name. The digest is also valid for the original name, because an image
    has the same digest in every registry.
    """
    path = tagged.rpartition(":")[0].partition("/")[2]
    repo_digests = engine.images.get(tagged).attrs["RepoDigests"]
    digests = [
        entry.partition("@")[2] for entry in repo_digests if path and entry.partition("@")[0].endswith(f"/{path}")
    ]
    if not digests:
        raise RunError(
            f"{tagged}: the image can't be pulled, and the local image has no digest; push the image to a registry first"
        )
    print(f"  {tagged}: found in a mirror")
    return f"{tagged}@{digests[0]}"


def digest(repository: str, repo_digests: Sequence[str]) -> str:
    """Return the digest of an image in a repository. `repo_digests` is the engine's list of `name@digest`."""
    short = repository.removeprefix("docker.io/").removeprefix("library/")
    digests = [entry.partition("@")[2] for entry in repo_digests if entry.partition("@")[0] in (repository, short)]
    if not digests:
        raise RunError(f"{repository}: the engine has no digest of this image; push the image to a registry first")
    return digests[0]


if __name__ == "__main__":
    words = command_line.arguments("images STACK [--unless-pinned | --pin | --build]", 1, 3)
    if "--build" in words:
        command_line.run_and_exit("images", lambda: build(words[0]))
    command_line.run_and_exit("images", lambda: main(words[0], "--unless-pinned" in words, "--pin" in words))
