import sys

import pytest

import streampipe as sp
from streampipe.errors import ConfigError
from streampipe.report import Summary
from streampipe.report import live as module
from streampipe.report.prometheus import show
from streampipe.report.summary import StageRow


@pytest.fixture
def pipe():
    return sp.from_iterable([{"__key__": str(n), "n": n} for n in range(12)]).batch(2)


def test_a_line_counts_batches_and_ends_with_the_last_numbers(pipe, capfd):
    for _ in pipe.loader(progress="line"):
        pass
    shown = capfd.readouterr().err
    assert "6batch" in shown.replace(" ", "")
    assert "samples/s, waits" in shown


def test_a_table_is_the_report(pipe, capfd):
    pytest.importorskip("rich")
    loader = pipe.loader(progress="table")
    for _ in loader:
        pass
    shown = capfd.readouterr().out
    assert "6 batches, 12 samples" in shown


def test_a_table_without_rich_says_what_to_install(pipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with pytest.raises(ConfigError, match=r"pip install 'streampipe\[rich\]'"):
        iter(pipe.loader(progress="table"))


def test_what_is_left_early_ends_its_line(pipe, monkeypatch):
    closed = []
    monkeypatch.setattr(module.Line, "close", lambda self: closed.append(True) or self._bar.close())
    for _ in pipe.loader(progress="line"):
        break
    assert closed == [True]


def test_other_kinds_are_refused(pipe):
    with pytest.raises(ConfigError, match="progress is one of None, 'line', 'table', not 'bar'"):
        pipe.loader(progress="bar")


def test_loggers_are_called_with_metrics_and_the_step(pipe):
    logged, scalars = [], []

    class Writer:
        def add_scalar(self, name, value, step):
            scalars.append((name, step))

    loader = pipe.loader(callbacks=[lambda metrics, step: logged.append((step, metrics)), Writer()], callback_every=2)
    for _ in loader:
        pass
    assert [step for step, _ in logged] == [2, 4, 6]
    assert [metrics["data/samples"] for _, metrics in logged] == [4, 8, 12]
    assert 0 <= logged[-1][1]["data/wait_share"] <= 1
    assert ("data/wait_p99", 6) in scalars


def test_what_is_no_logger_is_refused(pipe):
    with pytest.raises(ConfigError, match=r"wandb\.log"):
        pipe.loader(callbacks=["wandb"])


def test_prometheus_reads_the_numbers_of_the_moment(pipe):
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    loader = pipe.loader()
    loader.prometheus(registry, loader="train")
    assert registry.get_sample_value("streampipe_batches_total", {"loader": "train"}) == 0
    list(loader)
    assert registry.get_sample_value("streampipe_batches_total", {"loader": "train"}) == 6
    assert registry.get_sample_value("streampipe_samples_total", {"loader": "train"}) == 12
    assert registry.get_sample_value("streampipe_stage_seconds_total", {"loader": "train", "stage": "batch"}) >= 0


def test_prometheus_shows_several_loaders_the_newest_of_the_same_labels_and_none_that_is_gone(pipe):
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry(auto_describe=True)  # as the default one: it refuses a name that is there
    train, val, gone = pipe.loader(), pipe.loader(), pipe.loader()
    for loader, labels in ((train, {"loader": "train", "rank": 0}), (val, {"loader": "val"}), (gone, {})):
        loader.prometheus(registry, **labels)
    list(train)
    del gone, loader

    def batches(**labels):
        return registry.get_sample_value("streampipe_batches_total", labels)

    assert (batches(loader="train", rank="0"), batches(loader="val"), batches()) == (6, 0, None)
    assert b'rank="0"' in client.generate_latest(registry)
    again = pipe.loader()
    again.prometheus(registry, loader="train", rank=0)
    assert batches(loader="train", rank="0") == 0
    for name in ("stage", "reason", "a-b", "__x"):
        with pytest.raises(ConfigError, match=f"{name!r} is no label for a loader"):
            train.prometheus(registry, **{name: "x"})


def test_counters_of_prometheus_never_fall_though_estimates_do():
    client = pytest.importorskip("prometheus_client")

    class Has:
        seconds = 0.0

        def summary(self):
            return Summary(stages=[StageRow("decode", own_seconds=self.seconds)])

    registry, has, seen = client.CollectorRegistry(), Has(), []
    show(has.summary, {}, registry)
    for has.seconds in (1.0, 3.0, 2.0, 4.0):
        seen.append(registry.get_sample_value("streampipe_stage_seconds_total", {"stage": "decode"}))
    assert seen == [1.0, 3.0, 3.0, 4.0]
