"""Check an environment with `pinned: true`: refuse images that are not named by their digest."""

from collections.abc import Iterator

from ..model.services import CACHE, DATABASE
from .app import App
from .environment import Environment


def image_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each image that is not named by its digest."""
    images = {tier: service.image for tier, service in app.slot_services.items()}
    images |= {tier: environment.data_image(tier, described) for tier, described in environment.data(app).items()}
    for tier, image in images.items():
        reference = environment.images.get(tier) or image or "an image that is built"
        if "@sha256:" not in reference:
            yield f"environment.images.{tier}: {reference} has no digest, which `pinned: true` requires; run `make images` to write the digest here"
    if app.database and environment.tier_settings(DATABASE.name).single and "@sha256:" not in app.database.image:
        fix = "add the digest here, because environment.images.database is only the image of the cluster"
        yield f"app.database.image: {app.database.image} has no digest, which `pinned: true` requires; {fix}"
    for path, image in environment.monitoring_images(app).items():
        if "@sha256:" not in image:
            yield f"environment.monitoring.{path}: {image} has no digest, which `pinned: true` requires; add the digest, as in name:1.4@sha256:…"
    for tier, backup in environment.backups.items():
        if "@sha256:" not in (backup.image or ""):
            named = backup.image or "an image that is built"
            yield f"environment.tiers.{tier}.backup.image: {named} has no digest, which `pinned: true` requires; run `make images` to write the digest here"
    tools = {"toolbox": environment.toolbox}
    tools |= {"proxy": environment.proxy} if environment.tier_settings(CACHE.name).ha else {}
    tools |= {"pooler": environment.pooler} if environment.pooled(app) else {}
    tools |= {"vault": environment.vault} if environment.archived else {}
    tools |= {} if environment.kubernetes else {"docker.busybox": environment.docker.busybox}
    for name, image in tools.items():
        if "@sha256:" not in image:
            yield f"environment.{name}: {image} has no digest, which `pinned: true` requires; run `make images` to write the digest here"
