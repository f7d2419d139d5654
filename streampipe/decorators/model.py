"""A torch module as something to call: made where it is wanted, on its device, in eval mode while it runs."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from streampipe.errors import ConfigError


def is_module(thing: Any) -> bool:
    """Whether a thing is a torch module: an ``nn.Module``, TorchScript, or an exported program."""
    return isinstance(thing, (torch.nn.Module, torch.export.ExportedProgram))


class Model:
    """A module, or a function that makes one, which then runs once in every process that uses it.

    It is picklable where the module is; TorchScript is pickled by its own format. What a process made of it (the copy
    on the device) is not. Calls from several threads take turns.
    """

    def __init__(self, given: Any, device: torch.device | None) -> None:
        if not is_module(given) and not callable(given):
            raise ConfigError(
                f"inference runs a torch module, an exported program, or what a function without arguments makes of "
                f"them, not a {type(given).__name__}"
            )
        self.given = given
        self.device = device
        self._lock = threading.RLock()
        self._made: Any = None

    @contextmanager
    def running(self) -> Iterator[tuple[Callable[..., Any], torch.device | None]]:
        """The module, to be called: in eval mode, and afterwards as it was before; and where its inputs must be."""
        with self._lock:
            module = self._ready()
            training = [each for each in module.modules() if each.training]
            try:
                for each in training:
                    each.training = False
                yield module, self.device or _device_of(module)
            finally:
                for each in training:
                    each.training = True

    def _ready(self) -> Any:
        if self._made is None:
            made = self.given if is_module(self.given) else self.given()
            if not is_module(made):
                raise ConfigError(f"inference: the function that makes the model returned a {type(made).__name__}")
            if isinstance(made, torch.export.ExportedProgram):
                self._made = _moved(made, self.device).module()
            else:
                self._made = made if self.device is None else made.to(self.device)
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        own = (torch.jit.ScriptModule, torch.export.ExportedProgram)  # these have formats of their own
        given = _Saved(self.given) if isinstance(self.given, own) else self.given
        return {"given": given, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        given = state["given"]
        self.__init__(given.load() if isinstance(given, _Saved) else given, state["device"])  # type: ignore[misc]

    def fingerprint(self) -> Any:
        """What decides results: the module itself (its weights), or the function that makes it; not the device."""
        return self.given


class _Saved:
    """TorchScript or an exported program on its way to another process."""

    def __init__(self, program: Any) -> None:
        file = io.BytesIO()
        self.exported = isinstance(program, torch.export.ExportedProgram)
        torch.export.save(program, file) if self.exported else torch.jit.save(program, file)
        self.data = file.getvalue()

    def load(self) -> Any:
        file = io.BytesIO(self.data)
        return torch.export.load(file) if self.exported else torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]


def _device_of(module: Any) -> torch.device | None:
    return next((each.device for each in (*module.parameters(), *module.buffers())), None)


def _moved(program: Any, device: torch.device | None) -> Any:
    if device is None:
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)
