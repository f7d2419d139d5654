"""Names that somebody misspelt, or that are called otherwise here: what was meant, to end a message with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
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
}
"""Methods that other libraries' datasets have, and what does the same here."""


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
    close = (
        get_close_matches(given, [each for each in known if isinstance(each, str)], 1) if isinstance(given, str) else []
    )
    return f"; did you mean {close[0]!r}?" if close else ""


def no_method(kind: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a method that is not there, with what does the same.

    >>> str(no_method("Pipeline", "batched", ["batch"])), str(no_method("Pipeline", "decoed", ["decode"]))
    ("a Pipeline has no 'batched': it is batch(n) here", "a Pipeline has no 'decoed'; did you mean 'decode'?")
    """
    return AttributeError(
        f"a {kind} has no {name!r}" + (f": {METHODS[name]}" if name in METHODS else similar(name, known))
    )


def spelt(function: F) -> F:
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

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            signature.bind(*args, **options)
        except TypeError as error:
            name = function.__name__
            hint = meant(name, options, signature.parameters) or _by_name(name, args, signature)
            raise ConfigError(f"{name}: {error}{hint}") from None
        return function(*args, **options)

    return cast("F", checked)


def _by_name(name: str, args: Iterable[Any], signature: inspect.Signature) -> str:
    """Advice where a dict was given to a function that takes what is in it by name."""
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    given = next((each for each in args if isinstance(each, Mapping)), None)
    return f"; give them by name, as in {name}(**names)" if takes_any and given is not None else ""
