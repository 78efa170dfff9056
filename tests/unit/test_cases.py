"""Tests that every configuration in tests/cases/config is accepted or refused as its EXPECTED file says."""

import pytest

from components.config import ConfigError

from . import cases


def test_every_configuration_case_has_a_stack_file_and_an_expected_result() -> None:
    folders = {folder.name for folder in cases.FOLDER.iterdir()}
    assert folders == {folder for folder, _ in cases.stacks()}
    assert all(cases.expected_lines(folder, stack) for folder, stack in cases.stacks())


@pytest.mark.parametrize(("folder", "stack"), [pytest.param(*case, id="-".join(case)) for case in cases.stacks()])
def test_configuration_case_is_accepted_or_refused_with_exactly_the_expected_errors(folder: str, stack: str) -> None:
    lines = _result(folder, stack)
    expected = cases.expected_lines(folder, stack)
    assert len(lines) == len(expected), lines
    for line, beginning in zip(lines, expected, strict=True):
        assert line == beginning or (beginning.endswith("…") and line.startswith(beginning[:-1])), line


def _result(folder: str, stack: str) -> list[str]:
    try:
        cases.run(folder, stack)
    except ConfigError as error:
        return str(error).splitlines()
    return ["accepted"]
