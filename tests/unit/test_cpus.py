"""Tests of the format of a CPU limit on Docker.

The Docker provider reads the limit of a deployed container as a text. If this text differs from the text that Tiers
writes, the next update replaces the container.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.platforms.docker.cpus import _provider_format, format_cpus  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("cpu", "text"),
    [(0.5, "0.5"), (0.25, "0.25"), (1.5, "1.5"), (0.125, "0.125"), (1, "1.0"), (2, "2.0"), (0.05, "0.050000001"), (10, "10.000000011")],
)  # fmt: skip
def test_cpu_limit_is_written_as_the_shortest_text_that_the_docker_provider_reads_back_unchanged(
    cpu: float, text: str
) -> None:
    assert format_cpus(cpu) == text


@pytest.mark.parametrize(
    ("text", "read_back"),
    [("1", "1.0"), ("0.05", "0.1"), ("0.01", "0.0"), ("0.5", "0.5"), ("0.25", "0.25"), ("10", "10."), ("10.5", "10.5")],
)
def test_copied_conversion_of_cpu_limits_returns_the_texts_of_the_docker_provider(text: str, read_back: str) -> None:
    assert _provider_format(text) == read_back


@given(st.integers(1, 25_600).map(lambda hundredths: hundredths / 100) | st.floats(0.01, 256))
def test_docker_provider_reads_back_any_cpu_limit_unchanged(cpu: float) -> None:
    text = format_cpus(cpu)
    assert _provider_format(text) == text
    assert abs(float(text) - cpu) < 0.000_05 + cpu / 100_000
