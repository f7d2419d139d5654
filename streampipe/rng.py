"""Randomness without state: a number is a pure function of what it is for.

No global generator is read or moved. An order is seeded by (seed, epoch, ...), a random choice in a stage by (seed,
epoch, key, stage), so neither changes with the number of workers, threads or ranks, nor after a resume.
"""

from __future__ import annotations

import hashlib

import numpy as np

_64 = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive(*parts: int | str) -> int:
    """A 64-bit seed from any integers and strings; the same on every machine, Python and numpy.

    >>> derive(0, "shards", 3)
    5595372314203522745
    >>> derive(0, "shards", 4) == derive(0, "shards", 3)
    False
    """
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def uniform(seed: int, lo: int, hi: int) -> np.ndarray:
    """u(seed, i) in [0, 1) for lo <= i < hi, float64: any i is computed alone, so any range can be had at once.

    >>> uniform(7, 0, 4)[2:].tolist() == uniform(7, 2, 4).tolist()
    True
    """
    return uniform_at(seed, np.arange(lo, hi, dtype=np.uint64))


def uniform_at(seed: int, numbers: np.ndarray) -> np.ndarray:
    """u(seed, i) for each i of an array of whole numbers.

    The generator is splitmix64 over a counter (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014), the top 53 bits scaled to a float.

    >>> uniform_at(7, np.array([3, 0])).tolist() == uniform(7, 0, 4)[[3, 0]].tolist()
    True
    """
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(seed)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)) * (1.0 / (1 << 53)))


class Numbers:
    """u(seed, 0), u(seed, 1), ... one by one, in Python's own integers: for a few numbers faster than an array.

    >>> numbers = Numbers(7)
    >>> [numbers.random() for _ in range(3)] == uniform(7, 0, 3).tolist()
    True
    """

    def __init__(self, seed: int) -> None:
        self._at = seed

    def random(self) -> float:
        """The next number."""
        z = self._at * 0x9E3779B97F4A7C15 & _64
        self._at += 1
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _64
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _64
        return ((z ^ z >> 31) >> 11) * (1.0 / (1 << 53))


def permutation(n: int, seed: int) -> np.ndarray:
    """A permutation of range(n): positions sorted by their counter-based keys.

    >>> sorted(permutation(5, seed=1).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(uniform(seed, 0, n), kind="stable")


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator of its own for whatever ``parts`` name."""
    return np.random.Generator(np.random.Philox(key=derive(*parts)))
