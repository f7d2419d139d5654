"""A loader whose batches are on a device: copied, and images decoded there, while the one before is trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from os import PathLike
from time import perf_counter
from typing import Any

import torch

from streampipe.counters import counters
from streampipe.decoding import DeferredBatch
from streampipe.device.images import ImageMaker, Opened
from streampipe.device.transfer import Transfer, mapped
from streampipe.device.watch import Watch
from streampipe.errors import ConfigError, DecodeError
from streampipe.loader import Loader
from streampipe.loader.ahead import ahead
from streampipe.loader.feed import length_of
from streampipe.loader.reports import look, report_of
from streampipe.policy import ErrorPolicy
from streampipe.report import Summary
from streampipe.traits import Takes

_PLACE = "decode on the device"


class DeviceLoader:
    """What ``to_device`` gives: a loader's batches on a device, and the loader's life.

    Batches are made ahead in a background thread while the one before is used. The state is that of the batch yielded
    last, whatever is on its way.

    Args:
        loader: what ``pipe.loader(...)`` gave.
        device: ``"cuda"``, ``"cuda:1"``, or ``"cpu"``, on which a pipeline for GPUs can be tried.
        prefetch: batches made ahead.
    """

    def __init__(self, loader: Loader, device: str | torch.device = "cuda", *, prefetch: int = 2) -> None:
        if not isinstance(loader, Loader):
            raise ConfigError(f"to_device takes what pipe.loader(...) gives, not a {type(loader).__name__}")
        if prefetch < 1:
            raise ConfigError(f"to_device: prefetch is 1 or more, not {prefetch}")
        self.loader = loader
        self.device = _device(device)
        self.prefetch = prefetch
        self._watch = Watch(loader, str(self.device), prefetch)
        self._state: dict[str, Any] | None = None  # after the batch that was yielded last
        self._flow: Generator[Any, None, None] | None = None  # of the pass that may be used
        self._running = False  # that pass had more behind the state

    def __len__(self) -> int:
        """Batches of a pass, as the loader's."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """A pass. As with the loader's, a newer one ends one that is open.

        Raises:
            DecodeError: an image is damaged; under ``on_error="skip"`` another sample of the batch takes its place.
        """
        self._leave()
        self._state, self._running = self.loader.rank_state(), False  # before it is asked for a batch it is no pass
        self._watch.loop.begin()
        flow = self._flow = ahead(self._made(), self.prefetch)
        return self._given(flow)

    def state_dict(self, all_ranks: bool = False) -> dict[str, Any]:
        """Where training stands: after the batch that was yielded last. See ``Loader.state_dict``."""
        if self._state is None:
            return self.loader.state_dict(all_ranks)
        if self.loader._watchers is not None:
            self.loader._watchers.state_taken()
        return self.loader.gathered(self._state) if all_ranks or self.loader.state_of == "job" else self._state

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """The next pass continues behind the state. See ``Loader.load_state_dict``."""
        self._end()
        self.loader.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is the one of this epoch. See ``Loader.set_epoch``."""
        self._leave()
        self.loader.set_epoch(epoch)

    def report(self, format: str = "text", path: str | PathLike[str] | None = None, *, all_ranks: bool = False) -> str:
        """What was done so far, and where the time went, as ``Loader.report`` says it; the waits are those of the loop
        over this loader, and what decoding and copying take is told too.

        >>> import streampipe as sp
        >>> loader = to_device(sp.from_iterable([{"x": torch.tensor(i)} for i in range(4)]).batch(2).loader(), "cpu")
        >>> batches = list(loader)
        >>> "2 batches" in loader.report()
        True
        """
        return report_of(self._watch.seen(), self._watch.facts(), format, path, all_ranks)

    def summary(self) -> Summary:
        """The numbers of the report, as values."""
        return look(self._watch.seen(), self._watch.facts())

    def _leave(self) -> None:
        """End the pass that is open. What was made ahead in it was not given out, and the loader hears of it."""
        left, state, running = self._flow is not None, self._state, self._running
        self._end()
        if left and state is not None:
            self.loader.rewind(state, running)

    def _end(self) -> None:
        flow, self._flow, self._state = self._flow, None, None
        if flow is not None:
            flow.close()

    def _given(self, flow: Generator[Any, None, None]) -> Iterator[Any]:
        loop, batched = self._watch.loop, self.loader.pipe.spec.yields is Takes.BATCHES
        watchers = self.loader._watchers
        if watchers is not None:
            watchers.begins(self.loader._length(), self.summary, lambda: self._state)
        self._running = True
        try:
            while True:
                loop.asks()
                if watchers is not None:
                    watchers.asks()
                made = next(flow, None)
                if made is None:
                    loop.ends()
                    break
                state, batch, event, when = made
                del made
                if event is not None:
                    current = torch.cuda.current_stream(self.device)
                    current.wait_event(event)
                    mapped(batch, partial(_held, stream=current))
                self._state, self._running = state, state["step"] > 0
                loop.gives(length_of(batch, batched), when)
                if watchers is not None:
                    watchers.batch(state["batches"] - 1, batch)
                yield batch
                del batch
                if self._flow is not flow:
                    raise ConfigError(
                        "this iterator of the loader has ended: since then a newer one was begun, or load_state_dict "
                        "or set_epoch was called; use a newer one"
                    )
            self._end()  # the loader knows itself what follows
        finally:
            if watchers is not None:
                watchers.ends()
            flow.close()

    def _made(self) -> Iterator[Any]:
        """In the background: each batch on the device, with the loader's state behind it, and when it is there."""
        maker, policy = ImageMaker(self.device), self.loader.pipe.spec.policy.fresh()
        transfer, stream = Transfer(self.device, self.prefetch + 1), _stream(self.device)
        time, counts = self._watch.making.time, self._watch.counts
        for state, batch, opened, event in ahead(self._opened(maker), 1):
            with _on(stream):
                if stream is not None and event is not None:
                    stream.wait_event(event)
                if opened:
                    with time("cut"):
                        batch = counts.during(_finished, batch, opened, maker, policy)
                with time("copy"):
                    moved = transfer(batch, stream)
            done = stream.record_event() if stream is not None else None
            if done is not None and opened:
                with time("cut"):
                    done.synchronize()  # the codec's images may then go
            del batch, opened
            yield state, moved, done, perf_counter()
            del moved
        policy.end()

    def _opened(self, maker: ImageMaker) -> Iterator[Any]:
        """In a second thread: the loader's batches, their images decoded but not yet cut; and the state behind each."""
        stream, time = _stream(self.device), self._watch.opening.time
        for batch in self.loader._unwatched():
            state = self.loader.rank_state()
            opened: dict[str, Opened] = {}
            if isinstance(batch, dict):
                with _on(stream), time("open"):
                    opened = {
                        name: maker.open(each, stream)
                        for name, each in batch.items()
                        if isinstance(each, DeferredBatch)
                    }
            yield state, batch, opened, stream.record_event() if stream is not None and opened else None
            del batch, opened


def to_device(loader: Loader, device: str | torch.device = "cuda", *, prefetch: int = 2) -> DeviceLoader:
    """A loader's batches on a device: pinned, copied asynchronously while the batch before is trained on; and images of
    ``decode(device="cuda")`` decoded there.

    Args:
        loader: what ``pipe.loader(...)`` gave.
        device: ``"cuda"``, ``"cuda:1"``, or ``"cpu"``, on which a pipeline for GPUs can be tried.
        prefetch: batches made ahead.

    Raises:
        ConfigError: there is no such device; or this is no loader.

    >>> import streampipe as sp
    >>> loader = sp.from_iterable([{"x": torch.tensor(i)} for i in range(4)]).batch(2).loader()
    >>> [batch["x"] for batch in to_device(loader, "cpu")]
    [tensor([0, 1]), tensor([2, 3])]
    """
    return DeviceLoader(loader, device, prefetch=prefetch)


def _finished(batch: Any, opened: Mapping[str, Opened], maker: ImageMaker, policy: ErrorPolicy) -> Any:
    """The batch with its deferred images, of which there are some, as pixels."""
    found, failed = dict(batch), {}
    for name, each in opened.items():
        found[name], errors = maker.finish(each)
        failed.update(errors)
    rows = len(next(iter(opened.values())).batch)
    for row in range(rows):
        if row in failed:
            policy.failed(failed[row], _PLACE)
        else:
            policy.passed(_PLACE)
    return _filled(found, failed, rows) if failed else found


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _device(name: str | torch.device) -> torch.device:
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"to_device: there is no device {name!r}; use 'cuda', 'cuda:0' or 'cpu'") from error
    if found.type not in ("cuda", "cpu"):
        raise ConfigError(f"to_device: the device is 'cuda', 'cuda:0', ... or 'cpu', not {str(found)!r}")
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                "to_device: torch sees no GPU here; check nvidia-smi and that torch has CUDA, or use 'cpu'"
            )
        found = torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)
        if found.index >= torch.cuda.device_count():
            raise ConfigError(f"to_device: there is no {found}; torch sees {torch.cuda.device_count()} GPUs, from 0 on")
    return found


def _held(tensor: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    """Tell torch that another stream than the one it was made on uses a tensor, so its memory is not given away."""
    if tensor.is_cuda:
        tensor.record_stream(stream)
    return tensor


def _filled(batch: dict[str, Any], failed: Mapping[int, DecodeError], rows: int) -> dict[str, Any]:
    """Rows that failed are filled with others of the batch, in all of its fields, so batches keep their shape."""
    sound = [row for row in range(rows) if row not in failed]
    if not sound:
        raise next(iter(failed.values()))
    counters.add("decode", "slots filled", len(failed))
    for number, row in enumerate(failed):
        other = sound[number % len(sound)]
        for name, values in batch.items():
            if isinstance(values, torch.Tensor) and values.dim() and len(values) == rows:
                values[row] = values[other].clone()
            elif isinstance(values, list) and len(values) == rows:
                batch[name] = [*values[:row], values[other], *values[row + 1 :]]
    return batch


__all__ = ["DeviceLoader", "to_device"]
