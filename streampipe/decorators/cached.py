"""``@cached``: computed once, kept for the next time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, overload

from streampipe.counters import counters
from streampipe.decorators.codec import encode
from streampipe.decorators.skip import SKIP
from streampipe.decorators.store import MISS, Disk, Memory
from streampipe.decorators.wrap import F, Open, decorate
from streampipe.errors import ConfigError


@overload
def cached(target: F) -> F: ...
@overload
def cached(
    *,
    size: int = 1024,
    disk: str | PathLike[str] | None = None,
    disk_bytes: int = 10 << 30,
    version: str = "",
    name: str | None = None,
) -> Callable[[F], F]: ...
def cached(
    target: Any = None,
    *,
    size: int = 1024,
    disk: str | PathLike[str] | None = None,
    disk_bytes: int = 10 << 30,
    version: str = "",
    name: str | None = None,
) -> Any:
    """Remember a function's results: ``size`` of them in memory, or with ``disk`` up to ``disk_bytes`` in a folder.

    The key is all arguments by value; of a sample its key and all its fields, so that a sample that was changed before
    never gets another one's result. Change ``version`` when the function changes. Errors and ``sp.SKIP`` are not kept.
    Results are copies. On disk: numbers, text, bytes, arrays, tensors, and lists, tuples and dicts of these.
    On a stage it works sample by sample: for stages that make what they give out from one sample alone.

    >>> calls = []
    >>> @cached(size=10)
    ... def double(x):
    ...     calls.append(x)
    ...     return 2 * x
    >>> double(2), double(2), calls
    (4, 4, [2])
    """
    if size < 1 or disk_bytes < 1:
        raise ConfigError(f"cached keeps 1 or more results and bytes, not size={size}, disk_bytes={disk_bytes}")
    store = Memory(size) if disk is None else Disk(str(disk), disk_bytes)
    return decorate(Cached(name, store, version), target)


@dataclass
class Cached:
    """The effect of ``cached``."""

    name: str | None
    store: Memory | Disk
    version: str

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call, or what it gave before."""
        return self._remember((args, kwargs), lambda: function(*args, **kwargs))

    def iterate(self, start: Open, samples: Iterable[Any]) -> Iterator[Any]:
        """One stream, sample by sample."""
        for sample in samples:
            yield from self._remember((sample,), partial(_all_of, start, sample))

    def _remember(self, arguments: Any, compute: Callable[[], Any]) -> Any:
        name = self.name or "?"
        key = hashlib.blake2b(_digest((name, self.version, arguments)), digest_size=20).hexdigest()
        value = self.store.get(key)
        if value is not MISS:
            counters.add(name, "hits")
            return value
        counters.add(name, "misses")
        value = compute()
        if value is not SKIP:
            gone = self.store.put(key, value)
            if gone:
                counters.add(name, "evictions", gone)
        return value


def _all_of(start: Open, sample: Any) -> list[Any]:
    return list(start(iter([sample])))


def _digest(value: Any) -> bytes:
    """Bytes that are equal for equal arguments, and for nothing else."""
    if isinstance(value, Mapping):
        items = [(str(key), each) for key, each in value.items() if key != "__position__"]
        return b"{" + b"".join(_digest(item) for item in sorted(items, key=lambda item: item[0])) + b"}"
    if isinstance(value, (list, tuple)):
        return (b"[" if isinstance(value, list) else b"(") + b"".join(map(_digest, value)) + b"]"
    if isinstance(value, memoryview):
        value = bytes(value)
    try:
        data = encode(value)
    except ConfigError:
        raise ConfigError(
            f"a {type(value).__name__} cannot be part of a cache's key; pass numbers, text, bytes, arrays or tensors"
        ) from None
    return len(data).to_bytes(8, "little") + data
