"""Grafana dashboard of an environment, for import into a Grafana that can't find it: `python -m ci.dashboard STACK`."""

import json

from components.alerts import Watched
from components.config import ConfigError
from components.dashboard import dashboard

from . import edge
from .described import load


def text(stack: str) -> str:
    """Return the dashboard as JSON.

    Raises:
        ConfigError: the environment has no monitoring.
    """
    app, environment = load(stack)
    if not environment.monitoring:
        raise ConfigError("environment.monitoring: it is not set, so the environment has no metrics; set it to true")
    instance = f"{app.name}-{stack}"
    namespace = (environment.kubernetes.namespace.name if environment.kubernetes else None) or instance
    return json.dumps(dashboard(Watched(app=app, environment=environment, namespace=namespace)), indent=1)


if __name__ == "__main__":
    words = edge.arguments("dashboard STACK", 1, 1)
    edge.end("dashboard", lambda: print(text(*words)))
