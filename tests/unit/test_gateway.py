"""The gateway's configuration: every route to both slots, hidden paths, and nothing that needs a reload."""

from dataclasses import replace

import pytest

from components.config import TierName
from components.platforms import readiness
from components.platforms.haproxy import configuration
from components.release import Slot
from components.workload import Route

API = Route(tier="api", prefixes=("/api", "/api/internal"), port=8000, health="/ready", hidden=("/metrics",))
WEB = Route(tier="web", prefixes=("/",), port=8080, health="/health")
TEXT = configuration({slot: [API, WEB] for slot in Slot})


@pytest.mark.parametrize("slot", list(Slot))
@pytest.mark.parametrize("route", [API, WEB], ids=lambda route: route.tier)
def test_every_route_has_a_way_to_both_slots(route: Route, slot: Slot) -> None:
    block = TEXT.split(f"backend {route.tier}-{slot}\n")[1].split("\n\n")[0]
    assert f" {route.tier}-{slot}:{route.port}" in block
    assert f"option httpchk GET {route.health}" in block
    assert "init-addr last,none" in block


def test_the_longest_prefix_wins_and_ends_at_a_segment() -> None:
    rules = [line.strip() for line in TEXT.splitlines() if "use_backend" in line and "txn.tier" not in line]
    for slot, of_slot in zip(Slot, (rules[:3], rules[3:]), strict=True):
        here = f"{{ var(txn.slot) -m str {slot} }}"
        assert of_slot == [
            f"use_backend api-{slot} if {here} {{ path /api/internal }} || {here} {{ path_beg /api/internal/ }}",
            f"use_backend api-{slot} if {here} {{ path /api }} || {here} {{ path_beg /api/ }}",
            f"use_backend web-{slot} if {here}",
        ]


def test_the_smoke_test_reaches_every_tier_whatever_its_paths() -> None:
    for route in (API, WEB):
        assert (
            f"set-var(txn.tier) str({route.tier}) if {{ path {readiness(route)} }} {{ var(txn.asked) -m found }}"
            in TEXT
        )
        assert f"set-path {route.health} if {{ var(txn.tier) -m str {route.tier} }}" in TEXT
        assert f"use_backend {route.tier}-green if {{ var(txn.tier) -m str {route.tier} }}" in TEXT


def test_a_slot_has_the_ways_of_its_own_release() -> None:
    moved = replace(API, port=9000, prefixes=("/v2",), hidden=("/internal",))
    text = configuration({Slot.BLUE: [API, WEB], Slot.GREEN: [moved, WEB]})
    assert "server-template api 10 api-blue:8000" in text
    assert "server-template api 10 api-green:9000" in text
    assert "path /v2 } || { var(txn.slot) -m str green }" in text
    assert "use_backend api-blue if { var(txn.slot) -m str blue } { path /v2 }" not in text
    assert "if { path -m beg /internal } { var(txn.slot) -m str green }" in text


def test_a_tier_by_itself_is_asked_whatever_the_path() -> None:
    text = configuration({slot: [API, WEB] for slot in Slot}, [TierName.API])
    assert "  bind :8082" in text.splitlines() and "bind :8081" not in text
    for slot in Slot:
        alone = f"use_backend api-{slot} if {{ dst_port 8082 }} {{ var(txn.slot) -m str {slot} }}"
        assert text.index(alone) < text.index(f"use_backend web-{slot} if {{ var(txn.slot) -m str {slot} }}")


def test_metrics_of_a_tier_are_hidden() -> None:
    assert "http-request deny deny_status 404 if { path -m beg /metrics } { var(txn.slot) -m str blue }" in TEXT


def test_only_slots_can_be_asked_for() -> None:
    assert "if { req.hdr(X-Tiers-Slot) blue green }" in TEXT


def test_its_own_metrics_are_there_only_if_asked_for() -> None:
    assert "prometheus-exporter" not in TEXT
    assert "prometheus-exporter" in configuration({Slot.BLUE: [WEB]}, metrics=True)


def test_no_post_is_sent_twice() -> None:
    assert "retry-on conn-failure\n" in TEXT


def test_what_a_page_asks_for_goes_where_the_page_came_from() -> None:
    for slot in Slot:
        assert (
            f"set-var(txn.slot) str({slot}) if !{{ var(txn.page) -m found }} {{ req.cook(tiers-release),strcmp(txn.{slot}) eq 0 }}"
            in TEXT
        )
    assert "tiers-release" not in configuration({Slot.BLUE: [replace(WEB, sticky=False)]})
