"""The one sentence of a report: what the consumer waits for, and what to change."""

from __future__ import annotations

from math import ceil, inf

from streampipe.gil import has_gil
from streampipe.report.summary import READING, StageRow, Summary

_LITTLE = 0.05
"""The share of waiting below which nothing is to be gained."""
_MORE = 4
"""How many times the rate of now is aimed at, where batches are taken as fast as they come."""
_COMPUTES = 0.08
"""The share of a call's time on the processor, from which on it computes: a busy machine gives it less than all."""
_FULL = 0.9
"""How much of a thread's time can be used."""
_MANY_SLOW, _SOME_SLOW = 0.4, 0.05
"""Shares of a stage's time from which on its slow calls are what there is to say; the second where threads are idle."""
_BUSY = 0.6
"""The share of their time from which on threads are busy."""
_SLOW_CALLS = 0.2
"""The share of calls up to which these are few."""


def judge(found: Summary) -> tuple[str, str]:
    """What limits the loader, and the sentence.

    That is a stage's name, ``network``, ``disk``, ``reading``, ``planning``, ``hand-over``, ``device``,
    ``consumer``, or ``""``.
    """
    if not found.batches or not found.making_seconds:
        return "", "nothing was measured yet"
    if found.wait_share < _LITTLE:
        return "consumer", _consumer(found)
    if found.device_share > _BUSY:
        return "device", _device(found)
    if found.background and _idle(found) > 0.5:
        return "hand-over", _hand_over(found)
    row = max(found.stages, key=lambda each: each.own_seconds, default=None)
    if row is None or row.own_seconds < found.other_seconds:
        return "hand-over" if found.background else "planning", _other(found)
    if row.name == READING:
        return _reading(found, row)
    return row.name, _stage(found, row)


def _consumer(found: Summary) -> str:
    text = f"your step takes {_share(1 - found.wait_share)} of the time, and waits {_share(found.wait_share)} for data"
    if found.background and found.capacity:
        text += (
            f": {readers(found)} could feed {_number(found.capacity)} samples/s and you consume "
            f"{_number(found.rate)}, so fewer would do, and more would gain nothing"
        )
    else:
        text += ": more threads or workers would gain nothing"
    return text


def _device(found: Summary) -> str:
    decodes = found.device_decode_seconds > found.device_copy_seconds
    advice = (
        "decode without device= leaves that to the processors' cores, and smaller images cost less"
        if decodes
        else "copy less: uint8 pixels that are scaled there, and only the fields that are used (select)"
    )
    return (
        f"{'decoding on' if decodes else 'copying batches to'} {found.device} takes {_share(found.device_share)} of "
        f"the time, and you wait {_share(found.wait_share)} of it: {advice}; {_consumes(found)}"
    )


def _hand_over(found: Summary) -> str:
    how = (
        "batches go through shared memory from worker to parent: threads=n with num_workers=0 hands over nothing"
        if found.workers
        else "raise prefetch=, so that more batches lie ready for steps that take unequally long"
    )
    return (
        f"you wait {_share(found.wait_share)} of the time though {readers(found)} are idle {_share(_idle(found))} of "
        f"theirs: {how}"
    )


def _other(found: Summary) -> str:
    share = found.other_seconds / found.making_seconds
    advice = "num_workers=2 or more" if not found.workers else "more workers"
    return (
        f"planning, putting batches together and handing them over take {_share(share)} of the time of "
        f"{readers(found)}: {advice} would share it; larger batches need less of it"
    )


def _reading(found: Summary, row: StageRow) -> tuple[str, str]:
    whole = f"{_share(row.share)} of the time {_of(found)}"
    seconds = max(found.making_seconds / max(found.readers, 1), 1e-9)
    if found.remote and found.network_bytes and not found.disk_bytes > found.network_bytes:
        return "network", (
            f"waiting for the network takes {whole} ({_size(found.network_bytes / seconds)}/s in "
            f"{found.requests:,} requests): keep shards on this machine (cache=), or ask for more at once "
            f"(Network(requests=, memory=)); {_consumes(found)}"
        )
    if found.disk_seconds > 0.5 * row.own_seconds:
        return "disk", (
            f"reading from the disk takes {whole} ({_size(found.disk_bytes / seconds)}/s): "
            f"{_more_readers(found)} if the disk serves several readers at once, else a faster disk; "
            f"{_consumes(found)}"
        )
    return READING, (f"finding and unpacking samples takes {whole}: {_more_readers(found)}; {_consumes(found)}")


def _stage(found: Summary, row: StageRow) -> str:
    idle = row.threads > 1 and row.utilisation is not None and row.utilisation < _BUSY
    if 0 < row.slow_calls < _SLOW_CALLS and row.slow_share > (_SOME_SLOW if idle else _MANY_SLOW):
        return (
            f"{_slow_calls(row)}: look at those samples; {_idle_threads(found, row) if idle else _remedy(found, row)}"
        )
    if idle:
        return f"{row.name} takes {_share(row.share)} of the time {_of(found)}, but {_idle_threads(found, row)}"
    if row.threads and row.utilisation is not None:
        return f"{row.name} takes {_share(row.utilisation)} of {_threads(found, row)}: {_remedy(found, row)}"
    return f"{row.name} takes {_share(row.share)} of the time {_of(found)}: {_remedy(found, row)}"


def _slow_calls(row: StageRow) -> str:
    seconds, key = row.slowest[0] if row.slowest else (row.p99, "")
    return (
        f"one call in {max(2, round(1 / row.slow_calls))} of {row.name} takes {row.slow_times:.0f} times "
        f"as long as the others and together they take {_share(row.slow_share)} of its time (the slowest: sample "
        f"{key!r}, {_seconds(seconds)})"
    )


def _idle_threads(found: Summary, row: StageRow) -> str:
    number = max(2, 2 * found.workers)
    return (
        f"its {_threads(found, row)} are idle {_share(1 - (row.utilisation or 0))} of the time, so more of them gain "
        f"nothing: larger batches or num_workers={number} give them work meanwhile; {_consumes(found)}"
    )


def _remedy(found: Summary, row: StageRow) -> str:
    """How many threads or workers would feed how much."""
    cost = (row.busy_seconds if row.threads else row.own_seconds) / _made(found)
    have = max(1, row.threads) * found.readers
    need = max(have + 1, ceil(min(found.consumer_rate or inf, _MORE * found.rate) * cost / _FULL))
    number = min(need, found.cores) if _on_processor(row) else need
    if _holds_lock(found, row):
        workers = max(2, found.cores // found.ranks)
        return (
            f"threads take turns with Python's lock, so more of them gain nothing: num_workers={workers} would "
            f"run side by side on {found.cores} cores; {_consumes(found)}"
        )
    if number <= have:
        return (
            f"all {found.cores} cores that there are for it are in use: less work for each sample (smaller images, "
            f"results kept by a cache or packed once), or more cores; {_consumes(found)}"
        )
    fed = _number(_fed(found, row, number, have))
    return f"{_how(found, row, number)} would feed {fed} samples/s; {_consumes(found)}"


def _how(found: Summary, row: StageRow, number: int) -> str:
    """The option of each rank that gives all together so many threads or workers."""
    if row.threads:
        return f"{row.name.partition('(')[0]}(threads={ceil(number / found.readers)})"
    number = ceil(number / found.ranks)
    if found.workers:
        return f"num_workers={ceil(number / max(1, found.threads))}"
    if (row.python or row.foreign) and _on_processor(row) and has_gil():
        return f"num_workers={number}"
    return f"threads={number}"


def _on_processor(row: StageRow) -> bool:
    """Whether it computes, and does not sleep or wait for others: it then needs cores."""
    return row.cpu_seconds > _COMPUTES * (row.busy_seconds if row.threads else row.own_seconds)


def _holds_lock(found: Summary, row: StageRow) -> bool:
    """Whether threads have no more of the processor together than one of them could have."""
    threads = row.threads or (0 if found.workers else found.threads)
    if threads < 2 or not (row.python or row.foreign) or not _on_processor(row) or found.cores < 2 or not has_gil():
        return False
    return sum(each.cpu_seconds for each in found.stages) < 1.15 * found.making_seconds / found.readers


def _fed(found: Summary, row: StageRow, number: int, have: int) -> float:
    """Samples a second with so many threads or workers; where only a stage has more, one still does the rest."""
    if not row.threads:
        return (found.capacity or found.rate) * number / have
    rest = (found.making_seconds - row.own_seconds) / _made(found) / found.readers
    shared = number * _FULL / max(row.busy_seconds / _made(found), 1e-9)
    return min(shared, 1 / rest) if rest > 1e-9 else shared


def _made(found: Summary) -> float:
    """The samples that the seconds of making are of."""
    return max(found.made or found.samples, 1)


def _more_readers(found: Summary) -> str:
    if found.workers:
        return f"num_workers={2 * found.workers} would read side by side"
    return f"threads={max(2, 2 * found.threads)} would read side by side"


def _consumes(found: Summary) -> str:
    if found.consumer_rate is None or found.consumer_rate > 100 * found.rate:
        return f"you get {_number(found.rate)} and take them as fast as they come"
    return f"you get {_number(found.rate)} and could consume {_number(found.consumer_rate)}"


def _idle(found: Summary) -> float:
    return found.idle_seconds / max(found.idle_seconds + found.making_seconds, 1e-9)


def readers(found: Summary) -> str:
    """Who makes batches, in the words of ``explain()`` and ``loader()``."""
    if not found.background:
        return "your own thread"
    if found.workers:
        each = f" with {found.threads} threads each" if found.threads > 1 else ""
        return f"{found.workers} worker{'s' if found.workers > 1 else ''}{each}"
    return f"{found.readers} thread{'s' if found.readers > 1 else ''}"


def _of(found: Summary) -> str:
    if not found.background:
        return f"that you wait for data ({_share(found.wait_share)} of each step)"
    return f"of {readers(found)}"


def _threads(found: Summary, row: StageRow) -> str:
    number = row.threads * found.readers
    return f"{number} thread{'s' if number > 1 else ''}"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
