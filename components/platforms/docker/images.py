"""Images on an engine: pull an image, or build it from a folder."""

import pulumi_docker as docker
from pulumi import ProviderResource, Resource

from ...model.workload import Image
from ...options import child_options
from ..base import SlotTarget
from .errors import explain_image


def remote_image(
    parent: Resource, image: Image, provider: ProviderResource, target: SlotTarget | None = None
) -> docker.RemoteImage:
    # Keep images on the engine after Pulumi deletes their release: they need disk space, but a later rollback is fast.
    name = f"{target.slot}-image-{image.reference}" if target else f"image-{image.reference}"
    return docker.RemoteImage(
        name,
        name=image.reference,
        build=_build(image),
        keep_locally=True,
        opts=child_options(parent, provider=provider, hooks=explain_image(name, image)),
    )


def _build(image: Image) -> docker.RemoteImageBuildArgs | None:
    if not image.context:
        return None
    build_args = {"BASE": image.base} if image.base else None
    return docker.RemoteImageBuildArgs(context=image.context, target=image.target, build_args=build_args)
