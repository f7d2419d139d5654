"""What the header of a video says: what every container is brought to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streampipe.errors import DecodeError


class Track(NamedTuple):
    """The size of a video's frames as stored, and the EXIF orientation (1 to 8) by which they are to be shown."""

    stored_height: int
    stored_width: int
    orientation: int = 1


@dataclass(frozen=True)
class VideoHeader:
    """What a container says of its video.

    Args:
        format: of the container, in words.
        stored: (height, width) of its frames as stored.
        orientation: how they must be turned to be shown, as EXIF counts it.
        frames: how many there are to show.
        duration: from the first one's beginning to the last one's end, in seconds.
        audio: whether there is a track of sound.
    """

    format: str
    stored: tuple[int, int]
    orientation: int
    frames: int
    duration: float
    audio: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as shown."""
        return self.stored[::-1] if self.orientation > 4 else self.stored

    @property
    def fps(self) -> float:
        """Frames a second, on average."""
        return self.frames / self.duration if self.duration > 0 else 0.0

    @property
    def rotation(self) -> int:
        """By how many degrees, clockwise, the frames are turned to be shown."""
        return {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(self.orientation, 0)


def described(format: str, track: Track, times: np.ndarray, audio: bool) -> VideoHeader:
    """The header of a video whose frames are shown at these times, for so long (frames x 2, in seconds).

    Raises:
        DecodeError: there is no frame, or no size.
    """
    if not len(times) or track.stored_height < 1 or track.stored_width < 1:
        raise DecodeError(f"the {format} file has a video track without frames, or without a size: it is damaged")
    begin, last = float(times[:, 0].min()), int(times[:, 0].argmax())
    duration = float(times[last].sum()) - begin
    return VideoHeader(format, track[:2], track.orientation, len(times), duration, audio)
