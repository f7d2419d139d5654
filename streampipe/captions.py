"""One caption from what a sample holds: where it is looked for, which of several, and what is done to it.

Everything here is a pure function of a sample and a source of random numbers. Of that only ``random()`` is used, so a
caption does not depend on how a library shuffles.

The order is kohya's sd-scripts': dropout is drawn first; then one of several captions, and of its lines; clean;
template, prefix, suffix; wildcards; tags split, the first kept, the others shuffled, then dropped, and joined; the
secondary separator last. (Lines are picked before prefix and suffix, so that these stand around the line that is used.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple, Protocol, TypeVar

from streampipe.decoding.text import LINE_END
from streampipe.errors import ConfigError, DecodeError
from streampipe.kinds import checked_class
from streampipe.query.aliases import CAPTION_KEYS
from streampipe.values import Fields, is_missing, texts_of

T = TypeVar("T")

LINES = ("all", "first", "random")
OBJECTS = ("error", "json")
_WILDCARD = re.compile(r"\{([^}]+)\}")
_SLOT = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # noncharacters of Unicode, which no text may hold: escaped braces


class Random(Protocol):
    """A source of uniform numbers in [0, 1): a numpy Generator, or ``random.Random``."""

    def random(self) -> float:
        """The next number."""
        ...


class Caption(NamedTuple):
    """A caption, and whether it was dropped (then it is empty)."""

    text: str
    dropped: bool
    empty: bool = False  # the sample has a caption, but an empty one


def pick(options: Sequence[T], rng: Random) -> T:
    """One of the options, each as likely as the others."""
    return options[min(int(rng.random() * len(options)), len(options) - 1)]


def shuffled(items: Sequence[T], rng: Random) -> list[T]:
    """The items in another order, every order as likely (Fisher and Yates)."""
    mixed = list(items)
    for i in range(len(mixed) - 1, 0, -1):
        j = min(int(rng.random() * (i + 1)), i)
        mixed[i], mixed[j] = mixed[j], mixed[i]
    return mixed


def fill_wildcards(text: str, rng: Random) -> str:
    """``{a|b|c}`` becomes one of its parts; ``{{`` and ``}}`` are braces.

    >>> import random
    >>> fill_wildcards("a {red} {{cat}}", random.Random(0))
    'a red {cat}'
    """
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    text = _WILDCARD.sub(lambda found: pick(found[1].split("|"), rng), text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


@checked_class
@dataclass(frozen=True)
class Tags:
    """What is done to a caption that is a list of tags, in the order of kohya's sd-scripts.

    Args:
        separator: between tags. Spaces around a tag and empty tags are left out.
        keep: the first ``keep`` tags stay where they are, and are never dropped.
        keep_separator: a mark (``"|||"``) behind the tags to keep; a second one stands before tags to keep at the end.
            Where a caption has it, it is used instead of ``keep``, and taken out.
        shuffle: the other tags in a random order.
        drop: the probability that one of the other tags is left out.
        wildcard: ``{a|b}`` in the caption becomes one of the two; ``{{`` and ``}}`` are braces.
        join: what is put between the tags again; by default the separator and, where it is no blank itself, a space.
        secondary_separator: becomes ``separator`` at the very end, so that tags joined by it stay together.

    >>> import random
    >>> Tags(keep=1, shuffle=True)("1girl, hat, red;green", random.Random(1))
    '1girl, red;green, hat'
    >>> Tags(secondary_separator=";")("a,b;c", random.Random(0))
    'a, b,c'
    """

    separator: str = ","
    keep: int = 0
    keep_separator: str | None = None
    shuffle: bool = False
    drop: float = 0.0
    wildcard: bool = False
    join: str | None = None
    secondary_separator: str | None = None

    def __post_init__(self) -> None:
        for name in ("separator", "keep_separator", "secondary_separator"):
            if getattr(self, name) == "":
                raise ConfigError(f"Tags: {name} is a text of at least one character")
        if not isinstance(self.keep, int) or self.keep < 0:
            raise ConfigError(f"Tags: keep is a number of tags, 0 or more, not {self.keep!r}")
        _probability("Tags: drop", self.drop)

    def __repr__(self) -> str:
        given = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if self._is_given(each))
        return f"Tags({', '.join(given)})"

    def _is_given(self, field: Field[Any]) -> bool:
        return bool(getattr(self, field.name) != field.default)

    def __call__(self, caption: str, rng: Random) -> str:
        """The caption with its tags chosen and ordered."""
        if self.wildcard:
            caption = fill_wildcards(caption, rng)
        first, middle, last = self._parted(caption)
        if self.shuffle:
            middle = shuffled(middle, rng)
        if self.drop > 0:
            middle = [tag for tag in middle if rng.random() >= self.drop]
        join = self.join
        if join is None:
            join = self.separator if self.separator[-1].isspace() else f"{self.separator} "
        text = join.join([*first, *middle, *last])
        return text.replace(self.secondary_separator, self.separator) if self.secondary_separator else text

    def _parted(self, caption: str) -> tuple[list[str], list[str], list[str]]:
        """The tags that stay at the beginning, those that may move, and those that stay at the end."""
        if self.keep_separator and self.keep_separator in caption:
            parts = caption.split(self.keep_separator, 2)
            first, middle, last = (self._split(part) for part in [*parts, "", ""][:3])
            return first, middle, last
        tags = self._split(caption)
        return tags[: self.keep], tags[self.keep :], []

    def _split(self, text: str) -> list[str]:
        return [tag.strip() for tag in text.split(self.separator) if tag.strip()]


@dataclass(frozen=True)
class Recipe:
    """From a sample to its caption. The parameters are those of ``streampipe.stages.caption``.

    >>> import random
    >>> make = Recipe(keys=("long", "txt"), prefix="photo: ")
    >>> make({"txt": b"a cat", "json": b'{"long": ""}'}, random.Random(0))
    Caption(text='photo: a cat', dropped=False, empty=False)
    """

    keys: Sequence[str] | str = CAPTION_KEYS
    weights: Sequence[float] | None = None
    template: str | None = None
    prefix: str = ""
    suffix: str = ""
    dropout: float = 0.0
    tags: Tags | None = None
    lines: str = "all"
    clean: Callable[[str], str] | None = None
    objects: str = "error"

    def __post_init__(self) -> None:
        given: Any = self.keys
        keys = tuple(given.split(";") if isinstance(given, str) else given if isinstance(given, Iterable) else ())
        if not keys or not all(isinstance(key, str) and key for key in keys):
            raise ConfigError(f"caption: keys are names of fields or json values, at least one, not {self.keys!r}")
        object.__setattr__(self, "keys", keys)
        if self.weights is not None and not _are_weights(self.weights, len(keys)):
            raise ConfigError(
                f"caption: weights are one number for each of the {len(keys)} keys, 0 or more and not all 0, not "
                f"{self.weights!r:.80}"
            )
        for name, value in (("prefix", self.prefix), ("suffix", self.suffix), ("template", self.template or "")):
            if not isinstance(value, str):
                raise ConfigError(f"caption: {name} is a text, not {value!r:.80}")
        if self.clean is not None and not callable(self.clean):
            raise ConfigError(f"caption: clean is a function from a caption to a better one, not {self.clean!r:.80}")
        _probability("caption: dropout", self.dropout)
        if self.lines not in LINES:
            raise ConfigError(f"caption: lines is one of {', '.join(LINES)}, not {self.lines!r}")
        if self.tags is not None and not isinstance(self.tags, Tags):
            raise ConfigError(f"caption: tags is sp.Tags(...), not {type(self.tags).__name__}")
        if self.objects not in OBJECTS:
            raise ConfigError(f"caption: objects is one of {', '.join(OBJECTS)}, not {self.objects!r}")
        if self.template is not None:
            self._check_template(self.template)

    def _check_template(self, template: str) -> None:
        if not self._slots:
            raise ConfigError(f"caption: the template {template!r} has no {{caption}} or other {{key}} to fill")
        choice = next((found[0] for found in _SLOT.finditer(template) if found[1] and "|" in found[1]), None)
        if choice is not None and not self._has_wildcards:
            raise ConfigError(
                f"caption: {choice} in the template is a wildcard; say tags=sp.Tags(wildcard=True), or write it in "
                f"double braces if it is meant as it stands"
            )

    def __call__(self, sample: Mapping[str, Any], rng: Random) -> Caption | None:
        """The caption of a sample; None if it has none.

        Raises:
            DecodeError: a key names something that is no text.
        """
        fields = Fields(sample)
        dropped = self.dropout > 0 and rng.random() < self.dropout
        text = self._chosen(fields, rng) if self._wants_caption else ""
        filled = None if text is None else self._filled(fields, text, rng)
        if filled is None or text is None:
            return None
        if dropped:
            return Caption("", True)
        whole = f"{self.prefix}{filled}{self.suffix}"
        return Caption(self.tags(whole, rng) if self.tags else whole, False, self._wants_caption and not text)

    @cached_property
    def _slots(self) -> tuple[str, ...]:
        """The keys that the template names."""
        found = (found[1] for found in _SLOT.finditer(self.template or ""))
        return tuple(slot for slot in found if slot and "|" not in slot)

    @property
    def _has_wildcards(self) -> bool:
        return self.tags is not None and self.tags.wildcard

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every key that is looked for."""
        slots = tuple(slot for slot in self._slots if slot != "caption")
        return (*self.keys, *slots) if self._wants_caption else slots

    @property
    def _wants_caption(self) -> bool:
        return self.template is None or "caption" in self._slots

    def _chosen(self, fields: Fields, rng: Random) -> str | None:
        """One of the sample's captions: "" if all are empty, None if there is none."""
        there = False
        found: list[tuple[float, list[str]]] = []
        for i, key in enumerate(self.keys):
            value = fields.value(key)
            if is_missing(value):
                continue
            there = True
            texts = texts_of(value, key, self.objects)
            if texts:
                found.append((self.weights[i] if self.weights is not None else 0.0, texts))
                if self.weights is None:
                    break
        if not found:
            return "" if there else None
        return self._one(weighted(found, rng), rng)

    def _one(self, texts: Sequence[str], rng: Random) -> str:
        """One of several texts and, as ``lines`` says, one of its lines; cleaned."""
        text = pick(texts, rng) if len(texts) > 1 else texts[0]
        if self.lines != "all" and len(lines := [line.strip() for line in LINE_END.split(text) if line.strip()]) > 1:
            text = lines[0] if self.lines == "first" else pick(lines, rng)
        if self.clean is None:
            return text
        cleaned = self.clean(text)
        if not isinstance(cleaned, str):
            raise DecodeError(f"clean returned {type(cleaned).__name__}, no text")
        return cleaned

    def _filled(self, fields: Fields, caption: str, rng: Random) -> str | None:
        """The template with its slots filled; None if one of them cannot be."""
        if self.template is None:
            return caption
        filled = {"caption": caption}
        for key in self._slots:
            if key not in filled:
                texts = texts_of(fields.value(key), key, self.objects)
                if not texts:
                    return None
                filled[key] = pick(texts, rng) if len(texts) > 1 else texts[0]
        return _SLOT.sub(lambda found: self._slot(found, filled), self.template)

    def _slot(self, found: re.Match[str], filled: Mapping[str, str]) -> str:
        """What stands for a slot, a wildcard or a double brace; the wildcards, if there are, see to the latter two."""
        if found[1] in filled:
            return filled[found[1]]
        return found[0] if self._has_wildcards else found[0][0]


def weighted(options: Sequence[tuple[float, T]], rng: Random) -> T:
    """One of the options by its weight. Those of weight 0 are used, the first of them, where there is no other.

    >>> import random
    >>> weighted([(0, "fallback"), (1, "a"), (3, "b")], random.Random(0))
    'b'
    """
    total = sum(weight for weight, _ in options)
    if total <= 0:
        return options[0][1]
    at = rng.random() * total
    chosen = None
    for weight, option in options:
        if weight > 0:
            chosen = option
            at -= weight
            if at < 0:
                break
    assert chosen is not None
    return chosen


def _are_weights(given: Any, number: int) -> bool:
    """Whether they are so many numbers that one can be chosen by."""
    weights = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else []
    if len(weights) != number or not all(isinstance(each, Real) for each in weights):
        return False
    return all(0 <= each < math.inf for each in weights) and sum(weights) > 0


def _probability(name: str, value: float) -> None:
    if isinstance(value, bool) or not (isinstance(value, Real) and 0 <= value <= 1):
        raise ConfigError(f"{name} is a probability from 0 to 1, not {value!r}")
