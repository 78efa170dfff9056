"""Deploy one web application: load its description, plan the release, then deploy data services, gateway, slots and switch."""

from components import (
    Application,
    Backup,
    BackupArgs,
    Context,
    DataService,
    DataServiceArgs,
    Gateway,
    GatewayArgs,
    Monitoring,
    MonitoringArgs,
    Switch,
    SwitchArgs,
    deploy_live_services,
    deploy_slots,
    export,
    foundation,
    plan_rollout,
)


def main() -> None:
    context = Context.load()
    application = Application.from_context(context)
    rollout = plan_rollout(context, application)
    platform = rollout.platform

    data = {
        name: DataService(name, DataServiceArgs(platform=platform, data=service)).ready
        for name, service in application.data.items()
    }
    gateway = Gateway("gateway", GatewayArgs(platform=platform)).running
    slots = deploy_slots(rollout, data, gateway)
    after = foundation(platform, data, gateway)
    switch = Switch("switch", SwitchArgs(rollout=rollout, gates=slots.gates, after=after))
    deploy_live_services(rollout, slots, switch)

    if backups := rollout.live_backups:
        Backup("backup", BackupArgs(platform=platform, plan=backups, after=switch.moved))
    for name, plan in rollout.store_backups.items():
        Backup(name, BackupArgs(platform=platform, plan=plan, after=switch.moved))
    if context.environment.monitoring:
        description = context.description
        args = MonitoringArgs(platform=platform, description=description, data=data, live=switch.live)
        Monitoring("monitoring", args)
    export(rollout, switch, slots.gates.get("smoke"))


main()
