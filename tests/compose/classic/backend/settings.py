"""As many applications do: a setting, or the file that its name with _FILE names."""

import os
from pathlib import Path


def setting(name: str) -> str:
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else os.environ[name]
