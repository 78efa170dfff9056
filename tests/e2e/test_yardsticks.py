"""kube-score and kubeconform on every object of staging and prod, of a first release and of a second beside it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.program import Deployment, first, second

ACCEPTED = {
    "deployment-targeted-by-hpa-does-not-have-replicas-configured": "It is begun with the autoscaler's least, else all "
    "traffic would move to the one pod that is Kubernetes' default; from then on the field is ignored, the autoscaler's.",
    "deployment-has-host-podantiaffinity": "Topology spread constraints spread over hosts and zones, and say so of both.",
    "container-image-pull-policy": "An image named by its digest can't change: asking the registry each time a pod starts "
    "would only add the registry to what a restart depends on. Images named by a tag are asked for.",
}
"""Findings of kube-score that are accepted, with the reason."""
OPERATED = {("NetworkPolicy/networking.k8s.io/v1/board-prod/database-ha", "networkpolicy-targets-pod")}
"""Findings that miss an operator's objects: here the instances that the policy selects."""


def objects(*deployed: Deployment) -> list[dict[str, Any]]:
    manifests = [entry.inputs for one in deployed for entry in one.objects if entry.inputs]
    assert len(manifests) > 40
    return manifests


@pytest.fixture(scope="module", params=["staging", "prod"])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the objects of both slots; those they share are written once."""
    both = objects(first(request.param), second(request.param))
    once = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in both}
    file = tmp_path_factory.mktemp("manifests") / f"{request.param}.yaml"
    file.write_text(yaml.safe_dump_all(once.values()))
    return file


def test_kube_score_reports_accepted_findings_only(manifests: Path) -> None:
    done = subprocess.run(
        ["kube-score", "score", "--output-format", "json", "--kubernetes-version", "v1.34", str(manifests)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    checked = [(entry["object_name"], check) for entry in json.loads(done.stdout) for check in entry["checks"]]
    assert len(checked) > 200
    # Grades: 1 critical, 5 warning, 7 almost fine, 10 fine.
    bad = {(name, check["check"]["id"]) for name, check in checked if not check["skipped"] and check["grade"] < 7}
    assert {what for _, what in bad - OPERATED} <= set(ACCEPTED), sorted(bad)


def test_every_accepted_finding_of_kube_score_still_occurs() -> None:
    """An accepted finding that does not occur any more must be removed."""
    text = yaml.safe_dump_all(objects(first("prod")))
    done = subprocess.run(
        ["kube-score", "score", "--output-format", "ci", "-"], input=text, capture_output=True, text=True, timeout=120
    )
    assert "ImagePullPolicy is not set to Always" in done.stdout
    assert "is targeted by a HPA" in done.stdout
    assert "The NetworkPolicys selector doesn't match any pods" in done.stdout
    assert "podAntiAffinity" in done.stdout


def test_every_object_matches_the_schemas_of_the_cluster(manifests: Path, tmp_path: Path) -> None:
    """kubeconform validates strictly against the API server's own OpenAPI document."""
    schemas(tmp_path)
    location = str(tmp_path / "{{.ResourceKind}}{{.KindSuffix}}.json")
    command = ["kubeconform", "-strict", "-summary", "-output", "json", "-schema-location", location]
    done = subprocess.run([*command, str(manifests)], capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout)
    assert (report["summary"]["invalid"], report["summary"]["errors"], report["summary"]["skipped"]) == (0, 0, 0), (
        report
    )
    assert report["summary"]["valid"] > 50


def test_kubeconform_finds_a_misspelled_field(tmp_path: Path) -> None:
    schemas(tmp_path)
    [wrong] = [entry for entry in objects(first("staging")) if entry["kind"] == "PodDisruptionBudget"][:1]
    wrong = wrong | {"spec": wrong["spec"] | {"maxUnavialable": 1}}
    location = str(tmp_path / "{{.ResourceKind}}{{.KindSuffix}}.json")
    done = subprocess.run(
        ["kubeconform", "-strict", "-schema-location", location],
        input=yaml.safe_dump(wrong), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode
    assert "maxUnavialable" in done.stdout


def schemas(folder: Path) -> None:
    """Write the cluster's OpenAPI document as the JSON Schemas that kubeconform reads: one for each kind, which refer to one file."""
    done = subprocess.run(
        ["kubectl", "--context", "lab", "get", "--raw", "/openapi/v2"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    definitions: dict[str, Any] = json.loads(done.stdout)["definitions"]
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
