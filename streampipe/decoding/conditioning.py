"""What a model is conditioned on, in fields: captions with their embeddings, and tensors in 8 bits.

A field ``NAME.q8.safetensors`` holds floats in 8 bits (see ``blocks``), ``NAME.safetensors`` as they are. Either may be
one tensor, tensors by name, or a ``Conditioning``: several captions, each with its own. Beside the tensors the file's
metadata says, as JSON under ``streampipe``: ``lossy`` (of each tensor in 8 bits its dtype, bound, error and cosine; its
scales are the tensor ``NAME.scale``), ``exact`` (bytes of what was given), ``texts``, and ``of`` (of each text, which
stored caption it has).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from streampipe.decoding.blocks import check, quantized, restored
from streampipe.decoding.tensorfile import NAMES, SAFE_TYPES, Data, Stored, build, ours, parse
from streampipe.errors import ConfigError, DecodeError

VERSION = 1
ALONE = "tensor"
"""The name of a tensor that is alone in a .safetensors field."""
SCALE = ".scale"
Q8 = ".q8.safetensors"
"""How the names of fields end whose floats are in 8 bits."""
Tensors = torch.Tensor | Sequence[torch.Tensor]


class Conditioning(Sequence[dict[str, Any]]):
    """Captions of a sample, each with what a text encoder made of it: a value that ``write`` stores, ``decode`` gives.

    ``conditioning[i]`` is a dict: ``text``, and the tensors of that caption; in 8 bits they are restored when they are
    asked for. A text that comes twice is stored once.

    Args:
        texts: the captions.
        mask: captions x tokens, true where a caption has a token (a tensor, an array, or lists): of tensors that are
            captions x tokens x ... only these are kept, in a row.
        exact: for who rebuilds one: bytes that the tensors took before they were trimmed.
        tensors: by name, each captions x ..., or one for each caption; arrays too.

    Raises:
        ConfigError: there is not one tensor for each text, or a mask has holes.

    >>> embeds, mask = torch.ones(2, 512, 8), torch.arange(512) < torch.tensor([[3], [5]])
    >>> found = Conditioning(["a cat", "a black cat"], mask=mask, t5=embeds, pooled=torch.ones(2, 4))
    >>> found[1]["text"], found[1]["t5"].shape, found[1]["pooled"].shape
    ('a black cat', torch.Size([5, 8]), torch.Size([4]))
    """

    def __init__(
        self, texts: Sequence[str], mask: torch.Tensor | None = None, exact: int | None = None, **tensors: Tensors
    ) -> None:
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            raise ConfigError(f"Conditioning takes a list of captions, as in ['a cat'], not {texts!r:.80}")
        self.texts = tuple(texts)
        tensors = {name: _as_tensors(each) for name, each in tensors.items()}
        mask = None if mask is None else _as_mask(mask)
        wrong = [name for name, each in tensors.items() if not _are_tensors(each) or len(each) != len(self.texts)]
        if wrong or "text" in tensors or not all(isinstance(each, str) for each in self.texts):
            what = f"{wrong[0]!r} has {_counted(tensors[wrong[0]])}" if wrong else f"they are {texts!r:.80}"
            raise ConfigError(f"Conditioning takes texts, and by name one tensor for each of {len(self.texts)}; {what}")
        spans = None if mask is None else _spans(mask, len(self.texts))
        self._held: list[dict[str, Any]] = [
            {name: _trimmed(each, i, mask, spans) for name, each in tensors.items()} for i in range(len(self.texts))
        ]
        first = {text: i for i, text in reversed(list(enumerate(self.texts)))}
        self._of = tuple(first[text] for text in self.texts)
        self.exact = sum(_bytes_of(each) for each in tensors.values()) if exact is None else exact

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens each caption has: the rows of its longest tensor."""
        return tuple(max((_rows(each) for each in self._held[of].values()), default=0) for of in self._of)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        held = self._held[self._of[number]]
        return {"text": self.texts[number], **{name: _tensor(each) for name, each in held.items()}}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} captions with {', '.join(self._held[0] if self._held else ()) or 'nothing'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        named = {name: [each[name] for each in self] for name in (self._held[0] if self._held else ())}
        return _rebuilt, (self.texts, self.exact, named)


def encode(value: Any, eight: bool) -> bytes:
    """A tensor, tensors by name or a ``Conditioning`` as a file; with ``eight`` its floats in 8 bits.

    Raises:
        ValueError: 8 bits cannot hold them well enough.
        TypeError: it is none of these, or of a type that the format does not have.
    """
    facts: dict[str, Any] = {"version": VERSION}
    if isinstance(value, Conditioning):
        numbers = {held: i for i, held in enumerate(dict.fromkeys(value._of))}
        given = {f"{i}.{name}": _tensor(x) for held, i in numbers.items() for name, x in value._held[held].items()}
        facts |= {"texts": list(value.texts), "of": [numbers[held] for held in value._of]}
        facts |= {"exact": value.exact, "tokens": max(value.lengths, default=0)}
    else:
        named = value if isinstance(value, Mapping) else {ALONE: value}
        given = {str(name): torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in named.items()}
        if not all(isinstance(each, torch.Tensor) for each in given.values()):
            raise TypeError("they are for tensors, dicts of tensors and sp.Conditioning")
        facts |= {"alone": not isinstance(value, Mapping), "exact": sum(_bytes_of(each) for each in given.values())}
    if eight and not any(each.dtype.is_floating_point for each in given.values()):
        raise ValueError("8 bits are for floats, and it has none")
    tensors, lossy = {}, {}
    for name, tensor in given.items():
        if not eight or not tensor.dtype.is_floating_point:
            tensors[name] = tensor
            continue
        found = quantized(tensor.detach().cpu())
        tensors[name], tensors[name + SCALE] = found.values, found.scales
        cost = {"bound": found.bound, "error": found.error, "cosine": found.cosine}
        lossy[name] = {"dtype": NAMES[tensor.dtype], **cost}
    return build(tensors, {**facts, "lossy": lossy} if lossy else facts)


def read(data: Data) -> Any:
    """What ``encode`` made a file of; None where it is a file of somebody else's.

    Raises:
        DecodeError: it is damaged.
    """
    found = parse(data)
    if found is None:
        return None
    stored, facts = found
    try:
        if facts["version"] != VERSION:
            raise DecodeError(f"its conditions are of version {facts['version']!r}, which is not supported")
        held = _unpacked(stored, facts.get("lossy", {}))
        if "texts" in facts:
            return _captions(facts["texts"], facts["of"], facts["exact"], held)
        plain = {name: _tensor(each) for name, each in held.items()}
        return plain[ALONE] if facts["alone"] else plain
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, ConfigError) as error:
        raise DecodeError(f"its metadata does not describe it ({type(error).__name__}: {error})") from error


def cost_of(name: str, data: Data) -> dict[str, int | float]:
    """What a field of conditions cost, by column: its bytes and those it would take exactly, the largest error and the
    least cosine, how many captions it has and how many tokens the longest; nothing for other fields.

    >>> sorted(cost_of("latent.q8.safetensors", encode(torch.ones(4, 64), True)))
    ['latent.bytes', 'latent.cosine', 'latent.error', 'latent.exact']
    """
    facts = ours(data) if name.endswith(".safetensors") else None
    if facts is None or type(facts.get("exact")) is not int or abs(facts["exact"]) >= 1 << 53:
        return {}
    found: dict[str, int | float] = {"bytes": len(data), "exact": facts["exact"]}
    try:
        if lossy := facts.get("lossy"):
            found["error"] = max(float(each["error"]) for each in lossy.values())
            found["cosine"] = min(float(each["cosine"]) for each in lossy.values())
        if "texts" in facts:
            found |= {"captions": len(facts["texts"]), "tokens": min(int(facts["tokens"]), 1 << 53)}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {}  # decoding will say so
    stem = name.partition(".")[0]
    return {f"{stem}.{what}": value for what, value in found.items()}


class _Eight:
    """A tensor in 8 bits, in the bytes of its file."""

    def __init__(self, values: Stored, scales: torch.Tensor, dtype: torch.dtype) -> None:
        self._values, self._scales, self._dtype = values, scales, dtype
        self.shape = values.shape

    def tensor(self) -> torch.Tensor:
        """The tensor that it stands for."""
        values = np.frombuffer(self._values.data, np.int8).reshape(self.shape)
        return restored(values, self._scales, self._dtype)


def _unpacked(stored: Mapping[str, Stored], lossy: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a file by name, as they are held; scales and bounds are looked at."""
    held: dict[str, Any] = {}
    scales = {name + SCALE for name in lossy}
    for name, each in stored.items():
        if name in scales:
            continue
        if name not in lossy:
            held[name] = each
            continue
        spread, dtype = stored[name + SCALE], SAFE_TYPES[lossy[name]["dtype"]]
        if each.dtype != torch.int8 or spread.dtype != torch.bfloat16:
            raise ValueError(f"{name} is {each.dtype} with scales of {spread.dtype}")
        found = spread.tensor()
        check(each.shape, found, dtype, float(lossy[name]["bound"]))
        held[name] = _Eight(each, found, dtype)
    return held


def _captions(texts: Sequence[str], of: Sequence[int], exact: int, held: Mapping[str, Any]) -> Conditioning:
    if len(of) != len(texts) or not all(type(each) is int and 0 <= each < len(of) for each in of):
        raise ValueError(f"{len(texts)} texts have captions {of!r:.80}")
    captions: list[dict[str, Any]] = [{} for _ in of]
    for name, each in held.items():
        number, _, inner = name.partition(".")
        if not number.isdecimal():
            raise ValueError(f"{name!r} is of no caption")
        captions[int(number)][inner] = each
    made = Conditioning(texts, exact=int(exact))
    made._held, made._of = captions, tuple(of)
    return made


def _rebuilt(texts: Sequence[str], exact: int, named: Mapping[str, Sequence[torch.Tensor]]) -> Conditioning:
    return Conditioning(texts, None, exact, **named)


def _tensor(held: Any) -> Any:
    return held if isinstance(held, torch.Tensor) else held.tensor()


def _rows(held: Any) -> int:
    return held.shape[0] if len(held.shape) > 1 else 0


def _bytes_of(tensors: Tensors) -> int:
    return tensors.nbytes if isinstance(tensors, torch.Tensor) else sum(each.nbytes for each in tensors)


def _trimmed(
    tensors: Tensors, number: int, mask: torch.Tensor | None, spans: Sequence[tuple[int, int]] | None
) -> torch.Tensor:
    """A caption's tensor, where it has a value for each token only those of the tokens that are there."""
    mine = tensors[number]
    by_token = mask is not None and mine.shape[:1] == mask.shape[1:]
    return mine[slice(*spans[number])] if spans is not None and by_token else mine


def _spans(mask: torch.Tensor, captions: int) -> list[tuple[int, int]]:
    """From the first token to behind the last, of each caption."""
    if mask.dim() != 2 or len(mask) != captions:
        raise ConfigError(f"a mask is captions x tokens, {captions} x n, not {tuple(mask.shape)}")
    spans = []
    for row in mask.bool():
        there = row.nonzero().flatten().tolist()
        start, end = (there[0], there[-1] + 1) if there else (0, 0)
        if len(there) != end - start:
            raise ConfigError("a mask has holes: the tokens of a caption stand in a row, so these cannot be trimmed")
        spans.append((start, end))
    return spans


def _as_tensors(given: Any) -> Any:
    """The same with tensors in place of arrays."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "biufc":
        return torch.from_numpy(np.require(given, requirements=["C", "W"]))
    return [_as_tensors(each) for each in given] if isinstance(given, (list, tuple)) else given


def _are_tensors(given: Any) -> bool:
    if isinstance(given, torch.Tensor):
        return given.dim() > 0
    return isinstance(given, list) and all(isinstance(each, torch.Tensor) for each in given)


def _as_mask(given: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(given, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"a mask is captions x tokens, true or false, not {given!r:.80}") from None


def _counted(given: object) -> str:
    return (
        f"{len(given)} tensors" if isinstance(given, (list, torch.Tensor)) and _are_tensors(given) else f"{given!r:.80}"
    )
