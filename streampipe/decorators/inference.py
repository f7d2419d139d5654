"""``@inference``: a torch module over samples, without gradients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import FunctionType
from typing import Any, overload

import torch

from streampipe.decorators.model import Model, is_module
from streampipe.decorators.wrap import Effect, F, Open, Upstream, decorate
from streampipe.errors import ConfigError


@overload
def inference(target: F) -> F: ...
@overload
def inference(
    *,
    model: Any = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    name: str | None = None,
) -> Callable[[F], F]: ...
@overload
def inference(
    target: Any,
    *,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    name: str | None = None,
) -> Any: ...
def inference(
    target: Any = None,
    *,
    model: Any = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    name: str | None = None,
) -> Any:
    """Run a torch module, or a function that uses one, under ``torch.inference_mode`` in eval mode.

    ``pipe.batch(8).map(sp.inference(encoder, device="cuda"), "image")`` calls the module with a field of each batch, as
    it is (images are uint8). For a method other than ``forward``, a VAE's ``encode`` say, decorate a function of yours;
    ``pipe.map(module)`` does the same on the module's own device. As a decorator, with ``model``, the function is given
    the module first: a module, TorchScript, a ``torch.export`` program, or a function that makes one, once in every
    process that uses it (nothing large is then pickled, and no GPU is touched before a worker starts).

    Tensors in the arguments go to the device, tensors in the result (in dicts, lists, tuples) come back to the CPU, as
    plain tensors that training may use. ``device=None`` is where the module's parameters are. ``autocast`` is the dtype
    for ``torch.autocast``. Modules that were training before a call are training after it; ``.to(device)`` stays.

    On a GPU use one process for each device (``num_workers=0``, and ``threads=`` to decode beside it; ranks for
    several GPUs). CUDA cannot be used in forked workers once the parent has used it.

    >>> @inference(model=lambda: torch.nn.Dropout(0.5))
    ... def twice(dropout, x):
    ...     return 2 * dropout(x)
    >>> twice(torch.ones(3))
    tensor([2., 2., 2.])
    """
    place = None if device is None else torch.device(device)
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ConfigError(f"inference: autocast is torch.bfloat16 or torch.float16, not {autocast}")
    if is_module(target):
        if model is not None:
            raise ConfigError("inference takes a module, or a function and model=, not two modules")
        label = name or type(target).__name__
        return decorate(Inference(label, Model(target, place), place, autocast), _called(label))
    effect = Inference(name, None if model is None else Model(model, place), place, autocast)
    if model is None:
        return decorate(effect, target)

    def with_model(function: Any) -> Any:
        _check_takes_model(function)
        return decorate(effect, function)

    return with_model if target is None else with_model(target)


def _called(name: str) -> Callable[..., Any]:
    """A function that is its first argument, under a module's name."""
    call = functools.partial(_call)
    call.__name__ = call.__qualname__ = name  # type: ignore[attr-defined]
    return call


def _call(module: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def _check_takes_model(target: Any) -> None:
    """Refuse a function that has no place for the module and for what it is called with."""
    if not isinstance(target, FunctionType) or hasattr(target, "__wrapped__"):
        return
    try:
        inspect.signature(target).bind_partial(None, None)
    except TypeError:
        raise ConfigError(
            f"inference: with model= {target.__name__} is given the module first, then what it is called with: write "
            f"{target.__name__}(model, images)"
        ) from None


@dataclass
class Inference(Effect):
    """The effect of ``inference``."""

    name: str | None
    model: Model | None
    device: torch.device | None
    autocast: torch.dtype | None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call."""
        if self.model is None:
            return self._call(function, (), args, kwargs, self.device)
        with self.model.running() as (module, place):
            return self._call(function, (module,), args, kwargs, place)

    def _call(self, function: Any, first: tuple[Any, ...], args: Any, kwargs: Any, place: torch.device | None) -> Any:
        args, kwargs = _to(args, place), _to(kwargs, place)
        with torch.inference_mode(), self._autocast(place):
            result = function(*first, *args, **kwargs)
        return _plain(result)

    def fingerprint(self) -> Any:
        """What decides results; not the device, so that a job may go on elsewhere."""
        return self.model, self.autocast

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream: the stage runs without gradients, what stands before and behind it as it did."""
        if self.model is not None:
            raise ConfigError("inference(model=) goes on functions; put it on the function that the stage calls")
        items = start(_Outside(samples, self.device))
        while True:
            with torch.inference_mode(), self._autocast(self.device):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield _plain(item)

    def _autocast(self, place: torch.device | None) -> AbstractContextManager[Any]:
        return torch.autocast((place or _CPU).type, self.autocast) if self.autocast else nullcontext()


_CPU = torch.device("cpu")


class _Outside:
    """Samples for a stage that runs in inference mode, made outside of it."""

    def __init__(self, samples: Iterable[Any], place: torch.device | None) -> None:
        self._samples = iter(samples)
        self._place = place

    def __iter__(self) -> _Outside:
        return self

    def __next__(self) -> Any:
        with torch.inference_mode(False), torch.autocast((self._place or _CPU).type, enabled=False):
            return _to(next(self._samples), self._place)


def _to(value: Any, place: torch.device | None) -> Any:
    """The value with its tensors on a device."""
    return value if place is None else _each(value, lambda tensor: tensor.to(place, non_blocking=True))


def _plain(value: Any) -> Any:
    """The value with its tensors on the CPU, free of inference mode."""
    return _each(
        value, lambda tensor: tensor.clone() if tensor.is_inference() and tensor.device == _CPU else tensor.cpu()
    )


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Tensors changed, wherever they are in dicts, lists and tuples. Mappings of other kinds become dicts."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _each(each, change) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each(each, change) for each in value))
    if type(value) in (list, tuple):
        return type(value)(_each(each, change) for each in value)
    return value
