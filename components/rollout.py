"""Plan of an update: the release, the slot that gets the release, and the platform to deploy to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pulumi
from pulumi import ResourceOptions

from . import availability, platforms
from .application import Application
from .backup import BackupPlan
from .context import Context
from .options import has_engine
from .platforms import Deployer
from .release import planner
from .release.checkpoint import database_env, refuse_pending_operations, settle
from .release.live import Routing
from .release.planner import Plan, Slot, StackState
from .release.standby import suspended_services
from .safety import guard


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A planned update. `plan_rollout` returns a `Rollout`. Pass it to the components that deploy the update.

    Example:
        rollout = plan_rollout(context, application)
        pulumi.export("moves", rollout.plan.moves)
    """

    context: Context
    """Configuration, secrets and checkpoint of the stack."""
    application: Application
    """The application to deploy."""
    platform: Deployer
    """Platform to deploy to: a Docker engine or a Kubernetes cluster."""
    observed: StackState
    """State of the stack before the update."""
    plan: Plan
    """Effect of the update: the slot that gets a release, and the slot that is live afterwards."""

    def suspended(self, slot: Slot) -> frozenset[str]:
        """Return the names of the services to suspend in a slot (`environment.release`). Only a standby slot has any."""
        is_standby = self.plan.is_standby(slot, self.observed)
        services = suspended_services(self.context.environment.release, self.context.app.catalogue)
        return services if is_standby else frozenset()

    @property
    def live_backups(self) -> BackupPlan | None:
        """Backups of the database that the live slot uses after this update, or None if the environment configures no backups."""
        backups, plan = self.application.shared.backups, self.plan
        if not backups or plan.render is plan.live:
            return backups
        return backups.with_database(database_env(self.context.checkpoint, plan.live))

    @property
    def store_backups(self) -> Mapping[str, BackupPlan]:
        """Backups of stores that the environment configures, by name of the component `Backup`, such as `mysql-backup`."""
        return self.application.shared.store_backups


def plan_rollout(context: Context, application: Application, opts: ResourceOptions | None = None) -> Rollout:
    """Plan an update, refuse it if it is unsafe, and connect to the platform. No existing resource is changed.

    The connection registers the foundation of the platform: provider, networks and volumes.

    Compare the application with the checkpoint of the stack. If the checkpoint is incomplete, also read the state of the
    platform.

    By default an update deploys the configured release. In `context.variables`, TIERS_RELEASE requests another action,
    TIERS_FORCE allows a refused action, and TIERS_LIVE declares the live slot.

    Args:
        context: configuration, secrets and checkpoint of the stack.
        application: the application to deploy.
        opts: options of the foundation's component, such as `parent`; None for a component without a parent. If the
            options have a provider of the platform, the foundation creates no provider.

    Returns:
        The planned update, for `deploy_slots` and `Switch`.

    Raises:
        ConfigError: the update would lose data, or the platform can't carry out the update.
        ReleaseError: no slot has the requested release, or it is uncertain which slot is live.
        RunError: the last update was interrupted, or the platform does not answer.

    Example:
        rollout = plan_rollout(context, Application.from_context(context))
        pulumi.export("release", str(rollout.plan.release))
    """
    app, environment, stack = context.app, context.environment, context.stack
    checkpoint = context.checkpoint
    refuse_pending_operations(checkpoint, stack)
    inspector = platforms.inspector(app, environment, stack)
    read_routing: Callable[[], Routing] = partial(inspector.routing, environment)
    if has_engine():
        platforms.check(context, checkpoint, application.routes)
    else:
        read_routing = partial(Routing, source="the mocks of a unit test")
    observed = settle(checkpoint, read_routing, planner.declared_live(context.variables), stack)
    observed = availability.mark_lost(inspector, checkpoint, observed)
    action, past_contract = planner.parse_release_action(context.variables)
    is_manual = environment.release.promote == "manual"
    plan = planner.plan(observed, application.release, action, past_contract, manual=is_manual)
    pulumi.log.info(planner.explain(observed, plan))
    availability.refuse_unavailable(inspector, plan, checkpoint)
    stateful = application.stateful
    stores = platforms.data_resources(context, stateful)
    guard.refuse(checkpoint, app, environment, stores, stateful, guard.allows_data_loss(context.variables))
    platform = platforms.connect(context, observed.live, opts)
    return Rollout(context=context, application=application, platform=platform, observed=observed, plan=plan)
