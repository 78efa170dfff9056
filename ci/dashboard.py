"""The Grafana dashboard of an environment, to be imported where no cluster's Grafana finds it: `python -m ci.dashboard STACK`."""

import json

from components.alerts import Watched
from components.config import ConfigError
from components.dashboard import dashboard

from . import edge
from .described import load


def text(stack: str) -> str:
    """The dashboard as JSON.

    Raises:
        ConfigError: nothing of the environment is watched.
    """
    app, environment = load(stack)
    if not environment.monitoring:
        raise ConfigError("environment.monitoring: it is not set, so there are no figures to show; set it to true")
    instance = f"{app.name}-{stack}"
    namespace = (environment.kubernetes.namespace.name if environment.kubernetes else None) or instance
    return json.dumps(dashboard(Watched(app=app, environment=environment, namespace=namespace)), indent=1)


if __name__ == "__main__":
    words = edge.arguments("dashboard STACK", 1, 1)
    edge.end("dashboard", lambda: print(text(*words)))
