"""Puts an environment's images where its cluster pulls them, by content: `python -m ci.images STACK [--unless-pinned]`.

What `app` builds from a folder is built on the local engine and pushed to `environment.registry`, under the digest of
that folder, unless it is there. Where the environment wants every image `pinned`, their digests are then written into
its stack file: that change is what a reviewer of a release sees.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import docker
from docker.errors import APIError, DockerException
from pulumi import RunError

from components.config import ConfigError
from components.tier import Description, data_image, image
from components.workload import Image

from .described import ROOT, load


def main(stack: str, unless_pinned: bool) -> None:
    app, environment = load(stack)
    if environment.pinned and unless_pinned:
        return
    description = Description(app=app, environment=environment, secrets={}, root=ROOT)
    engine: Any = docker.from_env()
    digests = {name: _brought(engine, wanted) for name, wanted in _wanted(description)}
    if environment.pinned:
        pairs = [word for name, digest in digests.items() for word in ("--plaintext", f"{name}={digest}")]
        subprocess.run(["pulumi", "config", "set-all", "--stack", stack, "--path", *pairs], check=True)
        print(f"  their digests are in Pulumi.{stack}.yaml")


def _wanted(description: Description) -> Iterator[tuple[str, Image]]:
    """Config path → image, of everything that will run; of what is built, only where it is to be pinned or pushed."""
    app, environment = description.app, description.environment
    for tier, service in app.services.items():
        yield f"environment.images.{tier}", image(tier, service, description)
    for tier, data in environment.data(app).items():
        yield f"environment.images.{tier}", data_image(tier, data.image, description)
    yield "environment.toolbox", Image(reference=environment.toolbox, path="environment.toolbox")


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
            raise
        image, _ = engine.images.build(path=str(ROOT / wanted.context), tag=tagged, rm=True)
        for line in engine.images.push(repository, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise RunError(f"{wanted.path}: {tagged} can't be pushed: {line['error']}") from None
        image.reload()
        done = "built and pushed"
    print(f"  {tagged}: {done}")
    return f"{tagged}@{digest(repository, image.attrs['RepoDigests'])}"


def digest(repository: str, known: Sequence[str]) -> str:
    """The digest a repository has an image under, of those the engine knows it by."""
    short = repository.removeprefix("docker.io/").removeprefix("library/")
    found = [each.partition("@")[2] for each in known if each.partition("@")[0] in (repository, short)]
    if not found:
        raise RunError(f"{repository}: the engine knows no digest of it; push it to a registry first")
    return found[0]


if __name__ == "__main__":
    try:
        main(sys.argv[1], "--unless-pinned" in sys.argv)
    except (ConfigError, RunError, DockerException) as error:
        sys.exit(f"images: {error}")
