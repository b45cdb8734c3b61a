"""Typed reading of a JSON object whose errors name the field, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_INTEGER_MAX = 1 << 40  # more than any size of any model
_NUMBER_MAX = 1e15
_SHOWN_MAX = 120


class ConfigError(ValueError):
    """A checkpoint's configuration is missing a field or has one that cannot be served."""


class Fields:
    """A JSON object under inspection; `null` counts as absent, as Hugging Face writes unset fields."""

    def __init__(self, data: Mapping[str, object], source: str) -> None:
        self._data = data
        self._source = source

    def error(self, name: str, expected: str) -> ConfigError:
        """The error for `name`, to be raised by the caller."""
        found = shown(self._data[name]) if name in self._data else "nothing"
        return ConfigError(f"{self._source}: {name}: expected {expected}, found {found}")

    def has(self, name: str) -> bool:
        return self._data.get(name) is not None

    def integer(
        self, name: str, default: int | None, *, at_least: int = 0, at_most: int = _INTEGER_MAX
    ) -> int:
        """An integer from `at_least` to `at_most`; required when `default` is None."""
        value = self._data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise self.error(name, f"an integer of at least {at_least}")
        if value > at_most:
            raise self.error(name, f"at most {at_most}")
        return value

    def optional_integer(self, name: str, *, at_least: int) -> int | None:
        return self.integer(name, None, at_least=at_least) if self.has(name) else None

    def integers(self, name: str, expected: str = "a token id or a list of token ids") -> tuple[int, ...]:
        """One integer or a list of them; absent gives an empty tuple."""
        value = self._data.get(name)
        items = [] if value is None else value if isinstance(value, list) else [value]
        if any(
            isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= _INTEGER_MAX
            for item in items
        ):
            raise self.error(name, expected)
        return tuple(items)

    def number(self, name: str, default: float | None, *, above: float | None = None) -> float:
        """A number of bearable size (greater than `above` when given); required when `default` is None."""
        value = self._data.get(name)
        value = default if value is None else value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) <= _NUMBER_MAX  # NaN is not
            or (above is not None and value <= above)
        ):
            raise self.error(name, "a number" if above is None else f"a number greater than {above:g}")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        return self.number(name, None) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self._data.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def choice(self, name: str, default: str | None, options: Sequence[str]) -> str:
        value = self._data.get(name)
        value = default if value is None else value
        if not isinstance(value, str) or value not in options:
            raise self.error(name, "one of " + ", ".join(repr(option) for option in options))
        return value

    def optional_section(self, name: str) -> Fields | None:
        """The nested object `name`, or None when it is absent or empty."""
        value = self._data.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, "an object")
        return Fields(value, f"{self._source}: {name}") if value else None


def shown(value: object) -> str:
    """`value` for an error message, cut to a bearable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"
