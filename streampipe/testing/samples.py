"""Whether a sample source is right: what every one promises, and what the abilities promise that it has."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from streampipe.context import Consumer, Run
from streampipe.index.facts import image_size
from streampipe.pipeline import Pipeline
from streampipe.plan.lanes import Shuffle
from streampipe.reading.finder import SourceFinder
from streampipe.reading.shards import ShardSamples
from streampipe.samplesource import Columns, Counts, Facts, RandomAccess, SampleSource

Read = list[list[dict[str, Any]]]
_READERS = (2, 3, 5)
_BATCH = 3
_OWN = ("__key__", "__url__", "__position__")


def check_source(source: SampleSource, seed: int = 0) -> None:
    """Check that a sample source keeps its promises (``sp.SampleSource``), on one with a few small shards.

    Give it one of several shards of different sizes, some ten samples in all. Checked are: the same shards and samples
    each time, also from a pickled copy and in the middle of a shard; keys that no two samples share; that readers share
    the samples and leave none out, in order and shuffled; that a pass goes on behind every sample. Of what it can do
    besides: counts that are true; single samples that are those which are read; facts that are those of the samples;
    the same values where fewer fields are read.

    Raises:
        AssertionError: it says which promise is broken, and where.

    >>> import pathlib, tempfile, streampipe as sp
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(9):
    ...     _ = (folder / f"{i}.jpg").write_bytes(b"...")
    >>> check_source(sp.Folder(folder))
    """
    whole = _read(source)
    _check_samples(source, whole)
    _check_again(source, whole)
    _check_copy(source, whole)
    _check_counts(source, whole)
    _check_single(source, whole, random.Random(seed))
    _check_facts(source, whole)
    _check_columns(source, whole)
    for window in (None, 4):
        _check_shared(source, whole, window)
        _check_resumed(source, window)
    _check_planned(source, whole)


def _need(true: object, what: str) -> None:
    if not true:
        raise AssertionError(what)


def _read(source: SampleSource) -> Read:
    return [list(source.read(shard)) for shard in range(len(source.shards))]


def _check_samples(source: SampleSource, whole: Read) -> None:
    _need(isinstance(source, SampleSource), f"{source!r} lacks shards or read()")
    names = list(source.shards)
    _need(names and all(isinstance(name, str) for name in names), f"shards are texts, one at least, not {names[:3]!r}")
    _need(len(set(names)) == len(names), "two shards have one name")
    _need(names == list(source.shards), "shards are not the same when they are asked for again")
    seen: dict[str, str] = {}
    for name, samples in zip(names, whole, strict=True):
        for number, sample in enumerate(samples):
            place = f"{name}, sample {number}"
            _need(isinstance(sample, dict), f"{place}: it is no dict, but {type(sample).__name__}")
            key = sample.get("__key__")
            _need(isinstance(key, str) and key, f"{place}: __key__ is a text, not {key!r}")
            _need(key not in seen, f"{place}: key {key!r} is also that of {seen.get(str(key))}")
            odd = [each for each in sample if each.startswith("__") and each not in _OWN]
            _need(not odd, f"{place}: field {odd and odd[0]!r} has a name that is reserved")
            seen[str(key)] = place
    _need(len(seen) > 1, "give it a source with some samples")


def _check_again(source: SampleSource, whole: Read) -> None:
    for shard, samples in enumerate(whole):
        name = source.shards[shard]
        for first in range(len(samples) + 1):
            found = list(source.read(shard, first))
            _need(
                _same(found, samples[first:]),
                f"{name}: read(..., first={first}) gives {_keys(found)}, not {_keys(samples[first:])}",
            )
        opened = source.read(shard)
        next(iter(opened), None)
        _need(_same(list(source.read(shard)), samples), f"{name}: two readers at a time disturb each other")


def _check_copy(source: SampleSource, whole: Read) -> None:
    try:
        copy: SampleSource = pickle.loads(pickle.dumps(source))
    except Exception as error:
        raise AssertionError(f"it cannot be pickled behind a read, as every worker needs it: {error}") from error
    _need(list(copy.shards) == list(source.shards), "a pickled copy has other shards")
    _need(all(map(_same, _read(copy), whole)), "a pickled copy gives other samples")


def _check_counts(source: SampleSource, whole: Read) -> None:
    if isinstance(source, Counts) and (counts := source.counts()) is not None:
        true = [len(samples) for samples in whole]
        _need([int(each) for each in counts] == true, f"counts() are {list(counts)}, but read() gives {true}")


def _check_single(source: SampleSource, whole: Read, rng: random.Random) -> None:
    if not isinstance(source, RandomAccess):
        return
    _need(isinstance(source, (Counts, Facts)), "it has sample(), but neither counts() nor facts(): nobody asks for one")
    places = [(shard, number) for shard, samples in enumerate(whole) for number in range(len(samples))]
    rng.shuffle(places)
    for shard, number in places:
        found = source.sample(shard, number)
        _need(
            _same([found], [whole[shard][number]]),
            f"{source.shards[shard]}: sample({number}) gives {_keys([found])}, read() gives "
            f"{_keys([whole[shard][number]])} there, or other fields",
        )


def _check_facts(source: SampleSource, whole: Read) -> None:
    if not isinstance(source, Facts):
        return
    finder = SourceFinder(source)
    for name, samples, shard in zip(source.shards, whole, range(len(whole)), strict=True):
        for asked in (None, frozenset(), frozenset(("width", "height"))):
            table = source.facts(shard, asked)
            if table is None:
                continue
            found = finder.find(name, columns=asked)
            assert found is not None
            keys = [sample["__key__"] for sample in samples]
            _need(found.keys() == keys, f"{name}: facts(columns={asked}) has keys {found.keys()[:5]}, not {keys[:5]}")
            for column in table.column_names:
                _check_column(name, column, table.column(column).to_pylist(), samples)


def _check_columns(source: SampleSource, whole: Read) -> None:
    if not isinstance(source, Columns):
        return
    names = sorted({name for samples in whole for sample in samples for name in sample if name not in _OWN})
    for wanted in [[name] for name in names] + [[names[0], names[-1], "no such field"]] * bool(names):
        found = source.only(wanted)
        if found is not None:
            read = _read(found)
            for mine, all_of in zip(read, whole, strict=True):
                kept = [{name: each[name] for name in each if name in (*_OWN, *wanted)} for each in all_of]
                mine = [{name: each[name] for name in each if name in (*_OWN, *wanted)} for each in mine]
                _need(_same(mine, kept), f"only({wanted}) gives other samples or values than read()")


def _check_column(name: str, column: str, values: Sequence[Any], samples: Sequence[Mapping[str, Any]]) -> None:
    for number, (value, sample) in enumerate(zip(values, samples, strict=True)):
        true = sample.get(column, value)
        if column in ("width", "height"):
            size = image_size(sample)[column == "height"]
            true = true if size is None else size
        elif column == "size":
            true = value
        if not isinstance(true, (bytes, memoryview)):
            _need(value == true, f"{name}, sample {number}: facts() says {column}={value!r}, the sample {true!r}")


def _lane(source: SampleSource, window: int | None, number: int, total: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    run = Run(consumer=Consumer(worker=number, num_workers=total))
    for sample in ShardSamples(source, Shuffle(window))(run, 0):
        yield run.trail.mark, sample


def _check_shared(source: SampleSource, whole: Read, window: int | None) -> None:
    keys = sorted(sample["__key__"] for samples in whole for sample in samples)
    for total in _READERS:
        found = [sample["__key__"] for i in range(total) for _, sample in _lane(source, window, i, total)]
        _need(
            sorted(found) == keys, f"{total} readers together give {len(found)} of {len(keys)} samples, or some twice"
        )


def _check_resumed(source: SampleSource, window: int | None) -> None:
    passed = list(_lane(source, window, 0, 1))
    for number, (mark, _) in enumerate(passed):
        run = Run(resumed=True)
        rest = [sample["__key__"] for sample in ShardSamples(source, Shuffle(window))(run, 0, at=mark[1:])]
        _need(
            rest == [sample["__key__"] for _, sample in passed[number + 1 :]],
            f"a pass that goes on behind sample {number + 1} (shuffle={window}) gives others than an unbroken one",
        )


def _check_planned(source: SampleSource, whole: Read) -> None:
    """Batches that are decided before they are read, from every step on."""
    pipe = Pipeline(ShardSamples(source, Shuffle(4))).map(_key_of).batch(_BATCH)
    loader = pipe.loader()
    known = isinstance(source, (Counts, Facts))
    samples = sum(map(len, whole))
    if known:
        _need(len(loader) == -(-samples // _BATCH), f"{len(loader)} batches are planned of {samples} samples")
    batches, states = [], []
    for batch in loader:
        batches.append(batch["__key__"])
        states.append(loader.state_dict())
    _need(sum(map(len, batches)) == samples, f"a loader gives {sum(map(len, batches))} samples of {samples}")
    for number, state in enumerate(states[:-1]):
        again = pipe.loader()
        again.load_state_dict(state)
        rest = [batch["__key__"] for batch in again]
        _need(rest == batches[number + 1 :], f"a loader that goes on behind batch {number + 1} gives other batches")


def _key_of(sample: dict[str, Any]) -> dict[str, Any]:
    """What of a sample can share a batch with any other."""
    return {name: sample[name] for name in ("__key__", "__position__")}


def _same(mine: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    return len(mine) == len(others) and all(
        a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a) for a, b in zip(mine, others, strict=True)
    )


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) or hasattr(a, "__array__") else bool(a == b)


def _keys(samples: Sequence[Mapping[str, Any]]) -> str:
    keys = [sample.get("__key__") for sample in samples[:3]]
    return f"{len(samples)} samples, {keys}{' and so on' if len(samples) > 3 else ''}"
