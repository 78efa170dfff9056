"""Releases under load, one after the other: no request is lost, no job is done twice, no page has two releases."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from .load import load, settled, stream
from .stack import PAGE, ClusterStack, Stack, deployed, eventually, on

RELEASES, SOAK = 2, 20


@pytest.fixture(scope="module", params=[pytest.param("docker", marks=pytest.mark.long), "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board on either platform, with two instances of web and api."""
    board = on(request.param, tmp_path_factory.mktemp("load"), "e2e-load")
    board.environment.setdefault("tiers", {}).setdefault("api", {}).setdefault("replicas", 2)
    board.environment["tiers"]["api"]["cpu"] = 1
    if isinstance(board, ClusterStack):
        board.environment["kubernetes"] |= {"schedule_within": "20s"}
        board.environment["kubernetes"]["gateway"]["within"] = "10s"
    with deployed(board):
        yield board


def version(stack: Stack) -> str:
    """Raise the version of the application, and return it."""
    major, minor, _ = stack.app["version"].split(".")
    stack.app["version"] = f"{major}.{int(minor) + 1}.0"
    return stack.app["version"]


def test_consecutive_releases_lose_no_request_and_no_job(stack: Stack, pytestconfig: pytest.Config) -> None:
    soak = pytestconfig.getoption("soak")
    releases = SOAK if soak else RELEASES
    before = stack.get("/api/stats").json()["messages"]
    with load(stack, seconds=releases * 120) as seen:
        for _ in range(releases):
            number = version(stack)
            with stream(stack) as feed:
                slot = stack.live()["slot"]
                stack.up()
                eventually(lambda: stack.live()["release"].startswith(f"{number}-"), 5)  # noqa: B023
            assert feed.cut is None, "an open stream stays on its slot"
            assert feed.hello["slot"] == slot
    print(f"\n{seen}")
    assert not seen.failed, seen
    # On a busy machine k6 itself may be late.
    assert not (soak and seen.dropped), f"the rate was not held: {seen}"
    assert (seen.mixed, seen.stale) == (0, 0), seen
    settled(stack, before, seen)


@pytest.mark.long
def test_repeated_rollbacks_lose_no_request(stack: Stack) -> None:
    with load(stack) as seen:
        for _ in range(2):
            slot = stack.live()["slot"]
            stack.up(TIERS_RELEASE="previous")
            eventually(lambda: stack.live()["slot"] != slot, 5)  # noqa: B023
    print(f"\n{seen}")
    assert (seen.failed, seen.mixed, seen.stale) == (0, 0, 0), seen


def test_page_loaded_before_a_switch_keeps_working(stack: Stack) -> None:
    tab = requests.Session()
    tab.headers.update(stack.headers)
    page = tab.get(f"{stack.url}/", headers=PAGE, timeout=10)
    before = page.headers["X-Release"]
    assets = re.findall(r'(?:src|href)="(/?assets/[^"]+)"', page.text)
    assert assets
    version(stack)
    stack.up()
    # A requests session keeps no cookie of another host than the requested one, so the header carries it as a browser would.
    headers = {"Cookie": page.headers["Set-Cookie"].partition(";")[0], "Accept": "*/*"}
    for asset in assets:
        assert tab.get(f"{stack.url}/{asset.lstrip('/')}", headers=headers, timeout=10).status_code == 200
    assert tab.get(f"{stack.url}/api/release", headers=headers, timeout=10).json()["release"] == before
    assert tab.get(f"{stack.url}/release.json", headers=headers, timeout=10).json()["release"] == before
    fresh = tab.get(f"{stack.url}/", headers=headers | PAGE, timeout=10)
    assert fresh.headers["X-Release"] == stack.live()["release"] != before


@pytest.mark.long
def test_old_worker_finishes_its_job_after_a_switch(stack: Stack) -> None:
    job = stack.post("a long job", work_seconds=20)
    eventually(lambda: stack.get(f"/api/messages/{job['id']}").json()["attempts"] == 1)
    slot = stack.live()["slot"]
    version(stack)
    stack.up()
    eventually(lambda: stack.get(f"/api/messages/{job['id']}").json()["processed"] == 1, 60)
    assert stack.get(f"/api/messages/{job['id']}").json()["attempts"] == 1
    eventually(lambda: not stack.ids("worker", slot), 90)


HIDES_FROM_THE_GATEWAY = (
    r"sed 's|location = /health {|& if ($http_x_forwarded_for) { return 500; }|; s|@RELEASE@|x|g; s|@SLOT@|x|g'"
    " /etc/nginx/board.conf > /tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g 'daemon off;'"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"ready": "/assets/nothing-here.js"}, "app.web: ", id="never-ready", marks=pytest.mark.long),
        pytest.param(
            {"command": ["sh", "-c", HIDES_FROM_THE_GATEWAY]}, "app.web.health: /health: HTTP 500", id="smoke-test"
        ),
    ],
)
def test_release_that_fails_a_gate_loses_no_request(stack: Stack, change: dict[str, Any], message: str) -> None:
    """A crash loop, a failing migration and a missing image are tested with each platform."""
    before, good = stack.live(), copy.deepcopy(stack.app)
    ids = {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api", "worker")}
    stack.app["web"] |= change | {"start_within": "8s"}
    version(stack)
    with load(stack, rate=100) as seen:
        failed = stack.up(check=False)
    stack.app.clear()
    stack.app |= good
    assert failed.code
    assert message in failed.text, failed.text
    assert "what is live was not touched" in failed.text
    assert stack.live() == before
    assert {tier: stack.ids(tier, before["slot"]) for tier in ids} == ids
    assert not seen.failed, seen


def test_good_release_after_a_failed_one_goes_live(stack: Stack) -> None:
    number = version(stack)
    with load(stack, rate=100) as seen:
        stack.up()
    assert stack.live()["release"].startswith(f"{number}-")
    assert not seen.failed, seen
    assert set(stack.up().changed) == {"unchanged"}


@pytest.mark.long
def test_rotated_secret_is_released_without_a_lost_request(stack: Stack) -> None:
    stack.app["api"].setdefault("secrets", []).append("signing-key")
    with load(stack, rate=100) as seen:
        for value in ("e2e-signing-1", "e2e-signing-2"):
            before = stack.live()
            stack.pulumi("config", "set", "--secret", "--path", "secrets.signing-key", value, check=True)
            stack.up()
            assert stack.live()["slot"] != before["slot"]
    assert not seen.failed, seen


def test_release_with_manual_promotion_waits_and_can_be_viewed(stack: Stack) -> None:
    stack.environment["release"] = {"promote": "manual"}
    before, number = stack.live(), version(stack)
    waits = stack.up()
    assert stack.live() == before
    waiting = stack.outputs()["waiting"]
    assert f"{number}-" in waiting
    idle = "blue" if before["slot"] == "green" else "green"
    assert f"'X-Tiers-Slot: {idle}'" in waiting
    assert stack.get("/api/release", headers={"X-Tiers-Slot": idle}).json()["slot"] == idle
    assert "it waits to be promoted" in waits.text
    assert set(stack.up().changed) == {"unchanged"}
    stack.up(TIERS_RELEASE="promote")
    assert stack.live()["slot"] == idle
    assert "waiting" not in stack.outputs()
    stack.environment.pop("release")
    assert set(stack.up().changed) == {"unchanged"}


def test_rollback_to_an_unhealthy_slot_is_refused(stack: Stack) -> None:
    before = stack.live()
    standby = "blue" if before["slot"] == "green" else "green"
    stack.break_down("api", standby)
    refused = stack.up(check=False, TIERS_RELEASE="previous")
    assert refused.code
    assert f"what is live was not touched: {before['slot']} answers 200. Release anew instead" in refused.text
    assert stack.live() == before
    version(stack)
    stack.up()
    assert stack.live()["slot"] == standby


def test_live_slot_is_not_rendered_again(stack: Stack) -> None:
    """Between two releases a tier is removed, labels are renamed and the program changes: the live slot stays untouched."""
    before, good = stack.live(), copy.deepcopy(stack.app)
    ids = {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api", "worker")}
    generations = stack.generations(before["slot"])
    assert generations
    stack.app.pop("worker")
    sizes = copy.deepcopy(stack.environment["tiers"])
    stack.environment["tiers"].pop("worker", None)
    version(stack)
    stack.environment["release"] = {"promote": "manual"}
    for name, old, new in (
        ("manifests.py", "{names.LABEL_VERSION: place", '{"example.com/version": place'),
        ("docker.py", "labels |= {LABEL_SLOT:", 'labels |= {"example.com/upgraded": "yes", LABEL_SLOT:'),
    ):
        file = stack.folder / "components/platforms" / name
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))
    with load(stack, rate=100) as seen:
        stack.up()
    assert stack.live() == before
    assert {tier: stack.ids(tier, before["slot"]) for tier in ids} == ids
    assert stack.generations(before["slot"]) == generations
    stack.up(TIERS_RELEASE="promote")
    assert stack.live()["slot"] != before["slot"]
    assert {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api")} == {
        tier: ids[tier] for tier in ("web", "api")
    }
    assert not seen.failed, seen
    stack.app.clear()
    stack.app |= good
    stack.environment["tiers"] = sizes
    stack.environment.pop("release")


@pytest.mark.long
def test_cold_standby_is_suspended_and_comes_back(stack: Stack) -> None:
    tab = requests.Session()
    tab.headers.update(stack.headers)
    page = tab.get(f"{stack.url}/", headers=PAGE, timeout=10)
    headers = {"Cookie": page.headers["Set-Cookie"].partition(";")[0], "Accept": "*/*"}
    stack.environment["release"] = {"standby": "cold"}
    version(stack)
    with load(stack, rate=100) as seen:
        stack.up()
        before = stack.live()
        # Over the open connection and with a cookie of a suspended release, requests go to the live slot.
        for path in ("/api/release", "/release.json"):
            assert tab.get(f"{stack.url}{path}", headers=headers, timeout=10).json()["release"] == before["release"]
        version(stack)
        stack.up()
        eventually(lambda: not running(stack, before["slot"]), 60)
        assert set(stack.up().changed) == {"unchanged"}
        stack.up(TIERS_RELEASE="previous")
    assert stack.live() == before
    assert len(running(stack, before["slot"])) >= 4
    assert not seen.failed, seen


def running(stack: Stack, slot: str) -> set[str]:
    return {entry for tier in ("web", "api", "worker") for entry in stack.ids(tier, slot)}


@pytest.mark.long
def test_preview_shows_the_plan_and_contract_migration_blocks_the_rollback(stack: Stack) -> None:
    stack.environment.pop("release", None)
    stack.app["api"]["migrate"]["contract"] = True
    before, number = stack.live(), version(stack)
    idle = "blue" if before["slot"] == "green" else "green"
    seen = stack.preview()
    for pattern in (
        rf"{idle} gets {number}-\w+, in place of ",
        r"migration: api\.migrate \(contract: it breaks the release before it\)",
        rf"{before['slot']} stays live with {before['release']} until the switch",
        rf"switch \d+ moves all traffic to {idle}, {number}-",
    ):
        assert re.search(pattern, seen.text), seen.text
    assert stack.live() == before
    stack.up()
    stack.app["api"]["migrate"].pop("contract")
    refused = stack.up(check=False, TIERS_RELEASE="previous")
    assert refused.code
    assert "is past a migration that says `contract: true`" in refused.text
    assert stack.live()["slot"] == idle
    stack.up(TIERS_RELEASE="previous", TIERS_FORCE="contract")
    assert stack.live() == before


def test_status_fits_on_one_screen(stack: Stack) -> None:
    now, shown = stack.live(), stack.ci("status")
    print(f"\n{shown}")
    assert f"{now['slot']} is live" in shown
    assert f"{now['release']}, live, made " in shown
    assert re.search(r"api +2/2 ready +\S*board-api:", shown)
    assert re.search(r"worker +rests +\S*board-api:", shown)
    assert "shared   ready: cache 1/1, database 1/1" in shown
    assert re.search(
        rf"switch \d+ +\S+  \S+ → {re.escape(now['release'])} \({now['slot']}\)\n +by \S+; passed after ", shown
    )
    assert len(shown.splitlines()) <= 24
    assert stack.outputs()["last_switch"]["to"] == now["release"]
