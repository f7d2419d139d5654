"""One clip of a video, straight to its size: only the frames that are wanted become pixels. By PyAV (FFmpeg).

Strategy: the file is entered at the last keyframe before the clip, and decoded up to its end; where wanted frames lie
far apart, what is between them is passed over from keyframe to keyframe. A wanted frame is the one that is shown at its
time: of those that have begun by then the last. Which that is, the packets say; if the decoder brings another one, the
video is damaged. Its colours are converted at full size, which is fast, and its box is cut and resized as that of an
image is.
"""

from __future__ import annotations

import io
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch

from streampipe.decoding.budget import MEMORY, budget
from streampipe.decoding.clip import Clip
from streampipe.decoding.codec import Colour, Data
from streampipe.decoding.geometry import Cut, Geometry, Size, whole
from streampipe.decoding.image import MAX_PIXELS
from streampipe.decoding.movie import CONTAINERS, container_of, probe_video
from streampipe.decoding.resize import resize
from streampipe.errors import ConfigError, DecodeError

_APART = 4  # frames between two that are wanted, from which on a keyframe between them is worth a jump
_BEFORE = 0.25  # seconds of sound to decode before those that are wanted: decoders need some to begin with
_SLACK = 0.6  # of a tick of the file's clock: times are rounded to ticks


def av() -> Any:
    """PyAV.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise ConfigError("videos need one more package: pip install 'streampipe[video]'") from None
    return av


class EncodedVideo:
    """A clip of a video of which the header has been read, and no frame yet.

    Args:
        data: the file.
        clip: which of its frames.
        max_pixels: videos with larger frames are refused.
        memory: bytes that all that is decoded at this moment in this process may take together.

    Raises:
        DecodeError: damaged, of no known container, or larger than ``max_pixels``.
    """

    def __init__(self, data: Data, clip: Clip, *, max_pixels: int = MAX_PIXELS, memory: int = MEMORY) -> None:
        self.header = probe_video(data)
        self.clip = clip
        self._data = data
        self._memory = memory
        height, width = self.size
        if height * width > max_pixels:
            raise DecodeError(
                f"the {self.header.format} video has frames of {height} x {width} pixels (height x width; at most "
                f"{max_pixels} in all are allowed); raise max_pixels if it is meant"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as shown."""
        return self.header.size

    def cut(self, geometry: Geometry | None, flipped: bool = False) -> Cut:
        """What a geometry means for these frames; None: as they are, or ``flipped``."""
        header = self.header
        if geometry is None:
            return whole(header.stored, header.orientation, flipped)
        return geometry.cut(header.stored, header.orientation)

    def decode(
        self, cut: Cut, *, interpolation: str = "bicubic", background: Colour = (255, 255, 255), labels: bool = False
    ) -> torch.Tensor:
        """The cut of the clip's frames: uint8, frames x 3 x height x width; of ``labels`` frames x 1 x height x width.

        Raises:
            DecodeError: a frame is damaged, or is not there.
        """
        height, width = cut.result
        channels = 1 if labels else 3
        stored = self.header.stored
        with budget.take(self.clip.frames * height * width * channels + 8 * stored[0] * stored[1], self._memory):
            memory = np.empty((self.clip.frames, height, width, channels), np.uint8)
            out = torch.from_numpy(memory).permute(0, 3, 1, 2)
            last: Any = None
            with _opened(self._data) as container:
                for number, frame in enumerate(self._frames(container)):
                    if frame is last:  # shown for longer than the clip's frames are
                        out[number] = out[number - 1]
                        continue
                    pixels = _pixels(frame, stored, background, labels)
                    resize(pixels, cut, interpolation, out[number], True, background)
                    last = frame
        return out

    def sound(self) -> tuple[torch.Tensor, bool]:
        """The sound of the clip's time, float32, 2 x samples; silence where there is none. Second, whether there is a
        track of sound at all.

        Raises:
            DecodeError: it is damaged.
        """
        clip = self.clip
        found = torch.zeros((2, round(clip.duration * clip.audio)), dtype=torch.float32, device="cpu")
        with _opened(self._data) as container:
            if not container.streams.audio:
                return found, False
            start = _zero(container.streams.video[0]) + clip.start
            if clip.every and clip.first:
                stamps = _stamps(self._data)
                start = float(stamps[min(clip.first, len(stamps) - 1)] * container.streams.video[0].time_base)
            for at, samples in _sound(container, start, start + clip.duration, clip.audio):
                first = round((at - start) * clip.audio)
                a, b = max(0, first), min(found.shape[1], first + samples.shape[1])
                if a < b:
                    found[:, a:b] = torch.from_numpy(samples[:, a - first : b - first])
        return found, True

    def _frames(self, container: Any) -> Iterator[Any]:
        """The frames of the clip, in order; one that is shown for longer may come several times.

        Raises:
            DecodeError: one is damaged, or is not there.
        """
        clip, stream = self.clip, container.streams.video[0]
        tick = float(stream.time_base)
        if clip.every:
            times = [float(each) for each in _stamps(self._data)[clip.first : clip.first + clip.frames]]
            if len(times) < clip.frames:
                raise DecodeError(f"the clip ends at frame {clip.first + clip.frames}, which the video does not have")
        else:
            zero = _zero(stream)
            times = [(zero + (clip.first + i) / clip.fps) / tick for i in range(clip.frames)]
        times = [each + _SLACK for each in times]
        for run in _runs(stream, times, _APART / max(1e-9, self.header.fps * tick)) if _seeks(container) else [times]:
            yield from _run(container, stream, run)


def check_video(data: Data) -> None:
    """Decode all frames of a video, and keep none.

    Raises:
        DecodeError: its header or a frame is damaged, or a frame is not there.
    """
    probe_video(data)
    stamps = _stamps(data)
    with _opened(data) as container:
        for _ in _run(container, container.streams.video[0], [each + _SLACK for each in stamps]):
            pass


def still(data: Data, frame: Callable[[Size], Geometry], at: float | None = None) -> torch.Tensor:
    """One frame of a video, 3 x height x width, to look at: that at a time in seconds, or in the middle.

    Args:
        frame: from its size as shown to what becomes of it.

    Raises:
        DecodeError: it is damaged.
    """
    header = probe_video(data)
    seconds = header.duration / 2 if at is None else at
    video = EncodedVideo(data, Clip(0, int(seconds * 1000), 1, 1000.0))
    return video.decode(video.cut(frame(video.size)))[0]


@contextmanager
def _opened(data: Data) -> Iterator[Any]:
    """A container that is open. What FFmpeg finds wrong with it is a ``DecodeError``."""
    package, kind = av(), container_of(data)
    assert kind is not None
    try:
        with package.open(io.BytesIO(data), format=CONTAINERS[kind], **_lenient(package)) as container:
            if not container.streams.video:
                raise DecodeError("FFmpeg finds no video track in the file")
            for stream in (*container.streams.video[:1], *container.streams.audio[:1]):
                if stream.codec_context is None:
                    raise DecodeError(f"FFmpeg has no decoder for the {stream.type} of the file")
                stream.codec_context.thread_count = 1  # samples are decoded side by side
            yield container
    except package.error.FFmpegError as error:
        raise DecodeError(f"the video is damaged, or FFmpeg cannot decode it ({error})") from error


def _lenient(package: Any) -> dict[str, Any]:
    """Options with which texts that are no UTF-8 are no errors: from 19.0 on PyAV has none, and they never are."""
    return {"metadata_errors": "replace"} if int(package.__version__.partition(".")[0]) < 19 else {}


def _zero(stream: Any) -> float:
    """When a video begins, in seconds."""
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def _seeks(container: Any) -> bool:
    """Whether a file can be entered in its middle: of a GIF each frame needs those before it."""
    return bool(container.format.name != "gif")


def _stamps(data: Data) -> list[int]:
    """When each frame of a video is shown, in ticks, by its packets."""
    with _opened(data) as container:
        return sorted(packet.pts for packet in container.demux(container.streams.video[0]) if _is_shown(packet))


def _at_least(stream: Any) -> int:
    """A tick before everything."""
    return min(0, stream.start_time or 0) - int(10 / stream.time_base)


def _is_shown(packet: Any) -> bool:
    """Whether a packet has a frame that is shown. VP8 has others too: the fifth bit of a frame tells."""
    if packet.pts is None or packet.is_discard or not packet.size:
        return False
    return packet.stream.codec_context.name not in ("vp8", "libvpx") or bool(bytes(packet)[0] & 0x10)


def _runs(stream: Any, times: Sequence[float], apart: float) -> Iterator[list[float]]:
    """The times, in runs that are decoded at one go: a new one where a keyframe lies in a wide gap."""
    entries, run = stream.index_entries, [times[0]]
    for before, time in pairwise(times):
        gap = time - before > apart
        if gap and entries.search_timestamp(int(time)) != entries.search_timestamp(int(before)):
            yield run
            run = []
        run.append(time)
    yield run


def _run(container: Any, stream: Any, times: Sequence[float]) -> Iterator[Any]:
    """Of each time the frame that is shown then."""
    packets, stamps = _entered(container, stream, times[0]), list[int]()
    chosen, number = None, 0

    def due(frame: Any) -> Iterator[Any]:
        """What the frames before this one are shown for; None: it was the last."""
        nonlocal number
        while number < len(times) and (frame is None or frame.pts > times[number]) and chosen is not None:
            _check(chosen, stamps, times[number], stream)
            yield chosen
            number += 1

    for frame in _decoded(packets, stream, times[-1], stamps):
        if chosen is not None:
            yield from due(frame)
        if number == len(times):
            return
        chosen = frame if chosen is None or frame.pts >= chosen.pts else chosen
    yield from due(None)
    if number < len(times):
        raise DecodeError(f"no frame could be decoded for {_at(times[number], stream)}")


def _check(frame: Any, stamps: list[int], time: float, stream: Any) -> None:
    """Refuse a frame that stands in for one that was lost."""
    at = bisect_right(stamps, time)
    if at and stamps[at - 1] != frame.pts:
        raise DecodeError(f"the frame at {_at(time, stream)} is missing: the video is not whole")


def _at(time: float, stream: Any) -> str:
    return f"{time * float(stream.time_base):.3f} s"


def _entered(container: Any, stream: Any, time: float) -> Iterator[Any]:
    """The packets from the last keyframe on that is shown by a time."""
    target, least, last = int(time), _at_least(stream), None
    while _seeks(container):
        container.seek(max(target, least), stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        begins = first.pts is None or first.pts <= time
        if begins or target <= least or first.dts is None or first.dts == last:
            yield first
            yield from packets
            return
        target, last = first.dts - 1, first.dts  # its own frames are later than it is decoded
    yield from container.demux(stream)


def _decoded(packets: Iterator[Any], stream: Any, end: float, stamps: list[int]) -> Iterator[Any]:
    """The frames of packets, up to the last that may be shown by ``end``; what is to come is put into ``stamps``.

    Raises:
        DecodeError: one is damaged: those behind it are made of it.
    """
    begin = None  # of the first keyframe; what is shown before it needs frames before it
    for packet in chain(packets, [None]):
        if packet is not None and packet.dts is not None and packet.dts > end:
            packet = None
        if packet is not None and _is_shown(packet):
            begin = packet.pts if begin is None else begin
            insort(stamps, packet.pts)
        if packet is None or packet.size:
            for frame in stream.codec_context.decode(packet):
                if frame.is_corrupt and begin is not None and (frame.pts or 0) >= begin:
                    raise DecodeError(f"the frame at {_at(frame.pts or 0, stream)} is damaged")
                if frame.pts is not None:
                    yield frame
        if packet is None:
            return


def _pixels(frame: Any, stored: tuple[int, int], background: Colour, labels: bool) -> np.ndarray:
    """A frame's pixels, height x width x channels."""
    if (frame.height, frame.width) != stored:
        raise DecodeError(
            f"the video has a frame of {frame.height} x {frame.width} pixels (height x width), its header says "
            f"{stored[0]} x {stored[1]}"
        )
    clear = not labels and any(each.is_alpha for each in frame.format.components)
    format = "gray" if labels else "rgba" if clear else "rgb24"
    found: np.ndarray = frame.reformat(format=format, threads=1).to_ndarray()
    if labels:
        return found[..., None]
    if not clear:
        return found
    alpha = found[..., 3:].astype(np.uint16)
    mixed = (found[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _sound(container: Any, start: float, end: float, rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """The sound from ``start`` to ``end``, in seconds, in pieces: when each begins, and 2 x samples."""
    stream = container.streams.audio[0]
    container.seek(max(int((start - _BEFORE) / stream.time_base), _at_least(stream)), stream=stream)
    resampler = av().AudioResampler("fltp", "stereo", rate)
    began, given = None, 0
    for frame in (*_heard(container, stream, end), None):
        if frame is not None and frame.pts is not None and began is None:
            began = float(frame.pts * frame.time_base)
        for made in resampler.resample(frame):
            samples = made.to_ndarray()
            yield (began or 0.0) + given / rate, samples
            given += samples.shape[1]


def _heard(container: Any, stream: Any, end: float) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.pts is not None and packet.pts * stream.time_base > end:
            return
        yield from stream.codec_context.decode(packet if packet.size else None)
