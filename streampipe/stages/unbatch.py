"""``unbatch``: batches become samples again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.errors import StageError
from streampipe.stages.stage import stage


@stage
def unbatch(batches: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The samples of each batch: row i of every tensor, item i of every list. Rows are views of the batch's tensors.

    Raises:
        StageError: the fields of a batch have different lengths.

    >>> list(unbatch([{"n": [1, 2]}, {"n": [3]}]))
    [{'n': 1}, {'n': 2}, {'n': 3}]
    """
    for batch in batches:
        lengths = {name: len(values) for name, values in batch.items()}
        if len(set(lengths.values())) > 1:
            raise StageError(f"stage 'unbatch': the fields of a batch have different lengths: {lengths}")
        for i in range(next(iter(lengths.values()), 0)):
            yield {name: values[i] for name, values in batch.items()}
