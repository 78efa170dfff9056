"""Point-in-time recovery of a database cluster: a temporary Cluster restores the archive, and the caller copies its data."""

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pulumi import RunError

from ...model.workload import DatabaseCluster
from ..base import Location
from . import barman, cnpg, pod_exec
from .access import KINDS
from .client import core, custom, dynamic, sdk
from .objects import Manifest, Scope

PATIENCE = 3600
"""Time limit in seconds for the temporary Cluster to restore the base backup, replay later changes and become ready."""
ATTEMPTS = 2
"""Number of failed pods after which this program stops a recovery, because the operator would retry forever."""


@contextmanager
def recovered(location: Location, database: DatabaseCluster, moment: datetime) -> Generator[str]:
    """Create a temporary Cluster with the data of `moment`, yield the Cluster's host name, and delete the Cluster.

    Raises:
        RunError: the archive does not cover the moment, or the recovery fails.
    """
    api, scope = _Api(location), _scope(location)
    spec = api.read("Cluster", database.name)["spec"]
    if problem := recovery_problem(
        moment, _earliest_recovery_time(api.read("ObjectStore", database.name), database.name), datetime.now(UTC)
    ):
        raise RunError(problem)
    _archive_pending_changes(location, database)
    scratch = replace(database, name=f"{database.name}-{moment:%Y%m%d%H%M%S}")
    manifests = [*cnpg.policies(scope, scratch), _recovery_cluster(scope, scratch, database, spec, moment)]
    try:
        for manifest in manifests:
            api.create(manifest)
        api.wait(scratch.name)
        yield f"{scratch.name}-rw"
    finally:
        for manifest in reversed(manifests):
            api.delete(manifest)


def check_archive(location: Location, name: str) -> str:
    """Check that archiving works, and return a text with the earliest time to which the database can be recovered.

    Raises:
        RunError: archiving or the last base backup has failed. The message contains the operator's reason.
    """
    api = _Api(location)
    if problem := archive_failure(api.read("Cluster", name).get("status", {}).get("conditions") or ()):
        raise RunError(f"{problem} (docs/runbook.md#changes-are-not-kept)")
    first = _earliest_recovery_time(api.read("ObjectStore", name), name)
    return f"from {first:%Y-%m-%dT%H:%M:%SZ} on" if first else "from the first base backup on, which is not done yet"


def check_quorum(location: Location, name: str) -> str:
    """Check that a failover requires a quorum (annotation `QUORUM`), and return a text that confirms the check.

    A person may have removed the annotation in an emergency. No update restores the annotation, because Pulumi's state still has it.

    Raises:
        RunError: the annotation is missing.
    """
    annotations: Mapping[str, str] = _Api(location).read("Cluster", name)["metadata"].get("annotations") or {}
    if not cnpg.QUORUM.items() <= annotations.items():
        [(note, value)] = cnpg.QUORUM.items()
        raise RunError(
            f"Cluster {name} lacks the annotation {note}={value}; set the annotation again (docs/runbook.md#failover)"
        )
    return "the annotation is set"


def archive_failure(conditions: Iterable[Mapping[str, str]]) -> str:
    """Return the operator's reason why WAL archiving or the last base backup failed; empty if neither failed.

    While a base backup runs, the condition `LastBackupSucceeded` is false. This is no failure.
    """
    conditions_by_type = {
        condition["type"]: condition for condition in conditions if condition.get("reason") != "BackupStarted"
    }
    relevant = (
        conditions_by_type[kind]
        for kind in ("ContinuousArchiving", "LastBackupSucceeded")
        if kind in conditions_by_type
    )
    return next((condition["message"] for condition in relevant if condition["status"] != "True"), "")


def _earliest_recovery_time(store: Mapping[str, Any], name: str) -> datetime | None:
    """Return the earliest moment to which a database can be recovered, or None if no base backup exists."""
    window: dict[str, dict[str, str]] = store.get("status", {}).get("serverRecoveryWindow", {})
    first = window.get(name, {}).get("firstRecoverabilityPoint")
    return datetime.fromisoformat(first) if first else None


def recovery_problem(moment: datetime, first: datetime | None, now: datetime) -> str:
    """Return the reason why a database can't be recovered to a moment, or an empty text if recovery is possible."""
    if moment > now:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ} is in the future; use a time in the past"
    if first is None:
        return "the first base backup of the database is not complete; wait until it is complete, then try again"
    if moment < first:
        return (
            f"the archive begins at {first:%Y-%m-%dT%H:%M:%SZ}; use a later time, or a backup that `make backups` lists"
        )
    return ""


def _archive_pending_changes(location: Location, database: DatabaseCluster) -> None:
    """Make a change in the database, and wait until the archive contains all changes up to this one.

    A recovery fails if the archive has no change after the requested moment.
    """
    primary = {"app.kubernetes.io/component": database.tier, "cnpg.io/instanceRole": "primary"}

    def query_primary(query: str) -> str:
        return pod_exec.sql(location, primary, query)

    query_primary("SELECT txid_current()")
    last = query_primary("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 120
    while query_primary("SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver") < last:
        if time.monotonic() > deadline:
            raise RunError(
                f"the archive did not receive the database's changes (WAL file {last}); read the log of the workload `vault`"
            )
        time.sleep(2)


def pool_database(location: Location, cluster_name: str, database: str) -> None:
    """Make the pooler accept clients of a new database.

    Change an annotation of the Cluster, and wait up to 60 s until the operator has prepared the database. The operator (1.27)
    detects a new database only when the Cluster changes. A timeout is no error, because another version of the operator may
    need no preparation. If clients can't connect, the migration or the smoke test of the release fails.
    """
    primary = {"cnpg.io/cluster": cluster_name, "cnpg.io/instanceRole": "primary"}

    def query_database(query: str) -> str:
        return pod_exec.sql(location, primary, query, database=database)

    # Drop the restored function of the pooler. The function belongs to the database's owner, who lacks the necessary rights.
    query_database("DROP FUNCTION IF EXISTS public.user_search(text)")
    api = custom(location.context)
    reference = (*cnpg.API.split("/"), location.namespace, "clusters", cluster_name)
    api.patch_namespaced_custom_object(*reference, {"metadata": {"annotations": {"tiers.database": database}}})
    deadline = time.monotonic() + 60
    while (
        query_database("SELECT count(*) FROM pg_proc WHERE proname = 'user_search'") == "0"
        and time.monotonic() < deadline
    ):
        time.sleep(2)


def _scope(location: Location) -> Scope:
    return Scope(app=location.app, instance=location.instance, namespace=location.namespace)


def _recovery_cluster(
    scope: Scope, scratch: DatabaseCluster, source: DatabaseCluster, spec: Mapping[str, Any], moment: datetime
) -> Manifest:
    labels = scope.labels(scratch.name, "recovery")
    manifest = scope.object(cnpg.API, "Cluster", scratch.name, labels)
    vault_label = {f"tiers.needs/{source.archive.proxy.tier}": "yes"} if source.archive else {}
    # Write the moment in UTC: PostgreSQL does not accept the one-letter names of other time zones.
    recovery = barman.recovery(spec, source.name, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00")
    return manifest | {"spec": recovery | {"inheritedMetadata": {"labels": labels | vault_label}}}


class _Api:
    """API client that reads and changes the objects of a namespace, by kind and name."""

    def __init__(self, location: Location) -> None:
        self.core, self.dynamic = core(location.context), dynamic(location.context)
        self.missing: Any = sdk().dynamic.exceptions.NotFoundError
        self.namespace = location.namespace

    def _kind(self, kind: str) -> Any:
        return self.dynamic.resources.get(kind=kind, group=KINDS[kind][0], preferred=True)

    def read(self, kind: str, name: str) -> dict[str, Any]:
        try:
            return self._kind(kind).get(name=name, namespace=self.namespace).to_dict()
        except self.missing:
            raise RunError(f"there is no {kind} {name} in {self.namespace}; run `make up` first") from None

    def create(self, manifest: Manifest) -> None:
        self._kind(manifest["kind"]).create(body=manifest, namespace=self.namespace)

    def delete(self, manifest: Manifest) -> None:
        with suppress(self.missing):
            self._kind(manifest["kind"]).delete(name=manifest["metadata"]["name"], namespace=self.namespace)

    def wait(self, name: str) -> None:
        """Wait until a Cluster is ready.

        Raises:
            RunError: `ATTEMPTS` pods of the Cluster failed, or the Cluster is not ready after `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            status: dict[str, Any] = self.read("Cluster", name).get("status") or {}
            if any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in status.get("conditions") or ()
            ):
                return
            failed = [pod for pod in self._pods(name) if pod.status.phase == "Failed"]
            if len(failed) >= ATTEMPTS or time.monotonic() > deadline:
                cause = self._error_lines(failed[-1]) if failed else status.get("phase", "the Cluster reports no phase")
                raise RunError(f"the database can't be recovered to the requested time: {cause}")
            time.sleep(3)

    def _pods(self, name: str) -> list[Any]:
        return self.core.list_namespaced_pod(self.namespace, label_selector=f"cnpg.io/cluster={name}").items

    def _error_lines(self, pod: Any) -> str:
        """Return the last error lines of a pod's log, or the end of the log if it has no error lines."""
        log: str = self.core.read_namespaced_pod_log(pod.metadata.name, self.namespace, container="full-recovery")
        errors = [line for line in log.splitlines() if "FATAL" in line or '"level":"error"' in line]
        return " | ".join(line[:300] for line in errors[-3:]) or log[-500:]
