"""Settings of the policy pack. Users change them here.

The settings are not in the stack files, because a stack must not relax its own rules.
"""

from .model import Settings

SETTINGS = Settings(
    # Patterns of the stacks to which strict rules do not apply. All other stacks must pass every rule.
    relaxed=("dev", "dev-*", "staging", "pr-*"),
    # Trusted sources of images: Docker Hub's official images, the images of a database cluster, and the lab's registry.
    registries=("docker.io/library", "ghcr.io/cloudnative-pg", "127.0.0.1:5005"),
    # Names of listeners with a certificate, on Gateways that the program does not create.
    secure_listeners=("https*",),
)
