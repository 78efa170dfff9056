"""Puts an environment's images where its cluster pulls them, by content: `python -m ci.images STACK [--unless-pinned | --pin]`.

What `app` builds from a folder is built on the local engine and pushed to `environment.registry`, under the digest of
that folder, unless it is there. Where the environment wants every image `pinned`, where its stack file names digests, and with
`--pin`, they are then written there: that change is what a reviewer of a release sees.

`python -m ci.images STACK --build` only builds them, and needs no registry.
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
    digests = {path: _brought(engine, wanted) for path, wanted in pins.wanted(stack).items()}
    # Digests of yesterday's content would be deployed in place of what was just built.
    if environment.pinned or pin or pins.named(stack):
        pins.write(stack, digests)


def build(stack: str) -> list[str]:
    """Build the images of folders, for this engine only, and return their names."""
    engine: Any = docker.from_env()
    built: list[str] = []
    for reference, each in {each.reference: each for each in pins.wanted(stack).values()}.items():
        if each.context:
            _build(engine, each, reference)
            print(f"  {reference}: built")
            built.append(reference)
    return built


def _build(engine: Any, wanted: Image, tag: str) -> Any:
    given = {"BASE": wanted.base} if wanted.base else None
    image, _ = engine.images.build(path=wanted.context, target=wanted.target, buildargs=given, tag=tag, rm=True)
    return image


def _brought(engine: Any, wanted: Image) -> str:
    """The image as `name:tag@digest`, once the registry has it. One that has a digest already is asked for by its tag anew.

    Raises:
        RunError: it can't be had, or has no tag to ask for.
    """
    tagged = wanted.reference.partition("@")[0]
    repository, _, tag = tagged.rpartition(":")
    if not repository or "/" in tag:
        raise RunError(f"{wanted.path}: {wanted.reference} has no tag; write it like name:1.4 or name:1.4@sha256:…")
    try:
        image = engine.images.pull(repository, tag=tag)
        done = "is there"
    except APIError:
        if not wanted.context:
            return _mirrored(engine, tagged)
        image = _build(engine, wanted, tagged)
        for line in engine.images.push(repository, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise RunError(f"{wanted.path}: {tagged} can't be pushed: {line['error']}") from None
        image.reload()
        done = "built and pushed"
    print(f"  {tagged}: {done}")
    return f"{tagged}@{digest(repository, image.attrs['RepoDigests'])}"


def _mirrored(engine: Any, tagged: str) -> str:
    """An image that only a mirror has, which the engine knows by the name there. Its content has one digest everywhere."""
    path = tagged.rpartition(":")[0].partition("/")[2]
    known = engine.images.get(tagged).attrs["RepoDigests"]
    found = [each.partition("@")[2] for each in known if path and each.partition("@")[0].endswith(f"/{path}")]
    if not found:
        raise RunError(
            f"{tagged}: it can't be pulled, and no mirror's digest of it is known; push it to a registry first"
        )
    print(f"  {tagged}: a mirror has it")
    return f"{tagged}@{found[0]}"


def digest(repository: str, known: Sequence[str]) -> str:
    """The digest a repository has an image under, of those the engine knows it by."""
    short = repository.removeprefix("docker.io/").removeprefix("library/")
    found = [each.partition("@")[2] for each in known if each.partition("@")[0] in (repository, short)]
    if not found:
        raise RunError(f"{repository}: the engine knows no digest of it; push it to a registry first")
    return found[0]


if __name__ == "__main__":
    words = edge.arguments("images STACK [--unless-pinned | --pin | --build]", 1, 3)
    if "--build" in words:
        edge.end("images", lambda: build(words[0]))
    edge.end("images", lambda: main(words[0], "--unless-pinned" in words, "--pin" in words))
