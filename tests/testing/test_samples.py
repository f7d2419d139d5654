"""``check_source`` finds each promise that a sample source breaks, and names it; the built-in sources keep all."""

import pyarrow as pa
import pytest

import streampipe as sp
from streampipe.index import Finder
from streampipe.reading.tars import Tars
from streampipe.source import Source
from streampipe.tar import Limits
from streampipe.testing import check_source
from streampipe.urls import ShardList
from tests.data import write_shards

SIZES = (3, 1, 4)


class Good(sp.SampleSource):
    """A source that keeps its promises and has all abilities; each of those below breaks one."""

    shards = ("a", "b", "c")

    def sample(self, shard, number):
        return {"__key__": f"{shard}-{number}", "n": 10 * shard + number}

    def read(self, shard, first=0):
        return (self.sample(shard, number) for number in range(first, SIZES[shard]))

    def counts(self):
        return SIZES

    def facts(self, shard, columns):
        rows = [self.sample(shard, number) for number in range(SIZES[shard])]
        return pa.table({"key": [row["__key__"] for row in rows], "n": [row["n"] for row in rows]})


class Streams(sp.SampleSource):
    """It can only be read."""

    shards = Good.shards

    def read(self, shard, first=0):
        return Good().read(shard, first)


class SameNames(Good):
    shards = ("a", "b", "a")


class SameKeys(Good):
    def sample(self, shard, number):
        return {"__key__": str(number)}


class NoKey(Good):
    def sample(self, shard, number):
        return {"n": number}


class Reserved(Good):
    def sample(self, shard, number):
        return {**super().sample(shard, number), "__size__": 1}


class FromTheBeginning(Good):
    def read(self, shard, first=0):
        return super().read(shard)


class Restless(Good):
    passes = 0

    def read(self, shard, first=0):
        self.passes += 1
        return ({**sample, "pass": self.passes} for sample in super().read(shard, first))


class Live(Good):
    def read(self, shard, first=0):
        self.opened = (each for each in ())
        return super().read(shard, first)


class Miscounted(Good):
    def counts(self):
        return (3, 2, 4)


class AnotherSample(Good):
    def read(self, shard, first=0):
        return ({**sample, "n": -1} for sample in super().read(shard, first))


class WrongFacts(Good):
    def facts(self, shard, columns):
        return super().facts(shard, columns).set_column(1, "n", [[0] * SIZES[shard]])


class WrongOrder(Good):
    def facts(self, shard, columns):
        return super().facts(shard, columns)[::-1]


class Unasked(Streams):
    def sample(self, shard, number):
        return Good().sample(shard, number)


@pytest.mark.parametrize("source", [Good(), Streams()], ids=lambda source: type(source).__name__)
def test_a_source_that_keeps_its_promises_passes(source):
    check_source(source)


@pytest.mark.parametrize(
    ("source", "promise"),
    [
        (SameNames(), "two shards have one name"),
        (SameKeys(), "is also that of a, sample 0"),
        (NoKey(), "__key__ is a text"),
        (Reserved(), "a name that is reserved"),
        (FromTheBeginning(), "first=1"),
        (Restless(), "first=0"),
        (Live(), "cannot be pickled"),
        (Miscounted(), r"counts\(\) are \[3, 2, 4\], but read\(\) gives \[3, 1, 4\]"),
        (AnotherSample(), "or other fields"),
        (WrongFacts(), r"facts\(\) says n=0"),
        (WrongOrder(), r"facts\(columns=None\) has keys"),
        (Unasked(), "nobody asks for one"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, sp.SampleSource) else "",
)
def test_a_broken_promise_is_found_and_named(source, promise):
    with pytest.raises(AssertionError, match=promise):
        check_source(source)


def test_tars_keep_the_promises(tmp_path):
    write_shards(tmp_path, SIZES)
    check_source(Tars(ShardList(sorted(map(str, tmp_path.iterdir()))), Finder(Source(), Limits())))
