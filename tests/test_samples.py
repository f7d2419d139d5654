import io
import tarfile

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.samples import group, split_name
from streampipe.tar import Limits, read_members


def tar(*names, format_=tarfile.USTAR_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return file.getvalue()


def samples(*names, **options):
    return list(group(read_members(tar(*names), shard="s"), "s", **options))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a/b.seg.png", ("a/b", "seg.png")),
        ("x/22.0/1.1.png", ("x/22.0/1", "1.png")),
        ("./a.txt", ("./a", "txt")),
        ("a.JPG", ("a", "jpg")),
        ("a/b.", ("a/b", "")),
        ("a/b..txt", ("a/b", ".txt")),
        ("README", None),
        ("a.b/c", None),
        (".foo", None),
        ("dir/.foo", None),
    ],
)
def test_names_split_at_the_first_dot_of_the_last_part(name, split):
    assert split_name(name) == split


def test_neighbours_with_one_key_are_one_sample_with_its_position():
    first, second = samples("a.jpg", "a.TXT", "b.jpg", epoch=3, shard=7)
    assert first == {
        "__key__": "a",
        "__url__": "s",
        "__position__": sp.Position(3, 7, 0),
        "jpg": b"a.jpg",
        "txt": b"a.TXT",
    }
    assert second["__position__"] == (3, 7, 1)


def test_hidden_and_odd_members_are_passed_over_and_counted():
    counters.take()
    found = samples("a.jpg", "._a.jpg", "d/._b.jpg", ".DS_Store", "README", "__meta__/x.json", "a.txt")
    assert [sorted(s) for s in found] == [["__key__", "__position__", "__url__", "jpg", "txt"]]
    counted = {what: n for (name, what), n in counters.take().sums.items() if name == "ignored members"}
    assert counted == {"._*": 2, ".DS_Store": 1, "without a field": 1, "reserved names": 1}


def test_a_key_that_looks_reserved_but_has_a_field_is_a_sample():
    assert [s["__key__"] for s in samples("__len__.txt")] == ["__len__"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.jpg", "a.JPG"), "field 'jpg' comes twice"),
        (("a.jpg", "b.jpg", "a.txt"), "key 'a' a second time"),
    ],
)
def test_duplicates_are_errors_that_name_key_and_byte(names, words):
    with pytest.raises(sp.DuplicateKey, match=words) as error:
        samples(*names)
    assert "byte" in str(error.value)


def test_reserved_field_names_and_too_many_members_are_errors():
    with pytest.raises(sp.CorruptShard, match="__key__"):
        samples("a.__key__")
    with pytest.raises(sp.LimitExceeded, match="max_sample_members"):
        samples("a.a", "a.b", "a.c", limits=Limits(max_sample_members=2))


def test_parts_divide_the_samples_by_number():
    names = [f"{i}.txt" for i in range(7)]
    parts = [[s["__key__"] for s in samples(*names, part=p, parts=3)] for p in range(3)]
    assert parts == [["0", "3", "6"], ["1", "4"], ["2", "5"]]


def test_a_broken_archive_takes_its_last_sample_with_it():
    data = tar("a.jpg", "a.txt", "b.jpg", "b.txt")
    for length in range(0, 4 * 1024 + 1023, 64):
        found = []
        with pytest.raises(sp.TruncatedShard):
            found.extend(s["__key__"] for s in group(read_members(data[:length], shard="s"), "s"))
        got = iter(group(read_members(data[:length], shard="s"), "s"))
        try:
            for sample in got:
                found.append(sample["__key__"])
                assert {"jpg", "txt"} <= sample.keys()
        except sp.TruncatedShard:
            pass
        assert "b" not in found


def test_a_shard_without_samples_is_counted_and_logged_once(tmp_path, caplog):
    (tmp_path / "zeros.tar").write_bytes(bytes(10240))
    (tmp_path / "a.tar").write_bytes(tar("a.txt"))
    counters.take()
    for tier in ("planned", "sequential"):
        caplog.clear()
        pipe = sp.stream([str(tmp_path / "zeros.tar"), str(tmp_path / "a.tar")], tier=tier)
        assert [sample["__key__"] for sample in pipe] == ["a"]
        assert [record.getMessage() for record in caplog.records if "holds no sample" in record.getMessage()] == [
            f"{tmp_path}/zeros.tar holds no sample: an empty archive, or nothing in it has a key and a field"
        ]


def test_views_are_offered_only_where_asked_for():
    assert type(samples("a.txt")[0]["txt"]) is bytes
    assert type(samples("a.txt", views=True)[0]["txt"]) is memoryview
