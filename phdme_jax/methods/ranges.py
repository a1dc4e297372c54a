"""What the numbers of a configuration may be.

Where nothing is said of a key, whole numbers are from 1 to 1e9 and others positive, such that single precision carries
them; a list has at least one entry, one of entries of several types (a stage) as many as its default. Exceptions are
declared beside the groups that have the keys. Text is checked by what reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SMALLEST, LARGEST = 1e-30, 1e30


@dataclass(frozen=True)
class Range:
    """Values that the numbers of a key may have, each by itself where there is a list of them.

    Attributes:
      least: smallest value; None for the usual one.
      most: largest value; None for the usual one.
      empty: whether a list may be empty.
      fixed: whether a list has as many entries as its default.
      rising: whether the entries of a list are in order.
    """

    least: int | float | None = None
    most: int | float | None = None
    empty: bool = False
    fixed: bool = False
    rising: bool = False


Ranges = Mapping[str, Range]  # by the last parts of dotted keys: "depth" is any, "system.depth" that of the group
USUAL = Range()
ANY = Range(-LARGEST, LARGEST, fixed=True)
FROM_ZERO = Range(0)
SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1 - 1e-6)
INTERVAL = Range(fixed=True, rising=True)


def range_of(key: str, ranges: Ranges) -> Range:
    """The range of a dotted key: that of most of its last parts, the usual one where there is none."""
    parts = key.split(".")
    return next((ranges[name] for at in range(len(parts)) if (name := ".".join(parts[at:])) in ranges), USUAL)


def fault(key: str, value: Any, default: Any, ranges: Ranges) -> str | None:
    """What is wrong with the value of a key: a sentence without its subject, None where nothing is.

    Args:
      key: dotted.
      value: to be checked, of any type.
      default: of the key; the value is to be of its kind, and may be None or a number where that is None.
      ranges: declared ones.
    """
    words = _fault(value, default, range_of(key, ranges))
    return words and f"expects {words}, got {_as_lists(value)!r}"


def _fault(value: Any, default: Any, allowed: Range) -> str | None:
    if isinstance(default, tuple | list):
        return _list_fault(value, default, allowed)
    if isinstance(default, bool | str):
        kind = "true or false" if isinstance(default, bool) else f"text such as {default!r}"
        return None if isinstance(value, type(default)) and value != "" else kind
    if default is None and value is None:
        return None
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return "a number or null" if default is None else f"{'a whole' if whole else 'a'} number such as {default!r}"
    least = allowed.least if allowed.least is not None else 1 if whole else SMALLEST
    most = allowed.most if allowed.most is not None else 10**9 if whole else LARGEST
    if not value >= least:  # so is NaN
        return "a positive number" if least == SMALLEST and not value > 0 else f"at least {least}"
    return None if value <= most else f"at most {most}"


def _list_fault(value: Any, default: Any, allowed: Range) -> str | None:
    example = f"such as {_as_lists(default)!r}"
    if not isinstance(value, tuple | list):
        return f"a list {example}"
    if not value:
        return None if allowed.empty else f"a list that is not empty, {example}"
    columns = len({type(entry) for entry in default}) > 1 or allowed.fixed
    if columns and len(value) != len(default):
        return f"{len(default)} values {example}"
    # a list without an example is one of whole numbers
    entries = default if columns else [default[0] if default else 1] * len(value)
    for entry, of in zip(value, entries, strict=True):
        if words := _fault(entry, of, allowed):
            return words if isinstance(of, tuple | list) else f"{words} in a list {example}"
    if allowed.rising and list(value) != sorted(value):
        return f"numbers in order {example}"
    return None


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value
