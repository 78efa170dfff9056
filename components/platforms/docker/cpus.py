"""Processor limits in the text format of the Docker provider. All functions are pure."""

from fractions import Fraction
from math import floor
from typing import Any

from ...state.docker import CONTAINER

_NANO = Fraction(1, 10**9)


def format_cpus(cpu: float) -> str:
    """Return the text of a processor limit, for the input `cpus` of a container.

    pulumi-docker 5.2 reads the limit from the engine and formats it, such as "1.0" for 1. If the text in the program differs,
    the provider replaces the container. The provider also rounds some limits, such as 0.05 to "0.1". To prevent this rounding,
    such a limit is raised by a few billionths of a processor.
    """
    amount = Fraction(f"{cpu:.9f}")
    candidates = [f"{cpu:g}", f"{cpu:.1f}", *(f"{float(amount + step * _NANO):.9f}" for step in (0, 1, 11, 111))]
    close = (text for text in candidates if abs(Fraction(text) - amount) <= amount / 10**5)
    return next(text for text in close if _provider_format(text) == text)


def with_provider_cpus(resource: dict[str, Any]) -> dict[str, Any]:
    """Return a resource's state. If the resource is a container, format `cpus` as pulumi-docker 5.2 does, such as `1.0`.

    Earlier versions of this program wrote `1`. Pulumi then saw a difference in every update, and replaced the container.
    """
    inputs: dict[str, Any] = resource.get("inputs") or {}
    text = str(inputs.get("cpus") or "") if resource["type"] == CONTAINER else ""
    if not text or format_cpus(float(text)) == text:
        return resource
    cpus = {"cpus": format_cpus(float(text))}
    return resource | {"inputs": inputs | cpus, "outputs": (resource.get("outputs") or {}) | cpus}


def _provider_format(text: str) -> str:
    """Format a limit as the provider does (terraform-provider-docker, helpers.go, nanoInt64ToDecimalString)."""
    digits = f"{Fraction(text) * 10**9 // 1:010d}"
    decimal = f"{digits[:-9]}.{digits[-9:]}"
    if decimal.count("0") == 9:
        tenths = floor(Fraction(text) * 10 + Fraction(1, 2))
        return f"{tenths // 10}.{tenths % 10}"
    return decimal.rstrip("0")
