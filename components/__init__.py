"""Tiers: Pulumi components that deploy a web application and release its new versions by blue-green deployment.

`from tiers import …` imports the public names below (`__all__`, docs/reference/api.md). Don't import its modules
directly, because they may change in every version.

Example:
    context = Context.load()
    application = Application.from_context(context)
    rollout = plan_rollout(context, application)
    gateway = Gateway("gateway", GatewayArgs(platform=rollout.platform))
    slots = deploy_slots(rollout, {}, gateway.running)
    Switch("switch", SwitchArgs(rollout=rollout, gates=slots.gates, after=[gateway.running]))
"""

from .api import Api, ApiArgs
from .application import Application
from .backup import Backup, BackupArgs, BackupPlan
from .cache import Cache, CacheArgs
from .config import App, ConfigError, Environment
from .context import Context, Description
from .database import Database, DatabaseArgs
from .kept import KeptSlot, KeptSlotArgs
from .live_service import LiveService, LiveServiceArgs, deploy_live_services
from .model.schedules import Schedule
from .model.services import AccessMode, Exporter, Kind, Service
from .model.workload import (
    Archive,
    DatabaseCluster,
    ExternalService,
    Image,
    Job,
    Mount,
    Probe,
    Replicated,
    Resources,
    Route,
    Scale,
    ScheduledCommand,
    Script,
    Secret,
    SecretPart,
    Task,
    Volume,
    Workload,
    Zone,
)
from .monitoring import Monitoring, MonitoringArgs
from .observability.alerts import MonitoringScope
from .outputs import export
from .platforms import (
    Deployer,
    DeploysClusters,
    DesiredState,
    Inspector,
    Inventory,
    JobRun,
    Line,
    LiveObject,
    Location,
    OneOff,
    SlotTarget,
    VolumeRestore,
)
from .release.checkpoint import Checkpoint, Entry
from .release.live import Routing
from .release.planner import Plan, Release, ReleaseAction, ReleaseError, SlotState, StackState, plan
from .release.planner import Slot as SlotName
from .rollout import Rollout, plan_rollout
from .service import DataService, DataServiceArgs, SlotService, SlotServiceArgs
from .shared import SharedServices
from .slot import Slot, SlotArgs
from .slots import Slots, deploy_slots, foundation
from .store import Store, StoreArgs
from .switch import Gateway, GatewayArgs, Switch, SwitchArgs
from .web import Web, WebArgs
from .worker import Worker, WorkerArgs

__all__ = [
    "AccessMode",
    "Api",
    "ApiArgs",
    "App",
    "Application",
    "Archive",
    "Backup",
    "BackupArgs",
    "BackupPlan",
    "Cache",
    "CacheArgs",
    "Checkpoint",
    "ConfigError",
    "Context",
    "DataService",
    "DataServiceArgs",
    "Database",
    "DatabaseArgs",
    "DatabaseCluster",
    "Deployer",
    "DeploysClusters",
    "Description",
    "DesiredState",
    "Entry",
    "Environment",
    "Exporter",
    "ExternalService",
    "Gateway",
    "GatewayArgs",
    "Image",
    "Inspector",
    "Inventory",
    "Job",
    "JobRun",
    "KeptSlot",
    "KeptSlotArgs",
    "Kind",
    "Line",
    "LiveObject",
    "LiveService",
    "LiveServiceArgs",
    "Location",
    "Monitoring",
    "MonitoringArgs",
    "MonitoringScope",
    "Mount",
    "OneOff",
    "Plan",
    "Probe",
    "Release",
    "ReleaseAction",
    "ReleaseError",
    "Replicated",
    "Resources",
    "Rollout",
    "Route",
    "Routing",
    "Scale",
    "Schedule",
    "ScheduledCommand",
    "Script",
    "Secret",
    "SecretPart",
    "Service",
    "SharedServices",
    "Slot",
    "SlotArgs",
    "SlotName",
    "SlotService",
    "SlotServiceArgs",
    "SlotState",
    "SlotTarget",
    "Slots",
    "StackState",
    "Store",
    "StoreArgs",
    "Switch",
    "SwitchArgs",
    "Task",
    "Volume",
    "VolumeRestore",
    "Web",
    "WebArgs",
    "Worker",
    "WorkerArgs",
    "Workload",
    "Zone",
    "deploy_live_services",
    "deploy_slots",
    "export",
    "foundation",
    "plan",
    "plan_rollout",
]
