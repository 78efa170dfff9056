"""Build of the site in `reports/site`: `python -m ci.site`. `make docs` installs Sphinx first."""

import shutil
import sys
from pathlib import Path

from .. import command_line, process
from ..make_call import REPOSITORY
from . import pages

SITE = REPOSITORY / "reports" / "site"
SOURCE = REPOSITORY / "reports" / "site-source"
"""Folder that Sphinx reads. A failed build keeps the folder, because Sphinx's errors name files in it."""


def main() -> int:
    """Build the site in an empty folder, and return Sphinx's exit code. A warning of Sphinx is an error."""
    for folder in (SITE, SOURCE):
        shutil.rmtree(folder, ignore_errors=True)
    pages.stage(SOURCE)
    options = ["--fail-on-warning", "--quiet", "--builder", "html", "--conf-dir", str(Path(__file__).parent)]
    folders = ["--doctree-dir", str(SOURCE / ".doctrees"), str(SOURCE), str(SITE)]
    if code := process.run([sys.executable, "-m", "sphinx", *options, *folders], cwd=SOURCE):
        print(f"  the site is incomplete; each warning above is an error, in a file of {_short(SOURCE)}")
        return code
    shutil.rmtree(SOURCE)
    print(f"  {_short(SITE / 'index.html')}")
    return 0


def _short(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    command_line.run_and_exit("site", main)
