"""Every change of a replicated database, kept as it happens, as objects of CloudNativePG's Barman plugin: pure functions to manifests.

What the plugin (0.7) is relied on for: beside each instance it runs what sends the database's log, and at its times the whole of
it, to an S3 store; and what brings both back when a Cluster begins by `recovery`. It encrypts nothing itself and can't be given a
key, so the store it knows is the vault in the same namespace (docs/adr/017-going-back-in-time.md).
"""

from collections.abc import Mapping
from typing import Any

from ..workload import Archive, Resources
from .manifests import Manifest, Scope, resources

PLUGIN = "barman-cloud.cloudnative-pg.io"
API = "barmancloud.cnpg.io/v1"
ROOM = "256MB"
"""What the vault gets at a time, for it holds that in memory: no less than the largest file, which is at most 1 GB."""
BESIDE = Resources(cpu=0.5, memory=256 * 2**20, reserve=0.02)


def used(name: str) -> Manifest:
    """What a Cluster says of its archive, which has the Cluster's name."""
    return {"name": PLUGIN, "isWALArchiver": True, "parameters": {"barmanObjectName": name}}


def source(name: str) -> Manifest:
    """The same archive, as that of another Cluster to begin from."""
    return {"name": name, "plugin": {"name": PLUGIN, "parameters": {"barmanObjectName": name, "serverName": name}}}


def store(scope: Scope, name: str, archive: Archive, access: Mapping[str, str], secret: Mapping[str, str]) -> Manifest:
    """The archive of a Cluster. `access` and `secret` are keys of Secrets: what the vault lets in by."""
    made = scope.object(API, "ObjectStore", name, scope.labels(name, "archive"))
    # Newer clients send sums along in a way that few servers but Amazon's understand.
    plain = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
    made["spec"] = {
        "configuration": {
            "destinationPath": "s3://wal/",
            "endpointURL": f"http://{archive.vault.tier}:{archive.vault.port}",
            "s3Credentials": {"accessKeyId": dict(access), "secretAccessKey": dict(secret)},
            "data": {
                "compression": "gzip",
                "additionalCommandArgs": [f"--max-archive-size={ROOM}"],
                "immediateCheckpoint": True,
                "jobs": 1,
            },
            "wal": {"compression": "gzip"},
        },
        "instanceSidecarConfiguration": {
            "env": [{"name": name, "value": value} for name, value in plain.items()],
            "resources": resources(BESIDE),
        },
        "retentionPolicy": f"{archive.days}d",
    }
    return made


def times(scope: Scope, name: str, archive: Archive) -> Manifest:
    """When all of a Cluster is kept anew, and once at first: without it there is nothing that changes could be replayed on."""
    made = scope.object("postgresql.cnpg.io/v1", "ScheduledBackup", name, scope.labels(name, "archive"))
    made["spec"] = {
        "backupOwnerReference": "cluster",
        "cluster": {"name": name},
        "immediate": True,
        "method": "plugin",
        "pluginConfiguration": {"name": PLUGIN},
        # Its expressions begin with seconds.
        "schedule": f"0 {archive.schedule}",
    }
    return made


def recovery(spec: Mapping[str, Any], of: str, moment: str) -> Manifest:
    """The spec of a Cluster that is what another (`spec`) was at a moment: one instance, which archives nothing.

    Its owner has today's password, whatever it was then.
    """
    kept = ("affinity", "imageName", "imagePullPolicy", "imagePullSecrets", "resources", "seccompProfile", "storage")
    made = {key: spec[key] for key in kept if key in spec}
    begins: Manifest = {key: spec["bootstrap"]["initdb"][key] for key in ("database", "owner", "secret")}
    begins |= {"source": of, "recoveryTarget": {"targetTime": moment}}
    return made | {
        "bootstrap": {"recovery": begins},
        "enableSuperuserAccess": False,
        "externalClusters": [source(of)],
        "inheritedMetadata": spec.get("inheritedMetadata", {}),
        "instances": 1,
    }
