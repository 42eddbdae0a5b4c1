"""Figures as people read them. Pure; the unit of a value is in its key (``bytes_before``, ``seconds``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_BYTE_UNITS = ("kB", "MB", "GB", "TB", "PB")

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:")

_CAPTIONS: Mapping[str, str] = {"bytes": "size", "seconds": "took"}

NONE = "–"
"""Stands for "no such figure", never for zero."""


def humanize_bytes(size: float) -> str:
    """Return ``12.3 MB``; units of 1000, as disks and stores are sold."""
    sign, size = ("-" if size < 0 else ""), abs(size)
    if size < 1000:
        return f"{sign}{size:.0f} B"
    for unit in _BYTE_UNITS:
        size /= 1000
        if size < 999.5 or unit == _BYTE_UNITS[-1]:
            break
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{sign}{size:.{digits}f} {unit}"


def humanize_seconds(seconds: float) -> str:
    """Return ``0.04 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds < 0:
        return f"-{humanize_seconds(-seconds)}"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def humanize_age(seconds: float) -> str:
    """Return a span in one unit, rounded down: ``40 s``, ``12 min``, ``23 h`` or ``8 d``."""
    if seconds < 0:
        return f"-{humanize_age(-seconds)}"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def humanize_count(number: float) -> str:
    """Return ``1,234,567``."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.2f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 table`` or ``2,000 tables``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def humanize_instant(instant: datetime) -> str:
    """Return ``2026-11-23 02:00:00 UTC``."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def label(key: str) -> str:
    """Return a key as a caption: ``bytes_before`` is "before", ``waited_s`` is "waited".

    The unit stands beside each value.
    """
    if key in _CAPTIONS:
        return _CAPTIONS[key]
    plain = re.sub(r"^(?:bytes|seconds)_|_(?:seconds|ratio|s|ms)$", "", key)
    return re.sub(r"_bytes$", " size", plain).replace("_", " ") or key


def figure(key: str, value: Any) -> str:
    """Return a value with the unit that its key names."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(key, value)
    if isinstance(value, datetime):
        return humanize_instant(value)
    if isinstance(value, str):
        return _instant(value)
    if isinstance(value, Mapping):
        # entries without a unit of their own have that of the whole: seconds = {dump, proof}
        named = (
            (k if _unit(k) else f"{k}_{_unit(key)}", k, v) for k, v in ((str(k), v) for k, v in value.items())
        )
        return ", ".join(f"{label(k)} {figure(unit, v)}" for unit, k, v in named if v not in ({}, [], ()))
    if isinstance(value, Sequence):
        return ", ".join(figure("", entry) for entry in value) or NONE
    return str(value)


def is_number(value: Any) -> bool:
    """Return whether a column of such values is set to the right."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _unit(key: str) -> str:
    words = key.split("_")
    for unit in ("bytes", "seconds", "ratio"):
        if unit in words:
            return unit
    return words[-1] if words[-1] in ("s", "ms") else ""


def _number(key: str, value: float) -> str:
    unit = _unit(key)
    if unit == "bytes":
        return humanize_bytes(value)
    if unit in ("seconds", "s"):
        return humanize_seconds(value)
    if unit == "ms":
        return f"{value:,.1f} ms"
    if key == "pid":  # a name, not a figure
        return str(value)
    if unit == "ratio":
        return f"{value:.0%}" if abs(value) >= 0.0995 else f"{value:.1%}"
    return humanize_count(value)


def _instant(text: str) -> str:
    if not _INSTANT.match(text):
        return text
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return text
    return humanize_instant(instant) if instant.tzinfo else text
