"""How a plan's bytes are read, how many they are, and whether a cache would pay, in words for ``explain``."""

from __future__ import annotations

from streampipe.engine.bounds import words
from streampipe.plan.planned import Plan
from streampipe.reading.prefetch import EARLY
from streampipe.spec import Spec


def reading_rows(spec: Spec, plan: Plan, world_size: int, mine: int, alone: bool) -> list[tuple[str, str]]:
    """How the bytes are read, how many they are, and whether a cache would pay."""
    parts = plan.dataset.parts()
    sizes = [part.size for part in parts if part.size is not None]
    wanted, whole = sum(size.wanted for size in sizes), sum(size.shards for size in sizes)
    samples = max(1, sum(part.samples for part in parts))
    epoch = words(wanted * plan.lanes.samples / samples)
    share = (
        f" in all, {words(wanted * plan.lanes.samples / samples / world_size)} by each rank" if world_size > 1 else ""
    )
    rows = [("bytes", f"{epoch} an epoch{share}")] if len(sizes) == len(parts) else []
    remote = [part for part in parts if part.is_remote]
    forward = any(part.forward for part in parts)
    if not remote or forward:
        how = "each shard front to back, in its lane" if forward else "each sample when it is wanted"
        return [*rows, ("reading", f"{'remote' if remote else 'local'}: {how}")]
    source = remote[0].finder.source
    if source.cache is not None:
        text = (
            f"through the cache: each shard is copied once a machine ({words(whole)} for all), samples come from there"
        )
        return [*rows, ("reading", text)]
    rows += [("requests", _requests(plan, wanted / samples, source.network.window))] if wanted else []
    text = _ahead(plan, wanted / samples, mine, alone, wanted < whole / 2, source.network.memory)
    pays = "now" if spec.epochs != 1 else "from the second epoch on"
    extra = f", though it fetches whole shards where {words(wanted)} are wanted" if wanted < whole / 2 else ""
    return [
        *rows,
        ("reading", f"ahead of need: {text}"),
        ("cache", f"none; cache= would pay {pays}, with {words(whole)} of disk for all shards{extra}"),
    ]


def _requests(plan: Plan, mean: float, window: int) -> str:
    """How many requests for bytes an epoch costs all ranks: that depends on the link, but lies between two numbers."""
    parts, samples = plan.dataset.parts(), plan.lanes.samples
    shards = min(samples, sum(len(part.shards) for part in parts))
    least = max(shards, -(-int(samples * mean) // window))
    return (
        f"{least:,} to {samples:,} an epoch, by how much more the link has than is taken: at least a window of "
        f"{words(window)} or a shard each, at most a sample each"
    )


def _ahead(plan: Plan, mean: float, mine: int, alone: bool, few: bool, memory: int) -> str:
    """What becomes of the requests of a reader, from what its lanes would hold."""
    if few:
        return "exactly the samples that are kept, neighbours together"
    if not alone:
        return "each reader the samples that it needs, neighbours together"
    held = mine * plan.lanes.window / 2 * mean
    if held > EARLY * memory:
        return (
            f"windows of {mine} lanes are {words(held)} in each reader, more than Network(memory={memory >> 20} << 20) "
            f"has room for, so some samples come one by one; more workers or memory, or a smaller shuffle, need fewer "
            f"requests"
        )
    return f"strictly forward in {mine} lanes, each byte once; about {words(held)} wait in each reader"
