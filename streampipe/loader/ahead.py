"""A background thread that makes items before they are asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any


def ahead(items: Iterator[Any], most: int) -> Generator[Any, None, None]:
    """The items, made in a background thread up to ``most`` before they are asked for. Errors come where they belong.

    >>> list(ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(most)
    stop = threading.Event()

    def put(kind: str, value: Any = None) -> bool:
        while not stop.is_set():
            try:
                made.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    break
            else:
                put("end")
        except BaseException as error:  # KeyboardInterrupt too: the consumer must not wait for ever
            put("error", error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="streampipe-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
            del value
    finally:
        stop.set()
        thread.join()
