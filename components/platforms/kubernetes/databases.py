"""Database clusters of CloudNativePG, with their pooler and their archive."""

from collections.abc import Sequence

from pulumi import Resource

from ...model.workload import Archive, DatabaseCluster
from ...options import data_options
from ...state.kubernetes import CLUSTER
from ..base import SHARED
from . import barman, cnpg, manifests
from .foundation import with_data_label
from .stateful import StatefulOperations


class DatabaseOperations(StatefulOperations):
    """Deployer of database clusters. Implements `DeploysClusters`."""

    def deploy_database_cluster(self, parent: Resource, database: DatabaseCluster) -> Sequence[Resource]:
        protected_by, after = self._owner(parent, database)
        after += [self.object(parent, policy) for policy in cnpg.policies(self.scope, database)]
        after += [self.object(parent, cnpg.scripts(self.scope, database))] if database.scripts else []
        after += self._archive(parent, database.name, database.archive) if database.archive else []
        within = database.instances * (database.start_within + self.cluster.schedule_within)
        instances = self._register_and_wait(
            parent,
            with_data_label(self.checkpoint, CLUSTER, cnpg.cluster(self.scope, database, protected_by)),
            [*after, *self.foundation.resources],
            within,
            f"app.{database.tier}",
            impact=lambda: SHARED,
            **data_options(self.environment.protect_data),  # A deletion of the Cluster deletes its data.
        )
        if database.archive:
            self.object(parent, barman.scheduled_backup(self.scope, database.name, database.archive), [instances])
        budget = self.object(parent, cnpg.pooler_budget(self.scope, database))
        pooler = cnpg.pooler(self.scope, database)
        within = database.start_within + self.cluster.schedule_within
        path = database.pooler.path
        return [
            instances,
            self._register_and_wait(parent, pooler, [instances, budget], within, path, impact=lambda: SHARED),
        ]

    def _archive(self, parent: Resource, name: str, archive: Archive) -> list[Resource]:
        """Deploy the archive proxy and the ObjectStore of a database cluster.

        Without these resources the cluster can't archive its first WAL file.
        """
        proxy = archive.proxy
        resources = self.deploy_stateful(parent, proxy, self.provision(parent, [proxy], None))
        access, secret = self._secret_reference(proxy, archive.access), self._secret_reference(proxy, archive.secret)
        return [*resources, self.object(parent, barman.store(self.scope, name, archive, access, secret))]

    def _owner(self, parent: Resource, database: DatabaseCluster) -> tuple[str, list[Resource]]:
        """Return the name of the Secret with the database owner's password, and the resources that create this Secret."""
        reference, secret = self.cluster.secrets.get(database.password.name), database.password
        name = cnpg.owner_name(database, reference)
        if reference and reference.secret:
            return name, []
        if reference:
            external = manifests.external_secret(self.scope, database.name, database.tier, secret, reference, None)
            return name, [self.object(parent, cnpg.owner_external_secret(external, database))]
        manifest = cnpg.owner_secret(
            self.scope, database, self.context.sealed.apply(lambda values: values[secret.name])
        )
        return name, [self.object(parent, manifest, additional_secret_outputs=["data", "stringData"])]
