"""Configuration: models of the application (`app`) and of its environment (`environment`), and their checks.

Only this package reads configuration. The package reads all values once, checks them, and returns frozen models. Every error names
the path of the value, the problem, and what to write instead. `python -m components.reference` generates
`docs/configuration.md` and the JSON Schemas for editors from the models.

Three kinds of checks apply to a value:

1. The grammar of the value's type, in `units`.
2. The validators of the model that contains the value, in `app`, `environment`, `engine`, `cluster`, `monitoring` and `backups`.
3. The checks of all values together, in the modules named `*_checks`. `loading` runs these checks.

Import from this package, not from its modules.
"""

from . import template
from .app import (
    DOCKERFILE,
    HERE,
    RESERVED,
    Api,
    App,
    Build,
    Cache,
    Check,
    Database,
    DataSettings,
    Listening,
    ProcessSettings,
    ServiceSettings,
    Source,
    Store,
    Web,
    Worker,
    app_model,
    checks_as_json,
)
from .app_checks import GATEWAY_PATHS
from .backups import S3, Backup, Target
from .cluster import Kubernetes, Limits, Namespace, Quota, SecretReference
from .environment import Environment, Slo
from .errors import ConfigError
from .hosts import at_host
from .loading import (
    Settings,
    check_secrets,
    check_stack,
    load,
    load_app,
    load_environment,
    load_stack,
    settings_of,
)
from .monitoring import Monitoring
from .units import Seconds

__all__ = [
    "DOCKERFILE",
    "GATEWAY_PATHS",
    "HERE",
    "RESERVED",
    "S3",
    "Api",
    "App",
    "Backup",
    "Build",
    "Cache",
    "Check",
    "ConfigError",
    "DataSettings",
    "Database",
    "Environment",
    "Kubernetes",
    "Limits",
    "Listening",
    "Monitoring",
    "Namespace",
    "ProcessSettings",
    "Quota",
    "Seconds",
    "SecretReference",
    "ServiceSettings",
    "Settings",
    "Slo",
    "Source",
    "Store",
    "Target",
    "Web",
    "Worker",
    "app_model",
    "at_host",
    "check_secrets",
    "check_stack",
    "checks_as_json",
    "load",
    "load_app",
    "load_environment",
    "load_stack",
    "settings_of",
    "template",
]
