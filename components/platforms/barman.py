"""Continuous archiving of a database cluster with CloudNativePG's Barman plugin: pure functions to manifests.

The program relies on these properties of the plugin (0.7). It runs a sidecar beside each instance. The sidecar sends
the database's write-ahead log, and on schedule a base backup, to an S3 store. It restores both when a Cluster
bootstraps by `recovery`. The plugin does not encrypt and takes no key. Its store is therefore the archive proxy in
the same namespace (docs/adr/017-going-back-in-time.md).
"""

from collections.abc import Mapping
from typing import Any

from ..workload import Archive, Resources
from .manifests import Manifest, Scope, resources

PLUGIN = "barman-cloud.cloudnative-pg.io"
API = "barmancloud.cnpg.io/v1"
ROOM = "256MB"
"""Size of an upload to the archive proxy, which holds it in memory: at least the largest file, which is at most 1 GB."""
BESIDE = Resources(cpu=0.5, memory=256 * 2**20, reserve=0.02)
"""Resources of the plugin's sidecar in each instance."""


def used(name: str) -> Manifest:
    """Return the plugin entry of a Cluster that archives to the ObjectStore of the same name."""
    return {"name": PLUGIN, "isWALArchiver": True, "parameters": {"barmanObjectName": name}}


def source(name: str) -> Manifest:
    """Return the archive of a Cluster as an external cluster that another Cluster recovers from."""
    return {"name": name, "plugin": {"name": PLUGIN, "parameters": {"barmanObjectName": name, "serverName": name}}}


def store(scope: Scope, name: str, archive: Archive, access: Mapping[str, str], secret: Mapping[str, str]) -> Manifest:
    """Return the ObjectStore of a Cluster's archive.

    `access` and `secret` are keys of Secrets: the credentials that the archive proxy accepts.
    """
    manifest = scope.object(API, "ObjectStore", name, scope.labels(name, "archive"))
    # Newer S3 clients send checksums in a form that few servers other than Amazon's understand.
    checksum_env = {
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    manifest["spec"] = {
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
            "env": [{"name": name, "value": value} for name, value in checksum_env.items()],
            "resources": resources(BESIDE),
        },
        "retentionPolicy": f"{archive.days}d",
    }
    return manifest


def times(scope: Scope, name: str, archive: Archive) -> Manifest:
    """Return the schedule of base backups, the first one at once: recovery replays changes on top of a base backup."""
    manifest = scope.object("postgresql.cnpg.io/v1", "ScheduledBackup", name, scope.labels(name, "archive"))
    manifest["spec"] = {
        "backupOwnerReference": "cluster",
        "cluster": {"name": name},
        "immediate": True,
        "method": "plugin",
        "pluginConfiguration": {"name": PLUGIN},
        # CloudNativePG's cron expressions begin with seconds.
        "schedule": f"0 {archive.schedule}",
    }
    return manifest


def recovery(spec: Mapping[str, Any], of: str, moment: str) -> Manifest:
    """Return the spec of a Cluster restored to `moment` from the archive of the Cluster `of`, whose spec is `spec`.

    It has one instance and archives nothing. Its owner gets today's password, whatever it was at that moment.
    """
    copied_keys = (
        "affinity",
        "imageName",
        "imagePullPolicy",
        "imagePullSecrets",
        "resources",
        "seccompProfile",
        "storage",
    )
    copied = {key: spec[key] for key in copied_keys if key in spec}
    bootstrap: Manifest = {key: spec["bootstrap"]["initdb"][key] for key in ("database", "owner", "secret")}
    bootstrap |= {"source": of, "recoveryTarget": {"targetTime": moment}}
    return copied | {
        "bootstrap": {"recovery": bootstrap},
        "enableSuperuserAccess": False,
        "externalClusters": [source(of)],
        "inheritedMetadata": spec.get("inheritedMetadata", {}),
        "instances": 1,
    }
