"""What is in the images that an environment runs and this repository builds: `python -m ci.sbom STACK`.

For each of those its stack file names by digest one list of parts (CycloneDX, by trivy) in `reports/`, and in
`reports/images.json` its name, digest and list: what a pipeline attests of it.
"""

import json
import subprocess
from typing import Any

from pulumi import RunError

from . import edge, pins
from .described import ROOT
from .slo import REPORTS

INDEX = REPORTS / "images.json"
DEBIANS = "usr/share/**/*.jar"
"""Where Debian's packages, which are listed, keep what Java needs: to know any jar by itself takes a database from outside."""


def main(stack: str) -> None:
    asked = pins.wanted(stack)
    known = pins.checked(asked, pins.named(stack), f"Pulumi.{stack}.yaml")
    # api and worker are one image.
    references = dict.fromkeys(known[path] for path, each in asked.items() if each.context)
    REPORTS.mkdir(exist_ok=True)
    INDEX.write_text(json.dumps([described(each) for each in references]) + "\n")


def described(reference: str) -> dict[str, Any]:
    """Name, digest and list of parts of an image given as name:tag@digest; the list is made.

    Raises:
        RunError: trivy can't read the image.
    """
    tagged, _, digest = reference.partition("@")
    name = tagged.rpartition(":")[0]
    file = REPORTS / f"{name.rpartition('/')[2]}.cdx.json"
    done = subprocess.run(
        ["trivy", "image", "--quiet", "--skip-files", DEBIANS, "--format", "cyclonedx", "--output", str(file), reference],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RunError(f"{reference}: trivy can't say what is in it: {done.stderr.strip()}")
    print(f"  {file.relative_to(ROOT)}: {len(json.loads(file.read_text()).get('components', ()))} parts of {tagged}")
    return {"name": name, "digest": digest, "sbom": str(file.relative_to(ROOT))}


if __name__ == "__main__":
    words = edge.arguments("sbom STACK", 1, 1)
    edge.end("sbom", lambda: main(*words))
