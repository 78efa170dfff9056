"""Software bills of materials of the images that this repository builds: `python -m ci.sbom STACK`.

The stack file must name these images by digest. For each image, trivy writes a CycloneDX file to `reports/`. The file
`reports/images.json` lists the name, digest and CycloneDX file of each image, so that a pipeline can attest the images.
"""

import json
import subprocess
from typing import Any

from pulumi import RunError

from . import command_line, pins
from .pulumi_stack import ROOT
from .slo import REPORTS

INDEX = REPORTS / "images.json"
DEBIAN_JARS = "usr/share/**/*.jar"
"""Pattern of the jar files in Debian packages. trivy skips these files, because it lists the packages themselves."""


def main(stack: str) -> None:
    described_images = pins.required_images(stack)
    pinned = pins.check_pins(described_images, pins.stack_file_pins(stack), f"Pulumi.{stack}.yaml")
    # A dict removes duplicates, because api and worker may have the same image.
    references = dict.fromkeys(pinned[path] for path, image in described_images.items() if image.context)
    REPORTS.mkdir(exist_ok=True)
    INDEX.write_text(json.dumps([write_sbom(reference) for reference in references]) + "\n")


def write_sbom(reference: str) -> dict[str, Any]:
    """Write the bill of materials of the image `name:tag@digest` to a file.

    Returns:
        The image's `name` and `digest`, and the path of the file (`sbom`).

    Raises:
        RunError: trivy can't read the image.
    """
    tagged, _, digest = reference.partition("@")
    name = tagged.rpartition(":")[0]
    file = REPORTS / f"{name.rpartition('/')[2]}.cdx.json"
    done = subprocess.run(
        ["trivy", "image", "--quiet", "--skip-files", DEBIAN_JARS, "--format", "cyclonedx", "--output", str(file), reference],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RunError(f"{reference}: trivy can't read the image: {done.stderr.strip()}")
    print(
        f"  {file.relative_to(ROOT)}: {len(json.loads(file.read_text()).get('components', ()))} components of {tagged}"
    )
    return {"name": name, "digest": digest, "sbom": str(file.relative_to(ROOT))}


if __name__ == "__main__":
    words = command_line.arguments("sbom STACK", 1, 1)
    command_line.run_and_exit("sbom", lambda: main(*words))
