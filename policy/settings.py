"""Settings of the policy pack, for you to change.

The settings are not in the stack files, because a stack must not relax the rules that check the stack.
"""

from .model import Settings

SETTINGS = Settings(
    # Patterns of stack names. A stack whose name matches no pattern has to pass every rule.
    relaxed=("dev", "dev-*", "staging", "pr-*"),
    # Trusted sources of images: Docker Hub's official images, the images of a database cluster, and the lab's registry.
    registries=("docker.io/library", "ghcr.io/cloudnative-pg", "127.0.0.1:5005"),
    # Names of listeners with a certificate, on Gateways that the program does not create.
    secure_listeners=("https*",),
)
