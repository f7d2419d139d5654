"""What a key names in a sample, whether its fields are bytes or decoded, and the texts that are in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

from streampipe.counters import counters
from streampipe.decoding.text import decode_text_or_json
from streampipe.errors import DecodeError

_WRITTEN_MISSING = frozenset(("nan", "NaN", "NaT", "<NA>", "None"))
"""What ``str`` makes of a missing value of pandas or numpy."""


class Fields:
    """The values of a sample by key, whether its fields are bytes or decoded. A json member is parsed once.

    What a key names: a field of exactly that name (a member, a column that was joined; ``__key__`` too). Else the
    longest beginning, up to a dot, that is a field, and the rest is a path into its json: ``json.meta.long``,
    ``syn.json.text``. Else the whole key is a path into the field ``json``: ``meta.long``. In a path each step is an
    entry of an object, or the number of a list's item; the entry with the longest name comes first, so a name may have
    dots.

    >>> fields = Fields({"txt": b"a cat", "json": b'{"meta": {"long": "a black cat"}, "txt": "no"}'})
    >>> fields.value("txt"), fields.value("meta.long"), fields.value("json.txt"), fields.value("png")
    ('a cat', 'a black cat', 'no', None)
    """

    def __init__(self, sample: Mapping[str, Any]) -> None:
        self._sample = sample
        self._decoded: dict[str, Any] = {}

    def value(self, key: str) -> Any:
        """What the key names; None if there is nothing.

        Raises:
            DecodeError: its bytes are no sound json, or no text.
        """
        if key in self._sample:
            return self._field(key)
        at = key.rfind(".")
        while at > 0:
            if key[:at] in self._sample:
                return follow(self._field(key[:at]), key[at + 1 :])
            at = key.rfind(".", 0, at)
        return follow(self._field("json"), key) if "json" in self._sample else None

    def _field(self, name: str) -> Any:
        value = self._sample[name]
        if not isinstance(value, (bytes, bytearray, memoryview)):
            return value
        if name not in self._decoded:
            try:
                self._decoded[name] = decode_text_or_json(name, memoryview(value))
            except DecodeError as error:
                raise DecodeError(f"field {name!r}: {error}") from error
        return self._decoded[name]


def follow(value: Any, path: str) -> Any:
    """What a path leads to inside a value of json; None if it leads nowhere.

    In a list a step that is no number goes into each of its objects, and leads to the list of what they have there.

    >>> follow({"a": {"b.c": [1, 2]}}, "a.b.c.1"), follow({"all": [{"text": "a"}, {}, {"text": "b"}]}, "all.text")
    (2, ['a', 'b'])
    """
    if isinstance(value, dict):
        at = len(path)
        while at > 0:
            if path[:at] in value:
                return value[path[:at]] if at == len(path) else follow(value[path[:at]], path[at + 1 :])
            at = path.rfind(".", 0, at)
    elif isinstance(value, list):
        step, _, rest = path.partition(".")
        if step.isdecimal():
            found = value[int(step)] if int(step) < len(value) else None
            return follow(found, rest) if rest else found
        inside = [follow(each, path) for each in value if isinstance(each, dict)]
        return [each for each in inside if each is not None] or None
    return None


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: None, a number that is not finite, pandas' NA and NaT, a list of such alone.

    >>> is_missing(float("nan")), is_missing([None, float("nan")]), is_missing([]), is_missing(0.0)
    (True, True, False, False)
    """
    if value is None:
        return True
    if isinstance(value, str):
        return False
    if isinstance(value, Decimal):
        return not value.is_finite()
    if isinstance(value, Real):
        return not math.isfinite(value)
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(is_missing, value))
    return type(value).__name__ in ("NAType", "NaTType")


def sound(text: str) -> str:
    r"""The text with every half of a character pair (json may hold such) as U+FFFD: no tokenizer takes halves.

    >>> sound("cut \ud83d") == "cut \ufffd"
    True
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        counters.add("texts", "with halves of characters")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def texts_of(value: Any, key: str, objects: str = "error") -> list[str]:
    """The captions in a value: a text, a number, or a list of these. Blanks around a text are left out, empty ones and
    missing values too. An object is one where ``objects`` is ``"json"``: its json text.

    Raises:
        DecodeError: it is something else.
    """
    if is_missing(value):
        return []
    if isinstance(value, str):
        text = sound(value.strip())
        if text in _WRITTEN_MISSING:
            counters.add("texts", "that say nan or None (a missing value, written as text?)")
        return [text] if text else []
    if isinstance(value, (Real, Decimal)) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in texts_of(each, key, objects)]
    if isinstance(value, dict):
        if objects == "json":
            return [sound(json.dumps(_finite(value), ensure_ascii=False, default=str))]
        raise DecodeError(
            f"{key!r} is an object, no text; name one of its entries: {_names(key, value)}; or say objects='json' for "
            f"its json text"
        )
    raise DecodeError(f"{key!r} is no text but {type(value).__name__}; name a text field")


def _finite(value: Any) -> Any:
    """A value of json with null for numbers that are not finite: json has no other word for them."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if is_missing(value) else value


def _names(key: str, value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}.{name}" for name in list(value)[:20]) or "it has none"
