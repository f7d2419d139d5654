"""Compare streampipe with Pillow and tarfile over any files: run apart, over folders of images or archives of others.

::

    python tests/foreign.py FOLDER... [--list] [--seconds 30]

Every file is looked at in a process of its own making, so that a crash or a hang of a codec is a line of the table. An
image is decoded by ``decode_image`` and by Pillow (turned as EXIF says, transparency over white, 16 bits scaled to 8);
an archive is read by streampipe and by Python's tarfile, the names and bytes of its plain files compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tarfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

import streampipe as sp
from streampipe.decoding import decode_image, recognise
from streampipe.tar import Limits, compression_of, decompress, stream_members

SAME, CLOSE = 3, 2.0  # of 255: the largest difference of two codecs, and the mean one of a different one
ARCHIVES = (".tar", ".tgz", ".txz", ".tbz2", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")
OUTCOMES = ("equal", "close", "differ", "only we refuse", "only they refuse", "both refuse", "crash", "hang")


class Result(NamedTuple):
    """What came of one file."""

    kind: str
    outcome: str
    why: str = ""


def of_image(data: bytes) -> Result:
    """Our pixels against Pillow's."""
    codec = recognise(data)
    kind = codec.name if codec else "other"
    ours = theirs = None
    why = []
    try:
        ours = np.asarray(decode_image(data, output="pil").convert("RGB"), np.int16)
    except sp.StreampipeError as error:
        why.append(f"we: {error}")
    try:
        theirs = np.asarray(rendered(data), np.int16)
    except Exception as error:
        why.append(f"Pillow: {type(error).__name__}: {error}")
    if ours is None or theirs is None:
        both = ours is None and theirs is None
        outcome = "both refuse" if both else "only we refuse" if ours is None else "only they refuse"
        return Result(kind, outcome, "; ".join(why))
    if ours.shape != theirs.shape:
        return Result(kind, "differ", f"our size is {ours.shape[:2]}, Pillow's {theirs.shape[:2]}")
    apart = np.abs(ours - theirs)
    largest, mean = int(apart.max(initial=0)), float(apart.mean()) if apart.size else 0.0
    outcome = "equal" if largest <= SAME else "close" if mean <= CLOSE else "differ"
    return Result(kind, outcome, f"{largest} at most, {mean:.2f} on average")


def rendered(data: bytes) -> Image.Image:
    """An image as a viewer shows it, by Pillow alone."""
    import io

    image: Image.Image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def of_archive(path: str) -> Result:
    """The plain files that we read against those that tarfile reads."""
    with open(path, "rb") as file:
        kind = compression_of(path, file.read(8)) or "plain"
    ours: list[tuple[str, bytes]] | None = None
    theirs: list[tuple[str, bytes]] | None = None
    why = []
    try:
        ours = list(members(path, None if kind == "plain" else kind))
    except sp.StreampipeError as error:
        why.append(f"we: {type(error).__name__}: {error}")
    try:
        with tarfile.open(path) as tar:
            files = (each for each in tar if each.isreg())
            theirs = [(each.name, tar.extractfile(each).read()) for each in files]  # type: ignore[union-attr]
    except Exception as error:
        why.append(f"tarfile: {type(error).__name__}: {error}")
    kind = f"tar, {kind}"
    if ours is None or theirs is None:
        both = ours is None and theirs is None
        outcome = "both refuse" if both else "only we refuse" if ours is None else "only they refuse"
        return Result(kind, outcome, "; ".join(why))
    plain = [
        (name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), data) for name, data in theirs
    ]
    if ours == plain:
        return Result(kind, "equal", f"{len(ours)} files")
    odd = next((a[0], b[0]) for a, b in zip([*ours, ("", b"")], [*plain, ("", b"")], strict=False) if a != b)
    return Result(
        kind, "differ", f"we have {len(ours)} files, tarfile {len(plain)}; first {odd[0]!r} against {odd[1]!r}"
    )


def members(path: str, kind: str | None) -> Iterator[tuple[str, bytes]]:
    """Names and bytes, by our reader, forward."""

    def chunks() -> Iterator[bytes]:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

    data = chunks() if kind is None else decompress(chunks(), shard=path, kind=kind)
    for member in stream_members(data, shard=path, limits=Limits(hard_links=False)):
        yield member.name, bytes(member.data)


def is_archive(path: str) -> bool:
    """By its name: content cannot tell a damaged archive from something else."""
    return path.lower().endswith(ARCHIVES)


def look(path: str) -> Result | None:
    """One file; None for what is neither an image nor an archive."""
    warnings.simplefilter("ignore")
    if is_archive(path):
        return of_archive(path)
    data = Path(path).read_bytes()
    if recognise(data) is None and not path.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif")):
        return None
    return of_image(data)


def _worker(pipe: Any) -> None:
    while (path := pipe.recv()) is not None:
        try:
            pipe.send(look(path))
        except Exception as error:  # of this script's own: the file is shown, the run goes on
            pipe.send(Result("other", "crash", f"{type(error).__name__}: {error}"))


class Looker:
    """A process that looks at one file after the other, made anew when it dies or hangs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_worker, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, path: str) -> Result | None:
        """What came of a file."""
        self._pipe.send(path)
        kind = "tar" if is_archive(path) else "image"
        outcome = "hang"
        try:
            if self._pipe.poll(self._seconds):
                found: Result | None = self._pipe.recv()
                return found
        except EOFError:
            outcome = "crash"
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._start()
        return Result(kind, outcome, f"exit status {code}" if outcome == "crash" else f"more than {self._seconds} s")

    def close(self) -> None:
        """Let the process end."""
        self._pipe.send(None)
        self._process.join()


def files_of(folders: list[str]) -> Iterator[str]:
    """All files, in order."""
    for given in folders:
        if os.path.isfile(given):
            yield given
        for folder, _, names in sorted(os.walk(given)):
            yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("._"))


def main(arguments: list[str] | None = None) -> int:
    """Compare and print; 1 if anything differs, crashes or hangs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--list", action="store_true", help="a line for each file that is not equal")
    parser.add_argument("--seconds", type=float, default=30, help="until a file counts as one that hangs")
    given = parser.parse_args(arguments)
    looker, table = Looker(given.seconds), defaultdict[str, Counter[str]](Counter)
    for path in files_of(given.folders):
        found = looker(path)
        if found is None:
            continue
        table[found.kind][found.outcome] += 1
        if given.list and found.outcome != "equal":
            print(f"{found.outcome}: {path}: {found.why}", flush=True)
    looker.close()
    print(f"{'format':<14}{'files':>7}" + "".join(f"{each:>18}" for each in OUTCOMES))
    for kind, counts in sorted(table.items()):
        print(f"{kind:<14}{counts.total():>7}" + "".join(f"{counts[each]:>18}" for each in OUTCOMES))
    bad = sum(counts[each] for counts in table.values() for each in ("differ", "crash", "hang"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
