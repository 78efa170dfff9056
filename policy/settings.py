"""Settings of the policy pack, for you to change.

They are not in the stack files: a stack must not relax the rules that it is checked by.
"""

from .model import Settings

SETTINGS = Settings(
    # Patterns of stack names. A stack that matches none has to pass every rule.
    relaxed=("dev", "dev-*", "staging", "pr-*"),
    # Trusted sources of images: the official images, those of a database cluster, and the lab's own.
    registries=("docker.io/library", "ghcr.io/cloudnative-pg", "127.0.0.1:5005"),
    # Names of listeners with a certificate, on Gateways that the program does not create.
    secure_listeners=("https*",),
)
