"""``info``: what a dataset holds, in numbers."""

import json

import numpy as np
import pytest

from streampipe.cli import main
from streampipe.commands.histogram import Histogram
from streampipe.index import index
from streampipe.source import Source
from tests.data import photo, shard


@pytest.fixture
def found(tmp_path, capsys):
    """What is said of six samples in two shards, the second with captions in its json alone."""
    first = [(f"a{i}", {"jpg": photo(i, 160, 120), "txt": "x" * i, "json": f'{{"aesthetic": {i}}}'}) for i in range(4)]
    second = [
        ("b", {"jpg": photo(9, 80, 200), "json": '{"caption": "été", "AESTHETIC_SCORE": 9.5}'}),
        ("c", {"cls": "1"}),
    ]
    for name, samples in (("0.tar", first), ("1.tar", second)):
        (tmp_path / name).write_bytes(shard(samples))
    assert main(["info", str(tmp_path), "--bucket", "sd15", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_samples_fields_and_bytes_are_counted(found):
    assert (found["shards"], found["counted_shards"], found["samples"]) == (2, 2, 6)
    assert found["fields"]["txt"] == {"samples": 4, "bytes": 6}
    assert {name: each["samples"] for name, each in found["fields"].items()} == {
        "jpg": 5,
        "json": 5,
        "txt": 4,
        "cls": 1,
    }
    assert {"aesthetic", "AESTHETIC_SCORE", "caption", "key"} <= set(found["columns"])


def test_sizes_shapes_captions_and_scores_have_histograms(found):
    shown = found["histograms"]
    assert shown["width"]["classes"] == [{"from": 0, "to": 256, "samples": 5}]
    assert (shown["height"]["least"], shown["height"]["most"], shown["height"]["mean"]) == (120, 200, 136)
    assert [(each["from"], each["samples"]) for each in shown["width / height"]["classes"]] == [(1 / 3, 1), (5 / 4, 4)]
    assert [each["samples"] for each in shown["caption bytes"]["classes"]] == [1, 3]
    assert shown["caption characters"]["mean"] == 3
    assert (shown["aesthetic"]["samples"], shown["aesthetic"]["most"]) == (5, 9.5)  # by whatever name
    assert found["buckets"] == {"448 x 576": 4, "768 x 320": 1}


@pytest.fixture
def many(tmp_path):
    """Shards whose facts stand together; some have a field, a score or a caption that others lack."""
    for number in range(20):
        key = "aesthetic" if number % 2 else "AESTHETIC_SCORE"
        samples = [
            (
                f"{number:02d}{i}",
                {"jpg": photo(i, 160 + number, 120), "txt": "x" * (i * 40), "json": f'{{"{key}": {number + i / 4}}}'},
            )
            for i in range(3)
        ]
        if number == 7:
            samples[0][1]["mask.png"] = b"0123"
        (tmp_path / f"{number:02d}.tar").write_bytes(shard(samples))
    index(str(tmp_path), progress=False)
    assert len(list(tmp_path.glob("facts-*.parquet"))) == 1
    return tmp_path


def said_of(urls, capsys, *options):
    assert main(["info", *map(str, urls), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_stands_together_says_what_the_shards_own_indexes_say_and_these_are_not_read(many, capsys, monkeypatch):
    urls = sorted(many.glob("*.tar"))
    one_by_one = [said_of(part, capsys) for part in (urls[:10], urls[10:])]  # of a part, the shards are asked
    read = []
    really = Source.read_if_there
    monkeypatch.setattr(Source, "read_if_there", lambda self, url, *most: read.append(url) or really(self, url, *most))
    together = said_of([many], capsys)
    assert not [url for url in read if url.endswith(".index.parquet")]
    assert together["samples"] == 60
    for name in ("samples", "bytes", "shards", "counted_shards", "sized_shards"):
        assert together[name] == sum(each[name] for each in one_by_one)
    for name in ("jpg", "txt", "json", "mask.png"):
        parts = [each["fields"].get(name, {"samples": 0, "bytes": 0}) for each in one_by_one]
        assert together["fields"][name] == {what: sum(p[what] for p in parts) for what in ("samples", "bytes")}
    assert set(together["columns"]) == set(one_by_one[0]["columns"]) | set(one_by_one[1]["columns"])
    for name in ("width", "height", "caption bytes", "aesthetic", "megapixels"):
        found, parts = together["histograms"][name], [each["histograms"][name] for each in one_by_one]
        assert found["samples"] == sum(each["samples"] for each in parts)
        assert (found["least"], found["most"]) == (min(p["least"] for p in parts), max(p["most"] for p in parts))
        assert found["mean"] == pytest.approx(sum(p["mean"] * p["samples"] for p in parts) / found["samples"])
    assert [(each["from"], each["samples"]) for each in together["histograms"]["caption bytes"]["classes"]] == [
        (0, 20),
        (32, 20),
        (64, 20),
    ]


def test_shards_that_changed_since_are_asked_themselves(many, capsys):
    (many / "03.tar").write_bytes(shard([("new", {"txt": "y", "jpg": photo(1, 64, 64)})]))
    (many / "03.index.parquet").unlink()
    found = said_of([many], capsys)
    assert (found["samples"], found["histograms"]["width"]["least"]) == (58, 64)


def test_captions_that_are_members_in_some_shards_alone_are_counted_shard_by_shard(many, capsys):
    (many / "20.tar").write_bytes(shard([("z", {"jpg": photo(1, 64, 64), "json": '{"caption": "abc"}'})]))
    index(str(many), progress=False)
    found = said_of([many], capsys)["histograms"]
    assert (found["caption bytes"]["samples"], found["caption characters"]["samples"]) == (60, 1)


def test_a_histogram_is_the_same_however_its_values_come():
    values = np.random.default_rng(0).normal(5, 2, 1000)
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(np.sort(values), 40):
        parts.add(part)
    assert parts.rows() == whole.rows()
    assert sum(row["samples"] for row in whole.rows()) == 1000
    assert len(whole.rows()) <= 17
    same = Histogram()
    same.add(np.array([3.0, 3.0, np.inf]))
    assert [row["samples"] for row in same.rows()] == [2]
    assert same.lines()[-1] == "3 to 3, 3 on average"
