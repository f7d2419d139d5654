"""When a pipeline uses an index that it learnt: never in the middle of a stream, and on all ranks or on none.

A pass is planned or streamed from its beginning to its end. A state says which of the two it is of, and the pass that
it resumes stays so. What begins anew (a job without a state, the next epoch of a finite pass of one rank) is indexed if
all shards are learnt. Several ranks may see the last index appear at different times, so the first of them that asks
decides for all of the job, by the store of the process group. Where they have none they go on as they were.
"""

from __future__ import annotations

import torch.distributed

from streampipe.errors import ConfigError
from streampipe.plan.ask import Uncounted
from streampipe.reading.protocol import Samples
from streampipe.rng import derive
from streampipe.spec import Job, Spec
from streampipe.world import has_process_group

_YES, _NO = b"indexed", b"streamed"


def check_learnt(source: Samples, job: Job) -> None:
    """Go on where the index that is learnt is to be used.

    Raises:
        Uncounted: it is not; it says why.
        ConfigError: it cannot be written.
    """
    if source.learning is None:
        return
    finder, names = source.learning
    missing, shards = finder.missing(names), len(names)
    progress = f"{shards - missing:,} of {shards:,} shards are learnt"
    if job.learnt is False:
        raise Uncounted(f"the pass began while its index was being learnt ({progress}), and goes on so")
    if job.learnt is None and job.world_size > 1:
        decided = _decided(derive("learn", repr(source), names[0], shards), not missing)
        if decided is None:
            raise Uncounted(
                f"{job.world_size} ranks without a process group cannot agree when to use what they learn "
                f"({progress}): call init_process_group first, or leave index='learn' out when all are learnt"
            )
        if not decided:
            raise Uncounted(f"{progress}, and this job decides once, when it begins")
        if missing:
            raise ConfigError(
                f"another rank found all {shards:,} shards learnt, this one only {shards - missing:,}: give all ranks "
                f"the same index=sp.Learn(folder), on a disk that they share"
            )
    if missing:
        raise Uncounted(f"{progress}; what begins when all are is indexed")


def learns(spec: Spec) -> bool:
    """Whether a pipeline learns its index, so that its level may change."""
    return spec.source.learning is not None


def _decided(what: int, mine: bool) -> bool | None:
    """What the first rank that came found; None where ranks cannot hear of each other."""
    if not has_process_group():
        return None
    store = torch.distributed.distributed_c10d._get_default_store()
    found = store.compare_set(f"streampipe/learn/{what:x}", "", (_YES if mine else _NO).decode())
    return bool(found == _YES)
