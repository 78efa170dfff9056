"""Images of an environment in its registry, by digest: `python -m ci.images STACK [--unless-pinned | --pin]`.

Images that `app` builds from a folder are built on the local engine and pushed to `environment.registry`, unless it
has them. Their tag is the digest of the folder. The digests are then written to the stack file with `--pin`, if the
environment requires `pinned`, or if its stack file names digests already. A release's reviewer sees this change.

`python -m ci.images STACK --build` only builds the images and needs no registry.
"""

from collections.abc import Sequence
from typing import Any

import docker
from docker.errors import APIError
from pulumi import RunError

from components.workload import Image

from . import edge, pins
from .described import load


def main(stack: str, unless_pinned: bool, pin: bool) -> None:
    _, environment = load(stack)
    if environment.pinned and unless_pinned:
        return
    engine: Any = docker.from_env()
    digests = {path: _brought(engine, image) for path, image in pins.wanted(stack).items()}
    # Otherwise the former digests in the file would be deployed instead of the new images.
    if environment.pinned or pin or pins.named(stack):
        pins.write(stack, digests)


def build(stack: str) -> list[str]:
    """Build the images of folders on this engine only, and return their names."""
    engine: Any = docker.from_env()
    built: list[str] = []
    for reference, image in {image.reference: image for image in pins.wanted(stack).values()}.items():
        if image.context:
            _build(engine, image, reference)
            print(f"  {reference}: built")
            built.append(reference)
    return built


def _build(engine: Any, wanted: Image, tag: str) -> Any:
    build_args = {"BASE": wanted.base} if wanted.base else None
    image, _ = engine.images.build(path=wanted.context, target=wanted.target, buildargs=build_args, tag=tag, rm=True)
    return image


def _brought(engine: Any, wanted: Image) -> str:
    """Return an image as `name:tag@digest`, once the registry has it. An existing digest is looked up again by the tag.

    Raises:
        RunError: the image has no tag, or can't be pulled or pushed.
    """
    tagged = wanted.reference.partition("@")[0]
    repository, _, tag = tagged.rpartition(":")
    if not repository or "/" in tag:
        raise RunError(f"{wanted.path}: {wanted.reference} has no tag; write it like name:1.4 or name:1.4@sha256:…")
    try:
        image = engine.images.pull(repository, tag=tag)
        result = "is there"
    except APIError:
        if not wanted.context:
            return _mirrored(engine, tagged)
        image = _build(engine, wanted, tagged)
        for line in engine.images.push(repository, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise RunError(f"{wanted.path}: {tagged} can't be pushed: {line['error']}") from None
        image.reload()
        result = "built and pushed"
    print(f"  {tagged}: {result}")
    return f"{tagged}@{digest(repository, image.attrs['RepoDigests'])}"


def _mirrored(engine: Any, tagged: str) -> str:
    """Return an image that only a registry mirror has.

    The engine knows it by the mirror's name. Its digest is the same everywhere.
    """
    path = tagged.rpartition(":")[0].partition("/")[2]
    repo_digests = engine.images.get(tagged).attrs["RepoDigests"]
    digests = [
        entry.partition("@")[2] for entry in repo_digests if path and entry.partition("@")[0].endswith(f"/{path}")
    ]
    if not digests:
        raise RunError(
            f"{tagged}: it can't be pulled, and no mirror's digest of it is known; push it to a registry first"
        )
    print(f"  {tagged}: found in a mirror")
    return f"{tagged}@{digests[0]}"


def digest(repository: str, known: Sequence[str]) -> str:
    """Return an image's digest in a repository, of the digests that the engine knows."""
    short = repository.removeprefix("docker.io/").removeprefix("library/")
    digests = [entry.partition("@")[2] for entry in known if entry.partition("@")[0] in (repository, short)]
    if not digests:
        raise RunError(f"{repository}: the engine knows no digest of it; push it to a registry first")
    return digests[0]


if __name__ == "__main__":
    words = edge.arguments("images STACK [--unless-pinned | --pin | --build]", 1, 3)
    if "--build" in words:
        edge.end("images", lambda: build(words[0]))
    edge.end("images", lambda: main(words[0], "--unless-pinned" in words, "--pin" in words))
