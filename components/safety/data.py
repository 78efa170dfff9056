"""Decide whether a resource holds data, by its label `tiers.data`.

The guard, the preview, the policy pack and `make heal` call `holds_data`. No other code decides this. This module
imports neither Pulumi nor the configuration (docs/adr/030-what-holds-data.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import services
from ..model.names import LABEL_DATA
from ..state.types import is_foundation, is_volume, may_hold_data

if TYPE_CHECKING:  # Don't import `checkpoint` at run time, because it loads Pulumi's SDK.
    from ..release.checkpoint import Entry

YES, NO = "yes", "no"
"""Values of the label `tiers.data`: the resource holds data, or not."""
_WITHOUT_DATA = frozenset({"tiers:monitoring:Monitoring", "tiers:slot:Slot", "tiers:switch:Gateway"})
"""Type tokens of components whose volumes need no protection. An update can refill these volumes, or the volumes hold only metrics."""
_WITHOUT_SERVICE = _WITHOUT_DATA | {"tiers:backup:Backup", "tiers:switch:Switch"}
"""Type tokens of components that belong to no service. `owner` checks the foundation separately."""
_FILES = re.compile(r".+-(secrets-.+|scripts)")
"""Names of volumes with secret files or scripts. The pattern also matches volumes of services that this version does not have."""


@dataclass(frozen=True, kw_only=True)
class _Address:
    """Parts of a URN: `urn:pulumi:STACK::PROJECT::COMPONENT$TYPE::NAME`."""

    component: str
    """Type token of the parent component, or an empty text."""
    type: str
    name: str

    @classmethod
    def parse(cls, urn: str) -> "_Address":
        qualified, _, name = urn.partition("::")[2].partition("::")[2].partition("::")
        parents, _, type_ = qualified.rpartition("$")
        return cls(component=parents.rpartition("$")[2], type=type_, name=name)


def holds_data(urn: str, labels: Mapping[str, str]) -> bool:
    """Return whether a resource holds data that no update may lose.

    Args:
        urn: URN of the resource.
        labels: labels of the resource, as registered or as in the state.
    """
    declared = labels.get(LABEL_DATA)
    return declared == YES if declared else _unlabelled_holds_data(_Address.parse(urn))


def _unlabelled_holds_data(address: _Address) -> bool:
    """Return whether a resource without the label `tiers.data` holds data. Older versions of Tiers deployed such resources.

    Return True for a volume that matches no rule, so no update deletes it silently.
    """
    if not may_hold_data(address.type) or address.component in _WITHOUT_DATA:
        return False
    is_file = is_volume(address.type) and _FILES.fullmatch(address.name) is not None
    return is_foundation(address.component) or not is_file


def data_labels(deployed: "Entry | None", *, holds_data: bool = True) -> dict[str, str]:
    """Return the label `tiers.data` for a resource, or no label if the resource was deployed without it.

    A deployed resource gets no new label: the Docker provider replaces a volume if its labels change, and the data would be lost.

    Args:
        deployed: the resource in the checkpoint; None for a new resource.
        holds_data: True if no update may lose the resource's data.
    """
    if deployed is not None and LABEL_DATA not in deployed.labels:
        return {}
    return {LABEL_DATA: YES if holds_data else NO}


def is_store(parent: str) -> bool:
    """Return whether a resource belongs to a store (`app.services`).

    Args:
        parent: URN of the resource's parent component.
    """
    return _Address.parse(parent).type == services.type_token("", services.STORE.tier)


def backup_workload(parent: str) -> str | None:
    """Return the name of the backup workload that a resource belongs to, such as `mysql-backup`, or None.

    Args:
        parent: URN of the resource's parent component.
    """
    address = _Address.parse(parent)
    return address.name if address.type == "tiers:backup:Backup" else None


def owner(parent: str) -> str | None:
    """Return the name of the service that a resource belongs to, or None. The parent component determines the service.

    Args:
        parent: URN of the resource's parent component.
    """
    address = _Address.parse(parent)
    is_service = address.type.startswith("tiers:") and not is_foundation(address.type)
    return address.name if is_service and address.type not in _WITHOUT_SERVICE else None
