"""Generator of `examples/README.md` from the last end-to-end runs (`reports/examples.json`): `python -m ci.matrix`.

Every number on the page was measured in a real run. The page shows the commits of the runs, and marks missing runs as
"not run".
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "reports" / "examples.json"
PAGE = ROOT / "examples" / "README.md"
SHOTS = ROOT / "docs" / "screenshots"

SYSTEMS = {
    "about_me": "FastAPI, Next.js, PostgreSQL, Redis",
    "pmanager": "FastAPI under gunicorn, a single-page application in nginx, PostgreSQL",
    "django_site": "Django under gunicorn, a bundle in nginx, PostgreSQL, Redis",
    "palmonas": "React, Express, a BullMQ worker, PostgreSQL, Redis",
}
PLATFORMS = {"docker": "Docker (dev)", "kubernetes": "Kubernetes (staging)"}
CHECKS = {
    "up_from_empty": "up from empty",
    "its_own_checks": "its checks",
    "journey": "journey",
    "seed_in_dev_only": "seed",
    "hot_reload_in_dev_only": "hot reload",
    "second_up_unchanged": "second up unchanged",
    "release_under_load": "release under load",
    "back_under_load": "back under load",
    "destroy_leaves_nothing": "destroy",
}
CLONE = "from_clone_to_first_page"
REQUIRED_SIZES = {
    ("pmanager", "api"): "180 to 250",
    ("pmanager", "web"): "30 to 40",
    ("pmanager", "database"): "75 to 100",
}
"""Required image size in MB, from the requirements of the example. The keys are example and tier."""

Cell = Mapping[str, Any]
Results = Mapping[str, Cell]

HEAD = """\
# The examples

Four applications modelled on real deployments, and the board. Each is a folder with its own `Pulumi.yaml`, three stack files, its sources,
a user's path through it (`journey.js`) and a README that lists requirements and their implementation. `make up APP=examples/NAME` deploys one.
"""
LEGEND = """\
On Kubernetes *seed* means that no seed data exists, and *hot reload* that mounting sources is refused. *Up from empty*: seconds to the first
page; on Docker they include the build of missing images. *Hot reload*: seconds of the slowest tier from saving a file to its effect.
*Release* and *back under load*: five users run `journey.js` continuously; every request was answered, and every check passed.
"""
SIZES = """\
## Images

Sizes of `docker images` (unpacked, with the base image) in MB, and the sizes that the system's requirements name. The lab's base images are Debian's: {bases}.
"""
CLONES = """\
## From clone to first page

Measured from `git clone` to the first status 200, on a separate engine with only the base images: virtual environment and Python packages,
both images built from registries, `pulumi up`. On 2 cores.
"""


def page(results: Results, shots: Iterable[str]) -> str:
    """Return the text of `examples/README.md`."""
    parts = [
        HEAD,
        _matrix(results),
        LEGEND,
        SIZES.format(bases=_bases(results)),
        _sizes(results),
        CLONES,
        _clones(results),
    ]
    parts += [f"## {name}\n\n![{name}](../docs/screenshots/{name}.png)\n" for name in shots]
    return "\n".join(parts)


def _matrix(results: Results) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for system in SYSTEMS:
            for platform, label in PLATFORMS.items():
                cells = (_cell(results, system, platform, check) for check in CHECKS)
                yield system, label, *cells, _commits(results, system, platform)

    return _table(("system", "platform", *CHECKS.values(), "measured at"), rows())


def _cell(results: Results, system: str, platform: str, check: str) -> str:
    cell = results.get(f"{system}-{platform} {check}")
    if cell is None:
        return "not run"
    if not cell["passed"]:
        return "**failed**"
    edits = [seconds for name, seconds in cell.items() if name.startswith("edit of ")]
    if edits:
        return f"yes, {max(edits)} s"
    if "first page" in cell:
        return f"yes, {cell['first page']:.0f} s"
    return f"yes, {cell['requests']} requests" if "requests" in cell else "yes"


def _commits(results: Results, system: str, platform: str) -> str:
    cells = [results[key] for check in CHECKS if (key := f"{system}-{platform} {check}") in results]
    commits = dict.fromkeys(cell["commit"] for cell in cells)
    return f"{', '.join(commits)}; {max(cell['at'] for cell in cells)[:10]}" if cells else "never"


def _sizes(results: Results) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for system in SYSTEMS:
            cell = results.get(f"{system}-docker release_under_load", {})
            for tier, size in sorted(cell.get("images", {}).items()):
                yield system, tier, f"{size / 1e6:.0f}", REQUIRED_SIZES.get((system, tier), "")

    return _table(("system", "tier", "MB", "required"), rows())


def _bases(results: Results) -> str:
    measured = (results.get(f"{system} {CLONE}", {}).get("bases", {}) for system in SYSTEMS)
    bases = {name: size for sizes in measured for name, size in sizes.items()}
    return ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sorted(bases.items())) or "not measured"


def _clones(results: Results) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for system in SYSTEMS:
            cell = results.get(f"{system} {CLONE}")
            if cell is None or not cell["passed"]:
                yield system, "not run" if cell is None else "**failed**", ""
            else:
                yield system, f"{cell['first page']:.0f} s", f"{cell['commit']}; {cell['at'][:10]}"

    return _table(("system", "first page after", "measured at"), rows())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    if not RESULTS.exists():
        sys.exit(f"matrix: there is no {RESULTS.relative_to(ROOT)} yet; run `make matrix`")
    shots = [name for name in SYSTEMS if (SHOTS / f"{name}.png").exists()]
    PAGE.write_text(page(json.loads(RESULTS.read_text()), shots))
