"""Run write in children of this process, and break the N-th thing that each asks of the operating system.

``main(folder, work, kind)``: for N = 1, 2, 3, ... until a run gets through without failing, a child
writes a pipeline over the shards in FOLDER into a new folder below WORK and fails (KIND ``ERROR``) or dies (``KILL``)
at step N; a second child runs the same again. The result must be that of an unbroken run, byte for byte. Prints what
went wrong, and then one line of JSON. What is counted: see ``tests.pack.steps``.
"""

import json
import os
import shutil
import sys
from functools import partial

import streampipe as sp
from tests.pack.steps import Breaker, child, digest, ended_as_it_should


def upper(text):
    return text.upper()


def write(folder, out):
    pipe = sp.stream(folder, shuffle=6).decode().map(upper, "txt").assign(weight=0.5)
    return {"samples": pipe.write(f"{out}/{{:05d}}.tar", max_samples=7, progress=False).samples}


def main(folder, work, kind):
    whole, counted = os.path.join(work, "whole"), os.path.join(work, "counted")
    write(folder, whole)  # here, so that no child has to import anything
    wanted = digest(whole)
    steps = child(partial(write, folder, counted), Breaker(counted, 0, kind))["steps"]
    wrong = []
    every = 1 if kind == "KILL" else 2  # errors take the same paths out, whichever step it is
    for number in [*range(1, steps + 1, every), steps + 1]:
        out = os.path.join(work, f"{kind}-{number}")
        job = partial(write, folder, out)
        broken = child(job, Breaker(out, number, kind))
        through = number == steps + 1  # no step was left to break
        if not (broken["status"] == 0 if through else ended_as_it_should(broken, kind, out)):
            wrong.append((number, "broken run", broken))
        for name, found in (digest(out) if os.path.isdir(out) else {}).items():
            if not name.endswith(".part") and found != wanted[name]:
                wrong.append((number, "not whole under its final name", name))
        again = child(job, Breaker(out, 0, kind))
        if again["status"] != 0 or digest(out) != wanted:
            wrong.append((number, "second run", again, sorted(digest(out).items() ^ wanted.items())))
        shutil.rmtree(out, ignore_errors=True)
    for each in wrong:
        print(*each, file=sys.stderr)
    print(json.dumps({"steps": steps, "wrong": len(wrong), "files": sorted(wanted)}))
