"""Fuzzing, with atheris: ``python tests/fuzz.py tar|compressed|index|state|image [--seconds 60] [--corpus FOLDER]``.

Any bytes give members or one of streampipe's own errors, within bounds of time and memory, the same from a buffer and
from a stream of chunks; any index or manifest is refused or sound; any state is refused or gives batches; any image is
decoded to the size that was asked for or refused, and no codec writes where it should not. What is found goes into
``tests/test_regressions.py``. Not collected by pytest; needs ``pip install atheris``.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import random
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streampipe"]):
    import streampipe as sp
    from streampipe.index import ShardIndex, manifest
    from streampipe.index.columns import Columns
    from streampipe.index.table import make
    from streampipe.samples import group
    from streampipe.tar import Limits, decompress, read_members, stream_members
    from streampipe.tar.header import checksum

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.data import shard, write_shards
from tests.images import check_image
from tests.kinds import kinds_of

LIMITS = Limits(max_member_bytes=1 << 20, max_index_bytes=1 << 24, inflate_floor=1 << 22)


def entries(read):
    """What a reader gives: members as (name, place, bytes), and the type and text of its error."""
    found = []
    try:
        for member in read:
            found.append((member.name, member.data_offset, bytes(member.data)))
    except sp.ShardError as error:
        return found, type(error), str(error)
    return found, None, ""


def tar(data):
    """Any bytes as an archive, strictly and with all that can be allowed."""
    linked = replace(LIMITS, hard_links=True, missing_end=True, concatenated=True)
    try:
        list(group(read_members(data, shard="s", limits=linked), "s", limits=linked))
    except sp.ShardError:
        pass
    whole = entries(read_members(data, shard="s", limits=LIMITS))
    size = 1 + len(data) % 700
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert entries(stream_members(pieces, shard="s", limits=LIMITS)) == whole
    assert sum(len(body) for _, _, body in whole[0]) <= len(data)
    for name, _, _ in whole[0]:
        assert name.isprintable() or "\n" not in name
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        name.encode()
    try:
        list(group(read_members(data, shard="s", limits=LIMITS), "s", limits=LIMITS))
    except sp.ShardError:
        pass


def tar_seeds():
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for name in ("a.jpg", "a.txt", "d/" * 60 + "n" * 90 + ".txt"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 20, 1.5 if kind == tarfile.PAX_FORMAT else 1
                archive.addfile(info, io.BytesIO(b"x" * 20))
        yield file.getvalue()[:6144]
    yield shard([("k", {"txt": "hello", "cls": "1"})])[:2560]


def mutate_tar(data, most, seed):
    """Change bytes, and make the headers' checksums right again in half of the cases, or nothing gets behind them."""
    data = bytearray(atheris.Mutate(bytes(data), most))
    if seed % 2:
        for at in range(0, len(data) - 511, 512):
            if any(data[at : at + 512]) and data[at + 148 : at + 154].isdigit():
                data[at + 148 : at + 156] = b"%06o\0 " % checksum(bytes(data[at : at + 512]))
    return bytes(data)


def compressed(data):
    """Any bytes as compressed ones."""
    size = 1 + len(data) % 300
    for kind in ("gzip", "zstd", "xz", "bzip2"):
        made = 0
        try:
            for piece in decompress(
                [data[i : i + size] for i in range(0, len(data), size)], shard="s", kind=kind, limits=LIMITS
            ):
                made += len(piece)
        except sp.ShardError:
            pass
        assert made <= LIMITS.inflate_floor + LIMITS.max_inflate_ratio * max(len(data), 1) + (1 << 20)


def compressed_seeds():
    import zstandard

    body = shard([("k", {"txt": "hello"})])
    yield gzip.compress(body)
    yield gzip.compress(body[:700]) + gzip.compress(body[700:]) + bytes(100)
    yield zstandard.ZstdCompressor().compress(body)
    yield lzma.compress(body)
    yield bz2.compress(body[:700]) + bz2.compress(body[700:])


def index(data):
    """Any bytes as an index and as a manifest; and any table as an index."""
    for read in (ShardIndex.from_bytes, manifest.counts):
        try:
            found = read(data, "i", LIMITS.max_index_bytes)
        except sp.IndexMismatch:
            continue
        if isinstance(found, ShardIndex):
            sound(found)
    given = atheris.FuzzedDataProvider(data)
    rows = []
    for _ in range(given.ConsumeIntInRange(0, 4)):
        place = [given.ConsumeIntInRange(-(1 << 63), (1 << 63) - 1), given.ConsumeIntInRange(-1000, 1000)]
        if given.ConsumeBool():
            place[0] %= 4096
        numbers = {"offset": place[0], "size": place[1], "crc32": None, "fields": [], "width": None, "height": None}
        rows.append({"key": given.ConsumeUnicodeNoSurrogates(5), **numbers})
    facts = {"bytes": given.ConsumeIntInRange(-5, 1 << 20)}
    written = make(rows, Columns([{} for _ in rows]), facts).to_bytes()
    try:
        sound(ShardIndex.from_bytes(written, "i"))
    except sp.IndexMismatch:
        pass


def sound(found):
    """An index that was read keeps its promises."""
    starts, sizes = (found.table.column(name).to_numpy() for name in ("offset", "size"))
    assert len(found.keys()) == len(starts) == len(sizes) == len(found)
    if len(starts):
        assert starts.min() >= 0
        assert sizes.min() > 0
        assert int(starts.max()) + int(sizes.max()) <= 2 * found.shard_bytes
        assert (starts + sizes).max() <= found.shard_bytes


def index_seeds():
    row = {"key": "k", "offset": 0, "size": 1024, "crc32": 7, "fields": [], "width": 3, "height": None}
    yield make([row], Columns([{"a": 1}]), {"bytes": 10240}).to_bytes()
    yield manifest.to_bytes([manifest.Entry("a.tar", 10240, 1, None)])


def image(data):
    """Any bytes as an image; the first one says how it is decoded."""
    check_image(data[1:], data[0] if data else 0)


def image_seeds():
    for name in ("jpeg", "png", "webp", "gif", "avif"):
        for number, data in enumerate(kinds_of(name).values()):
            yield bytes((number,)) + data


class States:
    """Loaders of several kinds, and states that they gave."""

    def __init__(self, folder):
        write_shards(Path(folder), [5, 1, 7])
        make_ = lambda **options: sp.stream(folder, seed=1, **options)  # noqa: E731
        self.pipes = [
            make_(shuffle=4).batch(3),
            make_(tier="sequential").batch(3),
            make_(tier="sequential", shuffle=4).shuffle(3).take(9).batch(2),
        ]
        self.states = []
        for number, pipe in enumerate(self.pipes):
            loader = pipe.loader()
            self.states.append((number, loader.state_dict()))
            for _ in zip(range(3), loader, strict=False):
                self.states.append((number, json.loads(json.dumps(loader.state_dict()))))

    def __call__(self, data):
        given = atheris.FuzzedDataProvider(data)
        number, state = self.states[given.ConsumeIntInRange(0, len(self.states) - 1)]
        state = json.loads(json.dumps(state))
        for _ in range(given.ConsumeIntInRange(1, 3)):
            change(state, given)
        loader = self.pipes[number].loader()
        try:
            loader.load_state_dict(state)
            for _ in zip(range(12), loader, strict=False):
                pass
            json.dumps(loader.state_dict())
        except sp.StreampipeError:
            pass


def change(state, given):
    """Put something else somewhere into a JSON value."""
    at = state
    while True:
        names = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not names:
            return
        name = names[given.ConsumeIntInRange(0, len(names) - 1)]
        if isinstance(at[name], (dict, list)) and at[name] and given.ConsumeBool():
            at = at[name]
            continue
        values = (
            None,
            True,
            -1,
            0,
            1,
            2,
            1 << 31,
            1 << 62,
            1 << 200,
            0.5,
            "x",
            "",
            [],
            {},
            [[]],
            [None],
            [0, 1],
            at[name],
        )
        kind = given.ConsumeIntInRange(0, len(values))
        if kind == len(values):
            del at[name]
        else:
            at[name] = values[kind]
        return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("tar", "compressed", "index", "state", "image"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", help="a folder that keeps what was found to be interesting")
    parser.add_argument("--replay", nargs="*", default=[], help="files to run once")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STREAMPIPE_CACHE"] = f"{folder}/memory"
        corpus = Path(given.corpus or f"{folder}/corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        seeds = {"tar": tar_seeds, "compressed": compressed_seeds, "index": index_seeds, "image": image_seeds}.get(
            given.target, list
        )
        for number, seed in enumerate(seeds()):
            (corpus / f"seed{number}").write_bytes(seed)
        target = States(f"{folder}/data") if given.target == "state" else globals()[given.target]
        for path in given.replay:
            target(Path(path).read_bytes())
        if given.replay:
            return
        options = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=8192", f"-max_total_time={given.seconds}"]
        random.seed(0)
        mutator = {"custom_mutator": mutate_tar} if given.target == "tar" else {}
        atheris.Setup([sys.argv[0], *options, str(corpus)], target, **mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
