"""``caption``: one caption for every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from streampipe.captions import Recipe, Tags
from streampipe.context import FILLED_IN, Run, Sample, blame, key_of, where
from streampipe.counters import counters
from streampipe.errors import ConfigError, DecodeError, StageError
from streampipe.query.aliases import CAPTION_KEYS
from streampipe.rng import Numbers
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import MISSING, check_choice
from streampipe.values import Fields


def _recipe(missing: str = "error", into: str = "caption", **options: Any) -> Recipe:
    """The recipe of the stage's parameters."""
    check_choice("caption", "missing", missing, MISSING)
    if not isinstance(into, str) or not into or into.startswith("__"):
        raise ConfigError(f"caption: into is the name of a field, not {into!r}")
    return Recipe(**options)


@stage(rows="each", state="nothing", takes="samples", views=True, check=_recipe)
def caption(
    samples: Iterable[Sample],
    keys: str | Sequence[str] = CAPTION_KEYS,
    *,
    weights: Sequence[float] | None = None,
    template: str | None = None,
    prefix: str = "",
    suffix: str = "",
    dropout: float = 0.0,
    tags: Tags | None = None,
    lines: str = "all",
    clean: Callable[[str], str] | None = None,
    missing: str = "error",
    into: str = "caption",
    objects: str = "error",
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """The sample with a text ``caption`` and a bool ``caption_dropped``; before or after ``decode``.

    Args:
        keys: where captions are, best first; ``"a;b"`` is two keys. A key names a field of exactly that name (a member,
            a joined column), else, up to a dot, a field with json and the path in it (``json.meta.long``,
            ``syn.json.text``), else a path in the field ``json`` (``long_caption``). The default finds the captions of
            the public datasets (``streampipe.query.aliases``). The first that is there and not empty is taken. Of a
            list, one at random; in a list of objects ``captions.text`` is the list of their texts.
        weights: one for each key: then one of the captions that are there is taken at random, by its weight. Those of
            weight 0 are used only where there is no other.
        template: ``"a photo of {caption}"``; other slots are keys (``"{caption}, {json.artist}"``). With
            ``tags=sp.Tags(wildcard=True)`` ``{red|blue}`` is a choice here too.
        prefix, suffix: put before and behind as they are, before tags are looked at.
        dropout: the probability that the caption becomes ``""`` and ``caption_dropped`` True, for classifier-free
            guidance (https://arxiv.org/abs/2207.12598). The same samples whatever the other options are.
        tags: an ``sp.Tags``: keep, shuffle and drop tags, wildcards.
        lines: of a text of several lines ``"all"`` (as it is), the ``"first"``, or a ``"random"`` one.
        clean: a function from the caption to a better one, before template, prefix and suffix.
        missing: where no key is there: ``"error"``, ``"keep"`` the sample with an empty caption, or ``"drop"`` it;
            both counted. A caption that is there but empty is empty, and counted.
        into: the field to put it in (and ``INTO_dropped``); one that is there already is replaced.
        objects: what an object under a key is: an ``"error"``, or its ``"json"`` text as the caption, for models that
            are trained on structured captions (``keys="json"`` is the whole json member).

    A caption is a function of (seed, epoch, key, stage) and the sample, so it does not change with workers or after a
    resume. Texts are read as ``decode`` reads them (``streampipe.decoding.text``): UTF-8, UTF-16 with a byte order
    mark, else Windows-1252 and counted. null, NaN and Infinity are no captions, wherever they stand.

    Raises:
        StageError: a sample has none of the keys; it says what the sample has. Or ``clean`` raised.
        DecodeError: a key names something that is no text.

    >>> list(caption(prefix="photo: ")([{"__key__": "a", "txt": b"a cat"}]))
    [{'__key__': 'a', 'txt': b'a cat', 'caption': 'photo: a cat', 'caption_dropped': False}]

    Tokenising is the user's. For the two text encoders of SDXL, with transformers' tokenizers::

        def tokenize(caption):  # (2, 77) token numbers, int64
            options = dict(padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            return torch.stack([tokenizer(caption, **options).input_ids[0] for tokenizer in (clip_l, clip_g)])

        pipe.caption(dropout=0.1).map(tokenize, "caption").batch(16)

    and for T5, with the mask that it wants, beside the text::

        def tokenize(sample):  # (256,) token numbers and mask, int64
            options = dict(padding="max_length", max_length=256, truncation=True, return_tensors="pt")
            found = t5(sample["caption"], **options)
            return {**sample, "tokens": found.input_ids[0], "mask": found.attention_mask[0]}

        pipe.caption(dropout=0.1).map(tokenize).batch(16)
    """
    recipe = Recipe(keys, weights, template, prefix, suffix, dropout, tags, lines, clean, objects)
    drops = Drops(run, f", because none has a caption under {', '.join(recipe.wanted)}; name what they have in keys=")
    for sample in samples:
        try:
            made = recipe(sample, _Numbers(run, sample))
            if made is None and missing == "error":
                raise _none(recipe, sample, run)
        except Exception as error:
            run.policy.failed(_placed(error, run, sample), run.stage)
            continue
        run.policy.passed(run.stage)
        if made is None:
            what = f"captions missing ({'sample dropped' if missing == 'drop' else 'empty'})"
            counters.add(run.stage, what, example=key_of(sample))
            if missing == "drop":
                drops.drop()
                continue
        elif made.dropped:
            counters.add(run.stage, "captions dropped")
        elif made.empty:
            counters.add(run.stage, "captions empty")
        text, dropped = ("", False) if made is None else made[:2]
        drops.keep()
        yield {**sample, into: text, f"{into}_dropped": dropped}
    drops.end()


class _Numbers:
    """The sample's random numbers, those of ``run.uniform``. Most captions want none, so the seed is made late."""

    def __init__(self, run: Run, sample: Sample) -> None:
        self._run, self._sample = run, sample
        self._numbers: Numbers | None = None

    def random(self) -> float:
        """The next number."""
        if self._numbers is None:
            self._numbers = Numbers(self._run.seed_of(self._sample))
        return self._numbers.random()


def _none(recipe: Recipe, sample: Sample, run: Run) -> StageError:
    have = [name for name in sample if not name.startswith("__")]
    try:
        values = Fields(sample).value("json") if "json" in sample else None
    except DecodeError:
        values = None
    if isinstance(values, dict):
        have += [f"json.{name}" for name in list(values)[:30]]
    return StageError(
        f"stage {run.stage!r}, {where(sample)}: there is no caption under {', '.join(recipe.wanted)} (it has "
        f"{', '.join(have) or 'no fields'}); name what it has in keys=, or say missing='keep' or missing='drop'"
    )


def _placed(error: Exception, run: Run, sample: Sample) -> Any:
    """The error with its place."""
    if isinstance(error, DecodeError):
        placed = DecodeError(f"stage {run.stage!r}, {where(sample)}: {error}")
        placed.__cause__ = error
        return placed
    ours = blame(error, run.stage, sample)
    if ours is not error:
        ours.__cause__ = error
    return ours
