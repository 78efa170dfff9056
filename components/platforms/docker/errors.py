"""Error messages for failed containers and images, with state, log and fix."""

import re
import shlex
from collections.abc import Callable

import pulumi
from pulumi import ErrorHookArgs, ResourceHookBinding

from ...model.workload import Image
from ...options import on_error
from ..base import Location
from .client import connect, sdk


def explain_container(
    name: str, container_name: str, path: str, within: float, location: Location, impact: Callable[[], str]
) -> ResourceHookBinding:
    """Return hooks that log an error if a container can't be created or does not become healthy.

    The error contains the container's state and the last lines of its log.

    Args:
        name: resource name.
        container_name: name of the container on the engine.
        path: config path that the error names.
        within: time limit to become healthy, in seconds.
        location: the engine.
        impact: function that returns the failure's effect on users, as a text for the error.
    """

    def explain(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else ""
        if "healthy" in cause:
            cause = f"not healthy within {within:g}s"
        cause = with_remedy(cause, location.stack)
        pulumi.log.error(
            f"{path}: container {container_name}: {cause}; {impact()}.\n{_state_and_log(location.host, container_name)}"
        )
        return False

    return on_error(f"explain-{name}", explain)


def with_remedy(cause: str, stack: str) -> str:
    """Add the fix, `make heal`, to an engine's error about a missing object. Return any other error unchanged."""
    is_missing = any(
        text in cause for text in ("No such container", "No such image", "No such network", "no such volume")
    )
    return (
        f"{cause}; this object was removed by hand: run `make heal ENV={stack}`, then repeat this command"
        if is_missing
        else cause
    )


def explain_image(name: str, image: Image) -> ResourceHookBinding:
    """Return hooks that log an error, with the config path and the fix, if an image can't be pulled or built."""

    def explain(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else "no reason was given"
        if "no space left" in cause:
            fix = "the engine's disk is full: free space with `docker system prune`, then repeat the update"
        elif image.context:
            file = f"{image.context}/{image.dockerfile}" if image.dockerfile else "the Dockerfile"
            fix = f"the build in {image.context} failed: correct {file} (`{_build_command(image)}` shows the whole output)"
        else:
            fix = "check the name and tag of the image, and whether `docker pull` can pull it"
        pulumi.log.error(f"{image.path}: {image.reference} can't be pulled or built; {fix}.\n    {cause}")
        return False

    return on_error(f"explain-{name}", explain)


def _build_command(image: Image) -> str:
    """Return the `docker build` command of an image, for a shell."""
    context = image.context or "."
    file = ["--file", f"{context}/{image.dockerfile}"] if image.dockerfile else []
    target = ["--target", image.target] if image.target else []
    args = [word for pair in image.build_args.items() for word in ("--build-arg", "=".join(pair))]
    return shlex.join(["docker", "build", *file, *target, *args, context])


def plain_log(text: str | None, lines: int = 20) -> str:
    """Return the last lines of a container's log, without control characters and the engine's 8-byte stream headers."""
    plain = re.sub(r"[\x00-\x02]\x00{3}[\s\S]{4}|[^\S\n]*[\x00-\x08\x0b-\x1f\x7f]", "", text or "")
    return "\n".join(f"    {line}" for line in plain.strip().splitlines()[-lines:]) or "    (it printed nothing)"


def _state_and_log(host: str, container: str) -> str:
    try:
        record = connect(host).containers.get(container)
        state = record.attrs["State"]
        log = record.logs(tail=20).decode(errors="replace")
    except sdk().errors.DockerException as error:
        return f"The log of the container could not be read: {error}"
    summary = f"The container is {state['Status']}, exit code {state['ExitCode']}, out of memory: {'yes' if state['OOMKilled'] else 'no'}."
    return f"{summary} The last lines of its log:\n{plain_log(log)}"
