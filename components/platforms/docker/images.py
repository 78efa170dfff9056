"""Images on an engine: pull an image, or build it from a folder."""

import pulumi_docker as docker
from pulumi import ProviderResource, Resource

from ...model.workload import Image
from ...options import child_options
from .errors import explain_image


def remote_image(parent: Resource, image: Image, provider: ProviderResource, owner: str = "") -> docker.RemoteImage:
    """Register an image to pull or to build.

    Args:
        parent: the parent component.
        image: the image.
        provider: provider of the engine.
        owner: beginning of the resource name: the slot or the store that uses the image. Several of them may use the same image,
            and Pulumi refuses two hooks of one name.
    """
    # Keep images on the engine after Pulumi deletes their release: they need disk space, but a later rollback is fast.
    name = f"{owner}-image-{image.reference}" if owner else f"image-{image.reference}"
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
    # The provider reads `dockerfile` relative to the context, or relative to its own folder if this folder has such a file.
    # `build_context.check_dockerfile` refuses the second case.
    return docker.RemoteImageBuildArgs(
        context=image.context, dockerfile=image.dockerfile, target=image.target, build_args=image.build_args or None
    )
