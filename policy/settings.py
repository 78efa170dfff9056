"""What is yours to decide. It stands here and not in the stack files: who is judged does not choose the law."""

from .model import Settings

SETTINGS = Settings(
    # Stacks by name; one that is not named here is held to every rule.
    relaxed=("dev", "dev-*", "staging", "pr-*"),
    # Where images may come from. `docker.io/library` has the official ones, the next those of a database of several
    # instances; the last is the lab's own.
    registries=("docker.io/library", "ghcr.io/cloudnative-pg", "127.0.0.1:5005"),
    # How the listeners with a certificate are named on Gateways that are not made here.
    secure_listeners=("https*",),
)
