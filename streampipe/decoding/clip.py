"""A clip: which frames of a video, by time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clip:
    """So many frames of a video.

    Args:
        number: of the clips that were made of the video, which one.
        first: its first frame, counted at ``fps`` from the video's beginning.
        frames: how many it has.
        fps: frames a second. Each is the one that is shown at its time.
        every: they are the video's own frames, one after the other, whatever their times; ``fps`` is their average.
        audio: samples a second of the sound that is wanted with it; 0: none.
    """

    number: int
    first: int
    frames: int
    fps: float
    every: bool = False
    audio: int = 0

    @property
    def start(self) -> float:
        """Its beginning in the video, in seconds.

        >>> Clip(number=2, first=34, frames=17, fps=16.0).start
        2.125
        """
        return self.first / self.fps if self.fps else 0.0

    @property
    def duration(self) -> float:
        """Its length in seconds."""
        return self.frames / self.fps if self.fps else 0.0
