"""Amounts of processors as Docker's provider reads them back from a container. Pure."""

from fractions import Fraction
from math import floor

_NANO = Fraction(1, 10**9)


def text_of_cpus(cpu: float) -> str:
    """Return the text for a container's `cpus`.

    pulumi-docker 5.2 reads the amount back from the engine in a text of its own, and replaces a container whose text differs:
    1 is read as "1.0". Some amounts are rounded, such as 0.05 to "0.1", so they get a billionth of a processor more, which survives.
    """
    amount = Fraction(f"{cpu:.9f}")
    candidates = [f"{cpu:g}", f"{cpu:.1f}", *(f"{float(amount + step * _NANO):.9f}" for step in (0, 1, 11, 111))]
    close = (text for text in candidates if abs(Fraction(text) - amount) <= amount / 10**5)
    return next(text for text in close if _read_back(text) == text)


def _read_back(text: str) -> str:
    """Return the text that the provider reads (terraform-provider-docker, helpers.go, nanoInt64ToDecimalString)."""
    digits = f"{Fraction(text) * 10**9 // 1:010d}"
    decimal = f"{digits[:-9]}.{digits[-9:]}"
    if decimal.count("0") == 9:
        tenths = floor(Fraction(text) * 10 + Fraction(1, 2))
        return f"{tenths // 10}.{tenths % 10}"
    return decimal.rstrip("0")
