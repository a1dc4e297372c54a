"""The user's `--config.group.key=value`: every override is checked against the configuration it changes."""

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from phdme_jax.files import InputError, flatten
from phdme_jax.methods.ranges import Ranges, fault

_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def apply_overrides(config: Any, overrides: Mapping[str, str], ranges: Ranges) -> None:
    """Sets keys of nested dicts, or of a locked ConfigDict, from text, each to a value of the type it has.

    Args:
      config: the configuration, changed in place.
      overrides: dotted key -> text.
      ranges: what its numbers may be.

    Raises:
      InputError: a key that does not exist (the message names those that do), or a value of another type or out of
        range.
    """
    for key, text in overrides.items():
        *groups, last = key.split(".")
        group = config
        for depth, name in enumerate([*groups, last]):
            if not hasattr(group, "keys"):
                raise InputError(f"--config.{key}: {'.'.join(groups[:depth])} is a value and has no keys of its own")
            if name not in group:
                raise InputError(_unknown_key(config, key, group, ".".join(groups[:depth])))
            parent, group = group, group[name]
        if hasattr(group, "keys"):
            names = ", ".join(f"{key}.{name}" for name in sorted(group))
            raise InputError(f"--config.{key} is a group; expected one of its keys: {names}")
        value = _parse(key, text, group)
        if words := fault(key, value, group, ranges):
            raise InputError(f"--config.{key} {words}")
        try:
            parent[last] = value
        except TypeError as error:
            raise InputError(f"--config.{key}: {error}") from None


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _unknown_key(config: Any, key: str, group: Any, place: str) -> str:
    near = difflib.get_close_matches(key, list(flatten(config)), n=1, cutoff=0.7)
    hint = f", did you mean {near[0]}?" if near else ""
    where = f"the group {place}" if place else "the configuration"
    return f"unknown configuration key {key!r}{hint}; {where} has {', '.join(sorted(group))}"


def _parse(key: str, text: str, default: Any) -> Any:
    """The text as a value of the type of the default."""
    if isinstance(default, bool):
        if text.lower() not in _TRUTHS:
            raise InputError(f"--config.{key} expects true or false, got {text!r}")
        return _TRUTHS[text.lower()]
    if isinstance(default, int | float):
        return _number(key, text, default)
    if isinstance(default, str):
        return text
    if isinstance(default, tuple | list):
        return _sequence(key, text, default)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number(key: str, text: str, default: int | float) -> int | float:
    kind = "a whole number" if isinstance(default, int) else "a number"
    try:
        number = float(text)
        if isinstance(default, int):
            whole = int(text) if text.strip().lstrip("+-").isdigit() else int(number)
            if whole != number:
                raise ValueError
            return whole
    except (ValueError, OverflowError):
        raise InputError(f"--config.{key} expects {kind} such as {default}, got {text[:40]!r}") from None
    if not math.isfinite(number):
        raise InputError(f"--config.{key} expects a finite number such as {default}, got {text!r}")
    return number


def _sequence(key: str, text: str, default: tuple | list) -> tuple | list:
    if default and isinstance(default[0], tuple | list):
        rows = re.findall(r"[(\[]([^()\[\]]*)[)\]]", text)
        rest = re.sub(r"[(\[][^()\[\]]*[)\]]", "", text)
        if not rows or rest.strip("()[], "):
            raise InputError(f"--config.{key} expects a list of lists such as {_as_lists(default)}, got {text!r}")
        return type(default)(_row(key, row, default[0]) for row in rows)
    words = [word.strip() for word in text.strip("()[] ").split(",") if word.strip()]
    if not default:
        return type(default)(_parse(key, word, None) for word in words)
    # a row of columns keeps the type of each, a list of any length that of its first entry
    columns = default if len(words) == len(default) else [default[0]] * len(words)
    return type(default)(_parse(key, word, column) for word, column in zip(words, columns, strict=True))


def _row(key: str, text: str, default: tuple | list) -> tuple | list:
    """One row of a list of rows, each entry of the type of its column."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if len(words) != len(default):
        raise InputError(f"--config.{key} expects rows of {len(default)} values such as {list(default)}, got {text!r}")
    return type(default)(_parse(key, word, column) for word, column in zip(words, default, strict=True))
