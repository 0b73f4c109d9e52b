"""Describe each setting once, in its dataclass field: default, meaning, unit, source, range."""

import dataclasses
import math
import types
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints


class Setting(NamedTuple):
    """One setting of a record."""

    name: str  # of the field
    flag: str  # of the command line; `name` unless the field says otherwise
    kind: Any  # bool, int, float, str or tuple[int, ...], without the None of an optional setting
    optional: bool  # whether None is a value
    default: Any  # of the field; `dataclasses.MISSING` where it has none
    help: str  # what the setting is, with its unit and source
    default_text: str | None = None  # what the default means, where the value does not say it
    at_least: float | None = None  # smallest number allowed; of each number of a tuple
    at_most: float | None = None  # largest number allowed
    choices: Sequence[str] | None = None  # the values allowed

    def check_type(self, value: Any) -> None:
        """Raises ValueError where the value is of another type."""
        if not (self.optional if value is None else _is_a(value, self.kind)):
            name = getattr(self.kind, "__name__", str(self.kind))
            raise ValueError(f"expected {name} for --{self.flag}, got {str(value)[:40]!r}")

    def check(self, value: Any) -> None:
        """Raises ValueError, with the flag to change, where the value is not allowed."""
        self.check_type(value)
        values = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(map(self._allows, values)):
            shown = ",".join(map(str, values))
            raise ValueError(f"expected {self._allowed()}, got --{self.flag}={shown}")

    def _allows(self, value):
        if self.choices:
            return value in self.choices
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (self.at_least is None or self.at_least <= value) and (
            self.at_most is None or value <= self.at_most
        )

    def _allowed(self):
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        number = "a finite number" if self.kind is float else "a whole number"
        if self.at_most is not None:
            return f"{number.replace('finite ', '')} from {self.at_least:g} to {self.at_most:g}"
        return f"{number}, {self.at_least:g} or more" if self.at_least is not None else number


def setting(default: Any, help: str, *, flag: str | None = None, **limits: Any) -> Any:
    """A dataclass field that is a setting; `Setting` says what the arguments mean."""
    return dataclasses.field(default=default, metadata={"help": help, "flag": flag, **limits})


def settings_of(record: Any) -> list[Setting]:
    """The settings of a dataclass or of an instance of one, in the order of its fields."""
    kinds = get_type_hints(record if isinstance(record, type) else type(record))
    found = []
    for field in dataclasses.fields(record):
        if "help" in field.metadata:
            how = {**field.metadata, "flag": field.metadata["flag"] or field.name}
            kind, optional = _without_none(kinds[field.name])
            found.append(Setting(field.name, how.pop("flag"), kind, optional, field.default, **how))
    return found


def check_settings(record: Any) -> None:
    """Checks the type and range of every setting of a record.

    Raises:
      ValueError: one sentence with what is expected, the value, and the flag to change.
    """
    for each in settings_of(record):
        each.check(getattr(record, each.name))


def _without_none(kind):
    if get_origin(kind) is types.UnionType:
        (kind,) = [part for part in get_args(kind) if part is not type(None)]
        return kind, True
    return (str, False) if get_origin(kind) is Literal else (kind, False)


def _is_a(value, kind):
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(part, get_args(kind)[0]) for part in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind | int if kind is float else kind)  # JSON may write 1.0 as 1
