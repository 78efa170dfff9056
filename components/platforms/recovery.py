"""A replicated database as it was at a moment: a Cluster beside the one there is, for as long as it takes to copy it."""

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
"""Seconds until it must be there: all of it is brought, and all that has changed since is replayed."""
ATTEMPTS = 2
"""How often it may fail to begin: it would be tried again for ever."""


@contextmanager
def recovered(settings: Kubernetes, scope: Scope, wanted: DatabaseCluster, moment: datetime) -> Generator[str]:
    """The address of `wanted` as it was; nothing of it is left behind.

    Raises:
        RunError: what is kept does not go back so far, or it can't be brought back.
    """
    api = _Api(settings, scope)
    spec = api.read("Cluster", wanted.name)["spec"]
    if problem := out_of_reach(moment, _begin(api.read("ObjectStore", wanted.name), wanted.name), datetime.now(UTC)):
        raise RunError(problem)
    _complete(settings, scope, wanted)
    scratch = replace(wanted, name=f"{wanted.name}-{moment:%Y%m%d%H%M%S}")
    made = [*cnpg.policies(scope, scratch), _scratch(scope, scratch, wanted, spec, moment)]
    try:
        for each in made:
            api.create(each)
        api.wait(scratch.name)
        yield f"{scratch.name}-rw"
    finally:
        for each in reversed(made):
            api.delete(each)


def archived(settings: Kubernetes, scope: Scope, name: str) -> str:
    """From when on every change of a database is kept, in words.

    Raises:
        RunError: they are not kept, or the last base backup failed; the message is the operator's.
    """
    api = _Api(settings, scope)
    if problem := unkept(api.read("Cluster", name).get("status", {}).get("conditions") or ()):
        raise RunError(f"{problem} (docs/runbook.md#changes-are-not-kept)")
    first = _begin(api.read("ObjectStore", name), name)
    return f"from {first:%Y-%m-%dT%H:%M:%SZ} on" if first else "from the first base backup on, which is yet to be done"


def guarded(settings: Kubernetes, scope: Scope, name: str) -> str:
    """Who is promoted, in words.

    Raises:
        RunError: whoever is left, as a person may have it in need. No update changes that back: the state says that it is set.
    """
    notes: Mapping[str, str] = _Api(settings, scope).read("Cluster", name)["metadata"].get("annotations") or {}
    if not cnpg.QUORUM.items() <= notes.items():
        [(note, value)] = cnpg.QUORUM.items()
        raise RunError(f"{name} has not the annotation {note}={value}; set it again (docs/runbook.md#failover)")
    return "the cluster has it so"


def unkept(conditions: Iterable[Mapping[str, str]]) -> str:
    """Why changes are not kept, in the operator's words. While a base backup runs it says that the last was none: that is no failure."""
    said = {each["type"]: each for each in conditions if each.get("reason") != "BackupStarted"}
    found = (said[kind] for kind in ("ContinuousArchiving", "LastBackupSucceeded") if kind in said)
    return next((each["message"] for each in found if each["status"] != "True"), "")


def _begin(store: Mapping[str, Any], name: str) -> datetime | None:
    """From when on the changes of a database are kept."""
    window: dict[str, dict[str, str]] = store.get("status", {}).get("serverRecoveryWindow", {})
    first = window.get(name, {}).get("firstRecoverabilityPoint")
    return datetime.fromisoformat(first) if first else None


def out_of_reach(moment: datetime, first: datetime | None, now: datetime) -> str:
    """Why the database can't be had as it was then, if it can't."""
    if moment > now:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ} is yet to come; give a moment that has passed"
    if first is None:
        return "nothing of the database is kept yet: its first base backup is not done; wait for it, then try again"
    if moment < first:
        return f"what is kept begins at {first:%Y-%m-%dT%H:%M:%SZ}; give a later moment, or a backup that `make backups` lists"
    return ""


def _complete(settings: Kubernetes, scope: Scope, wanted: DatabaseCluster) -> None:
    """Have all that was written so far in the archive, and something after it: a recovery that finds no end has failed."""
    where = {"app.kubernetes.io/component": wanted.tier, "cnpg.io/instanceRole": "primary"}

    def ask(query: str) -> str:
        return cluster.sql(settings, scope.instance, where, query)

    ask("SELECT txid_current()")
    last = ask("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 120
    while ask("SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver") < last:
        if time.monotonic() > deadline:
            raise RunError(f"the database's changes do not reach the archive ({last}); see the log of `vault`")
        time.sleep(2)


def introduce(settings: Kubernetes, instance: str, cluster_name: str, database: str) -> None:
    """Have the pooler let tiers into a new database: the operator (1.27) readies each for it, but looks only when the Cluster changes.

    An operator that needs nothing there is waited for in vain, and what is wrong after all the release's gates find.
    """
    primary = {"cnpg.io/cluster": cluster_name, "cnpg.io/instanceRole": "primary"}

    def ask(query: str) -> str:
        return cluster.sql(settings, instance, primary, query, database=database)

    # What is restored of such a database has the function the pooler asks, as the owner's, who may not read what it reads.
    ask("DROP FUNCTION IF EXISTS public.user_search(text)")
    kubernetes: Any = import_module("kubernetes")
    api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(context=settings.context))
    where = (*cnpg.API.split("/"), settings.home(instance), "clusters", cluster_name)
    api.patch_namespaced_custom_object(*where, {"metadata": {"annotations": {"tiers.database": database}}})
    deadline = time.monotonic() + 60
    while ask("SELECT count(*) FROM pg_proc WHERE proname = 'user_search'") == "0" and time.monotonic() < deadline:
        time.sleep(2)


def _scratch(
    scope: Scope, scratch: DatabaseCluster, of: DatabaseCluster, spec: Mapping[str, Any], moment: datetime
) -> Manifest:
    labels = scope.labels(scratch.name, "recovery")
    made = scope.object(cnpg.API, "Cluster", scratch.name, labels)
    reached = {f"tiers.needs/{of.archive.vault.tier}": "yes"} if of.archive else {}
    # As the server reads it: another zone's letter it does not know.
    recovery = barman.recovery(spec, of.name, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00")
    return made | {"spec": recovery | {"inheritedMetadata": {"labels": labels | reached}}}


class _Api:
    """Objects of the namespace, by kind and name."""

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
        """Until a Cluster is ready."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status: dict[str, Any] = self.read("Cluster", name).get("status") or {}
            if any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ()):
                return
            failed = [pod for pod in self._pods(name) if pod.status.phase == "Failed"]
            if len(failed) >= ATTEMPTS or time.monotonic() > deadline:
                said = self._said(failed[-1]) if failed else status.get("phase", "it says nothing")
                raise RunError(f"the database can't be brought back as it was then: {said}")
            time.sleep(3)

    def _pods(self, name: str) -> list[Any]:
        return self.core.list_namespaced_pod(self.namespace, label_selector=f"cnpg.io/cluster={name}").items

    def _said(self, pod: Any) -> str:
        """Its last lines that say why."""
        log: str = self.core.read_namespaced_pod_log(pod.metadata.name, self.namespace, container="full-recovery")
        wrong = [line for line in log.splitlines() if "FATAL" in line or '"level":"error"' in line]
        return " | ".join(line[:300] for line in wrong[-3:]) or log[-500:]
