"""Run pack in children of this process, and break the N-th thing that each asks of the operating system.

``main(folder, work)``: for every way to fail and N = 1, 2, 3, ... until a run gets through without failing, a
child packs FOLDER into a new folder below WORK and fails there; a second child runs the same again. The result must be
that of an unbroken run, byte for byte. Prints what went wrong, and then one line of JSON: how many steps there were.

Counted are the operations on the output folder: making it, opening, writing (what reaches the kernel, not what fills a
buffer), syncing, renaming, deleting.
"""

import builtins
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import streampipe as sp
from streampipe.pack import pack

KINDS = ("ERROR", "KILL")  # the disk is full for what writes, and broken for all else; or the process is killed


class Breaker:
    """Counts operations below a folder, and fails the N-th."""

    def __init__(self, folder, number, kind):
        self.folder, self.number, self.kind, self.count = str(folder), number, kind, 0

    def step(self, path, half=None):
        """One more operation; ``half`` does a part of it, as a full disk does."""
        if not str(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.number:
            if half is not None:
                half()
            if self.kind == "KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            number = errno.EIO if half is None else errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path))

    def install(self):
        breaker, really_open = self, builtins.open

        class Raw(io.FileIO):
            def write(self, data):
                breaker.step(self.name, lambda: super(Raw, self).write(bytes(data)[: len(data) // 2]))
                return super().write(data)

        def opened(path, mode="r", *args, encoding=None, **options):
            if not (set("wx") & set(mode) and str(path).startswith(breaker.folder)):
                return really_open(path, mode, *args, encoding=encoding, **options)
            breaker.step(path)
            file = io.BufferedWriter(Raw(path, "w"))
            return file if "b" in mode else io.TextIOWrapper(file, encoding=encoding)

        def counted(name, path_of=lambda path, *rest, **options: path):
            function = getattr(os, name)

            def wrapper(*args, **options):
                breaker.step(path_of(*args, **options))
                return function(*args, **options)

            setattr(os, name, wrapper)

        builtins.open = opened
        counted("fsync", lambda number: os.readlink(f"/proc/self/fd/{number}"))
        for name in ("open", "mkdir", "replace", "unlink"):
            counted(name)


def child(job, breaker):
    """The job in a child: what it returned, exit status (None: it was killed), error, and how many steps it took."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        result = {"status": 0, "error": ""}
        try:
            breaker.install()
            result.update(job())
        except (sp.PackError, sp.SourceError) as error:
            result = {"status": 1, "error": str(error)}
        except BaseException as error:
            result = {"status": 2, "error": repr(error)}
        os.write(write, json.dumps({**result, "steps": breaker.count}).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told) if told else {"status": None, "error": "", "steps": 0}


def ended_as_it_should(found, kind, out):
    """Whether a broken run was killed, or said in one sentence what could not be done where."""
    if kind == "KILL":
        return found["status"] is None
    return found["status"] == 1 and out in found["error"] and "\n" not in found["error"]


def digest(out):
    """What a folder holds."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(out).iterdir())}


def main(folder, work):
    def packed(out):
        return {"skipped": len(pack(folder, out, max_samples=2, on_error="skip", progress=False).skipped)}

    whole, counted = os.path.join(work, "whole"), os.path.join(work, "counted")
    packed(whole)  # here, so that no child has to import anything
    found = child(lambda: packed(counted), Breaker(counted, 0, "ERROR"))
    assert found["status"] == 0, found
    wanted, steps = digest(whole), found["steps"]
    wrong = []
    for kind in KINDS:
        for number in range(1, steps + 2):
            out = os.path.join(work, f"{kind}-{number}")
            job = partial(packed, out)
            broken = child(job, Breaker(out, number, kind))
            through = number == steps + 1  # no step was left to break
            if not (broken["status"] == 0 if through else ended_as_it_should(broken, kind, out)):
                wrong.append((kind, number, "broken run", broken))
            for name, found_sum in (digest(out) if os.path.isdir(out) else {}).items():
                if name.endswith((".tar", ".parquet")) and found_sum != wanted[name]:
                    wrong.append((kind, number, "not whole under its final name", name))
            again = child(job, Breaker(out, 0, kind))
            if again["status"] != 0 or again["skipped"] != found["skipped"] or digest(out) != wanted:
                wrong.append((kind, number, "second run", again, sorted(digest(out).items() ^ wanted.items())))
            shutil.rmtree(out)
    for each in wrong:
        print(*each, file=sys.stderr)
    print(json.dumps({"steps": steps, "wrong": len(wrong), "files": sorted(wanted)}))
