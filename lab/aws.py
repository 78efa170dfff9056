"""Installation of moto in a separate virtual environment. Tests use moto instead of AWS S3 and KMS."""

import shutil
import sys
from pathlib import Path

from .steps import CACHE, Step, digest, sh

REQUIREMENTS = Path(__file__).parent / "aws" / "requirements.txt"
HOME = CACHE / "aws"
SERVER = HOME / "bin" / "moto_server"


def step() -> Step:
    """Return the step that installs `moto_server`, which serves S3 and KMS on one port."""
    stamp = HOME / "built-from"

    def present() -> str | None:
        return str(SERVER) if stamp.exists() and stamp.read_text() == digest(REQUIREMENTS) else None

    def run() -> None:
        shutil.rmtree(HOME, ignore_errors=True)
        sh(sys.executable, "-m", "venv", HOME, log="aws")
        sh(HOME / "bin" / "python", "-m", "pip", "install", "--require-hashes", "-r", REQUIREMENTS, log="aws")
        stamp.write_text(digest(REQUIREMENTS))

    return Step(name="moto (S3 and KMS)", takes="30 s", present=present, run=run)
