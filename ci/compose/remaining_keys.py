"""Notes about the keys of a Compose file that are not converted, because they have no equivalent or are unnecessary."""

from .compose_service import mapping
from .project import Project

UNNECESSARY = {
    "networks": "a tier can connect to the tiers that it needs, and to no other",
    "restart": "a container that ends is restarted",
    "container_name": "the name of a container contains the application, stack, slot and tier",
    "hostname": "tiers get each other's addresses in DATABASE_HOST, CACHE_HOST and API_URL",
    "logging": "logs are rotated",
    "init": "every container has an init process",
    "read_only": "every container has a read-only root filesystem",
    "security_opt": "no container can gain privileges",
    "cap_drop": "no container has capabilities",
    "memswap_limit": "containers have no swap",
    "expose": "other tiers can connect to its port",
    "stdin_open": "containers have no terminal",
    "tty": "containers have no terminal",
    "pull_policy": "an image is pulled if it is missing",
}
"""Keys of a Compose service that need no conversion, each with the reason for its note."""
ADVICE = {
    "privileged": "no container is privileged; change the service so that it needs no privileges",
    "cap_add": "containers have no capabilities; change the service so that it needs none",
    "devices": "containers have no devices of the host; change the service so that it needs none",
    "network_mode": "tiers have their own networks; connect to other services by their addresses",
    "extra_hosts": "set the IP address in env, in place of the host name",
    "ulimits": "set limits that the service needs in the configuration of the engine",
    "sysctls": "set values that the service needs in the configuration of the engine",
    "shm_size": "/dev/shm has the default size of the engine",
    "working_dir": "set WORKDIR in the Dockerfile",
    "configs": "put the file into the image, or the values into env",
    "stop_signal": "containers are stopped with SIGTERM; let the service handle that signal",
    "labels": "the gateway replaces a proxy and its labels; set the paths of the api in app.api.paths",
}
"""Keys of a Compose service that can't be converted, each with the advice for its note."""
_NO_EQUIVALENT = "it has no equivalent here; change the service so that it works without this key"
_CONVERTED_KEYS = {
    "image", "build", "command", "entrypoint", "environment", "ports", "volumes", "depends_on", "links", "healthcheck",
    "deploy", "cpus", "mem_limit", "scale", "secrets", "user", "tmpfs", "stop_grace_period", "profiles", "develop",
}  # fmt: skip
"""Keys of a Compose service that are converted."""


def note_remaining_keys(project: Project) -> None:
    """Add a note for each key that was not converted."""
    tiers = {service.name for service in project.roles.tiers.values()}
    for service in project.services.values():
        for key in [key for key in service.raw if key not in _CONVERTED_KEYS]:
            if key in UNNECESSARY:
                project.notes.add_unnecessary(f"services.*.{key}", UNNECESSARY[key])
            elif service.name in tiers:
                project.notes.add_unconverted(f"{service.path}.{key}", ADVICE.get(key, _NO_EQUIVALENT))
        if set(service.dependencies.values()) - {"service_started"}:
            project.notes.add_unnecessary(
                "services.*.depends_on",
                "a tier starts after the migration, when the tiers that it needs are healthy",
            )
    for name in mapping(project.compose, "configs"):
        project.notes.add_unconverted(f"configs.{name}", ADVICE["configs"])
