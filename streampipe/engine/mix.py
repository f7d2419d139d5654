"""``mix``: several pipelines as one, planned; ``streampipe.plan.mixed`` has the integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from streampipe.context import Run
from streampipe.engine.chain import describe
from streampipe.engine.planning import check_part
from streampipe.errors import ConfigError
from streampipe.plan.buckets import Buckets
from streampipe.plan.compound import Compound
from streampipe.plan.costs import Fine
from streampipe.plan.course import Rates
from streampipe.plan.mixed import ConcatDataset, MixDataset, MixedBuckets, MixedPacks, Part
from streampipe.plan.packed import NotPacked
from streampipe.plan.packing import Packing
from streampipe.plan.schedule import Schedule, constant
from streampipe.query.condition import Keep
from streampipe.reading.protocol import Samples
from streampipe.spec import AnyStage, Spec


@dataclass(frozen=True)
class Leaf:
    """A part of a mixture or of one of the mixtures that are its parts, and its share there.

    ``repeats``: how often it comes in an epoch. ``factors``: of each mixture that it stands in the schedule, and its
    number there; the outermost first.
    """

    part: Part
    repeats: int
    factors: tuple[tuple[Schedule, int], ...]


class MixSamples(Samples):
    """The source of a mixture. It is planned or nothing: without counts nobody knows when a part is used up."""

    singly = True

    def __init__(
        self,
        parts: Sequence[Spec],
        weights: Sequence[float] | Schedule | None,
        repeats: Sequence[int],
        in_turn: bool = False,
    ) -> None:
        self.parts = list(parts)
        self.in_turn = in_turn
        self.weights = weights if weights is None or isinstance(weights, Schedule) else list(weights)
        self.repeats = list(repeats)

    def dataset(
        self, keep: Keep | None = None, groups: Buckets | Packing | None = None
    ) -> MixDataset | MixedBuckets | MixedPacks:
        """The samples of all parts.

        Raises:
            ConfigError: a part cannot be planned.
        """
        if keep:
            raise ConfigError("where stands behind mix; put it into the parts")
        leaves, kinds = self._leaves(groups)
        if isinstance(groups, Packing):  # the parts have one set of classes
            fine = Fine.of_all([leaf.part.dataset.fine for leaf in leaves])
            groups = replace(groups, classes=fine.classes(sum(len(leaf.part.dataset.shards) for leaf in leaves)))
            leaves, kinds = self._leaves(groups)
        if isinstance(groups, Compound):  # the parts have one set of signatures
            groups = groups.of_all(leaf.part.dataset.buckets for leaf in leaves)
            leaves, kinds = self._leaves(groups)
        parts, repeats = [leaf.part for leaf in leaves], [leaf.repeats for leaf in leaves]
        if Schedule in kinds:
            if isinstance(groups, Packing):
                raise NotPacked("which samples a mixture with a schedule packs follows from the step")
            if groups is not None:
                raise ConfigError(
                    "bucket stands behind a mixture with a schedule, whose steps would be of other buckets with other "
                    "weights; put bucket and batch into the parts: each step is then a batch of one of them"
                )
            return MixDataset(parts, None, repeats, rates=Rates([leaf.factors for leaf in leaves]))
        weights: Sequence[float | Fraction] | None = None
        if list in kinds:
            flat = len(leaves) == len(self.parts) and isinstance(self.weights, list)
            weights = self.weights if flat else Rates([leaf.factors for leaf in leaves]).at(0)  # type: ignore[assignment]
        if isinstance(groups, Packing):
            return MixedPacks(parts, weights, repeats)
        if groups is not None:
            return MixedBuckets(parts, weights, repeats)
        return (ConcatDataset if self.in_turn else MixDataset)(parts, weights, repeats)

    def _leaves(self, buckets: Buckets | Packing | None) -> tuple[list[Leaf], set[type]]:
        """The parts, those of mixtures that are parts too, and which kinds of weights there are."""
        found, counts, kinds = [], [], {type(self.weights)}
        for number, (each, times) in enumerate(zip(self.parts, self.repeats, strict=True)):
            inner, plan = check_part(each)
            if isinstance(buckets, Packing) and inner.limit is not None:
                raise NotPacked("take and skip choose other samples in every epoch, and packs follow from all")
            if buckets is not None and inner.limit is not None:
                raise ConfigError(
                    f"bucket stands behind the mixture, and its part {number} has take or skip, which choose other "
                    f"samples in every epoch, so its buckets cannot be counted; use where or sp.split in their place"
                )
            if isinstance(each.source, MixSamples):
                mine, theirs = each.source._inside(self.in_turn, inner.limit is not None, buckets)
                kinds |= theirs
            else:
                dataset = plan.dataset if buckets is None else each.source.dataset(inner.keep, buckets)
                mine = [Leaf(Part(dataset, each.seed, each.source.shuffle, (), plan.filter), 1, ())]
            counts.append(times * sum(leaf.part.dataset.samples * leaf.repeats for leaf in mine))
            found.append([_behind(leaf, inner.tail, times) for leaf in mine])
        if isinstance(self.weights, Schedule):
            own = self.weights
        else:
            own = constant(Fraction(str(weight)) for weight in (self.weights or counts))
        leaves = [replace(leaf, factors=((own, i), *leaf.factors)) for i, mine in enumerate(found) for leaf in mine]
        return leaves, kinds

    def _inside(self, in_turn: bool, limited: bool, buckets: Buckets | Packing | None) -> tuple[list[Leaf], set[type]]:
        """The same for the mixture that this one is a part of."""
        if in_turn or self.in_turn:
            raise ConfigError("a part of concat, or concat as a part, is no mixture: give its parts themselves")
        if limited:
            raise ConfigError("take and skip stand behind a mixture that is a part of another; put them into its parts")
        return self._leaves(buckets)

    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Any]:
        """Refused: see above."""
        raise ConfigError(
            "mix and concat need parts whose samples are counted; make their indexes with: streampipe index"
        )

    def beside(self) -> None:
        """Nowhere: several datasets meet."""

    def identity(self) -> list[Any]:
        """What its parts are is theirs to say."""
        return [repr(self)]

    def __repr__(self) -> str:
        parts = ", ".join(" ".join(describe(spec.source, spec.chain).split()) for spec in self.parts)
        if self.in_turn:
            return f"concat([{parts}])"
        shares = f"repeats={self.repeats}" if self.weights is None else f"weights={self.weights!r}"
        return f"mix([{parts}], {shares})"


def _behind(leaf: Leaf, stages: tuple[AnyStage, ...], times: int) -> Leaf:
    """A part with what stands behind the mixture that it is in."""
    return replace(leaf, part=replace(leaf.part, stages=(*leaf.part.stages, *stages)), repeats=leaf.repeats * times)
