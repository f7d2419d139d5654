"""``@cached``: computed once, kept for the next time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, overload

from streampipe.counters import counters
from streampipe.decorators.codec import encode
from streampipe.decorators.skip import SKIP
from streampipe.decorators.store import MISS, Disk, Memory
from streampipe.decorators.wrap import Effect, F, Open, Upstream, decorate
from streampipe.errors import ConfigError
from streampipe.traits import Keeps, Rows, Traits


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
class Cached(Effect):
    """The effect of ``cached``."""

    name: str | None
    store: Memory | Disk
    version: str
    one_by_one = True

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call, or what it gave before."""
        return self._remember((args, kwargs), lambda: function(*args, **kwargs))

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream, sample by sample. Where one was left out, nothing is kept, so that it is told of each time."""
        own = [(name, _shown(value)) for name, value in sorted(samples.parameters.items())]
        for sample in samples:
            whole = partial(_as_before, samples, samples.left_out)
            yield from self._remember((own, sample), partial(_all_of, start, sample), whole)

    def check(self, traits: Traits) -> None:
        """It works sample by sample."""
        if traits.rows is Rows.BATCH or traits.state is Keeps.OFFSET:
            raise ConfigError(
                f"cached works sample by sample, and {self.name} makes what it yields of several, or counts them: put "
                f"cached on a function"
            )

    def _remember(self, arguments: Any, compute: Callable[[], Any], whole: Callable[[], bool] = lambda: True) -> Any:
        name = self.name or "?"
        key = hashlib.blake2b(_digest((name, self.version, arguments)), digest_size=20).hexdigest()
        value = self.store.get(key)
        if value is not MISS:
            counters.add(name, "hits")
            return _of_now(value, arguments)
        counters.add(name, "misses")
        value = compute()
        if value is not SKIP and whole():
            gone = self.store.put(key, value)
            if gone:
                counters.add(name, "evictions", gone)
        return value


def _of_now(value: Any, arguments: Any) -> Any:
    """What was kept, with the position that its sample has now: the epoch is another one."""
    position = next((each["__position__"] for each in _mappings(arguments) if "__position__" in each), None)
    for each in _mappings(value):
        if "__position__" in each and position is not None:
            each["__position__"] = position
    return value


def _mappings(value: Any) -> Iterator[Any]:
    """The dicts in lists and tuples."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _mappings(each)


def _as_before(samples: Upstream, left_out: int) -> bool:
    return samples.left_out == left_out


def _all_of(start: Open, sample: Any) -> list[Any]:
    return [_owned(item) for item in start(iter([sample]))]


def _owned(item: Any) -> Any:
    """An item that may be kept: memoryviews of a shard become bytes."""
    if not isinstance(item, dict):
        return item
    return {name: bytes(value) if type(value) is memoryview else value for name, value in item.items()}


def _shown(value: Any) -> str:
    """A parameter of a stage, as a text that is equal for equal ones; of a function its name and code."""
    code = getattr(value, "__code__", None)
    if callable(value) and code is not None:
        return f"{value.__module__}.{value.__qualname__} {code.co_code!r} {code.co_names} {code.co_consts}"
    return f"{type(value).__qualname__} {value!r}"


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
