"""Names that somebody misspelt, or that are called otherwise here: what was meant, to end a message with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, cast

from streampipe.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

RENAMED = {
    ("batch", "drop_last"): "tail='drop'",
    ("bucket", "leftover"): "tail=",
    ("bucket", "spec"): "buckets=",
    ("retry", "wait"): "first_wait=",
    ("retry", "max_wait"): "longest_wait=",
}
"""Options by the names that they had, and what is written now."""

ELSEWHERE = {
    ("stream", "shardshuffle"): "shuffle=True",
    ("stream", "detshuffle"): "seed=n: every order follows from it",
    ("stream", "resampled"): "epochs=None, with loader(steps_per_epoch=n)",
    ("stream", "repeat"): "epochs=n, or None",
    ("stream", "handler"): "on_error='skip'",
    ("stream", "cache_dir"): "cache=",
    ("stream", "cache_size"): "cache=sp.Cache(folder, size)",
    ("stream", "nodesplitter"): "nothing: every rank is given its share; loader(rank=, world_size=) says otherwise",
    ("stream", "workersplitter"): "nothing: every worker is given its share",
    ("stream", "select_files"): ".select('jpg', 'txt')",
    ("stream", "rename_files"): ".rename(image='jpg;png')",
    ("stream", "name"): "config=",
    ("stream", "subset"): "config=",
    ("stream", "streaming"): "nothing: it always streams",
    ("stream", "data_files"): "the first argument",
    ("stream", "data_dir"): "the first argument",
    ("stream", "revision"): "@ in the URL, as in 'hf://datasets/org/name@v1.0'",
    ("stream", "token"): "storage_options={'token': ...}",
    ("stream", "empty_check"): "nothing: a stream without a sample is an error",
    ("stream", "batch_size"): ".batch(n)",
    ("stream", "num_workers"): ".loader(num_workers=n)",
    ("stream", "transform"): ".map(fn)",
    ("batch", "collation_fn"): "collate=",
    ("batch", "collate_fn"): "collate=",
    ("batch", "batch_size"): "batch(n)",
    ("batch", "batchsize"): "batch(n)",
    ("batch", "partial"): "tail='short' (the default), or tail='drop'",
    ("map", "keys"): "map(fn, 'field'), once for each field",
    ("map", "num_workers"): "loader(num_workers=n), or threads=n of this stage alone",
    ("map", "num_proc"): "loader(num_workers=n)",
    ("map", "batched"): ".batch(n) in front of map: behind it fn is given batches",
    ("map", "batch_size"): ".batch(n) in front of map: behind it fn is given batches",
    ("map", "input_columns"): "map(fn, 'field')",
    ("map", "remove_columns"): ".drop('field') behind it",
    ("filter", "input_columns"): "filter(fn), which is given the sample",
    ("Network", "retries"): "patience=, in seconds, and tries=",
    ("Network", "max_retries"): "patience=, in seconds, and tries=",
    ("Network", "timeout"): "stall=, connect= and patience=, in seconds",
    ("Cache", "size"): "max_bytes=",
    ("Cache", "max_size"): "max_bytes=",
    ("pack", "maxcount"): "max_samples=",
    ("pack", "maxsize"): "max_bytes=",
    ("index", "output"): "folder=",
    ("index", "out"): "folder=",
    ("map", "handler"): "sp.stream(..., on_error='skip'), or sp.on_error around the function",
    ("decode", "handler"): "sp.stream(..., on_error='skip')",
    ("decode", "only"): "fields=",
    ("shuffle", "initial"): "shuffle(size) alone",
    ("shuffle", "bufsize"): "shuffle(size)",
    ("mix", "probs"): "weights=",
    ("mix", "longest"): "epochs=1, which gives as many samples as all parts have",
}
"""Options of webdataset and torch, and what is written here."""

METHODS = {
    "to_tuple": "batches are dicts here: select('jpg', 'cls') keeps some fields, and map(fn) may return a tuple; "
    "streampipe.compat.webdataset has to_tuple itself",
    "map_tuple": "map(fn, 'field') changes a field; streampipe.compat.webdataset has map_tuple itself",
    "map_dict": "it is map(fn, 'field') here, once for each field",
    "batched": "it is batch(n) here",
    "unbatched": "it is unbatch() here",
    "listed": "it is batch(n, collate=list) here",
    "unlisted": "it is unbatch() here",
    "with_epoch": "it is loader(steps_per_epoch=n) here, of sp.stream(..., epochs=None)",
    "with_length": "len(pipe) is known here where samples are counted, and else it is loader(steps_per_epoch=n)",
    "resampled": "it is sp.stream(..., epochs=None) with loader(steps_per_epoch=n) here",
    "slice": "it is take(n) and skip(n) here",
    "extract_keys": "it is select('jpg', 'cls') here, which keeps dicts",
    "rename_keys": "it is rename(image='jpg;png') here",
    "rsample": "it is filter(fn) here; for a share that is the same in every epoch, sp.split",
    "xdecode": "it is decode() here",
    "compose": "it is apply(stage) here, once for each stage",
    "append": "it is apply(stage) here",
    "pipe": "it is apply(stage) here",
    "associate": "it is join(sidecar) here",
    "log_keys": "every sample has its __key__ here, and every batch a list of them",
    "mcached": "it is sp.stream(..., cache=folder) here",
    "lmdb_cached": "it is sp.stream(..., cache=folder) here",
    "cached": "it is sp.stream(..., cache=folder) here; @sp.cached keeps a function's results",
    "shard": "every rank and worker is given its share here; of_rank(rank, world_size) says which one",
    "shards": "it is sp.stream(...) here",
    "prefetch": "it is loader(prefetch=n) here",
    "collate": "it is batch(n, collate=fn) here",
    "dataloader": "it is loader(num_workers=n) here",
    "remove_columns": "it is drop('field') here",
    "select_columns": "it is select('field') here",
    "rename_column": "it is rename(new='old') here",
    "with_format": "decode() makes tensors here",
    "set_format": "decode() makes tensors here",
    "concatenate": "it is sp.concat([a, b]) here",
    "sample": "it is sp.mix([a, b], weights=[3, 1]) here",
    "mix": "it is sp.mix([a, b], weights=[3, 1]) here",
    "interleave": "it is sp.mix([a, b]) here",
    "concat": "it is sp.concat([a, b]) here",
    "union": "it is sp.concat([a, b]) here",
    "zip": "join(sidecar) adds fields from files beside the shards here",
    "cache": "it is sp.stream(..., cache=folder) here",
    "enumerate": "every sample has its __position__ here",
    "head": "it is take(n) here",
    "limit": "it is take(n) here",
    "first": "it is next(iter(pipe)) here",
    "to_list": "it is list(pipe) here",
    "iter": "it is iter(pipe), or pipe.batch(n).loader() here",
    "iter_batches": "it is batch(n).loader() here",
    "train_test_split": "it is sp.split(pipe, share=0.01) here",
    "random_split": "it is sp.split(pipe, share=0.01) here",
    "save": "it is write('out/{:05d}.tar') here",
    "to_parquet": "write('out/{:05d}.tar') makes shards here",
    "save_to_disk": "it is write('out/{:05d}.tar') here",
    "push_to_hub": "it is write('out/{:05d}.tar') here, and hf upload puts the folder there",
    "to": "sp.to_device(pipe.loader(), 'cuda') moves batches here",
    "cuda": "it is sp.to_device(pipe.loader(), 'cuda') here",
    "pin_memory": "it is loader(pin_memory=True), or sp.to_device(pipe.loader(), 'cuda') here",
    "set_transform": "it is map(fn) here",
    "with_transform": "it is map(fn) here",
    "transform": "it is map(fn) here",
    "resize": "it is decode(size) here: images are decoded straight to it",
    "crop": "it is decode(size, crop='random') here",
    "random_crop": "it is decode(size, crop='random') here",
    "flip": "it is decode(size, flip=0.5) here",
    "tokenize": "it is map(tokenizer, 'caption') here",
    "normalize": "it is batch(n).map(fn, 'image') here",
    "sort": "streams are in the order of their shards, or shuffled; bucket and pack bring like samples together here",
    "group_by": "bucket(...) brings images of like shapes together here, and pack(...) sequences",
    "features": "streampipe info URL says which fields there are; next(iter(pipe)) shows a sample",
    "column_names": "streampipe info URL says which fields there are; next(iter(pipe)) shows a sample",
    "num_rows": "it is len(pipe) here, where samples are counted",
}
"""Methods that other libraries' datasets have, and what does the same here."""


NAMES = {
    "WebDataset": "sp.stream(...)",
    "WebLoader": "sp.stream(...).loader()",
    "DataPipeline": "sp.stream(...), with stages behind it",
    "FluidWrapper": "sp.from_iterable(...)",
    "RandomMix": "sp.mix([a, b], weights=[3, 1])",
    "RoundRobin": "sp.mix([a, b])",
    "TarWriter": "sp.from_iterable(samples).write('out/{:05d}.tar'), or streampipe.tar.TarWriter",
    "ShardWriter": "sp.from_iterable(samples).write('out/{:05d}.tar')",
    "SimpleShardList": "the first argument of sp.stream(...)",
    "ResampledShards": "sp.stream(..., epochs=None)",
    "tarfile_to_samples": "sp.stream(...)",
    "split_by_node": "left out, because every rank is given its share",
    "split_by_worker": "left out, because every worker is given its share",
    "warn_and_continue": "sp.stream(..., on_error='skip')",
    "ignore_and_continue": "sp.stream(..., on_error='skip')",
    "reraise_exception": "sp.stream(..., on_error='raise'), as it is anyway",
    "StreamingDataset": "sp.stream(...)",
    "CombinedStreamingDataset": "sp.mix([a, b], weights=[3, 1])",
    "Stream": "sp.stream(...)",
    "Dataset": "sp.stream(...)",
    "IterableDataset": "sp.stream(...)",
    "load_dataset": "sp.stream('hf://datasets/org/name', split='train')",
    "load": "sp.stream(...)",
    "open": "sp.stream(...)",
    "read": "sp.stream(...)",
    "DataLoader": "sp.stream(...).loader()",
    "interleave_datasets": "sp.mix([a, b], weights=[3, 1])",
    "concatenate_datasets": "sp.concat([a, b])",
    "write": "pipe.write('out/{:05d}.tar')",
    "optimize": "sp.from_iterable(inputs).map(fn).write('out/{:05d}.tar')",
}
"""What other libraries have at their top, and what does the same here."""


def meant(owner: str, given: Iterable[str], known: Iterable[str]) -> str:
    """For the first given name that is not known: what it is called now, or the known name that it resembles.

    >>> meant("decode", ["cropp"], ["size", "crop"]), meant("batch", ["drop_last"], ["size", "tail"])
    ('; did you mean crop=?', "; it is tail='drop' now")
    """
    known = list(known)
    for name in given:
        if name not in known:
            if (owner, name) in RENAMED:
                return f"; it is {RENAMED[owner, name]} now"
            if (owner, name) in ELSEWHERE:
                return f"; here it is {ELSEWHERE[owner, name]}"
            close = get_close_matches(name, known, 1)
            return f"; did you mean {close[0]}=?" if close else ""
    return ""


def similar(given: object, known: Iterable[object]) -> str:
    """The known text that a given one resembles.

    >>> similar("centre", ["center", "random"]), similar(3, ["center"])
    ("; did you mean 'center'?", '')
    """
    texts = [each for each in known if isinstance(each, str)]
    close = [] if not isinstance(given, str) else get_close_matches(given, texts, 1)
    if isinstance(given, str) and not close:
        close = [each for each in texts if each.lower() == given.lower()]
    return f"; did you mean {close[0]!r}?" if close else ""


def no_method(kind: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a method that is not there, with what does the same.

    >>> str(no_method("Pipeline", "batched", ["batch"])), str(no_method("Pipeline", "decoed", ["decode"]))
    ("a Pipeline has no 'batched': it is batch(n) here", "a Pipeline has no 'decoed'; did you mean 'decode'?")
    """
    public = [each for each in known if not each.startswith("_")]
    return AttributeError(
        f"a {kind} has no {name!r}" + (f": {METHODS[name]}" if name in METHODS else similar(name, public))
    )


def no_name(name: str, known: Iterable[str], module: str = "streampipe") -> AttributeError:
    """The error for a public name that is not there.

    >>> str(no_name("strem", ["stream"])), str(no_name("WebDataset", ["stream"]))
    ("streampipe has no 'strem'; did you mean 'stream'?", "streampipe has no 'WebDataset': it is sp.stream(...) here")
    """
    hint = f": it is {NAMES[name]} here" if name in NAMES else similar(name, known)
    return AttributeError(f"{module} has no {name!r}{hint}")


def spelt(function: F, name: str | None = None) -> F:
    """The function; options that it does not have, or lacks, are a ``ConfigError`` that says what was meant.

    >>> @spelt
    ... def cut(image, *, crop="center"):
    ...     return crop
    >>> cut(None, crops="random")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: cut: got an unexpected keyword argument 'crops'; did you mean crop=?
    """
    signature = inspect.signature(function)
    owner = name or function.__name__

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            signature.bind(*args, **options)
        except TypeError as error:
            hint = meant(owner, options, signature.parameters) or _by_name(owner, args, signature)
            raise ConfigError(f"{owner}: {error}{hint}") from None
        return function(*args, **options)

    return cast("F", checked)


def _by_name(name: str, args: Sequence[Any], signature: inspect.Signature) -> str:
    """Advice where options were given without their names."""
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    given = next((each for each in args if isinstance(each, Mapping)), None)
    if takes_any and given is not None:
        return f"; give them by name, as in {name}(**names)"
    named = [each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]
    places = [each for each in signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    if places[:1] and places[0].name == "pipes" and len(args) > len(places):
        return f"; give the pipelines as a list, as in {name}([a, b])"
    if named and len(args) > len(places):
        return f"; options go by name, as in {named[0]}=..."
    return ""
