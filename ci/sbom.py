"""Software bills of materials of the images that this repository builds: `python -m ci.sbom STACK`.

For each such image that the stack file names by digest, trivy writes a CycloneDX file to `reports/`.
`reports/images.json` lists names, digests and files, which a pipeline attests.
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
"""Pattern of jar files of Debian packages, which trivy skips: the packages are listed, and identifying jars needs a database."""


def main(stack: str) -> None:
    described_images = pins.wanted(stack)
    pinned = pins.checked(described_images, pins.named(stack), f"Pulumi.{stack}.yaml")
    # api and worker may be the same image.
    references = dict.fromkeys(pinned[path] for path, image in described_images.items() if image.context)
    REPORTS.mkdir(exist_ok=True)
    INDEX.write_text(json.dumps([described(reference) for reference in references]) + "\n")


def described(reference: str) -> dict[str, Any]:
    """Write the bill of materials of an image `name:tag@digest`, and return its name, digest and file.

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
