"""Names and labels of the resources that the program creates.

Platforms take resource names from this module. The checks of the configuration refuse names that the program uses itself.
Names are part of the state of deployed stacks: add new names, but never change an existing name or template.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence

from . import services

# ---------------------------------------------------------------------- labels

ROLE_SERVICE, ROLE_SINGLE, ROLE_JOB = "tier", "single", "job"
"""Values of the role label: replicas of a service, a process that must never run twice, and a scheduled job."""
SERVICE_ROLES = (ROLE_SERVICE, ROLE_SINGLE)
"""Values of the role label of all processes of services."""
LABEL_APP, LABEL_ENVIRONMENT, LABEL_ROLE, LABEL_TIER = "tiers.app", "tiers.environment", "tiers.role", "tiers.tier"
LABEL_SLOT, LABEL_RELEASE, LABEL_ATTEMPT, LABEL_SWITCH = (
    "tiers.slot",
    "tiers.release",
    "tiers.attempt",
    "tiers.switch",
)
LABEL_JOB, LABEL_SCHEDULE = "tiers.job", "tiers.schedule"
"""Labels of a job's container on Docker: the name of the job; its cron expression and time zone."""
LABEL_MEMBER, LABEL_CONTENT = "tiers.member", "tiers.content"
LABEL_DATA = "tiers.data"
"""Label that says whether a resource contains data that no update may delete (components/safety/data.py)."""
LABEL_NEEDS = "tiers.needs/{name}"
LABEL_DASHBOARD = "grafana_dashboard"
STANDARD = "app.kubernetes.io"
LABEL_NAME, LABEL_INSTANCE, LABEL_PART_OF, LABEL_MANAGED_BY, LABEL_COMPONENT, LABEL_VERSION = (
    f"{STANDARD}/{part}" for part in ("name", "instance", "part-of", "managed-by", "component", "version")
)
POD_SECURITY = "pod-security.kubernetes.io/{mode}"
_LABELS = frozenset(
    {LABEL_NAME, LABEL_INSTANCE, LABEL_PART_OF, LABEL_MANAGED_BY, LABEL_COMPONENT, LABEL_VERSION, LABEL_DASHBOARD}
)
_LABEL_PREFIXES = ("tiers.", "tiers/", POD_SECURITY.partition("{")[0])


def is_reserved_label(key: str) -> bool:
    """Return whether a label key is reserved for the program. Later versions may use any label with the prefix `tiers.`."""
    return key in _LABELS or key.startswith(_LABEL_PREFIXES)


# ---------------------------------------------------------------------- volumes, claims and tasks


class Template:
    """Template of a name with fields, such as `{data}-{number}`."""

    def __init__(self, text: str, **fields: str | Callable[[], str]) -> None:
        """Create a template.

        Args:
            text: the name, with fields in braces.
            fields: regular expression of the values of each field, or a function that returns the expression.
        """
        self.text = text
        self._fields = fields

    def format(self, **fields: object) -> str:
        """Return the name with these values in the fields."""
        return self.text.format(**fields)

    def matches(self, name: str) -> bool:
        """Return whether this template can produce `name`."""
        return re.fullmatch(self._pattern(), name) is not None

    def _pattern(self) -> str:
        parts = re.split(r"{(\w+)}", self.text)
        return "".join(self._field(part) if number % 2 else re.escape(part) for number, part in enumerate(parts))

    def _field(self, name: str) -> str:
        pattern = self._fields[name]
        return f"(?:{pattern if isinstance(pattern, str) else pattern()})"


JOB, JOB_STATE = "job", "job-state"
"""Beginning of the names of scheduled jobs' objects, and name of the volume with their due times and results, on Docker."""
SERVICE_NAME = r"[a-z](?:-?[a-z0-9]){0,29}"
"""Regular expression of the names that a service may have."""
DATABASE_DATA, CACHE_DATA, BACKUPS = "database-data", "cache-data", "backups"
DATABASE_CLUSTER = "database-ha"
GATEWAY, GATEWAY_STATE = "gateway", "gateway-state"
"""Names of the gateway's container, and of the volume with the gateway's files."""
PROMETHEUS_DATA, PROMETHEUS_RELEASED = "prometheus-data", "prometheus-released"
PROMETHEUS_CONFIG = Template("prometheus-config-{version}", version="[0-9a-f]{6}")
SERVICE_DATA = Template("{service}-data", service=lambda: _any_of(services.common_catalogue().data))
SCRIPTS = Template("{data}-scripts", data=lambda: f"{_any_of(services.common_catalogue().data)}|{DATABASE_CLUSTER}")
MEMBER_DATA = Template("{data}-{number}", data=CACHE_DATA, number=r"\d+")
INSTANCE_DATA = Template("{cluster}{instance}", cluster=DATABASE_CLUSTER, instance="(-.+)?")
"""Names of the PersistentVolumeClaims of a database cluster. CloudNativePG adds a suffix to the name of the cluster. The name of
a temporary cluster (`make restore TO=`) is `database-ha-TIME`."""
POD_SECRETS, POD_SCRIPTS = "secrets", "scripts"
"""Names of a pod's volumes for secrets and scripts. Only the name for secrets is reserved (`_VOLUMES`). The other name can't
collide: the configuration can't name volumes of the data services that have scripts."""
_VERSIONS = "(-[0-9a-f]{6})+"


def _any_of(records: Iterable[services.Service]) -> str:
    return "|".join(re.escape(record.name) for record in records)


def _owner() -> str:
    """Return a regular expression that matches `{owner}` in names of secret volumes.

    An owner is a service in a slot (`blue-api`), a data service, an exporter of a data service, the backup or the archive
    proxy. A service in a slot may have any name, because an application names its further services.
    """
    shared = _any_of(services.common_catalogue().data)
    return f"(?:blue|green)-{SERVICE_NAME}|(?:{shared})(?:-exporter)?|backup|vault"


PROGRAMS = Template("{owner}-programs-{version}", owner=rf"(?:blue|green)(?:-{SERVICE_NAME})?", version="[0-9a-f]{6}")
"""Names of the volumes with BusyBox, on Docker."""
SECRET_FILES = Template("{owner}-secrets{versions}", owner=_owner, versions=_VERSIONS)

_VOLUMES = tuple(
    name if isinstance(name, Template) else Template(name)
    for name in (SERVICE_DATA, BACKUPS, GATEWAY, GATEWAY_STATE, PROMETHEUS_DATA, PROMETHEUS_RELEASED,
                PROMETHEUS_CONFIG, SCRIPTS, MEMBER_DATA, INSTANCE_DATA, POD_SECRETS, PROGRAMS, SECRET_FILES)
)  # fmt: skip
# The container of a task `secrets-0a1b2c` would be named `blue-api-secrets-0a1b2c`, and a secret volume may have the same name.
_TASKS = (Template("secrets{versions}", versions=_VERSIONS),)


def is_reserved_volume(name: str) -> bool:
    """Return whether a name is reserved for the program's own volumes and PersistentVolumeClaims, on any platform."""
    return any(template.matches(name) for template in _VOLUMES)


def is_file_volume(name: str, store: str) -> bool:
    """Return whether a name is that of a volume with the secrets of a store, or with BusyBox for a store, on Docker."""
    suffix = name.removeprefix(f"{store}-")
    return suffix != name and re.fullmatch(f"(secrets|programs){_VERSIONS}", suffix) is not None


_WORKLOADS = frozenset(
    {
        GATEWAY,
        "backup",
        "blue",
        "cluster",
        "engine",
        "green",
        "ground",
        "monitoring",
        "prometheus",
        "release",
        "smoke",
        "switch",
        "vault",
    }
)
"""Names that the program uses for components, workloads, tasks and scrape jobs. Names of data services are not listed here."""


def secret_variable(name: str) -> str:
    """Return the environment variable that contains the path of a secret's file, such as `API_KEY_FILE`."""
    return f"{services.prefix(name)}_FILE"


def is_reserved_workload(name: str) -> bool:
    """Return whether a name is reserved for the program's own components and workloads, on any platform."""
    data = [record.name for record in services.common_catalogue().data]
    return name in _WORKLOADS or name.startswith(tuple(f"{record}-" for record in data))


def is_service_object(suffix: str, tasks: Collection[str]) -> bool:
    """Return whether a container or another object of a service has the name `SERVICE-SUFFIX`, such as `api-migrate`.

    Args:
        suffix: the part of the name after the name of the service.
        tasks: names of the service's tasks, without migration and seed.
    """
    return (
        suffix in {"migrate", "seed", *tasks}
        or re.fullmatch(rf"\d+|secrets({_VERSIONS})?(-files)?", suffix) is not None
    )


_STORES = re.compile(r"default|deny-all|dns|kubernetes|public|secrets|(blue|green|to)-.+|.+-(blue|green)")
"""Names that no store may have. Objects of a store have its name without a slot, so it must differ from the names of a slot's objects
(`api-blue`, `blue-api-1`), of the program's policies (`to-NAME`, `deny-all`) and of objects that a cluster creates. The owners of
placeholders are `public` and `secrets`."""


def is_reserved_store(name: str) -> bool:
    """Return whether a store can't have a name, because other objects or values have it, on any platform."""
    return _STORES.fullmatch(name) is not None


def is_store_object(suffix: str) -> bool:
    """Return whether an object of a store has the name `STORE-SUFFIX`, such as `mysql-pods` (a Service on Kubernetes)."""
    return re.fullmatch(rf"\d+|pods|to-world|(secrets|programs)({_VERSIONS})?(-files)?", suffix) is not None


def store_backup(store: str) -> str:
    """Return the name of the workload that backs up a store, such as `mysql-backup`. Its volume is `mysql-backups`."""
    return f"{store}-backup"


def is_reserved_task(name: str) -> bool:
    """Return whether a task name is reserved, because the task's container could get the name of a secret volume."""
    return any(template.matches(name) for template in _TASKS)


# ---------------------------------------------------------------------- names that a platform accepts

SUBDOMAIN, FOLDER_NAME, REPOSITORY = 253, 255, 255
"""Maximum lengths in characters: name of a Kubernetes object, name of a Docker volume, and name of an image without its tag."""


def short_hash(text: str, digits: int = 8) -> str:
    """Return the first hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:digits]


def version_suffix(secrets: Sequence[str], max_length: int) -> str:
    """Return a suffix for names from the versions of secrets, as in `-0a1b2c-3d4e5f`.

    The suffix contains the first six digits of each version. If it would exceed `max_length` characters, return a hash of these
    digits instead.
    """
    text = "".join(f"-{version[:6]}" for version in secrets)
    if len(text) <= max_length:
        return text
    digits = short_hash(text, 12)
    return f"-{digits[:6]}-{digits[6:]}"


def without_versions(name: str) -> str:
    """Remove the versions of secrets from the name of a secret volume, or of the container that fills the volume."""
    return re.sub(rf"{_VERSIONS}(-files)?$", r"\2", name)


def is_dns_label(text: str) -> bool:
    """Return whether `text` is a DNS label (RFC 1123), as Kubernetes requires for the names of namespaces, and of the volumes and
    ports of pods."""
    return re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text, re.ASCII) is not None


def as_dns_label(text: str, unique: str) -> str:
    """Return a DNS label: the valid characters of `text`, and a hash of `unique`."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:54].rstrip("-")
    return "-".join(part for part in (plain, short_hash(unique)) if part)


def as_repository(folder: str, max_length: int) -> str:
    """Return the name of a build folder as a valid part of an image name, at most `max_length` characters long."""
    text = re.sub(r"[^a-z0-9._-]+", "-", folder.lower())
    if not re.fullmatch(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", text):
        text = re.sub(r"[._-]+", "-", text).strip("-")
    return text[:max_length].rstrip("._-")


def as_file_name(name: str, max_length: int = SUBDOMAIN) -> str:
    """Return a file name as a valid key of a ConfigMap, at most `max_length` characters long.

    A long name is cut in its middle, because its end shows the file's type.
    """
    text = re.sub(r"[^-._a-zA-Z0-9]", "-", name)
    return text if len(text) <= max_length else f"{text[: max_length - 60]}-{short_hash(name)}{text[-50:]}"
