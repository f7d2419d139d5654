"""Clips of videos: CPU time of what ``decode`` does, beside decoding a whole video and picking frames from it.

Run: python benchmarks/video.py            (needs PyAV; makes a video of 1080p by itself)
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import torch
from PIL import Image

from streampipe.decoding import decide
from streampipe.decoding.clip import Clip
from streampipe.decoding.movie import probe_video
from streampipe.decoding.video import EncodedVideo

HEIGHT, WIDTH, FPS, SECONDS = 1080, 1920, 30, 10
TARGET = (480, 832)


def moving() -> bytes:
    """Ten seconds of a picture that moves."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (90, 160, 3), np.uint8))
    wide = np.asarray(small.resize((WIDTH + 4 * FPS * SECONDS, HEIGHT), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 60
        for i in range(FPS * SECONDS):
            part = np.ascontiguousarray(wide[:, 4 * i : 4 * i + WIDTH])
            frame = av.VideoFrame.from_ndarray(part, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def ours(data: bytes, clip: Clip) -> torch.Tensor:
    """A clip as ``decode`` makes it."""
    video = EncodedVideo(data, clip)
    return video.decode(video.cut(decide(video.size, TARGET, margin=None)))


def whole(data: bytes, clip: Clip) -> torch.Tensor:
    """The usual way: every frame of the video as an array, then the frames wanted, resized and cropped by torch."""
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    picked = [frames[int((clip.first + i) / clip.fps * FPS)] for i in range(clip.frames)]
    batch = torch.from_numpy(np.stack(picked)).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(batch, (480, 853), mode="bicubic", antialias=True)
    return scaled[..., 10:842]


def cpu(call: Callable[[], object], often: int) -> float:
    """Milliseconds of the process's CPU time, the least of some runs."""
    found = []
    for _ in range(often):
        began = time.process_time()
        call()
        found.append((time.process_time() - began) * 1000)
    return min(found)


def main() -> None:
    """One clip of 17 frames at 16 a second out of ten seconds of 1080p, to 480 x 832."""
    torch.set_num_threads(1)
    data = moving()
    clip = Clip(0, 100, 17, 16.0)
    print(f"header: {cpu(lambda: probe_video(data), 20):.2f} ms; the file has {len(data):,} bytes")
    print(f"clip:                       {cpu(lambda: ours(data, clip), 4):.0f} ms")
    print(f"whole video, frames picked: {cpu(lambda: whole(data, clip), 1):.0f} ms")


if __name__ == "__main__":
    main()
