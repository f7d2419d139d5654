"""``clips``: samples with a video become clips of it. Nothing is decoded: ``decode`` makes the frames of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from streampipe import traits
from streampipe.context import FILLED_IN, Run, Sample, key_of, where
from streampipe.counters import counters
from streampipe.decoding import is_image_field
from streampipe.decoding.clip import Clip
from streampipe.decoding.movie import main_video, probe_video, videos_in
from streampipe.errors import DecodeError, SampleError, StageError
from streampipe.plan.clips import PIECE, TOO_SHORT, Clips, make_clips
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage

CLIP = "__clip__"


@stage(rows="each", state="nothing", takes="samples", views=True)
def clip(samples: Iterable[Sample], rule: Clips, *, run: Run = FILLED_IN) -> Iterator[Sample]:
    """The clip that the planner took each sample for; what stands in for ``clips`` where an index has counted them."""
    for sample in samples:
        try:
            made = _planned(sample, rule, run)
        except SampleError as error:
            run.policy.failed(error, run.stage)
            continue
        run.policy.passed(run.stage)
        yield made


def _planned(sample: Sample, rule: Clips, run: Run) -> Sample:
    number = sample[PIECE]
    found = _clips_of(sample, rule, run.stage)
    if number >= len(found):
        raise StageError(
            f"stage {run.stage!r}, {where(sample)}: the index counts more clips of its video than it has "
            f"({len(found)}); run streampipe index again"
        )
    return _made(sample, found[number])


def _rule(frames: Any, fps: Any, rule: Any, n: Any, stride: Any, audio: Any) -> Clips:
    return make_clips(frames, fps, rule, n, stride, audio)


def _push(options: Mapping[str, Any]) -> traits.Split:
    rule = make_clips(**options)
    return traits.Split(rule, clip(rule=rule))


@stage(rows="split", state="offset", takes="samples", views=True, check=_rule, pushdown=_push)
def clips(
    samples: Iterable[Sample],
    frames: int | Sequence[int] | None = None,
    fps: float | None = None,
    *,
    rule: str = "head",
    n: int | None = None,
    stride: int | None = None,
    audio: bool | int = False,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """Clips of each sample's video: samples of their own, called ``KEY-0``, ``KEY-1``, ..., with ``__clip__``.

    The number of a video's frames, its duration, size and rotation are read from its header; where an index has them,
    the planner counts clips as it counts samples, so batches, buckets, steps and states are as exact as they are for
    images. ``decode`` behind it decodes the frames of the clip, and only those. A sample with an image and no video is
    one clip of one frame.

    Args:
        frames: how many frames a clip has; or several numbers, as in ``(1, 17, 33)`` or ``range(1, 130, 4)``: a video
            has clips of the largest that fits into it. Videos that are shorter than the least are dropped, counted.
        fps: frames a second. A frame is the one that is shown at its time, so videos of variable frame rate are right,
            and slower ones repeat frames. None: the video's own frames, one after the other.
        rule: where clips begin. ``"head"``: one, at the beginning. ``"chunk"``: one behind the other. ``"slide"``:
            every ``stride`` frames (half a clip if not given), so they overlap. ``"uniform"``: ``n``, spread evenly
            from beginning to end. ``"full"``: one, at the beginning, as long as it can be: ``frames`` is
            ``range(1, 130, 4)`` if not given.
        n: at most so many of a video.
        audio: the sound of the clip's time too: True (48,000 samples a second) or samples a second. ``decode`` makes
            the field ``audio`` of it, float32, 2 x samples, and ``has_audio``: where that is False it is silence.

    Raises:
        DecodeError: a video's header is damaged, or its end is missing.
        StageError: a sample has neither a video nor an image.

    >>> list(clips(frames=17, fps=16)([{"__key__": "a", "jpg": b""}]))
    [{'__key__': 'a-0', 'jpg': b'', '__clip__': Clip(number=0, first=0, frames=1, fps=16.0, every=False, audio=0)}]
    """
    cut = make_clips(frames, fps, rule, n, stride, audio)
    drops = Drops(run, ", because their videos are shorter than a clip; use a smaller frames=")
    given, before = run.at or (0, None)  # of the sample that comes first
    for sample in samples:
        behind = run.trail.mark
        found: list[Clip] = []
        try:
            found = _clips_of(sample, cut, run.stage)
        except SampleError as error:
            run.policy.failed(error, run.stage)
        else:
            run.policy.passed(run.stage)
            if found:
                drops.keep()
            else:
                counters.add(run.stage, TOO_SHORT, example=key_of(sample))
                drops.drop()
        for number in range(given, len(found)):
            run.trail.mark = [number + 1, before] if number + 1 < len(found) else [0, behind]
            yield _made(sample, found[number])
        given, before = 0, behind
    drops.end()


def _made(sample: Sample, found: Clip) -> Sample:
    made = {name: value for name, value in sample.items() if name != PIECE}
    return {**made, "__key__": f"{sample['__key__']}-{found.number}", CLIP: found}


def _clips_of(sample: Sample, rule: Clips, stage_name: str) -> list[Clip]:
    """The clips of a sample, by the header of its main video."""
    names = videos_in(sample)
    if not names:
        if any(isinstance(each, (bytes, memoryview)) and is_image_field(name, each) for name, each in sample.items()):
            return rule.of_image()
        raise StageError(
            f"stage {stage_name!r}, {where(sample)}: there is no video (mp4, m4v, mov, webm, mkv, gif) and no image; "
            f"clips stands before decode; skip such samples with on_error='skip'"
        )
    name = main_video(names)
    try:
        header = probe_video(sample[name])
    except DecodeError as error:
        raise DecodeError(f"{where(sample)}, field {name!r}: {error}") from error
    return rule.of(header.frames, header.duration)
