"""Function that reads a setting from the environment variable NAME, or from the file that NAME_FILE names."""

import os
from pathlib import Path


def setting(name: str) -> str:
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else os.environ[name]
