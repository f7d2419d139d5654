"""Compound buckets: the size of a sample's main image, and that of each of its references; how many there are, too.

A batch of an editing model needs all of them alike, so what it is batched by is a signature: the bucket of the target
and the size of each reference, in order. Which signatures there are follows from the data, so they are counted first.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streampipe.decoding.geometry import Area
from streampipe.decoding.several import numbered
from streampipe.errors import ConfigError
from streampipe.index import ShardIndex
from streampipe.index.facts import EDGES
from streampipe.plan.buckets import Buckets, make
from streampipe.plan.shapes import Size

MOST = 64
"""Numbers of references that an index is asked for."""
MOST_SIGNATURES = 4096
MISSING = ("error", "keep", "drop")
NONE, LACKS = -1, -2
"""In place of a signature: the sample is left out; it lacks what is wanted."""
_AS_IT_IS = -1  # in place of an edge
Rule = Buckets | Area | Size | None


class Signature(tuple[int, int]):
    """The (height, width) of a sample's main image, and in ``others`` those of its other images, by their names without
    format; None for one that keeps its size.

    >>> Signature((512, 768), {"ref.0": (256, 256), "ref.1": None})
    512x768 + ref.0 256x256 + ref.1 as it is
    """

    others: tuple[tuple[str, Size | None], ...]

    def __new__(cls, target: Iterable[int], others: Mapping[str, Size | None] | None = None) -> Signature:
        """From the target's size and those of others."""
        made = super().__new__(cls, tuple(target))
        made.others = tuple((others or {}).items())
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and tuple.__eq__(self, other) and self.others == other.others

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), self.others))

    def __reduce__(self) -> tuple[Any, ...]:
        return Signature, (tuple(self), dict(self.others))

    def __repr__(self) -> str:
        each = (f" + {name} {f'{size[0]}x{size[1]}' if size else 'as it is'}" for name, size in self.others)
        return f"{self[0]}x{self[1]}{''.join(each)}"

    def renamed(self, names: Mapping[str, str]) -> Signature:
        """The same for images that have other names now."""
        return Signature(self, {names.get(name, name): size for name, size in self.others})

    @property
    def pixels(self) -> int:
        """Of all images whose size is known."""
        return self[0] * self[1] + sum(size[0] * size[1] for _, size in self.others if size)

    def batch(self, size: int | Mapping[Size, int] | None, pixels: int | None) -> int:
        """How many samples make a batch: as ``batch`` says, by the target's size, or by a budget for all images."""
        if pixels is not None:
            return max(1, pixels // self.pixels)
        return size[tuple(self)] if isinstance(size, Mapping) else size or 1  # type: ignore[index]


def told(size: tuple[int, ...]) -> tuple[int, ...]:
    """What a sample is told of its bucket: the signature, or (height, width)."""
    return size if isinstance(size, Signature) else size[:2]


def others_of(sample: Mapping[str, Any]) -> dict[str, Size | None]:
    """The sizes that ``bucket`` gave to a sample's images besides the main one, by their names without format."""
    size = sample.get("__size__")
    return dict(size.others) if isinstance(size, Signature) else {}


def renamed(sample: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The sample, of which images have other names now, as its size says too."""
    size = sample.get("__size__")
    return {**sample, "__size__": size.renamed(names)} if isinstance(size, Signature) else sample


class Compound(Buckets):
    """Buckets of a target and any number of references, for models that edit images: a batch has one signature.

    ``sp.Compound("sdxl", ref=sp.Buckets(base=512), control=None)``: the main image goes to its bucket of ``"sdxl"``,
    each of ``ref.0.jpg``, ``ref.1.jpg``, ... (or ``ref.jpg``) to its own of the others, and ``control.png`` keeps its
    size. A batch is of samples with equally many references, of which the first are of one size, the second, and so on.
    Images that are not named are cut with the main image, as masks are.

    Args:
        target: the main image's buckets: whatever ``bucket`` takes.
        missing: what becomes of samples that have none of a named reference: ``"error"``, ``"keep"``: they are batched
            by themselves, or ``"drop"``, counted.
        references: by the first part of their members' names: buckets (``sp.Buckets``, a name, a list of sizes), one
            (height, width) or edge, an ``sp.Area`` (each in its own shape, so there are as many signatures as shapes),
            or None: as large as they are, for batches of one or ``batch(pad=)``.

    Raises:
        ConfigError: no reference is named, or one has no such rule.

    >>> buckets = Compound([(64, 64), (64, 96)], ref=32, control=None)
    >>> buckets.of_sizes(60, 90, {"ref.0": (50, 50), "ref.1": (9, 9), "control": (60, 90)})
    64x96 + ref.0 32x32 + ref.1 32x32 + control as it is
    """

    __slots__ = ("missing", "rules")

    missing: str
    rules: tuple[tuple[str, Rule], ...]

    def __init__(
        self, target: str | Buckets | Iterable[Size] = "sdxl", *, missing: str = "error", **references: Any
    ) -> None:
        given = make(target)
        if missing not in MISSING:
            raise ConfigError(f"Compound: missing is one of {', '.join(map(repr, MISSING))}, not {missing!r}")
        if given.frames is not None:
            raise ConfigError("Compound is of images: the target's buckets have frames; leave them out")
        if not references or isinstance(given, Compound):
            raise ConfigError("Compound takes the target's buckets, and a rule for each reference, as in ref=512")
        _copy(given, self)
        rules = tuple((name, _rule(name, each)) for name, each in references.items())
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "missing", missing)
        told = ", ".join([f"{name}={each!r}" for name, each in rules] + [f"missing={missing!r}"] * (missing != "error"))
        object.__setattr__(self, "text", f"Compound({given.text}, {told})")

    def __reduce__(self) -> tuple[Any, ...]:
        return _recompound, (_target(self), self.missing, dict(self.rules))

    def with_frames(self, frames: Iterable[int]) -> Buckets:
        """Refused: references of clips are not batched by size."""
        raise ConfigError("behind clips, bucket takes sp.Buckets: sp.Compound is of images")

    def _key(self) -> tuple[object, ...]:
        return (*super()._key(), self.rules, self.missing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compound) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def outside(self) -> str:
        """Why a sample has no signature, for counters."""
        lack = f", or without {' or '.join(name for name, _ in self.rules)}" if self.missing == "drop" else ""
        return f"{super().outside}{lack}"

    @property
    def columns(self) -> frozenset[str]:
        """The columns of an index that sizes of references are in."""
        names = [name for name, _ in self.rules]
        names += [f"{name}.{i}" for name in names for i in range(MOST)]
        return frozenset(f"{name}.{edge}" for name in names for edge in EDGES)

    def of_sizes(self, height: int, width: int, others: Mapping[str, Size]) -> Signature | int:
        """The signature of a sample, by the sizes of its images as shown; ``NONE`` or ``LACKS``.

        A reference whose size cannot be read is 0 x 0.
        """
        number = self.of(height, width)
        if number < 0:
            return NONE
        found: dict[str, Size | None] = {}
        for name, rule in self.rules:
            mine = numbered(others, name)
            if not mine and self.missing != "keep":
                return LACKS if self.missing == "error" else NONE
            for each in mine:
                size = _sized(rule, others[each])
                if isinstance(size, int):
                    return size
                found[each] = size
        return Signature(self.sizes[number], found)

    def in_index(self, index: ShardIndex, rows: np.ndarray, h: np.ndarray, w: np.ndarray) -> Rows:
        """The same for some rows of an index, whose main images are of these heights and widths."""
        number = self.assign(h, w).astype(np.int64)
        parts, names = [number], list[str]()
        state = np.where(number < 0, NONE, 0)
        for name, rule in self.rules:
            there = np.zeros(len(rows), bool)
            for each in _names(index, name):
                height, width = (_column(index, f"{each}.{edge}")[rows] for edge in EDGES)
                has = height >= 0
                there |= has
                own = _sized_all(rule, height, width, has)
                state = np.where(has & (own[0] == LACKS) & (state == 0), LACKS, state)
                state = np.where(has & (own[0] == NONE - 2) & (state == 0), NONE, state)
                parts += own[1:]
                names.append(each)
            if self.missing != "keep":
                state = np.where(~there & (state == 0), LACKS if self.missing == "error" else NONE, state)
        return Rows(state, np.stack(parts, 1), names)

    def of_all(self, each: Iterable[Buckets]) -> Signatures:
        """The signatures of several datasets together."""
        return Signatures(self, (size for one in each if isinstance(one, Signatures) for size in one.signatures))

    def signature(self, row: Sequence[int], names: Sequence[str]) -> Signature:
        """The signature of a row of ``Rows``."""
        edges = zip(names, row[1::2], row[2::2], strict=True)
        others = {name: None if h == _AS_IT_IS else (int(h), int(w)) for name, h, w in edges if h}
        return Signature(self.sizes[row[0]], others)


class Rows(NamedTuple):
    """Rows of an index: ``state`` is 0, ``NONE`` or ``LACKS``; ``parts`` the target's number and the height and width
    of each reference of ``names`` (0: not there), by which samples are alike.
    """

    state: np.ndarray
    parts: np.ndarray
    names: list[str]

    def kinds(self, compound: Compound) -> Iterator[tuple[Signature, np.ndarray]]:
        """Each signature that there is, and which rows have it."""
        good = np.flatnonzero(self.state == 0)
        kind = np.zeros(len(good), np.int64)
        for column in self.parts.T:  # column by column: rows that were alike are told apart by the next one
            kind = _numbered(kind * (1 << 32) + column[good] + 1)
        order = np.argsort(kind, kind="stable")
        for mine in np.split(good[order], np.flatnonzero(np.diff(kind[order])) + 1) if len(good) else ():
            yield compound.signature(self.parts[mine[0]], self.names), mine


class Signatures(Buckets):
    """The signatures that the samples of a dataset have, as buckets. ``compound``: what they are of."""

    __slots__ = ("_number", "compound")

    compound: Compound
    _number: dict[Signature, int]

    def __init__(self, compound: Compound, found: Iterable[Signature]) -> None:
        ordered = sorted(set(found), key=lambda each: (each[1] / each[0], tuple(each), repr(each)))
        if len(ordered) > MOST_SIGNATURES:
            raise ConfigError(
                f"the samples have {len(ordered)} signatures, more than the {MOST_SIGNATURES} that can be batched by: "
                f"give references few sizes, as in ref=512, or sp.Area with a larger multiple"
            )
        _copy(compound, self)
        set_once = object.__setattr__
        set_once(self, "sizes", tuple(ordered))
        set_once(self, "compound", compound)
        set_once(self, "_number", {each: i for i, each in enumerate(ordered)})
        digest = zlib.crc32(repr(ordered).encode())
        set_once(self, "text", f"{compound.text}, {len(ordered)} signatures, crc32 {digest:08x}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Signatures, (self.compound, self.sizes)

    @property
    def outside(self) -> str:
        """Why a sample has no signature, for counters."""
        return self.compound.outside

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The sizes, as the signatures that they are."""
        return tuple(self._number)

    def numbers(self, index: ShardIndex, rows: np.ndarray, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The number of each row's signature; below 0: none."""
        found = self.compound.in_index(index, rows, h, w)
        numbers = found.state.astype(np.int64)
        for signature, mine in found.kinds(self.compound):
            numbers[mine] = self._number.get(signature, NONE)
        return numbers

    @staticmethod
    def to_text(signature: Signature) -> str:
        """A signature as a name, of which ``of_text`` makes it again."""
        return json.dumps([list(signature), signature.others])

    @staticmethod
    def of_text(text: str) -> Signature:
        """The signature of a name."""
        target, others = json.loads(text)
        return Signature(target, {name: size and (size[0], size[1]) for name, size in others})


def _rule(name: str, given: Any) -> Rule:
    if given is None or isinstance(given, (Buckets, Area)):
        found: Rule = given
    elif isinstance(given, int) and not isinstance(given, bool):
        found = (given, given)
    elif isinstance(given, tuple) and len(given) == 2 and all(isinstance(each, int) for each in given):
        found = (given[0], given[1])
    else:
        found = make(given)
    framed = isinstance(found, Buckets) and found.frames is not None
    if (
        framed
        or isinstance(found, (Compound, Signatures))
        or (isinstance(found, tuple) and min(found) < 1)
        or "." in name
    ):
        raise ConfigError(
            f"Compound: {name} is buckets, a (height, width), an edge, an sp.Area or None, by the first part of its "
            f"members' names, not {given!r:.80}"
        )
    return found


def _sized(rule: Rule, shown: Size) -> Size | int | None:
    """The size of a reference, None where it keeps its own; ``NONE`` or ``LACKS``."""
    if not (shown[0] and shown[1]):
        return LACKS
    if isinstance(rule, Buckets):
        number = rule.of(*shown)
        return NONE if number < 0 else (rule.sizes[number][0], rule.sizes[number][1])
    return rule.of(shown) if isinstance(rule, Area) else rule


def _sized_all(rule: Rule, h: np.ndarray, w: np.ndarray, has: np.ndarray) -> list[np.ndarray]:
    """The same for columns, where there is one: what it lacks (``LACKS``, ``NONE - 2`` or 0), heights and widths."""
    lacks = np.where(has & ((h == 0) | (w == 0)), LACKS, 0)
    height, width = np.zeros(len(h), np.int64), np.zeros(len(h), np.int64)
    good = np.flatnonzero(has & (lacks == 0))
    if rule is None:
        height[good] = width[good] = _AS_IT_IS
    elif isinstance(rule, Buckets):
        number = rule.assign(h[good], w[good])
        sizes = np.array([*(each[:2] for each in rule.sizes), (0, 0)], np.int64)
        height[good], width[good] = sizes[number].T
        lacks[good[number < 0]] = NONE - 2
    elif isinstance(rule, Area):
        pairs, which = np.unique(h[good] << 32 | w[good], return_inverse=True)
        sizes = np.array([rule.of((pair >> 32, pair & 0xFFFFFFFF)) for pair in pairs.tolist()], np.int64).reshape(-1, 2)
        height[good], width[good] = sizes[which.reshape(-1)].T
    else:
        height[good], width[good] = rule
    return [lacks, height, width]


def _numbered(values: np.ndarray) -> np.ndarray:
    """The same values by the number that each has among those that there are."""
    return np.asarray(np.unique(values, return_inverse=True)[1]).reshape(-1)


def _names(index: ShardIndex, name: str) -> list[str]:
    """The references of one name that an index has columns of, in order.

    Raises:
        ConfigError: there are more than it is asked for.
    """
    end = f".{EDGES[0]}"
    ends = [each.removesuffix(end) for each in index.names if each.endswith(end)]
    found = numbered((each for each in ends if each == name or each.startswith(f"{name}.")), name)
    beyond = [each for each in found if each != name and int(each.rpartition(".")[2]) >= MOST]
    if beyond:
        raise ConfigError(f"samples have {beyond[0]!r}, and references are numbered up to {MOST - 1}: use fewer")
    return found


def _column(index: ShardIndex, name: str) -> np.ndarray:
    """A column's edges; -1 where there is none."""
    column = index.columns([name]).get(name)
    if column is None or isinstance(column, list):
        return np.full(len(index), -1, np.int64)
    return np.asarray(column.fill_null(-1).to_numpy()).astype(np.int64)


def _copy(given: Buckets, to: Buckets) -> None:
    for name in Buckets.__slots__:
        object.__setattr__(to, name, getattr(given, name))


def _target(compound: Compound) -> Buckets:
    made = object.__new__(Buckets)
    _copy(compound, made)
    return made


def _recompound(target: Buckets, missing: str, rules: Mapping[str, Any]) -> Compound:
    return Compound(target, missing=missing, **rules)
