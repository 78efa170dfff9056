"""Tests of `is_leftover`: only an object with the labels of an end-to-end test is a leftover of a killed test run."""

import pytest

from tests.e2e.leftovers import LABEL, is_leftover

from .program import first

STANDARD = "app.kubernetes.io"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"tiers.app": "board", "tiers.environment": "e2e"}, True),
        ({"tiers.app": "shop", "tiers.environment": "e2e-put-back"}, True),
        ({f"{STANDARD}/part-of": "board", f"{STANDARD}/instance": "board-e2e-live"}, True),
        ({LABEL: "prod"}, True),
        ({"tiers.app": "e2e", "tiers.environment": "dev"}, False),
        ({f"{STANDARD}/part-of": "e2e-shop", f"{STANDARD}/instance": "e2e-shop-staging"}, False),
        ({"tiers.app": "board", "tiers.environment": "live-e2e"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_objects_with_labels_of_an_end_to_end_test_are_leftovers(
    labels: dict[str, str] | None, expected: bool
) -> None:
    assert is_leftover(labels) is expected


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_no_object_of_a_user_stack_is_a_leftover_of_an_end_to_end_test(stack: str) -> None:
    labelled = [entry.labels for entry in first(stack) if entry.custom and entry.labels]
    assert labelled
    assert not [labels for labels in labelled if is_leftover(labels)]
