"""Check that the images of a slot still exist on the platform. Without its images a slot can't restart."""

from collections.abc import Sequence
from dataclasses import replace

from .platforms import Inspector
from .release.checkpoint import Checkpoint
from .release.memory import missing_entries, missing_live_objects, needed_images
from .release.planner import Plan, ReleaseError, Slot, StackState


def missing_images(inspector: Inspector, checkpoint: Checkpoint, slot: Slot) -> Sequence[str]:
    """Return a description of each image that a slot needs, but that is missing on the platform.

    A slot needs the images of its suspended and missing containers, to recreate these containers, and of the containers that it gets once it
    is live.
    """
    entries = [*missing_entries(checkpoint, slot), *missing_live_objects(checkpoint, slot)]
    needed = needed_images(entries, checkpoint, slot)
    absent = inspector.absent_images(needed) if needed else ()
    return [needed[image] for image in absent]


def mark_lost(inspector: Inspector, checkpoint: Checkpoint, observed: StackState) -> StackState:
    """Mark the live slot as lost if a container and its image are both missing.

    Such a container can't be recreated, so the update deploys the live release again.

    Returns:
        The state of the stack, with or without the mark.
    """
    if (
        not observed.live
        or observed.live not in observed.slots
        or not missing_images(inspector, checkpoint, observed.live)
    ):
        return observed
    slot_state = replace(observed.slots[observed.live], lost=True)
    return replace(observed, slots={**observed.slots, observed.live: slot_state})


def refuse_unavailable(inspector: Inspector, plan: Plan, checkpoint: Checkpoint) -> None:
    """Refuse a switch to an existing slot if an image that the slot needs is missing on the platform.

    Raises:
        ReleaseError: an image is missing. No resource has been changed.
    """
    absent = missing_images(inspector, checkpoint, plan.live) if plan.moves and not plan.render else ()
    if absent:
        raise ReleaseError(
            f"{plan.release} can't go live again, because the Docker engine lacks {' and '.join(absent)} (nothing was changed); "
            "check out the commit of this release and run `make up`"
        )
