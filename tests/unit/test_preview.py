"""Tests of the preview comment on a pull request: verdict, plan, dangers, errors, masking and size.

Most tests read recorded previews of both platforms (tests/previews).
"""

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ci import preview
from ci.preview.markdown import LIMIT
from ci.preview.masking import SECRET, SIGNATURE
from ci.preview.read import Preview, parse_preview, run_preview
from ci.preview.render import marker, render_comment
from ci.preview.risk import Verdict, dangers, verdict
from components.release.planner import explain

from .program import ROOT

RECORDINGS = ROOT / "tests/previews"
ALL = sorted(f"{file.parent.name}/{file.stem}" for file in RECORDINGS.glob("*/*.json"))
PLATFORMS = ("docker", "kubernetes")
SECRETS = ("e2e-database-7c1f", "e2e-cache-93ab")
"""Secret values of the stacks in the recorded previews. The values are set in tests/e2e/stack.py."""
VERDICTS = {
    "first": Verdict.DATA, "no-change": Verdict.NONE, "new-image": Verdict.RELEASE, "env": Verdict.RELEASE,
    "waits": Verdict.RELEASE, "back": Verdict.RELEASE, "unprotected": Verdict.DATA, "protected": Verdict.LOSS,
    "database-deleted": Verdict.LOSS, "database-storage": Verdict.DATA, "broken": Verdict.NONE, "unreachable": Verdict.NONE,
    # Verdicts that differ between the platforms. On Docker a new number of replicas takes effect with the next release only.
    "docker/replicas": Verdict.NONE, "docker/database-memory": Verdict.DATA, "docker/opened": Verdict.LOSS,
    "kubernetes/replicas": Verdict.IN_PLACE, "kubernetes/database-memory": Verdict.LOSS, "kubernetes/opened": Verdict.IN_PLACE,
}  # fmt: skip
FAILED = {"protected", "broken", "unreachable"}


@cache
def recording(name: str) -> dict[str, Any]:
    return json.loads((RECORDINGS / f"{name}.json").read_text())


@cache
def parsed(name: str) -> Preview:
    return parse_preview(recording(name), "demo")


@cache
def comment_of(name: str) -> str:
    return render_comment(parsed(name))


def visible_part(name: str) -> str:
    return comment_of(name).partition("<details>")[0]


class TestVerdict:
    @pytest.mark.parametrize("name", ALL)
    def test_comment_of_a_recorded_preview_has_the_expected_verdict(self, name: str) -> None:
        kind = name.partition("/")[2]
        failed = kind in FAILED or name in FAILED
        assert verdict(parsed(name)) is VERDICTS.get(name, VERDICTS.get(kind))
        assert bool(parsed(name).errors) is failed
        first, _, headline, *_ = comment_of(name).splitlines()
        assert first == marker("demo")
        assert headline.startswith("**demo: ") and ("the preview failed" in headline) is failed

    def test_recorded_previews_contain_every_kind_of_change(self) -> None:
        needed = {"no-change", "new-image", "env", "replicas", "database-deleted", "broken", "unreachable"}
        assert {f"{platform}/{kind}" for platform in PLATFORMS for kind in needed} <= set(ALL)
        assert {"kubernetes/database-storage", "docker/database-memory"} <= set(ALL)


class TestPlan:
    @pytest.mark.parametrize("name", [name for name in ALL if not parsed(name).errors])
    def test_plan_in_the_preview_comment_equals_the_plan_that_the_program_logged(self, name: str) -> None:
        """Compare the plan that the comment shows with the plan that the program logged.

        The preview command doesn't read the logged plan, but computes the plan of the comment from the recorded states.
        """
        plan = parsed(name).plan
        assert plan
        assert explain(parsed(name).state_before, plan) == recording(name)["diagnostics"][0]["message"].strip()

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_preview_comment_lists_the_differences_from_the_live_release(self, platform: str) -> None:
        image = r"\*\*api\*\*: image `\S*board-api:\w+` → `\S*board-api:\w+`<br>\*\*worker\*\*: image"
        assert re.search(image, visible_part(f"{platform}/new-image"))
        assert "| **api**: LOG_LEVEL `info` → `warning` |" in visible_part(f"{platform}/env")

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_preview_comment_shows_migration_promotion_and_switch(self, platform: str) -> None:
        assert "| migration | `api.migrate` |" in visible_part(f"{platform}/new-image")
        assert "by itself: switch 3 moves all traffic to blue" in visible_part(f"{platform}/new-image")
        assert "after it passes its gates, it waits for `make promote ENV=demo`" in visible_part(f"{platform}/waits")
        assert "**contract: the previous release can't run with it" in visible_part(f"{platform}/waits")
        assert "at once: switch 3 moves all traffic to blue, 1.0.0-" in visible_part(f"{platform}/back")
        assert "| slot | blue: empty → **1.0.0-" in visible_part(f"{platform}/first")

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_diagram_in_the_preview_comment_colours_each_tier_by_its_change(self, platform: str) -> None:
        picture = visible_part(f"{platform}/new-image")
        assert 'blue_api["api<br>replaced"]:::replaced' in picture
        assert 'green_api["api"]:::unchanged' in picture
        assert 'blue_worker["worker<br>new"]:::new' in picture
        assert 'green_worker["worker<br>suspended"]:::deleted' in picture
        assert 'database["database"]:::unchanged' in picture
        assert "gateway ==>|after the switch| blue" in picture and "gateway -.->|until the switch| green" in picture
        assert 'database["database<br>deleted"]:::deleted' in visible_part(f"{platform}/database-deleted")
        assert "mermaid" not in comment_of(f"{platform}/no-change")


class TestDangers:
    @pytest.mark.parametrize(
        "name", [f"{entry}/{kind}" for entry in PLATFORMS for kind in ("new-image", "env", "waits", "back")]
    )
    def test_preview_comment_of_an_ordinary_release_lists_no_dangers(self, name: str) -> None:
        assert dangers(parsed(name)) == []

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("docker/database-deleted", "**database is deleted**, and both slots share it: Volume `database-data` **with its data**"),
            ("kubernetes/database-deleted", "both slots share it: PersistentVolumeClaim `database-data` **with its data**"),
            ("kubernetes/database-memory", "**database is replaced**, and both slots share it: StatefulSet `database`"),
            ("docker/unprotected", "**protection removed**: the next update may delete Volume `cache-data`, Volume `data"),
            ("kubernetes/unprotected", "**protection removed**"),
            ("docker/opened", "**public exposure**: `gateway` listens on port 8080 of the host, at 0.0.0.0"),
            ("docker/opened", "**network opened**: api may connect to the outside"),
            ("docker/opened", "**gateway is replaced**"),
            ("kubernetes/opened", "**public exposure**: users reach it as `board.example.com`"),
            ("kubernetes/opened", "**network opened**: NetworkPolicy `api-to-world` allows connections to 0.0.0.0/0"),
            ("kubernetes/opened", "**network opened**: NetworkPolicy `web` accepts connections from 0.0.0.0/0"),
        ],
    )  # fmt: skip
    def test_preview_comment_shows_each_dangerous_change_in_bold(self, name: str, line: str) -> None:
        assert line in visible_part(name)

    def test_preview_comment_warns_of_a_deleted_deny_policy_or_internal_network(self) -> None:
        steps = [
            deleted_step("networking.k8s.io/v1:NetworkPolicy", "deny-all", {"spec": {"ingress": [], "egress": []}}),
            deleted_step("docker:index/network:Network", "data", {"internal": True}),
        ]
        lines = dangers(parse_preview({"steps": steps}, "demo"))
        assert (
            "**network opened**: this no longer applies: NetworkPolicy `deny-all` denies all connections that no other policy allows"
            in lines
        )
        assert "**network opened**: this no longer applies: network `data` is closed to the outside" in lines

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("kubernetes/replicas", "Deployment `web-green` changes in place: spec.replicas `2` → `3`"),
            ("kubernetes/database-storage", "`database-data` changes in place: spec.resources.requests.storage `2Gi` → `3Gi`"),
            ("docker/database-memory", "Container `database-1` changes in place: memory `512` → `768`"),
        ],
    )  # fmt: skip
    def test_preview_comment_lists_each_object_that_is_changed_in_place(self, name: str, line: str) -> None:
        assert line in visible_part(name)


class TestFailures:
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_comment_of_a_failed_preview_contains_the_error(self, platform: str) -> None:
        assert "\napp.api.port: '8000' is not a port; use a whole number" in comment_of(f"{platform}/broken")
        assert "Connection refused" in comment_of(f"{platform}/unreachable")
        assert "because it is protected" in comment_of(f"{platform}/protected")
        assert "unhandled error" not in comment_of(f"{platform}/broken")

    def test_preview_command_exits_with_1_for_a_failed_preview(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PR_NUMBER", raising=False)
        assert preview.main("demo", str(RECORDINGS / "docker/broken.json")) == 1
        assert preview.main("demo", str(RECORDINGS / "docker/no-change.json")) == 0
        assert capsys.readouterr().out == comment_of("docker/broken") + comment_of("docker/no-change")

    def test_pulumi_error_without_json_becomes_the_error_in_the_preview_comment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "pulumi").write_text("#!/bin/sh\necho \"error: no stack named 'demo' found\" >&2; exit 255\n")
        (tmp_path / "pulumi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert parse_preview(run_preview("demo"), "demo").errors == ("no stack named 'demo' found",)


class TestSecrets:
    @pytest.mark.parametrize("name", ALL)
    def test_preview_comments_and_recorded_previews_contain_no_secret(self, name: str) -> None:
        for value in SECRETS:
            assert value not in comment_of(name)
            assert value not in (RECORDINGS / f"{name}.json").read_text()

    @pytest.mark.parametrize(
        ("kind", "inputs", "more"),
        [
            ("kubernetes:core/v1:Secret", {"stringData": {"a": "hunter2"}, "data": {"b": "hunter2"}}, {}),
            ("docker:index/container:Container", {"uploads": [{"file": "/x", "content": "hunter2"}]}, {}),
            ("docker:index/container:Container", {"envs": ["DB_PASSWORD=hunter2", "API_KEY=hunter2"]}, {}),
            ("any:Kind", {"one": {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "value": "hunter2"}}, {}),
            ("any:Kind", {"one": {"two": "hunter2"}}, {"additionalSecretOutputs": ["one"]}),
            ("any:Kind", {"one": ["amqp://me:hunter2@queue/"]}, {}),
            ("any:Kind", {"spec": {"env": [{"name": "SMTP_TOKEN", "value": "hunter2"}]}}, {}),
        ],
    )
    def test_secret_that_pulumi_did_not_mask_is_masked_in_the_preview_comment(
        self, kind: str, inputs: dict[str, Any], more: dict[str, Any]
    ) -> None:
        step = created_step(kind, "one", inputs, **more)
        document = {
            "steps": [step],
            "diagnostics": [{"severity": "error", "message": "error: at http://me:hunter2@host/x"}],
        }
        text = render_comment(parse_preview(document, "demo"))
        assert "hunter2" not in text
        assert text.count(SECRET) >= 2

    def test_path_of_a_secret_file_is_not_masked_in_the_preview_comment(self) -> None:
        step = created_step(
            "docker:index/container:Container", "one", {"envs": ["PASSWORD_FILE=/run/secrets/password"]}
        )
        assert "envs[PASSWORD_FILE]: /run/secrets/password" in render_comment(parse_preview({"steps": [step]}, "demo"))


class TestSize:
    @pytest.mark.parametrize("name", ["docker/new-image", "docker/opened", "kubernetes/database-deleted"])
    def test_order_of_the_steps_in_a_preview_does_not_change_the_preview_comment(self, name: str) -> None:
        for seed in range(3):
            steps = random.Random(seed).sample(recording(name)["steps"], len(recording(name)["steps"]))
            assert render_comment(parse_preview(recording(name) | {"steps": steps}, "demo")) == comment_of(name)

    @pytest.mark.parametrize("name", ALL)
    def test_comment_of_every_recorded_preview_is_below_the_size_limit(self, name: str) -> None:
        assert len(comment_of(name)) < LIMIT

    @pytest.mark.parametrize(("count", "text"), [(1, "x"), (800, "x" * 5000), (800, "é\n```ü" * 40), (2000, "x")])
    def test_preview_comment_counts_the_steps_that_are_left_out_because_of_the_size_limit(
        self, count: int, text: str
    ) -> None:
        steps = [created_step("any:Kind", f"number-{number}", {"value": text}) for number in range(count)]
        comment = render_comment(parse_preview({"steps": steps}, "demo"))
        assert len(comment) < LIMIT
        omitted = re.search(r"^# (\d+) more changes are not shown", comment, re.MULTILINE)
        assert len(re.findall(r"^\+ Kind", comment, re.MULTILINE)) + (int(omitted[1]) if omitted else 0) == count
        assert bool(omitted) == (count > 1)
        assert comment.endswith("</details>\n") and comment.count("```") % 2 == 0

    def test_preview_comment_of_a_preview_with_long_texts_is_below_the_size_limit(self) -> None:
        """Fill every part of the comment with long texts: errors, warnings, dangers and changes in place."""
        long = "ü" * 5000
        diagnostics = [
            {"severity": severity, "message": f"{n} {long}\n" * 50}
            for n in range(40)
            for severity in ("error", "warning")
        ]
        steps = [deleted_step("any:Kind", f"{n}-{long}", {}) for n in range(40)]
        steps += [created_step("any:Other", f"{n}-{long}", {long: n}) | {"op": "update"} for n in range(40)]
        steps += [created_step("any:Service", f"{n}-{long}", {"spec": {"type": "LoadBalancer"}}) for n in range(40)]
        assert len(render_comment(parse_preview({"steps": steps, "diagnostics": diagnostics}, "demo"))) < LIMIT


def created_step(kind: str, name: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:demo::board::{kind}::{name}"
    return {
        "op": "create",
        "urn": urn,
        "newState": {"urn": urn, "type": kind, "custom": True, "inputs": inputs, **more},
    }


def deleted_step(kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    step = created_step(kind, name, inputs)
    return {"op": "delete", "urn": step["urn"], "oldState": step["newState"]}


@pytest.mark.parametrize(
    ("page", "name"), [("release", "docker/new-image"), ("dangerous", "kubernetes/database-deleted")]
)
def test_example_pages_of_previews_equal_the_output_of_the_preview_command(page: str, name: str) -> None:
    assert (ROOT / f"docs/previews/{page}.md").read_text() == comment_of(name), "run `make docs`"
    assert f"tests/previews/{name}.json > docs/previews/{page}.md" in (ROOT / "Makefile").read_text()
