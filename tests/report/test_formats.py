"""Every form of a report has the same numbers."""

import json
import re

import pytest

import streampipe as sp
from streampipe.errors import ConfigError
from tests.browser import dom, needs_browser
from tests.data import write_shards
from tests.report import runs


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [40, 40])
    pipe = (
        runs.pipe(folder).filter(lambda sample: not sample["__key__"].endswith("5")).map(runs.sleepy, "txt", threads=2)
    )
    return runs.run(pipe.batch(8), 8, threads=1, trace=True)


def test_text_begins_with_the_sentence_and_has_a_line_for_each_stage(loader):
    text = loader.report()
    assert text.startswith(loader.summary().verdict)
    for name in ("reading", "filter", "map(sleepy)", "batch"):
        assert re.search(rf"^{re.escape(name)}", text, re.M)
    assert re.search(r"filter\(<lambda>\) +\d+ dropped \(0\d+5", text)
    assert "waiting for data" in text


def test_json_has_the_same_numbers(loader):
    found = json.loads(loader.report("json"))
    summary = loader.summary()
    assert found["batches"] == summary.batches == 8
    assert found["samples"] == 64
    stages = {row["name"]: row for row in found["stages"]}
    assert stages["filter(<lambda>)"]["samples_in"] >= stages["filter(<lambda>)"]["samples_out"] >= 64
    assert stages["map(sleepy)"]["threads"] == 2
    assert stages["map(sleepy)"]["busy_seconds"] >= 0.4
    assert 0 < found["wait_p50"] <= found["wait_p95"] <= found["wait_p99"]
    (drop,) = found["drops"]
    assert drop["examples"][0].endswith("5")


def test_a_trace_has_a_span_for_each_call_in_its_thread(loader):
    events = json.loads(loader.report("trace"))["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    calls = [e for e in events if e["ph"] == "X" and e["name"] == "map(sleepy)" and e["dur"] >= 9_000]
    pool = [e for e in calls if "map(sleepy)" in names[e["pid"], e["tid"]]]
    assert len(pool) >= 40
    assert all(e["args"]["key"] for e in pool)
    assert {"wait", "batch", "step"} <= {e["name"] for e in events}
    assert min(e["ts"] for e in events if "ts" in e) == 0


def test_without_a_trace_it_is_said_how_to_get_one():
    loader = sp.from_iterable([{"n": 1}]).batch(1).loader()
    list(loader)
    with pytest.raises(ConfigError, match="trace=True"):
        loader.report("trace")
    with pytest.raises(ConfigError, match="text, json, html, trace"):
        loader.report("pdf")


def test_a_report_is_written_where_it_is_wanted(loader, tmp_path):
    assert loader.report("json", tmp_path / "report.json") + "\n" == (tmp_path / "report.json").read_text()


def test_a_page_needs_nothing_from_elsewhere(loader):
    page = loader.report("html")
    assert not re.search(r"""(src|href)=|https?://|@import|url\(""", page)
    assert loader.summary().limit in page


def test_a_page_shows_hostile_names_as_text():
    def evil(value):
        return value

    evil.__name__ = "</script><img src=x onerror=alert(1)>"
    loader = sp.from_iterable([{"n": 1}] * 3).map(evil, "n").batch(1).loader()
    list(loader)
    assert "</script><img" not in loader.report("html")


@needs_browser
def test_a_browser_draws_the_page(loader, tmp_path):
    loader.report("html", tmp_path / "report.html")
    page = dom(tmp_path / "report.html", tmp_path)
    assert 'data-drawn="yes"' in page  # the script ran to its end
    shown = re.search(r'<p id="verdict">(.*?)</p>', page)[1]
    assert "map(sleepy)" in shown
    assert re.search(r'<canvas id="timeline"[^>]*style="height: \d+px', page)
    assert page.count('class="bar"') >= 4
    assert "filter(&lt;lambda&gt;)" in page
