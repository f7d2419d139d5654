"""Whether a store of one's own keeps its promises: what streampipe relies on, as one call for a test."""

from __future__ import annotations

import threading
from collections.abc import Callable

from streampipe.errors import ShardChanged, ShardMissing, StreampipeError
from streampipe.source.failures import failure
from streampipe.source.fetch import Fetch
from streampipe.source.network import Network
from streampipe.source.store import Folders, Pin, Store

_NETWORK = Network(tries=3, first_wait=0.0, window=1 << 16)
_THREADS = 8


def check_store(
    make: Callable[[], Store],
    url: str,
    data: bytes,
    *,
    missing: str | None = None,
    replace: Callable[[bytes], None] | None = None,
    folder: str | None = None,
) -> None:
    """Raise an AssertionError that says which promise of ``sp.Store`` a store breaks.

    >>> from streampipe.source.stores import OpenerStore
    >>> from streampipe.testing import BrokenOpener
    >>> data = bytes(range(256)) * 20
    >>> check_store(lambda: OpenerStore(BrokenOpener({"mem://a": data})), "mem://a", data, missing="mem://b")

    Args:
        make: makes a store, as each process does.
        url: of an object that holds ``data``: 1,000 bytes or more, not all alike.
        missing: a URL under which nothing is.
        replace: puts other bytes in the place of the object's; it is called last.
        folder: a URL that may be written below and listed, for a store that does so.
    """
    if len(data) < 1000 or len(set(data)) < 2:
        raise ValueError("check_store wants 1,000 bytes or more that are not all alike")
    store = make()
    _is_named(store, url)
    _is_pinned(store, url, data)
    _gives_ranges(store, url, data)
    _serves_threads(store, url, data)
    store.renew()
    assert _read(store, url, 0, None) == data, "after renew() it does not give the same bytes"
    if missing is not None:
        _says_what_is_missing(make(), missing)
    if folder is not None:
        _lists_and_writes(make(), folder)
    if replace is not None:
        _keeps_versions_apart(make(), url, data, replace)


def _read(store: Store, url: str, start: int, end: int | None, pin: Pin | None = None) -> bytes:
    """As the library reads: broken answers are asked for again."""
    try:
        return b"".join(Fetch(store, url, _NETWORK, start, end, pin))
    except StreampipeError as error:
        raise AssertionError(f"bytes {start} to {end} were asked for, and did not come: {error}") from error


def _is_named(store: Store, url: str) -> None:
    for name in ("ranges", "streams", "pins"):
        assert isinstance(getattr(store, name, None), bool), f"it has no {name}: True or False"
    said = store.credentials(url)
    assert isinstance(said, str), f"credentials() gives no text, but {said!r}"
    assert said, "credentials() does not say with which kind it asks"
    store.worked = True  # must be settable: it is remembered that credentials were good
    store.worked = False


def _is_pinned(store: Store, url: str, data: bytes) -> None:
    pin = store.pin(url)
    assert isinstance(pin, Pin), f"pin() gives no Pin, but {pin!r}"
    assert pin.size in (None, len(data)), f"pin() says {pin.size} bytes, the object has {len(data)}"
    again = store.pin(url)
    assert pin.differs(again) is None, f"pin() says that an untouched object changed: {pin.differs(again)}"
    answer = store.get(url, 0, 1, Pin())
    for _ in answer.pieces:
        break
    assert pin.differs(answer.pin) is None, f"get() and pin() disagree about an object: {pin.differs(answer.pin)}"
    if store.pins:
        assert answer.pin.size == pin.size, f"pins is True, but an answer says {answer.pin.size} bytes, not {pin.size}"
        assert bool(answer.pin.mark) == bool(pin.mark), "pins is True, but an answer says no version where pin() does"


def _gives_ranges(store: Store, url: str, data: bytes) -> None:
    size, pin = len(data), store.pin(url)
    wanted: list[tuple[int, int | None]] = [(0, None), (0, size), (0, 1), (size - 1, size), (size // 3, 2 * size // 3)]
    wanted += [(size // 2, None), (7, 8)]
    if pin.size is not None:
        wanted += [(size // 2, size + 100), (0, size + 100)]
    for start, end in wanted:
        for known in (pin, Pin()):
            found = _read(store, url, start, end, known)
            assert found == data[start:end], f"bytes {start} to {end} were asked for; {_unlike(found, data[start:end])}"
    for start, end in wanted:
        answer = store.get(url, start, end, pin)
        assert 0 <= answer.start <= start, f"an answer for byte {start} begins at byte {answer.start}, behind it"
        came = b"".join(bytes(piece) for piece in answer.pieces)
        there = data[answer.start : answer.start + len(came)]
        assert came == there, f"an answer says that it begins at byte {answer.start}, but {_unlike(came, there)}"
        last = None if answer.whole or end is None else end
        assert last is None or answer.start + len(came) <= last, "more came than was asked for, and whole is not said"
        assert answer.whole or not store.ranges or answer.start == start, "ranges is True, but it was ignored"


def _unlike(found: bytes, wanted: bytes) -> str:
    first = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), None)
    return f"{len(found)} bytes came for {len(wanted)}" + (
        "" if first is None else f", and byte {first} of them is wrong"
    )


def _serves_threads(store: Store, url: str, data: bytes) -> None:
    wrong: list[str] = []

    def read(number: int) -> None:
        start = number * len(data) // _THREADS
        try:
            if _read(store, url, start, start + 100) != data[start : start + 100]:
                wrong.append(f"thread {number} was given other bytes than it asked for")
        except Exception as error:
            wrong.append(f"thread {number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"it is not for several threads at once: {wrong[0]}"


def _says_what_is_missing(store: Store, url: str) -> None:
    for name, call in (("pin", lambda: store.pin(url)), ("get", lambda: b"".join(Fetch(store, url, _NETWORK, 0, 10)))):
        try:
            call()
        except Exception as error:
            meant = failure(error, url).error
            assert isinstance(meant, ShardMissing), (
                f"{name}() of what is not there raises {type(error).__name__}, which is taken for "
                f"{type(meant).__name__}; raise FileNotFoundError"
            )
        else:
            raise AssertionError(f"{name}() of what is not there raises nothing")


def _lists_and_writes(store: Store, folder: str) -> None:
    assert isinstance(store, Folders), "it has not all of glob, is_directory, write, upload"
    names = [f"{folder.rstrip('/')}/{name}" for name in ("b.tar", "a.tar", "c.txt")]
    for number, name in enumerate(names):
        store.write(name, b"x" * number)
        store.write(name, b"y" * number)
        assert _read(store, name, 0, None) == b"y" * number, "what was written is not what is read"
        found = store.glob(f"{folder.rstrip('/')}/*.tar")
        wanted = sorted(each for each in names[: number + 1] if each.endswith(".tar"))
        assert found == wanted, f"glob() gives {found}, there are {wanted}: sorted, as it is now, written as asked for"
    assert store.is_directory(folder), "is_directory() does not know a folder with objects in it"
    assert not store.is_directory(f"{folder.rstrip('/')}/none"), "is_directory() knows a folder that is not there"


def _keeps_versions_apart(store: Store, url: str, data: bytes, replace: Callable[[bytes], None]) -> None:
    """With another object of the same size in its place: a store that says versions must not give its bytes."""
    pin, other = store.pin(url), bytes(255 - each for each in data)
    replace(other)
    if pin.mark is None:
        return
    found = b""
    try:
        answer = store.get(url, 0, 500, pin)
        for piece in answer.pieces:
            found += bytes(piece)
    except Exception as error:
        meant = error if isinstance(error, StreampipeError) else failure(error, url).error
        assert isinstance(meant, ShardChanged), (
            f"a replaced object raises {type(error).__name__}, taken for {type(meant).__name__}; raise ShardChanged"
        )
    else:
        raise AssertionError("a replaced object raises nothing, although its old version was asked for")
    assert found == data[: len(found)], "bytes of another version were given out"
    store.renew()
    assert _read(store, url, 0, None) == other, "without a version, what is there now is not given"
