"""Programs in processes of their own that begin with torch and streampipe imported.

A new interpreter takes seconds of processor time until it has both. These are forked from a server that has them, which
``multiprocessing`` calls a forkserver: they know no more of the test's own process than a new interpreter would. Where
the beginning or the end of an interpreter is what is tested, use ``subprocess``.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Any

METHOD = "forkserver"
PRELOADED = ["tests.preloaded"]


class Program:
    """``work(*args)`` as a program, to be used as one that ``subprocess.Popen`` has begun.

    ``stdout`` and ``stderr`` are ``PIPE`` or the path of a file; ``environment`` comes on top of this process's.
    """

    def __init__(
        self,
        work: Callable[..., object],
        *args: Any,
        environment: Mapping[str, str] | None = None,
        start_new_session: bool = False,
        stdout: int | Path | None = None,
        stderr: int | Path | None = None,
    ) -> None:
        wanted = {"stdout": stdout, "stderr": stderr}
        pipes = {name: multiprocessing.Pipe(duplex=False) for name, to in wanted.items() if to == PIPE}
        ends = [pipes[name][1] if name in pipes else to for name, to in wanted.items()]
        given = {**os.environ, **(environment or {})}
        begun = multiprocessing.get_context(METHOD).Process(
            target=_begin, args=(ends, given, start_new_session, work, args)
        )
        begun.start()
        self._process = begun
        self.pid = begun.pid
        self.stdout, self.stderr = (_text(*pipes[name]) if name in pipes else None for name in wanted)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it says until the last process that could say something has ended."""
        with ThreadPoolExecutor(2) as both:  # none of the two fills up
            said = list(both.map(_rest, (self.stdout, self.stderr)))
        self.wait(timeout)
        return said[0], said[1]


def script(path: Path, *arguments: object) -> None:
    """The work of a program that is a file, begun as ``python path arguments`` would."""
    sys.argv = [str(path), *map(str, arguments)]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")


def _rest(file: Any) -> str:
    if file is None or file.closed:
        return ""
    with file:
        return file.read()


def _text(mine: Any, theirs: Any) -> Any:
    theirs.close()
    with mine:
        return os.fdopen(os.dup(mine.fileno()))


def _begin(ends: Any, environment: dict[str, str], session: bool, work: Callable[..., object], args: Any) -> None:
    multiprocessing.set_start_method(None, force=True)  # as in a new interpreter
    multiprocessing.set_forkserver_preload(PRELOADED)
    os.environ.clear()
    os.environ.update(environment)
    if session:
        os.setsid()
    for name, number, end in zip(("stdout", "stderr"), (1, 2), ends, strict=True):
        if end is not None:
            with open(end, "w") if isinstance(end, Path) else end as file:
                os.dup2(file.fileno(), number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))  # of what it is now
    work(*args)
