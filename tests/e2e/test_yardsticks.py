"""Tests that run kube-score and kubeconform on the objects of staging and prod. Each stack has a release in both slots."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.program import Deployment, first_release, second_release

ACCEPTED = {
    "deployment-targeted-by-hpa-does-not-have-replicas-configured": "A Deployment is created with the autoscaler's "
    "minimum, because Kubernetes' default is one pod, which would get all traffic. After that only the autoscaler changes the field.",
    "deployment-has-host-podantiaffinity": "Topology spread constraints spread the pods over hosts and zones.",
    "container-image-pull-policy": "An image named by its digest can't change. With `Always` each start of a pod would need "
    "the registry. Images named by a tag are always pulled.",
}
"""Accepted findings of kube-score (check → reason)."""
ACCEPTED_OBJECTS = {("NetworkPolicy/networking.k8s.io/v1/board-prod/database-ha", "networkpolicy-targets-pod")}
"""Accepted findings of single objects, as (object, check).

This NetworkPolicy selects pods that an operator creates. kube-score can't see them, and reports a policy without pods.
"""


def objects(*deployments: Deployment) -> list[dict[str, Any]]:
    manifests = [entry.inputs for deployment in deployments for entry in deployment.objects if entry.inputs]
    assert len(manifests) > 40
    return manifests


@pytest.fixture(scope="module", params=["staging", "prod"])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the objects of both slots to one file without duplicates, and return the path of the file."""
    both_slots = objects(first_release(request.param), second_release(request.param))
    by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in both_slots}
    file = tmp_path_factory.mktemp("manifests") / f"{request.param}.yaml"
    file.write_text(yaml.safe_dump_all(by_name.values()))
    return file


def test_kube_score_reports_accepted_findings_only(manifests: Path) -> None:
    process = subprocess.run(
        ["kube-score", "score", "--output-format", "json", "--kubernetes-version", "v1.34", str(manifests)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    checked = [(entry["object_name"], check) for entry in json.loads(process.stdout) for check in entry["checks"]]
    assert len(checked) > 200
    # The grades of kube-score are 1 (critical), 5 (warning), 7 (almost fine) and 10 (fine).
    findings = {(name, check["check"]["id"]) for name, check in checked if not check["skipped"] and check["grade"] < 7}
    assert {check for _, check in findings - ACCEPTED_OBJECTS} <= set(ACCEPTED), sorted(findings)


def test_every_accepted_finding_of_kube_score_still_occurs() -> None:
    """Check that kube-score still reports each accepted finding. If this test fails, remove the finding from `ACCEPTED`."""
    text = yaml.safe_dump_all(objects(first_release("prod")))
    process = subprocess.run(
        ["kube-score", "score", "--output-format", "ci", "-"], input=text, capture_output=True, text=True, timeout=120
    )
    assert "ImagePullPolicy is not set to Always" in process.stdout
    assert "is targeted by a HPA" in process.stdout
    assert "The NetworkPolicys selector doesn't match any pods" in process.stdout
    assert "podAntiAffinity" in process.stdout


def test_every_object_matches_the_schemas_of_the_cluster(manifests: Path, tmp_path: Path) -> None:
    """Validate the objects strictly against the OpenAPI document of the cluster's API server."""
    write_schemas(tmp_path)
    location = str(tmp_path / "{{.ResourceKind}}{{.KindSuffix}}.json")
    command = ["kubeconform", "-strict", "-summary", "-output", "json", "-schema-location", location]
    process = subprocess.run([*command, str(manifests)], capture_output=True, text=True, timeout=120)
    report = json.loads(process.stdout)
    assert (report["summary"]["invalid"], report["summary"]["errors"], report["summary"]["skipped"]) == (0, 0, 0), (
        report
    )
    assert report["summary"]["valid"] > 50


def test_kubeconform_finds_a_misspelled_field(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    [budget] = [entry for entry in objects(first_release("staging")) if entry["kind"] == "PodDisruptionBudget"][:1]
    budget = budget | {"spec": budget["spec"] | {"maxUnavialable": 1}}
    location = str(tmp_path / "{{.ResourceKind}}{{.KindSuffix}}.json")
    process = subprocess.run(
        ["kubeconform", "-strict", "-schema-location", location],
        input=yaml.safe_dump(budget), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode
    assert "maxUnavialable" in process.stdout


def write_schemas(folder: Path) -> None:
    """Write the cluster's OpenAPI document as JSON Schemas for kubeconform: one file with all definitions, and one file for each kind."""
    process = subprocess.run(
        ["kubectl", "--context", "lab", "get", "--raw", "/openapi/v2"], capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    definitions: dict[str, Any] = json.loads(process.stdout)["definitions"]
    for definition in definitions.values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
        if definition.get("format") == "int-or-string":
            definition.pop("type", None)
    text = json.dumps({"definitions": definitions})
    (folder / "all.json").write_text(text)
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            words = (kind["kind"].lower(), kind["group"].split(".")[0], kind["version"])
            file = folder / f"{'-'.join(word for word in words if word)}.json"
            file.write_text(json.dumps({"$ref": f"all.json#/definitions/{name}"}))
