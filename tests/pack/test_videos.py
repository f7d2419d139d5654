"""Folders of videos: packed, streamed as they are, looked at and verified."""

import numpy as np
import pytest
from PIL import Image

import streampipe as sp
from streampipe.cli import main
from tests.data import photo
from tests.laws import engine_of
from tests.videos import video


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for i in range(3):
        (place / f"{i}.mp4").write_bytes(video(20 + i))
        (place / f"{i}.txt").write_text(f"text {i}")
    (place / "0.jpg").write_bytes(photo(0, 48, 32))  # of the first video
    (place / "1.depth.mp4").write_bytes(video(21))
    (place / "3.png").write_bytes(photo(3, 48, 32))
    return place


def clips(pipe):
    return pipe.clips(frames=8, fps=10, rule="chunk")


def test_a_folder_of_videos_is_packed_with_what_is_beside_them(folder, tmp_path):
    sp.pack(folder, tmp_path / "out", resize=16, progress=False)
    samples = {each["__key__"]: each for each in sp.stream(str(tmp_path / "out"))}
    fields = {key: sorted(name for name in each if name[0] != "_") for key, each in samples.items()}
    assert {name for name in fields["0"] if name != "json"} == {"jpg", "mp4", "txt"}
    assert fields["1"] == ["depth.mp4", "mp4", "txt"]
    assert samples["1"]["mp4"] == (folder / "1.mp4").read_bytes()  # resize is of images
    keys = [each["__key__"] for each in clips(sp.stream(str(tmp_path / "out")))]
    assert keys == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1", "3-0"]


def test_a_folder_of_videos_is_streamed_and_planned_as_it_is(folder):
    pipe = clips(sp.stream(str(folder)).where("video.frames > 20 or width > 1", missing="keep"))
    assert engine_of(pipe).kind == "planned"
    assert sorted(each["__key__"] for each in pipe) == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1", "3-0"]
    images = sp.stream(str(folder)).where("key == '3'").clips(frames=8, fps=10)
    assert engine_of(images).kind == "planned"
    again = list(clips(sp.stream(str(folder), shuffle=True)).decode(16))
    assert {tuple(each.get("mp4", each.get("png")).shape) for each in again} == {(8, 3, 16, 16), (1, 3, 16, 16)}


def test_verify_decodes_every_frame_and_preview_draws_the_middle_one(folder, tmp_path, capsys):
    out = tmp_path / "out"
    sp.pack(folder, out, progress=False)
    assert sp.verify(str(out), decode=True, progress=False)
    assert main(["preview", str(out), "--out", str(tmp_path / "sheet.png"), "--edge", "32", "--columns", "4"]) == 0
    assert "4 samples" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L")).astype(int)
    assert abs(int(sheet[16, 32 * 2 + 16]) - (20 + 6 * 11)) <= 7  # frame 10 or 11 of 22
    clips = sp.stream(str(out)).clips(frames=8, fps=10, rule="chunk").bucket([(16, 24)]).decode(flip=1.0)
    assert sp.preview(clips, tmp_path / "page.html") == 7
    page = (tmp_path / "page.html").read_text()
    assert page.count('"picture":') == 7
    assert page.count('"bucket":"16 x 24 x 8"') == 6
    assert page.count('"bucket":"16 x 24 x 1"') == 1
    (folder / "2.mp4").write_bytes((folder / "2.mp4").read_bytes()[:-9])
    sp.pack(folder, tmp_path / "broken", progress=False)
    found = sp.verify(str(tmp_path / "broken"), decode=True, progress=False)
    assert len(found.damages) == 1
    assert "sample '2', field 'mp4': the MP4 file ends early" in found.damages[0]
