"""Which clips a video has, in integers: by its number of frames, its duration and a rule.

The planner asks this of the columns of an index, and a stage of the header of one video: both find the same. So a clip
is a sample like any other: (sample, number of the clip), counted before anything is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streampipe.decoding.clip import Clip
from streampipe.errors import ConfigError
from streampipe.index import ShardIndex
from streampipe.index.facts import CLIP_FRAMES
from streampipe.plan.ask import Uncounted
from streampipe.query.condition import Asked, Keep

RULES = ("head", "chunk", "slide", "uniform", "full")
PIECE = "__piece__"
"""In a sample that the planner took for one of its clips: which one."""
TOO_SHORT = "dropped, shorter than a clip"
"""Under what videos are counted of which there is no clip."""
_SLACK = 0.05  # of a frame: containers round times
_FULL = range(1, 130, 4)
_SAMPLE_RATE = 48_000


@dataclass(frozen=True)
class Clips:
    """A rule for cutting videos into clips; see ``streampipe.stages.clips`` for what its options mean.

    >>> Clips((17,), fps=16, rule="chunk").of(frames=150, duration=5.0)[-1]
    Clip(number=3, first=51, frames=17, fps=16.0, every=False, audio=0)
    """

    frames: tuple[int, ...]
    fps: float | None = None
    rule: str = "head"
    n: int | None = None
    stride: int | None = None
    audio: int = 0

    @property
    def text(self) -> str:
        """All that decides about samples, in words."""
        return f"clips({self.frames}, {self.fps}, {self.rule}, {self.n}, {self.stride})"

    def lengths(self, frames: np.ndarray, duration: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each video: how many frames it has at this rate, and the longest clip that fits in; 0 if none does."""
        total = frames.astype(np.int64)
        if self.fps is not None:
            total = np.maximum(1, np.ceil(duration * self.fps - _SLACK)).astype(np.int64)
        sizes = np.array((0, *self.frames))
        return total, sizes[np.searchsorted(sizes, total, side="right") - 1]

    def counts(self, total: np.ndarray, length: np.ndarray) -> np.ndarray:
        """How many clips each video has."""
        some = length > 0
        if self.rule in ("head", "full"):
            found = np.ones(len(total), np.int64)
        elif self.rule == "uniform":
            found = np.minimum(self.n or 1, total - length + 1)
        else:
            found = (total - length) // np.maximum(1, self._step(length)) + 1
            found = found if self.n is None else np.minimum(found, self.n)
        return np.where(some, found, 0)

    def _step(self, length: np.ndarray) -> np.ndarray:
        """Frames from one clip's beginning to the next one's."""
        if self.rule == "chunk":
            return length
        return np.maximum(1, length // 2) if self.stride is None else np.full_like(length, self.stride)

    def of(self, frames: int, duration: float) -> list[Clip]:
        """The clips of a video."""
        total, length = self.lengths(np.array([frames]), np.array([duration]))
        number = int(self.counts(total, length)[0])
        size, room = int(length[0]), int(total[0] - length[0])
        if self.rule == "uniform":
            starts = [room * i // (number - 1) for i in range(number)] if number > 1 else [room // 2]
        else:
            starts = [i * int(self._step(length)[0]) for i in range(number)]
        fps = self.fps or (frames / duration if duration else 0.0)
        return [
            Clip(i, start, size, float(fps), self.fps is None, self.audio) for i, start in enumerate(starts[:number])
        ]

    def of_image(self) -> list[Clip]:
        """The one clip of an image: one frame."""
        return [Clip(0, 0, 1, float(self.fps or 0), self.fps is None, self.audio)]


def make_clips(
    frames: int | Sequence[int] | None,
    fps: float | None,
    rule: str,
    n: int | None,
    stride: int | None,
    audio: bool | int,
) -> Clips:
    """The rule that a user's words mean.

    Raises:
        ConfigError: they mean none.
    """
    if rule not in RULES:
        raise ConfigError(f"clips: rule is one of {', '.join(map(repr, RULES))}, not {rule!r}")
    if frames is None and rule == "full":
        frames = _FULL
    sizes = (frames,) if isinstance(frames, int) else tuple(frames) if isinstance(frames, Sequence) else ()
    if not sizes or not all(isinstance(each, int) and each > 0 for each in sizes):
        raise ConfigError(
            f"clips: frames is a number of frames, or several, as in 81 or (17, 33, 65) or range(1, 130, 4), not "
            f"{frames!r:.80}"
        )
    if fps is not None and not (isinstance(fps, (int, float)) and 0 < fps < 1000):
        raise ConfigError(f"clips: fps is frames a second, or None for the video's own frames, not {fps!r}")
    for name, value, rules in (("n", n, ("chunk", "slide", "uniform")), ("stride", stride, ("slide",))):
        if value is not None and (rule not in rules or not isinstance(value, int) or value < 1):
            raise ConfigError(
                f"clips: {name} is a number, 1 or more, of rule {' or '.join(map(repr, rules))}, not {value!r} of "
                f"{rule!r}"
            )
    if rule == "uniform" and n is None:
        raise ConfigError("clips: rule 'uniform' needs n, the clips of each video")
    if not isinstance(audio, int) or audio < 0:
        raise ConfigError(f"clips: audio is True, or samples a second, as in 16_000, not {audio!r}")
    rate = _SAMPLE_RATE if audio is True else int(audio)
    return Clips(tuple(sorted(set(sizes))), None if fps is None else float(fps), rule, n, stride, rate)


class Seen(NamedTuple):
    """What the samples at some rows of an index are, as clips: how many each is, of how many frames each (0: unknown),
    and their height and width (0: unknown).
    """

    times: np.ndarray
    frames: np.ndarray
    height: np.ndarray
    width: np.ndarray


class ClipKeep(Keep):
    """Conditions, and a rule for what is kept: the samples are clips."""

    def __init__(self, conditions: tuple[Asked, ...], clips: Clips) -> None:
        super().__init__(conditions)
        self.clips = clips

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that are looked at."""
        mine = frozenset(("video.frames", "video.duration", "video.height", "video.width"))
        others = super().columns if self.conditions else frozenset[str]()
        return None if others is None else mine | others

    @property
    def text(self) -> str:
        """All that decides about a sample."""
        return f"{super().text} {self.clips.text}".strip()

    def judged(self, index: ShardIndex) -> tuple[np.ndarray, Counter[str]]:
        """Which samples the conditions keep and have clips, and what is to be counted of the others."""
        kept, numbers = super().judged(index) if self.conditions else (np.ones(len(index), bool), Counter[str]())
        rows = np.flatnonzero(kept)
        short = rows[self.seen(index, rows).times == 0]
        if len(short):
            kept = kept.copy()
            kept[short] = False
            numbers[f"clips\n{TOO_SHORT}"] += len(short)
        return kept, numbers

    def __call__(self, index: ShardIndex) -> np.ndarray:
        """The number of each clip's sample, ascending."""
        rows = np.flatnonzero(self.judged(index)[0])
        return np.repeat(rows, self.seen(index, rows).times)

    def with_frames(self, index: ShardIndex) -> ShardIndex:
        """The same index with one more column, ``clip.frames``: how many frames the clips of each sample have."""
        frames = self.seen(index, np.arange(len(index))).frames
        found = copy(index)
        columns = dict(zip(index.table.column_names, index.table.columns, strict=True))
        found.table = pa.table({**columns, CLIP_FRAMES: pa.array(frames, pa.int64())})
        found.names = (*index.names, CLIP_FRAMES)
        return found

    def seen(self, index: ShardIndex, rows: np.ndarray) -> Seen:
        """What the samples of these rows are. One that nothing is known of is one clip: reading it says why.

        Raises:
            Uncounted: the index does not know of videos.
        """
        if index.may_lack("video.frames"):
            raise Uncounted(
                "an index does not say how long its videos are: it is of an older version, or of a source that does "
                "not know; for tars run streampipe index again"
            )
        frames, duration, height, width = (
            _numbers(index, f"video.{name}", rows) for name in ("frames", "duration", "height", "width")
        )
        video = frames > 0  # -1: there is none; 0: it is damaged
        total, length = self.clips.lengths(frames, duration)
        times = np.where(video, self.clips.counts(total, length), 1)
        return Seen(times, np.where(video, length, np.where(frames < 0, 1, 0)), height, width)


def _numbers(index: ShardIndex, name: str, rows: np.ndarray) -> np.ndarray:
    """A column's numbers, -1 where there is none."""
    column = index.columns([name]).get(name)
    if isinstance(column, list):  # of several kinds, where the json of some samples says something else under that name
        return np.asarray(np.array([each if isinstance(each, (int, float)) else -1 for each in column])[rows])
    if column is None or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.full(len(rows), -1.0 if name == "video.duration" else -1)
    return np.asarray(column.fill_null(-1).to_numpy()[rows])


def numbered(rows: np.ndarray) -> np.ndarray:
    """Of each row in a list how often it came before: the number of its clip.

    >>> numbered(np.array([4, 7, 7, 4, 7])).tolist()
    [0, 0, 1, 1, 2]
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    found = np.empty(len(rows), np.int64)
    found[order] = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
    return found
