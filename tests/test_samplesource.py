"""A sample source of a third party: streamed, counted or indexed by what it can do, given as it is or by name."""

import pytest

import streampipe as sp
from streampipe import samplesource
from streampipe.engine.compile import compile
from streampipe.engine.engine import Level
from streampipe.spec import Job
from tests.data import write_shards
from tests.testing.test_samples import SIZES, Good, Streams

KEYS = [f"{shard}-{number}" for shard, size in enumerate(SIZES) for number in range(size)]


class Counting(Streams):
    """It knows how many samples it has, and can only be read."""

    def counts(self):
        return SIZES


class Knowing(Streams):
    """It knows facts, and can only be read."""

    def facts(self, shard, columns):
        return Good().facts(shard, columns)


def keys(pipe):
    return [sample["__key__"] for sample in pipe]


@pytest.mark.parametrize(
    ("source", "level"),
    [(Streams(), Level.STREAMED), (Counting(), Level.COUNTED), (Knowing(), Level.INDEXED), (Good(), Level.INDEXED)],
    ids=lambda value: type(value).__name__,
)
def test_the_level_follows_from_what_a_source_can_do(source, level):
    pipe = sp.stream(source)
    assert compile(pipe.spec, Job()).level is level
    assert f"level {level.value}" in " ".join(pipe.explain().split())
    assert keys(pipe) == KEYS
    assert sorted(keys(sp.stream(source, shuffle=True))) == sorted(KEYS)


@pytest.mark.parametrize("source", [Streams(), Counting(), Knowing(), Good()], ids=lambda value: type(value).__name__)
def test_where_and_take_give_the_same_from_every_level(source):
    pipe = sp.stream(source)
    assert sorted(keys(pipe.where("n >= 2 and n != 20"))) == ["0-2", "1-0", "2-1", "2-2", "2-3"]
    assert keys(pipe.take(5)) == KEYS[:5]
    assert len(keys(pipe.where("n >= 2").skip(1))) == 5


@pytest.mark.parametrize("source", [Knowing(), Good()], ids=lambda value: type(value).__name__)
def test_facts_are_asked_and_no_sample_is_read_for_a_condition(source, monkeypatch):
    pipe = sp.stream(source, tier="planned").where("n >= 20")
    assert len(pipe.loader()) == 4
    assert "where (n >= 20)" in pipe.explain()


def test_what_a_source_does_not_know_is_said_and_streamed():
    text = sp.stream(Counting()).where("n >= 20").explain()
    assert "counted: it is known how many samples each shard has" in text
    assert "Counting does not know facts of its samples" in text
    with pytest.raises(sp.ConfigError, match="does not know how many samples it has"):
        len(sp.stream(Streams(), tier="planned").loader())


def test_sources_of_every_kind_are_mixed(tmp_path):
    write_shards(tmp_path, (4,))
    parts = [sp.stream(source) for source in (Counting(), Good())] + [sp.stream(str(tmp_path))]
    mixed = keys(sp.mix([parts[0].select("n"), parts[1].where("n > 1").select("n"), parts[2].select("txt")]))
    assert sorted(mixed) == sorted([*KEYS, *KEYS[2:], *(f"000{i:04d}" for i in range(4))])


def test_a_registered_source_is_found_by_ending_scheme_and_format(monkeypatch):
    monkeypatch.setattr(samplesource, "_REGISTERED", {})
    asked = []

    def factory(urls, source):
        asked.append((list(urls), type(source).__name__))
        return Good()

    sp.register_source("pages", factory)
    for url, options in (("a.pages", {}), ("pages://b/c", {}), ("d", {"format": "pages"})):
        assert keys(sp.stream(url, **options)) == KEYS
    assert asked == [(["a.pages"], "Source"), (["pages://b/c"], "Source"), (["d"], "Source")]


@pytest.mark.parametrize("name", ["tar", "folder", "Pages", "a b"])
def test_a_name_that_is_taken_or_no_word_is_refused(name):
    with pytest.raises(sp.ConfigError, match="a word in lower case that is not taken"):
        sp.register_source(name, lambda urls, source: Good())


def test_a_format_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(sp.ConfigError, match="there is no format 'lmdb': choose from .*folder, .*parquet, tar"):
        sp.stream("x", format="lmdb")


def test_options_that_mean_nothing_for_a_source_are_refused():
    with pytest.raises(sp.ConfigError, match="cache= means nothing for a sample source that is given as it is"):
        sp.stream(Good(), cache="x")


def test_a_source_without_shards_and_what_is_no_sample_are_refused():
    class Empty(Good):
        shards = ()

    class Odd(Streams):
        def read(self, shard, first=0):
            return iter([1])

    with pytest.raises(sp.ConfigError, match="Empty has no shards"):
        sp.stream(Empty())
    with pytest.raises(sp.ConfigError, match="a, sample 0: a sample source gives dicts"):
        list(sp.stream(Odd()))


def test_workers_and_ranks_get_the_same_batches_of_a_source():
    pipe = sp.stream(Good(), shuffle=True, seed=3).batch(2)
    whole = [batch["__key__"] for batch in pipe.loader()]
    assert [batch["__key__"] for batch in pipe.loader(num_workers=2)] == whole
