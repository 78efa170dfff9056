"""Tests of the texts of CPU limits on Docker.

After a deployment the Docker provider must read the same text from the container. Otherwise the next update would
replace the container.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.platforms.docker.cpus import _read_back, text_of_cpus  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("cpu", "text"),
    [(0.5, "0.5"), (0.25, "0.25"), (1.5, "1.5"), (0.125, "0.125"), (1, "1.0"), (2, "2.0"), (0.05, "0.050000001"), (10, "10.000000011")],
)  # fmt: skip
def test_cpu_text_is_the_shortest_that_the_provider_reads_back(cpu: float, text: str) -> None:
    assert text_of_cpus(cpu) == text


@pytest.mark.parametrize(
    ("text", "read_back"),
    [("1", "1.0"), ("0.05", "0.1"), ("0.01", "0.0"), ("0.5", "0.5"), ("0.25", "0.25"), ("10", "10."), ("10.5", "10.5")],
)
def test_text_of_a_cpu_limit_equals_the_text_of_the_engine(text: str, read_back: str) -> None:
    assert _read_back(text) == read_back


@given(st.integers(1, 25_600).map(lambda hundredths: hundredths / 100) | st.floats(0.01, 256))
def test_every_cpu_limit_is_read_back_unchanged(cpu: float) -> None:
    text = text_of_cpus(cpu)
    assert _read_back(text) == text
    assert abs(float(text) - cpu) < 0.000_05 + cpu / 100_000
