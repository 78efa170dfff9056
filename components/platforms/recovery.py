"""Point-in-time recovery of a database cluster: a temporary Cluster beside the deployed one, from which data is copied."""

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from pulumi import RunError

from ..config import Kubernetes
from ..workload import DatabaseCluster
from . import barman, cluster, cnpg
from .manifests import Manifest, Scope

PATIENCE = 3600
"""Seconds until the temporary Cluster must be ready, after the base backup is restored and all later changes are replayed."""
ATTEMPTS = 2
"""Failed pods after which a recovery is given up. The operator would retry forever."""


@contextmanager
def recovered(settings: Kubernetes, scope: Scope, wanted: DatabaseCluster, moment: datetime) -> Generator[str]:
    """Create a temporary Cluster with the data of `wanted` at a moment, yield its address, and delete it.

    Raises:
        RunError: the archive does not reach that moment, or the recovery fails.
    """
    api = _Api(settings, scope)
    spec = api.read("Cluster", wanted.name)["spec"]
    if problem := out_of_reach(moment, _begin(api.read("ObjectStore", wanted.name), wanted.name), datetime.now(UTC)):
        raise RunError(problem)
    _complete(settings, scope, wanted)
    scratch = replace(wanted, name=f"{wanted.name}-{moment:%Y%m%d%H%M%S}")
    manifests = [*cnpg.policies(scope, scratch), _scratch(scope, scratch, wanted, spec, moment)]
    try:
        for manifest in manifests:
            api.create(manifest)
        api.wait(scratch.name)
        yield f"{scratch.name}-rw"
    finally:
        for manifest in reversed(manifests):
            api.delete(manifest)


def archived(settings: Kubernetes, scope: Scope, name: str) -> str:
    """Return in words from which time on a database can be recovered.

    Raises:
        RunError: archiving or the last base backup has failed; the message is the operator's.
    """
    api = _Api(settings, scope)
    if problem := unkept(api.read("Cluster", name).get("status", {}).get("conditions") or ()):
        raise RunError(f"{problem} (docs/runbook.md#changes-are-not-kept)")
    first = _begin(api.read("ObjectStore", name), name)
    return f"from {first:%Y-%m-%dT%H:%M:%SZ} on" if first else "from the first base backup on, which is not done yet"


def guarded(settings: Kubernetes, scope: Scope, name: str) -> str:
    """Confirm in words that a failover needs a quorum.

    Raises:
        RunError: the annotation is missing; a person may have removed it in an emergency. No update restores it,
            because the
            state has it.
    """
    annotations: Mapping[str, str] = _Api(settings, scope).read("Cluster", name)["metadata"].get("annotations") or {}
    if not cnpg.QUORUM.items() <= annotations.items():
        [(note, value)] = cnpg.QUORUM.items()
        raise RunError(f"{name} lacks the annotation {note}={value}; set it again (docs/runbook.md#failover)")
    return "the annotation is set"


def unkept(conditions: Iterable[Mapping[str, str]]) -> str:
    """Return the operator's reason why changes are not archived, or an empty text.

    While a base backup runs, its condition says that the last one did not succeed. That is not a failure.
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


def _begin(store: Mapping[str, Any], name: str) -> datetime | None:
    """Return the earliest moment to which a database can be recovered."""
    window: dict[str, dict[str, str]] = store.get("status", {}).get("serverRecoveryWindow", {})
    first = window.get(name, {}).get("firstRecoverabilityPoint")
    return datetime.fromisoformat(first) if first else None


def out_of_reach(moment: datetime, first: datetime | None, now: datetime) -> str:
    """Return the reason why a database can't be recovered to a moment, or an empty text."""
    if moment > now:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ} is in the future; give a moment that has passed"
    if first is None:
        return "nothing of the database is archived yet: its first base backup is not done; wait for it, then try again"
    if moment < first:
        return f"the archive begins at {first:%Y-%m-%dT%H:%M:%SZ}; give a later moment, or a backup that `make backups` lists"
    return ""


def _complete(settings: Kubernetes, scope: Scope, wanted: DatabaseCluster) -> None:
    """Wait until all changes so far are archived, and add a later one.

    A recovery fails if the archive does not reach beyond its target.
    """
    primary = {"app.kubernetes.io/component": wanted.tier, "cnpg.io/instanceRole": "primary"}

    def query_primary(query: str) -> str:
        return cluster.sql(settings, scope.instance, primary, query)

    query_primary("SELECT txid_current()")
    last = query_primary("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 120
    while query_primary("SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver") < last:
        if time.monotonic() > deadline:
            raise RunError(f"the database's changes do not reach the archive ({last}); see the log of `vault`")
        time.sleep(2)


def introduce(settings: Kubernetes, instance: str, cluster_name: str, database: str) -> None:
    """Make the pooler accept clients of a new database.

    The operator (1.27) prepares each database for the pooler, but looks for new ones only when the Cluster changes.
    The wait of at most 60 s raises no error: other versions of the operator may need no preparation, and the
    release's gates find any real problem.
    """
    primary = {"cnpg.io/cluster": cluster_name, "cnpg.io/instanceRole": "primary"}

    def query_database(query: str) -> str:
        return cluster.sql(settings, instance, primary, query, database=database)

    # A restored database contains the pooler's function as the owner's, and the owner may not read what the function
    # reads.
    query_database("DROP FUNCTION IF EXISTS public.user_search(text)")
    kubernetes: Any = import_module("kubernetes")
    api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(context=settings.context))
    reference = (*cnpg.API.split("/"), settings.home(instance), "clusters", cluster_name)
    api.patch_namespaced_custom_object(*reference, {"metadata": {"annotations": {"tiers.database": database}}})
    deadline = time.monotonic() + 60
    while (
        query_database("SELECT count(*) FROM pg_proc WHERE proname = 'user_search'") == "0"
        and time.monotonic() < deadline
    ):
        time.sleep(2)


def _scratch(
    scope: Scope, scratch: DatabaseCluster, of: DatabaseCluster, spec: Mapping[str, Any], moment: datetime
) -> Manifest:
    labels = scope.labels(scratch.name, "recovery")
    manifest = scope.object(cnpg.API, "Cluster", scratch.name, labels)
    vault_label = {f"tiers.needs/{of.archive.vault.tier}": "yes"} if of.archive else {}
    # PostgreSQL does not know the letter of another time zone.
    recovery = barman.recovery(spec, of.name, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00")
    return manifest | {"spec": recovery | {"inheritedMetadata": {"labels": labels | vault_label}}}


class _Api:
    """Client of the namespace's objects, by kind and name."""

    def __init__(self, settings: Kubernetes, scope: Scope) -> None:
        kubernetes: Any = import_module("kubernetes")
        client = kubernetes.config.new_client_from_config(context=settings.context)
        self.core = kubernetes.client.CoreV1Api(client)
        self.dynamic: Any = import_module("kubernetes.dynamic").DynamicClient(client)
        self.missing: Any = import_module("kubernetes.dynamic.exceptions").NotFoundError
        self.namespace = scope.namespace

    def _kind(self, kind: str) -> Any:
        return self.dynamic.resources.get(kind=kind, group=cluster.KINDS[kind][0], preferred=True)

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
            RunError: its pods failed `ATTEMPTS` times, or it is not ready after `PATIENCE` seconds.
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
                cause = self._said(failed[-1]) if failed else status.get("phase", "it reports no phase")
                raise RunError(f"the database can't be recovered to that moment: {cause}")
            time.sleep(3)

    def _pods(self, name: str) -> list[Any]:
        return self.core.list_namespaced_pod(self.namespace, label_selector=f"cnpg.io/cluster={name}").items

    def _said(self, pod: Any) -> str:
        """Return the last error lines of a pod's log, or the log's end."""
        log: str = self.core.read_namespaced_pod_log(pod.metadata.name, self.namespace, container="full-recovery")
        errors = [line for line in log.splitlines() if "FATAL" in line or '"level":"error"' in line]
        return " | ".join(line[:300] for line in errors[-3:]) or log[-500:]
