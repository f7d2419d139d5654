"""What ranks counted, written to files and put together without a process group."""

import json

import pytest

import streampipe as sp
from streampipe.counters import Counted
from streampipe.observe import Span
from streampipe.report import Seen, merged, summarize
from tests.data import write_shards


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Two ranks that ran, and the files that they wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    write_shards(folder / "shards", [10, 10])
    pipe = sp.stream(folder / "shards", shuffle=True).decode().map(str.upper, "txt", threads=1).batch(4)
    loaders = [pipe.loader(rank=rank, world_size=2, trace=True) for rank in range(2)]
    files = [folder / f"rank{rank}.json" for rank in range(2)]
    for loader, file in zip(loaders, files, strict=True):
        list(loader)
        loader.report("counts", file)
    return loaders, files


def test_files_of_ranks_give_the_report_that_a_process_group_would(ranks, tmp_path):
    loaders, files = ranks
    live = summarize(merged([each._recorder.seen() for each in loaders]), loaders[0]._facts().of_ranks(2))
    found = json.loads(sp.merged_report(files, "json", tmp_path / "all.json"))
    assert found == json.loads(json.dumps(live.as_dict()))
    assert (found["batches"], found["samples"]) == (6, 20)
    assert json.loads((tmp_path / "all.json").read_text()) == found
    assert sp.merged_report(files).startswith(live.verdict)
    events = json.loads(sp.merged_report(files, "trace"))["traceEvents"]
    assert {each["args"]["name"] for each in events if each["name"] == "process_name"} == {
        "rank 0, loader",
        "rank 1, loader",
    }


def test_files_that_do_not_belong_together_are_refused(ranks, tmp_path):
    _, files = ranks
    other = sp.from_iterable([{"n": i} for i in range(4)]).batch(2).loader()
    list(other)
    other.report("counts", tmp_path / "other.json")
    with pytest.raises(sp.ConfigError, match=r"other.json is of a loader with other stages"):
        sp.merged_report([*files, tmp_path / "other.json"])
    (tmp_path / "text.json").write_text(other.report())
    other.report("json", tmp_path / "summary.json")
    for wrong in ("text.json", "summary.json", "none.json"):
        with pytest.raises(
            sp.ConfigError, match=rf"{wrong} is no file of a loader's counts.*report\(\"counts\", path\)"
        ):
            sp.merged_report([tmp_path / wrong])
    with pytest.raises(sp.ConfigError, match="no files"):
        sp.merged_report([])
    with pytest.raises(sp.ConfigError, match="is one of text, json"):
        sp.merged_report(files, "pdf")


def test_ranks_on_several_machines_are_on_one_timeline():
    """The clock of spans begins when a machine is started."""

    def rank(started):
        spans = [Span("loader", "MainThread", "step", 1_000.0 - started, 0.5, 0.5, "")]
        return Seen(Counted(spans=spans), clock=float(started))

    spans = merged([rank(100), rank(900)]).counted.spans
    assert [span.began for span in spans] == [900.0, 900.0]
