"""Datasets of MosaicML's streaming and of LitData are read as sources, and packed; nothing in them is run."""

import bz2
import gzip
import json
import pickle
import struct
import sys

import numpy as np
import pytest

import streampipe as sp
from streampipe.reading.litdata import LitData
from streampipe.reading.mds import MDS
from streampipe.testing import FaultServer, check_source
from tests.data import photo
from tests.pack.test_pack import contents, quiet

PNG = b"\x89PNG\r\n\x1a\n"
MDS_COLUMNS = {"image": "jpeg", "caption": "str", "n": "int", "w": "float32", "a": "ndarray", "f": "ndarray:int16:2"}
MDS_COLUMNS |= {"meta": "json", "p": "pil", "many": "list[png]"}


def u32(*numbers):
    return struct.pack(f"<{len(numbers)}I", *numbers)


def pixels(i):
    return u32(2, 1, 3) + b"RGB" + bytes([i, 1, 2, 3, 4, 5])


def listed(*values):
    return u32(0, len(values), *map(len, values)) + b"".join(values)


def shard(samples, config=b""):
    """Samples behind a table of their offsets."""
    begin = 4 * (len(samples) + 2) + len(config)
    ends = np.cumsum([0, *map(len, samples)]) + begin
    return u32(len(samples), *ends.tolist()) + config + b"".join(samples)


def sample(columns, sizes):
    """The sizes of what has none that is always the same, and the values."""
    return u32(*(len(v) for v, s in zip(columns, sizes, strict=True) if s is None)) + b"".join(columns)


def write_mds(folder, columns=MDS_COLUMNS, count=5, each=2, last=None):
    folder.mkdir()
    sizes = [{"int": 8, "float32": 4, "ndarray:int16:2": 4}.get(encoding) for encoding in columns.values()]
    entries = []
    for number, first in enumerate(range(0, count, each)):
        rows = []
        for i in range(first, min(first + each, count)):
            values = [photo(i, 16, 8), f"c{i}".encode(), struct.pack("<q", i), struct.pack("<f", 0.5)]
            values += [bytes([33, 1 << 2, i + 1]) + np.arange(i + 1, dtype="i4").tobytes(), struct.pack("<2h", i, -1)]
            values += [json.dumps({"x": i}).encode(), pixels(i), listed(PNG + b"one", PNG + b"two"), last or b""]
            rows.append(sample(values[: len(columns)], sizes))
        name = f"shard.{number:05d}.mds"
        (folder / name).write_bytes(shard(rows, b"{}"))
        entries.append(
            {
                "column_names": list(columns),
                "column_encodings": list(columns.values()),
                "column_sizes": sizes,
                "compression": None,
                "format": "mds",
                "raw_data": {"basename": name, "bytes": 0, "hashes": {}},
                "samples": len(rows),
                "zip_data": None,
            }
        )
    (folder / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))
    return folder


LEAF = {"type": None, "context": None, "children_spec": []}
INNER = {"type": "builtins.dict", "context": '["score"]', "children_spec": [LEAF]}


def write_litdata(folder, formats=("bytes", "str", "float", "pil", "no_header_numpy:2")):
    folder.mkdir()
    spec = [1, {"type": "builtins.dict", "context": '["jpg", "txt", "meta", "img", "arr"]'}]
    spec[1]["children_spec"] = [LEAF, LEAF, INNER, LEAF, LEAF]
    chunks = []
    for number in range(2):
        rows = []
        for i in range(2 * number, 2 * number + 2):
            values = [
                photo(i, 16, 8),
                f"c{i}".encode(),
                struct.pack("<d", i),
                pixels(i),
                np.arange(3, dtype="i4").tobytes(),
            ]
            rows.append(sample(values, [None] * 5))
        chunks.append({"chunk_size": 2, "filename": f"chunk-0-{number}.bin"})
        (folder / chunks[-1]["filename"]).write_bytes(shard(rows))
    config = {"compression": None, "data_format": formats, "data_spec": json.dumps(spec), "item_loader": "PyTreeLoader"}
    (folder / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}))
    return folder


def test_what_mosaicml_wrote_is_a_source_and_is_packed(tmp_path):
    folder = write_mds(tmp_path / "in")
    source = MDS(str(folder))
    check_source(source)
    assert source.counts() == [2, 2, 1]
    found = source.sample(1, 1)
    assert (found["__key__"], found["caption"], found["n"], found["w"], found["meta"]) == (
        "00001/00000001",
        "c3",
        3,
        0.5,
        {"x": 3},
    )
    assert (found["a"].tolist(), found["f"].tolist(), found["p"].shape) == ([0, 1, 2, 3], [3, -1], (1, 2, 3))
    assert [each["n"] for each in sp.stream(folder, format="mds")] == [0, 1, 2, 3, 4]
    summary = quiet(folder, tmp_path / "out", shuffle=True, where="n != 2", max_samples=3)
    assert (summary.samples, summary.shards) == (4, 2)
    packed = contents(tmp_path / "out")
    assert sorted(packed) == ["00000/00000000", "00000/00000001", "00001/00000001", "00002/00000000"] != list(packed)
    fields = packed["00001/00000001"]
    assert (fields["jpg"], fields["txt"], fields["many1.png"]) == (photo(3, 16, 8), b"c3", PNG + b"two")
    assert sorted(fields) == ["a.npy", "f.npy", "jpg", "json", "many0.png", "many1.png", "p.png", "txt"]


def compress(folder, kind, pack):
    index = json.loads((folder / "index.json").read_text())
    for entry in index["shards"]:
        name = entry["raw_data"]["basename"]
        raw = (folder / name).read_bytes()
        entry["raw_data"]["bytes"], entry["compression"] = len(raw), kind
        (folder / name).unlink()
        (folder / f"{name}.{kind.partition(':')[0]}").write_bytes(pack(raw))
        entry["zip_data"] = {"basename": f"{name}.{kind.partition(':')[0]}", "bytes": 0, "hashes": {}}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def mosaic(name):
    cramjam = pytest.importorskip("cramjam")
    return {"br": cramjam.brotli.compress, "snappy": cramjam.snappy.compress_raw}[name]


@pytest.mark.parametrize("kind", ["gz:6", "bz2:9", "zstd:3", "br:11", "snappy"])
def test_what_mosaicml_compressed_is_packed_as_what_it_did_not(tmp_path, kind):
    name = kind.partition(":")[0]
    if name == "zstd":
        pack = pytest.importorskip("zstandard").compress
    else:
        pack = {"gz": gzip.compress, "bz2": bz2.compress}.get(name) or mosaic(name)
    quiet(write_mds(tmp_path / "plain"), tmp_path / "out")
    folder = compress(write_mds(tmp_path / "in"), kind, pack)
    assert quiet(folder, tmp_path / "again").samples == 5
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_shards_that_streaming_has_unpacked_into_its_own_folder_are_read(tmp_path):
    write_mds(tmp_path / "plain")
    folder = compress(write_mds(tmp_path / "in"), "gz", gzip.compress)
    for path in (tmp_path / "plain").glob("*.mds"):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / f"{path.name}.gz").unlink()
    read = [[list(MDS(str(each)).read(shard)) for shard in range(3)] for each in (folder, tmp_path / "plain")]
    assert str([[{**row, "__url__": ""} for row in rows] for rows in read[0]]) == str(
        [[{**row, "__url__": ""} for row in rows] for rows in read[1]]
    )


@pytest.mark.parametrize("kind", ["br", "snappy"])
def test_what_is_compressed_never_inflates_to_more_than_its_index_says(tmp_path, kind, monkeypatch):
    folder = compress(write_mds(tmp_path / "in"), kind, mosaic(kind))
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["raw_data"]["bytes"] -= 1
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(sp.CorruptShard, match=rf"shard\.00000\.mds\.{kind}: its \w+ data is damaged, or more than"):
        list(MDS(str(folder)).read(0))
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(sp.ConfigError, match=r"pip install 'streampipe\[mds\]'"):
        list(MDS(str(folder)).read(1))


def test_what_litdata_wrote_is_a_source_and_is_packed(tmp_path):
    folder = write_litdata(tmp_path / "in")
    check_source(LitData(str(folder)))
    summary = quiet(folder, tmp_path / "out")
    assert summary.samples == 4
    fields = contents(tmp_path / "out")["00001/00000000"]
    assert (fields["jpg"], fields["txt"], fields["json"]) == (photo(2, 16, 8), b"c2", b'{"meta.score": 2.0}')
    assert sorted(fields) == ["arr.npy", "img.png", "jpg", "json", "txt"]


def test_columns_that_could_run_code_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    folder = write_mds(tmp_path / "in", {**MDS_COLUMNS, "x": "pkl"}, last=pickle.dumps(Bomb()))
    with pytest.raises(sp.ConfigError, match=r"shard\.00000\.mds: column 'x' holds pickles, which can run code"):
        quiet(folder, tmp_path / "out")
    folder = write_litdata(tmp_path / "lit", ("bytes", "str", "float", "pickle", "no_header_numpy:2"))
    with pytest.raises(sp.ConfigError, match="column 'img' holds pickles"):
        quiet(folder, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_damage_is_an_error_that_names_its_place(tmp_path):
    folder = write_mds(tmp_path / "in")
    path = folder / "shard.00001.mds"
    good = path.read_bytes()
    for at, words in (
        (0, "does not hold 2 samples"),
        (9, "does not hold 2 samples|sample 0"),
        (20, "sample 0: it is not"),
    ):
        path.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
        with pytest.raises((sp.CorruptShard, sp.SourceError), match=words):
            list(MDS(str(folder)).read(1))
    path.write_bytes(good[:-40])
    with pytest.raises(sp.SourceError, match=r"shard\.00001\.mds"):
        list(MDS(str(folder)).read(1))
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["raw_data"]["basename"] = "../secret.mds"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(sp.CorruptShard, match=r"names .*/\.\./secret\.mds, which lies outside"):
        MDS(str(folder))
    (folder / "index.json").write_text('{"shards": [{"format": "mds"}]}')
    with pytest.raises(sp.CorruptShard, match=r"index\.json is damaged"):
        MDS(str(folder))


def numbers_of(first, count, words):
    """A shard of numbers, from one on; each also has a text, so that samples of other shards begin elsewhere."""
    rows = [sample([words.encode(), struct.pack("<q", first + i)], [None, 8]) for i in range(count)]
    return shard(rows, b"{}")


def listed_numbers(count):
    one = {"column_names": ["t", "x"], "column_encodings": ["str", "int64"], "column_sizes": [None, 8]}
    one |= {"compression": None, "format": "mds", "samples": count, "zip_data": None}
    return json.dumps({"shards": [{**one, "raw_data": {"basename": "s.mds", "bytes": 0}}], "version": 2}).encode()


@pytest.mark.parametrize("kind", ["remote", "local"])
def test_bytes_of_a_replaced_shard_are_never_read_at_places_of_the_old_one(tmp_path, kind):
    """Within a pass it is an error, again and again; the next pass reads all of the new one."""
    old, new = numbers_of(0, 10, "old"), numbers_of(1000, 10, "longer")
    with FaultServer({"s.mds": old, "index.json": listed_numbers(10)}) as server:

        def put(data):
            server.put("s.mds", data)
            (tmp_path / "s.mds").write_bytes(data)

        put(old)
        (tmp_path / "index.json").write_bytes(listed_numbers(10))
        given = MDS(server.url("") if kind == "remote" else str(tmp_path))
        assert [given.sample(0, i)["x"] for i in range(3)] == [0, 1, 2]
        put(new)
        for i in (3, 0, 9):
            with pytest.raises(sp.ShardChanged, match=r"s.mds was replaced while it was read"):
                given.sample(0, i)
        assert [each["x"] for each in sp.stream(given)] == list(range(1000, 1010))


def test_a_replaced_shard_of_another_number_of_samples_is_an_error_in_the_next_pass_too():
    with FaultServer({"s.mds": numbers_of(0, 10, "old"), "index.json": listed_numbers(10)}) as server:
        pipe = sp.stream(MDS(server.url("")))
        samples = iter(pipe)
        next(samples)
        server.put("s.mds", numbers_of(0, 11, "longer"))
        with pytest.raises(sp.ShardChanged):
            list(samples)
        with pytest.raises(sp.CorruptShard, match="does not hold 10 samples"):
            list(pipe)
