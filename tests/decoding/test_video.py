"""Headers of videos without decoding, and clips of them: the right frames at the right time; damage is an error."""

import io
import random
import sys

import numpy as np
import pytest
from PIL import Image

from streampipe.decoding import EncodedImage, decide
from streampipe.decoding.clip import Clip
from streampipe.decoding.movie import is_video_field, probe_video
from streampipe.decoding.video import EncodedVideo
from streampipe.errors import ConfigError, DecodeError
from tests.data import encoded, natural, photo
from tests.videos import CODECS, need_av, numbers, video

UNEVEN = [0, 40, 100, 150, 400, 450, 900, 960, 1000]
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def frames(data, clip, size=None, **options):
    encoded = EncodedVideo(data, clip)
    return encoded.decode(encoded.cut(size and decide(encoded.size, size)), **options)


@pytest.mark.parametrize("format", CODECS)
def test_a_header_says_what_there_is_without_decoding(format):
    header = probe_video(video(20, 10, (32, 48), format=format, audio=format in ("mp4", "matroska")))
    assert (header.frames, header.size, header.rotation) == (20, (32, 48), 0)
    assert header.duration == pytest.approx(2.0)
    assert header.fps == pytest.approx(10.0)
    assert header.audio == (format in ("mp4", "matroska"))


def test_fragments_uneven_times_and_unknown_sizes_are_counted():
    header = probe_video(video(20, options=FRAGMENTS))
    assert (header.frames, header.duration) == (20, 2.0)
    for format in ("mp4", "matroska"):
        uneven = probe_video(video(len(UNEVEN), times=UNEVEN, format=format))
        assert uneven.frames == len(UNEVEN)
        assert uneven.duration == pytest.approx(1.05, abs=0.06)
    live = probe_video(video(20, format="webm", options={"live": "1"}))
    assert (live.frames, live.size) == (20, (32, 48))


@pytest.mark.parametrize("format", ["mp4", "matroska"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_that_of_the_decoder(format, rotation):
    av = need_av()
    data = video(4, rotation=rotation, format=format, marked=True)
    header = probe_video(data)
    assert header.size == ((48, 32) if rotation != 180 else (32, 48))
    (first,) = frames(data, Clip(0, 0, 1, 10.0))
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    assert np.abs(first.permute(1, 2, 0).numpy().astype(int) - turned).max() <= 2


@pytest.mark.parametrize("format", CODECS)
def test_a_clip_is_the_frames_that_are_shown_at_its_times(format):
    data = video(30, 10, format=format, gop=8)
    near = 1 if format in ("mov", "gif") else 0  # their codecs keep fewer greys
    for clip, wanted in (
        (Clip(0, 13, 5, 10.0), [13, 14, 15, 16, 17]),
        (Clip(0, 3, 4, 2.5), [12, 16, 20, 24]),
        (Clip(0, 0, 3, 1.0), [0, 10, 20]),
        (Clip(0, 4, 6, 20.0), [2, 2, 3, 3, 4, 4]),
        (Clip(0, 24, 6, 10.0, every=True), [24, 25, 26, 27, 28, 29]),
    ):
        found = frames(data, clip)
        assert found.shape == (len(wanted), 3, 32, 48)
        assert all(abs(a - b) <= near for a, b in zip(numbers(found), wanted, strict=True)), (clip, numbers(found))


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_variable_frame_rates_go_by_time(format):
    data = video(len(UNEVEN), times=UNEVEN, format=format, gop=3)
    times = [0.05 * i for i in range(19)]
    wanted = [max(i for i, at in enumerate(UNEVEN) if at <= 1000 * time + 1) for time in times]
    assert numbers(frames(data, Clip(0, 0, 19, 20.0))) == wanted
    assert numbers(frames(data, Clip(0, 5, 4, 9.0, every=True))) == [5, 6, 7, 8]


def test_frames_have_the_geometry_of_images():
    picture = natural(96, 64, 3)
    pixels = np.asarray(picture)
    av = need_av()
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    data = file.getvalue()
    assert (frames(data, Clip(0, 0, 1, 10.0))[0].permute(1, 2, 0).numpy() == pixels).all()
    still = EncodedImage(encoded(picture, "PNG"))
    for geometry in (
        decide((64, 96), (24, 24), (0.3, 0.9), True),
        decide((64, 96), (40, 64)),
    ):
        moving = EncodedVideo(data, Clip(0, 0, 1, 10.0))
        wanted, _ = still.decode(still.cut(geometry))
        found = moving.decode(moving.cut(geometry))[0]
        assert np.abs(found.numpy().astype(int) - wanted.numpy()).mean() < 3


def test_colours_are_those_that_the_file_says():
    av = need_av()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 2  # BT.709, of full range
        frame = av.VideoFrame(64, 48, "yuv420p")
        for plane, value in zip(frame.planes, (88, 97, 199), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.colorspace, frame.color_range = 0, 1, 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (found,) = frames(file.getvalue(), Clip(0, 0, 1, 10.0))
    assert np.abs(found[:, 24, 30].numpy().astype(int) - (200, 60, 30)).max() <= 2


def test_labels_are_greys_and_clear_pixels_have_the_background():
    labels = frames(video(4, marked=True), Clip(0, 0, 2, 10.0), labels=True, interpolation="nearest")
    assert labels.shape == (2, 1, 32, 48)
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    other = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    data = encoded(image, "GIF", save_all=True, append_images=[other], duration=100, disposal=2)
    assert is_video_field("gif", data)
    assert not is_video_field("gif", encoded(image, "GIF"))
    found = frames(data, Clip(0, 0, 2, 10.0), background=(0, 255, 0))
    assert found[0, :, 8, 8].tolist() == [0, 255, 0]
    assert found[1, :, 8, 8].tolist() == [255, 0, 0]


def test_sound_is_that_of_the_clips_time():
    data = video(30, 10, audio=True)
    sound, there = EncodedVideo(data, Clip(0, 10, 10, 10.0, audio=16000)).sound()
    assert there
    assert sound.shape == (2, 16000)
    loud = [float(sound[0, i : i + 1600].abs().max()) for i in range(0, 16000, 1600)]
    assert loud == sorted(loud)
    assert loud[0] == pytest.approx(0.8 / np.sqrt(2) * 11 / 30, abs=0.02)
    silent, there = EncodedVideo(video(10), Clip(0, 0, 5, 10.0, audio=8000)).sound()
    assert not there
    assert (silent == 0).all()


@pytest.mark.parametrize("format", CODECS)
def test_a_video_that_is_cut_short_is_damaged_by_its_header(format):
    data = video(20, format=format)
    for end in (0, 7, 40, len(data) // 2, len(data) - 3):
        with pytest.raises(DecodeError):
            probe_video(data[:end])
    assert probe_video(data + b"\0" * 600 if format == "mp4" else data).frames == 20


@pytest.mark.parametrize("format", CODECS)
def test_whatever_happens_to_its_bytes_a_video_is_an_error_or_a_clip(format):
    data, rng = video(20, format=format), random.Random(3)
    for _ in range(25):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 4))):
            broken[rng.randrange(min(len(data), rng.choice((300, len(data)))))] = rng.randrange(256)
        try:
            assert len(frames(bytes(broken), Clip(0, 2, 5, 10.0))) == 5
        except DecodeError:
            pass


def test_a_frame_that_is_lost_is_never_replaced_by_another():
    data = bytearray(video(30, 10, gop=30, options={"movflags": "frag_every_frame+empty_moov"}))
    at = [i for i in range(len(data)) if data[i : i + 4] == b"mdat"]
    data[at[12] + 4 : at[12] + 12] = b"\xff" * 8  # of one frame, which those behind it are made of
    assert numbers(frames(bytes(data), Clip(0, 0, 5, 10.0))) == [0, 1, 2, 3, 4]
    with pytest.raises(DecodeError, match="is damaged|is missing|cannot decode"):
        frames(bytes(data), Clip(0, 14, 5, 10.0))


def test_other_bytes_and_large_frames_are_refused():
    for data in (b"", photo(), b"#EXTM3U\nfile:///etc/passwd"):
        with pytest.raises(DecodeError, match="are no video of a known container"):
            probe_video(data)
    with pytest.raises(DecodeError, match="raise max_pixels"):
        EncodedVideo(video(2), Clip(0, 0, 1, 10.0), max_pixels=100)
    with pytest.raises(DecodeError, match="does not have"):
        frames(video(5), Clip(0, 3, 4, 10.0, every=True))


def test_sound_and_raw_photos_are_no_videos():
    plain = video(2)
    for brand in (b"M4A ", b"crx ", b"heic", b"msf1"):
        assert not is_video_field("field", plain[:8] + brand + plain[12:])
    assert is_video_field("field", plain)
    assert not is_video_field("m4a", plain)


def test_without_pyav_it_says_what_to_install(monkeypatch):
    data = video(2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'streampipe\[video\]'"):
        frames(data, Clip(0, 0, 1, 10.0))


def test_a_text_of_a_header_that_is_no_utf8_is_no_error():
    av = need_av()
    plain = video(4)
    told = io.BytesIO()
    with av.open(io.BytesIO(plain)) as given, av.open(told, "w", format="mp4") as made:
        made.metadata["title"] = "TITLE"
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    damaged = told.getvalue().replace(b"TITLE", b"TI\xff\xfeE")
    assert damaged != told.getvalue()
    clip = Clip(0, 0, 4, 10.0)
    shown = [EncodedVideo(data, clip) for data in (damaged, plain)]
    first, second = (numbers(each.decode(each.cut(decide(each.size, (32, 48))))) for each in shown)
    assert first == second
