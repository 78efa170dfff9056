"""Grafana dashboard of an environment, for manual import: `python -m ci.dashboard STACK` prints it."""

import json

from components import platforms
from components.config import ConfigError
from components.observability.alerts import MonitoringScope
from components.observability.dashboard import dashboard

from . import command_line
from .pulumi_stack import load


def dashboard_json(stack: str) -> str:
    """Return the environment's Grafana dashboard as JSON.

    Raises:
        ConfigError: the environment has no monitoring.
    """
    app, environment = load(stack)
    if not environment.monitoring:
        raise ConfigError("environment.monitoring: it is not set, so the environment has no metrics; set it to true")
    namespace = platforms.locate_configured(app, environment, stack).metrics_namespace
    return json.dumps(dashboard(MonitoringScope(app=app, environment=environment, namespace=namespace)), indent=1)


if __name__ == "__main__":
    words = command_line.arguments("dashboard STACK", 1, 1)
    command_line.run_and_exit("dashboard", lambda: print(dashboard_json(*words)))
