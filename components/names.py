"""Names and labels that the program gives to its own objects.

Resources take their names from here, and configuration refuses a user's name that one of them may have. A deployed
stack's names are its state: add names, but never change a template.
"""

import hashlib
import re
from collections.abc import Sequence

# ---------------------------------------------------------------------- labels

LABEL_APP, LABEL_ENVIRONMENT, LABEL_ROLE, LABEL_TIER = "tiers.app", "tiers.environment", "tiers.role", "tiers.tier"
LABEL_SLOT, LABEL_RELEASE, LABEL_ATTEMPT, LABEL_SWITCH = (
    "tiers.slot",
    "tiers.release",
    "tiers.attempt",
    "tiers.switch",
)
LABEL_MEMBER, LABEL_CONTENT = "tiers.member", "tiers.content"
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


def is_label(key: str) -> bool:
    """Tell whether the program sets the label `key`. All keys with the prefix `tiers.` are reserved, also future ones."""
    return key in _LABELS or key.startswith(_LABEL_PREFIXES)


# ---------------------------------------------------------------------- volumes, claims and tasks


class Template:
    """A name with fields, as in `{data}-{number}`. `fields` are the regular expressions of their values."""

    def __init__(self, text: str, **fields: str) -> None:
        self.text = text
        parts = re.split(r"{(\w+)}", text)
        self._pattern = re.compile(
            "".join(f"(?:{fields[part]})" if number % 2 else re.escape(part) for number, part in enumerate(parts))
        )

    def of(self, **fields: object) -> str:
        """Return the name with these values."""
        return self.text.format(**fields)

    def matches(self, name: str) -> bool:
        """Tell whether `name` fits this template."""
        return self._pattern.fullmatch(name) is not None


DATABASE_DATA, CACHE_DATA, BACKUPS = "database-data", "cache-data", "backups"
DATABASE_CLUSTER = "database-ha"
GATEWAY, GATEWAY_STATE = "gateway", "gateway-state"
"""The gateway's resource, and the volume of its files."""
PROMETHEUS_DATA, PROMETHEUS_RELEASED = "prometheus-data", "prometheus-released"
PROMETHEUS_CONFIG = Template("prometheus-config-{version}", version="[0-9a-f]{6}")
SCRIPTS = Template("{data}-scripts", data=f"database|{DATABASE_CLUSTER}|cache")
MEMBER_DATA = Template("{data}-{number}", data=CACHE_DATA, number=r"\d+")
INSTANCE_DATA = Template("{cluster}{instance}", cluster=DATABASE_CLUSTER, instance="(-.+)?")
"""CloudNativePG names claims after the Cluster. `make restore TO=` creates a second Cluster temporarily."""
POD_SECRETS, POD_SCRIPTS = "secrets", "scripts"
"""Names of a pod's volumes for secrets and scripts. A pod with scripts mounts no volume that a user named."""
_OWNER = "(?:blue|green)-(?:web|api|worker)|(?:database|cache)(?:-exporter)?|backup|vault"
_VERSIONS = "(-[0-9a-f]{6})+"
SECRET_FILES = Template("{owner}-secrets{versions}", owner=_OWNER, versions=_VERSIONS)

_VOLUMES = tuple(
    one if isinstance(one, Template) else Template(one)
    for one in (DATABASE_DATA, CACHE_DATA, BACKUPS, GATEWAY, GATEWAY_STATE, PROMETHEUS_DATA, PROMETHEUS_RELEASED,
                PROMETHEUS_CONFIG, SCRIPTS, MEMBER_DATA, INSTANCE_DATA, POD_SECRETS, SECRET_FILES)
)  # fmt: skip
# A task's container is named as the volume of its tier's secrets would be: `blue-api-secrets-0a1b2c`.
_TASKS = (Template("secrets{versions}", versions=_VERSIONS),)


def is_volume(name: str) -> bool:
    """Tell whether a volume or claim of the program may have this name, on any platform and with any feature."""
    return any(template.matches(name) for template in _VOLUMES)


def is_task(name: str) -> bool:
    """Tell whether a container of the program may have this name in place of a task's."""
    return any(template.matches(name) for template in _TASKS)


# ---------------------------------------------------------------------- names that a platform takes

SUBDOMAIN, FOLDER_NAME, REPOSITORY = 253, 255, 255
"""Limits in characters: name of a Kubernetes object, name of a Docker volume (a folder), and image name without its tag."""


def short_hash(text: str, digits: int = 8) -> str:
    """Return hexadecimal digits that depend on `text`."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:digits]


def versions(secrets: Sequence[str], room: int) -> str:
    """Return the beginnings of these versions, as in `-0a1b2c-3d4e5f`. Beyond `room` characters, return one hash of them instead."""
    text = "".join(f"-{version[:6]}" for version in secrets)
    if len(text) <= room:
        return text
    digits = short_hash(text, 12)
    return f"-{digits[:6]}-{digits[6:]}"


def is_dns_label(text: str) -> bool:
    """Tell whether `text` is a label of RFC 1123, as names of pod volumes, ports and namespaces must be."""
    return re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text, re.ASCII) is not None


def as_dns_label(text: str, unique: str) -> str:
    """Return a DNS label that begins like `text` and ends with a hash of `unique`."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:54].rstrip("-")
    return "-".join(part for part in (plain, short_hash(unique)) if part)


def as_repository(folder: str, room: int) -> str:
    """Return the last part of an image's repository for a build folder: lower case, at most `room` characters."""
    text = re.sub(r"[^a-z0-9._-]+", "-", folder.lower())
    if not re.fullmatch(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", text):
        text = re.sub(r"[._-]+", "-", text).strip("-")
    return text[:room].rstrip("._-")


def as_file_name(name: str, room: int = SUBDOMAIN) -> str:
    """Return `name` as a valid key of a ConfigMap. Its end is kept, because it shows the file's type."""
    text = re.sub(r"[^-._a-zA-Z0-9]", "-", name)
    return text if len(text) <= room else f"{text[: room - 60]}-{short_hash(name)}{text[-50:]}"
