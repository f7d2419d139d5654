"""``stream`` and ``from_iterable``: where a pipeline begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from os.path import expanduser, isdir, lexists
from typing import Any

from streampipe.errors import ConfigError, ShardMissing
from streampipe.index.learn import Learn
from streampipe.pipeline import Pipeline
from streampipe.plan.lanes import SENSIBLE_WINDOW, Shuffle
from streampipe.policy import ErrorPolicy
from streampipe.reading.formats import format_of_all, source_of
from streampipe.reading.iterable import IterableSamples
from streampipe.reading.shards import ShardSamples
from streampipe.reading.tars import TarSamples
from streampipe.repository import is_repository, shards_of
from streampipe.samplesource import BUILT_IN, SampleSource
from streampipe.source import Cache, Network, Opener, Source, local_path, redact
from streampipe.spelling import spelt
from streampipe.stages.values import check_choice, check_function, check_kind
from streampipe.tar import Limits
from streampipe.urls import expand, is_shard, names_of, split_joined


@spelt
def stream(
    urls: str | PathLike[str] | Iterable[str | PathLike[str]] | SampleSource,
    *,
    format: str | None = None,
    split: str | None = None,
    config: str | None = None,
    seed: int = 0,
    shuffle: bool | int = False,
    epochs: int | None = 1,
    index: str | Learn | None = None,
    tier: str | None = None,
    on_error: str | ErrorPolicy = "raise",
    storage_options: Mapping[str, Any] | None = None,
    opener: Opener | None = None,
    cache: str | PathLike[str] | Cache | None = None,
    network: Network | None = None,
    limits: Limits | None = None,
    missing_shards: str = "error",
) -> Pipeline:
    """The samples of tar shards (WebDataset format), of a folder of images, or of Parquet files, as a pipeline.

    Args:
        urls: a shard, a directory of shards, a glob, a brace range (``"s3://b/{00000..01999}.tar"``), several of these
            joined by ``::`` or in a list; local paths and fsspec URLs. Brace ranges are expanded one name at a time.
            ``~`` and ``$VAR`` are filled in. Hidden files in a directory, or that a glob matches, are passed over.
            A local folder of images (see ``sp.Folder``); Parquet files (see ``sp.Parquet``); or an ``sp.SampleSource``.
        format: ``"tar"``, ``"folder"``, ``"parquet"``, or a name that ``sp.register_source`` was given; None: found out
            by endings, schemes and what lies in a folder.
        split: of a repository of the hub that is named by itself (``"hf://datasets/org/name"``), or of a local clone of
            one: ``"train"`` and the like, by the rules of ``datasets``: what the ``configs`` in the head of its
            README.md say, else the names of its files. Needed where it has several.
        config: of such a repository, where its README.md has several: what the hub calls subset.
        seed: of every order and every random choice in the pipeline.
        shuffle: False: shard order, the same in every epoch. True: shards in a new order every epoch, and samples
            shuffled over 2,000: in one window, or in the planned tier in a window of 2,000 / n (at least 64) in each of
            the n places of the dataset that a batch mixes. A number: windows of that many samples.
        epochs: how many epochs one pass over the pipeline is; None for an endless stream.
        index: the folder of the shards' indexes where that is not beside them (``streampipe index --out``). ``"learn"``
            or ``sp.Learn(folder)``: shards that have none are streamed, nothing is scanned, and each shard that was
            read whole gets the index that ``streampipe index`` would write. When all have one, the next epoch (of one
            rank) or the next job is indexed; a pass that has begun, or that a state resumes, keeps its level. In
            workers of a plain DataLoader it is learnt, and used by ``pipe.loader()`` or without ``"learn"``.
        tier: None: planned if the samples can be counted (local shards, or indexed ones) and the stages allow it, else
            sequential. ``"planned"`` makes it an error if they do not; ``"sequential"`` never counts.
        on_error: ``"raise"``, ``"skip"`` (counted, logged, and given up when it becomes too much), or an
            ``sp.ErrorPolicy`` with limits of its own.
        storage_options: for fsspec (credentials, endpoints).
        opener: a function from a URL to a binary file object, in place of fsspec and local files.
        cache: a folder of this machine in which remote shards are kept for later epochs, other workers and other jobs
            (or an ``sp.Cache`` with a size; by default 5 % of the disk are left free).
        network: an ``sp.Network``: tries, timeouts, memory. The defaults are safe and fast.
        limits: how large members, headers and samples may be, and which oddities of a shard are read: another archive
            behind its end, hard links, a missing end marker.
        missing_shards: ``"error"``, or ``"skip"`` those of a range that are not there (counted, logged).

    Each rank and DataLoader worker reads its own share: whole shards, and samples of shared shards where there are too
    few (see ``streampipe.plan.deal``).

    Raises:
        ConfigError: nothing is found under ``urls``, or an argument is wrong. When a pass begins: what is learnt cannot
            be written.
    """
    check_kind("stream", "split", split, str, "the name of one")
    check_kind("stream", "config", config, str, "the name of one")
    _check_kinds(format, storage_options, opener, cache, network, limits)
    _check_index(index)
    check_choice("stream", "tier", tier, (None, "planned", "sequential"))
    policy = on_error if isinstance(on_error, ErrorPolicy) else ErrorPolicy(on_error)
    shuffled = Shuffle(_window(shuffle), shuffle is True)
    of_tars = {"index": index, "opener": opener, "limits": limits}
    of_bytes = {"storage_options": storage_options, "cache": cache, "network": network}
    if isinstance(urls, SampleSource) and not isinstance(urls, (str, PathLike)):
        _refuse(
            {"format": format, "split": split, "config": config, **of_tars, **of_bytes},
            missing_shards,
            "a sample source that is given as it is",
        )
        return Pipeline(ShardSamples(urls, shuffled, tier), seed=seed, epochs=epochs, policy=policy)
    given = str(urls) if isinstance(urls, (str, PathLike)) else names_of(urls, _OWN)
    kept = cache if isinstance(cache, Cache) or cache is None else Cache(cache)
    source = Source(storage_options, opener, network, kept)
    given = _of_repository(given, split, config, format, source)
    kind = format or ("tar" if opener is not None else format_of_all(given, lambda: source))
    if kind == "tar":
        shards = expand(given, lambda: source)
        _check_there(given, opener, source)
        samples: ShardSamples = TarSamples(shards, source, shuffled, limits or Limits(), index, tier, missing_shards)
        return Pipeline(samples, seed=seed, epochs=epochs, policy=policy)
    _refuse({**of_tars, **(of_bytes if kind == "folder" else {})}, missing_shards, f"format {kind!r}")
    if kind in BUILT_IN:  # names of others' may be no paths
        _check_there(given, None, source)
    made = source_of(kind, given, source, policy.mode)
    return Pipeline(ShardSamples(made, shuffled, tier), seed=seed, epochs=epochs, policy=policy)


@spelt
def from_iterable(
    samples: Iterable[Any] | Callable[[], Iterable[Any]],
    *,
    seed: int = 0,
    epochs: int | None = 1,
    on_error: str | ErrorPolicy = "raise",
) -> Pipeline:
    """Any iterable as a pipeline's source: a list, a ``wds.WebDataset``, a function that opens something.

    A list, tuple or other sequence is divided among ranks and workers. Any other iterable is read as it is by every
    consumer, because only it knows how to divide itself (webdataset's datasets do).

    >>> list(from_iterable([{"__key__": "a", "n": 1}, {"__key__": "b", "n": 2}]).map(lambda n: n + 1, "n").select("n"))
    [{'__key__': 'a', '__position__': Position(epoch=0, shard=0, sample=0), 'n': 2},
     {'__key__': 'b', '__position__': Position(epoch=0, shard=0, sample=1), 'n': 3}]
    """
    policy = on_error if isinstance(on_error, ErrorPolicy) else ErrorPolicy(on_error)
    if isinstance(samples, (str, bytes, Mapping)):
        what = "the letters of a text" if not isinstance(samples, Mapping) else "the keys of a dict"
        raise ConfigError(f"from_iterable takes samples, as in [{{'__key__': 'a', 'n': 1}}], and would give {what}")
    return Pipeline(IterableSamples(samples), seed=seed, epochs=epochs, policy=policy)


def _refuse(options: Mapping[str, Any], missing_shards: str, what: str) -> None:
    """Refuse options that mean nothing for a source."""
    given = [name for name, value in options.items() if value is not None]
    given += ["missing_shards"] if missing_shards != "error" else []
    if given:
        raise ConfigError(f"stream: {given[0]}= means nothing for {what}; leave it out")


def _of_repository(
    given: str | list[str], split: str | None, config: str | None, format: str | None, source: Source
) -> str | list[str]:
    """The shards of a repository of the hub, or of its clone, where that is what was named; else what was given."""
    one = given[0] if isinstance(given, list) and len(given) == 1 else given
    asked = split is not None or config is not None
    if isinstance(one, str) and (is_repository(one) or (asked and isdir(expanduser(local_path(one) or "")))):
        return shards_of(one, source, split=split, config=config, format=format)
    if asked:
        name, value = ("split", split) if split is not None else ("config", config)
        raise ConfigError(
            f"stream: {name}={value!r} is of a repository of the hub that is named by itself, as in "
            f"'hf://datasets/org/name', or of a local clone of one; name the files of others, and sp.split holds out a "
            f"share of samples"
        )
    return given


def _window(shuffle: bool | int) -> int | None:
    if shuffle is False or shuffle == 0:
        return None
    if shuffle is True:
        return SENSIBLE_WINDOW
    if not isinstance(shuffle, int) or shuffle < 0:
        raise ConfigError(f"shuffle is a number of samples, True or False, not {shuffle!r}")
    return shuffle


def _check_kinds(format: Any, storage_options: Any, opener: Any, cache: Any, network: Any, limits: Any) -> None:
    """Refuse options that are of the wrong kind: here, not where they are first used."""
    check_kind("stream", "format", format, str, "the name of one")
    check_kind("stream", "storage_options", storage_options, Mapping, "a dict for fsspec")
    check_function("stream", "opener", opener, optional=True)
    check_kind("stream", "cache", cache, (str, PathLike, Cache), "a folder, or an sp.Cache")
    check_kind("stream", "network", network, Network, "an sp.Network")
    check_kind("stream", "limits", limits, Limits, "an sp.Limits")


_OWN = "; samples of your own are sp.from_iterable(samples)"


def _check_there(urls: str | Iterable[str], opener: Any, source: Source) -> None:
    """Refuse a local name behind which there is nothing, at once, where it is no pattern; and stores nobody knows.

    A shard that is missing among others is found when it is read, where ``missing_shards=`` has its say.
    """
    names = [] if opener is not None else split_joined(urls) if isinstance(urls, str) else list(urls)
    source.check(names)
    for name in names:
        several = any(sign in name for sign in "{*?[$") or (is_shard(name) and len(names) > 1)
        path = None if several else local_path(name)
        if path is not None and "::" not in path and not lexists(expanduser(path)):
            if is_shard(name):
                raise ShardMissing(f"{redact(name)} does not exist; check the URL")
            raise ConfigError(
                f"there is nothing at {redact(name)!r}; stream takes a folder, a shard or a pattern of shards"
            )


def _check_index(index: Any) -> None:
    """Refuse a local folder of indexes that is not there: nobody would see that no index is used."""
    check_kind("stream", "index", index, (str, PathLike, Learn), "the folder of the indexes")
    path = None if index is None or index == "learn" or isinstance(index, Learn) else local_path(fspath(index))
    if path is not None and not isdir(path):
        raise ConfigError(
            f"index={index!r} is no folder; streampipe index URL --out FOLDER makes one, and indexes that lie beside "
            f"their shards are found without index="
        )
