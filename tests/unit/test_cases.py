"""Every configuration of tests/cases/config is refused with the expected lines, or accepted and rendered."""

import pytest

from components.config import ConfigError

from . import cases


def test_every_case_has_a_stack_file_and_a_result() -> None:
    folders = {folder.name for folder in cases.FOLDER.iterdir()}
    assert folders == {folder for folder, _ in cases.stacks()}
    assert all(cases.expected(folder, stack) for folder, stack in cases.stacks())


@pytest.mark.parametrize(("folder", "stack"), [pytest.param(*case, id="-".join(case)) for case in cases.stacks()])
def test_case_has_the_expected_result(folder: str, stack: str) -> None:
    lines = _result(folder, stack)
    expected = cases.expected(folder, stack)
    assert len(lines) == len(expected), lines
    for line, beginning in zip(lines, expected, strict=True):
        assert line == beginning or (beginning.endswith("…") and line.startswith(beginning[:-1])), line


def _result(folder: str, stack: str) -> list[str]:
    try:
        cases.run(folder, stack)
    except ConfigError as error:
        return str(error).splitlines()
    return ["accepted"]
