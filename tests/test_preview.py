"""``preview``: a page of a dataset as training would see it."""

import json
import re

import pytest

import streampipe as sp
from streampipe.errors import ConfigError
from tests.browser import body, dom, needs_browser
from tests.data import encoded, natural, photo, shard

EVIL = "</script><!--<script><img src=x onerror=\"document.body.dataset.evil='yes'\">"


@pytest.fixture
def shards(tmp_path):
    """Five photos of two shapes, with a mask, a control image, scores, hostile texts; one is damaged, one no image."""
    wide, mask = encoded(natural(160, 80), "PNG"), encoded(natural(160, 80).convert("L"), "PNG")
    facts = json.dumps({"aesthetic": 5.5, EVIL: EVIL, "__proto__": 1})
    evil = {"jpg": photo(2), "txt": EVIL, "canny<i>.png": encoded(natural(80, 60), "PNG")}
    samples = [
        ("b", {"jpg": photo(1), "txt": "a cat", "json": facts}),
        ("a", {"png": wide, "txt": "a dog", "mask.png": mask, "json": '{"aesthetic": 7}'}),
        (EVIL.replace("/", "_").replace(".", "_"), evil),
        ("d", {"jpg": photo(3)[:900], "txt": "damaged"}),
        ("e", {"txt": "only text"}),
    ]
    (tmp_path / "0.tar").write_bytes(shard(samples))
    return tmp_path / "0.tar"


def data_of(page):
    return json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])


def test_a_page_holds_the_first_samples(shards, tmp_path):
    assert sp.preview(sp.stream(shards).decode(64), tmp_path / "page.html", samples=2) == 2
    found = data_of(tmp_path / "page.html")
    assert [card["key"] for card in found["cards"]] == ["b", "a"]
    assert [card["caption"] for card in found["cards"]] == ["a cat", "a dog"]
    assert found["cards"][0]["target"] == [64, 64]


def test_what_stands_behind_decode_does_not_run_but_the_caption_does(shards, tmp_path):
    def never(sample):
        raise AssertionError

    pipe = sp.stream(shards).take(2).decode(64).map(never).caption(prefix="photo: ").batch(2)
    sp.preview(pipe, tmp_path / "page.html", threads=0)
    assert [card["caption"] for card in data_of(tmp_path / "page.html")["cards"]] == ["photo: a cat", "photo: a dog"]


def test_a_page_that_cannot_be_is_refused(shards, tmp_path):
    for pipe, path, words in (
        (sp.stream(shards), tmp_path / "no" / "page.html", "cannot be written"),
        (sp.from_iterable([]), tmp_path / "page.html", "there is no sample to show"),
        ([1], tmp_path / "page.html", "preview takes a pipeline"),
    ):
        with pytest.raises(ConfigError, match=words):
            sp.preview(pipe, path)


@needs_browser
def test_a_browser_draws_filters_sorts_and_runs_nothing_of_the_dataset(shards, tmp_path):
    page = tmp_path / "page.html"
    pipe = sp.stream(shards).bucket(sp.Buckets([(64, 64), (64, 128)])).decode(crop="random", flip=0.5)
    sp.preview(pipe, page)
    whole = dom(page, tmp_path)
    assert body(whole) == {"drawn": "yes", "shown": "5"}  # the script ran to its end, and none of the dataset's
    assert whole.count('class="card"') == 5
    assert whole.count('class="crop"') == 3
    assert "&lt;/script&gt;&lt;!--&lt;script&gt;" in whole
    assert len(re.findall(r"<img\b", whole)) == 5  # three images, a mask, a control
    assert "damaged, so a part of its pixels is wrong" in whole
    keys = re.compile(r'class="facts">([a-e])<')
    assert keys.findall(dom(page, tmp_path, "#sort=n:aesthetic&down=1"))[:2] == ["a", "b"]
    some = dom(page, tmp_path, "#fact=n:aesthetic&least=6&open=a")
    assert body(some)["shown"] == "1"
    assert re.search(r"<dialog[^>]* open", some)
    assert body(dom(page, tmp_path, "#search=CAT&bucket=64 x 64"))["shown"] == "1"
