"""What a notebook shows."""

import pytest
import torch
from PIL import Image

import streampipe as sp
from streampipe.errors import ConfigError
from tests.data import photo

EVIL = "</code><script>alert(1)</script>\x1b[2J"


def test_a_sample_is_shown_with_its_pictures():
    view = sp.show({"__key__": "a", "__url__": "x.tar", "jpg": photo(), "txt": b"a cat", "cls": 3})
    assert repr(view).splitlines()[0] == "sample 'a' of x.tar"
    assert "JPEG 120 x 160 (height x width)" in repr(view)
    assert "5 bytes: a cat" in repr(view)
    assert view._repr_html_().count("data:image/webp;base64,") == 1


def test_decoded_images_of_all_kinds_are_shown():
    shown = {
        "tensor": torch.zeros(3, 40, 60, dtype=torch.uint8),
        "normalised": torch.full((3, 40, 60), -1.0),
        "grey": torch.zeros(1, 40, 60, dtype=torch.uint8),
        "pil": Image.new("RGB", (60, 40)),
    }
    view = sp.show({"__key__": "a", **shown, "latent": torch.zeros(4, 8, 8), "empty": torch.zeros(3, 0, 4)})
    assert view._repr_html_().count("<img ") == 4
    assert "float32 4 x 8 x 8" in repr(view)


def test_a_batch_is_shown_by_its_first_samples():
    samples = [{"__key__": f"{i:02d}", "jpg": photo(i, 80, 80), "caption": f"caption {i}"} for i in range(20)]
    batch = next(iter(sp.from_iterable(samples).decode(32).batch(20)))
    view = sp.show(batch)
    assert repr(view).startswith("batch of 20 samples\n")
    assert "uint8 20 x 3 x 32 x 32" in repr(view)
    html = view._repr_html_()
    assert html.count("<img ") == 16
    assert "03 caption 3" in html


def test_whatever_is_in_a_sample_is_text():
    view = sp.show(
        {"__key__": EVIL, "__url__": EVIL, EVIL: EVIL, "txt": EVIL.encode(), "jpg": b"\xff\xd8\xff" + EVIL.encode()}
    )
    html = view._repr_html_()
    assert "<script" not in html
    assert "\x1b" not in html + repr(view)
    batch = sp.show({"__key__": [EVIL], "jpg": [photo()], "caption": [EVIL]})._repr_html_()
    assert "<script" not in batch


def test_a_pipeline_is_shown_and_nothing_is_opened_for_it():
    pipe = sp.stream("http://127.0.0.1:9/{00000..00003}.tar").where("width < 5").map(print, "<b>").batch(4)
    html = pipe._repr_html_()
    assert "width &lt; 5" in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html.replace("<b>pipeline</b>", "")


def test_what_is_no_sample_is_refused():
    with pytest.raises(ConfigError, match="show takes a sample or a batch"):
        sp.show([1])
