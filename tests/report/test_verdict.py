"""The sentence, of numbers that are given."""

import pytest

from streampipe.report.summary import READING, StageRow, Summary
from streampipe.report.verdict import judge


def a_run(**options):
    """Two threads make 100 samples in 10 s each; half of each step waits."""
    options = {
        "batches": 10, "samples": 100, "rate": 10.0, "wait_share": 0.5, "consumer_rate": 20.0, "cores": 16,
        "threads": 2, "readers": 2, "background": True, "making_seconds": 20.0, "capacity": 10.0, **options,
    }  # fmt: skip
    return Summary(**options)


def decode(**options):
    return StageRow("decode", share=0.8, **{"own_seconds": 16.0, "cpu_seconds": 15.0, "can_thread": True, **options})


def test_a_stage_that_takes_the_threads_wants_more_of_them():
    limit, text = judge(a_run(stages=[decode()]))
    assert limit == "decode"
    assert text == (
        "decode takes 80 % of the time of 2 threads: threads=4 would feed 20 samples/s; you get 10 and could consume 20"
    )


def test_workers_want_more_of_them():
    _, text = judge(a_run(stages=[decode()], workers=2, threads=0))
    assert "of 2 workers: num_workers=4 would feed 20 samples/s" in text


def test_threads_of_a_stage_want_more_and_what_the_rest_allows_is_not_promised_beyond():
    row = decode(own_seconds=8.0, busy_seconds=18.0, threads=2)
    row.utilisation = 0.9
    _, text = judge(a_run(stages=[row], threads=1, readers=1, making_seconds=10.0))
    assert text.startswith("decode takes 90 % of 2 threads: decode(threads=4) would feed 20 samples/s")
    row.own_seconds = 4.0
    other = StageRow(READING, own_seconds=3.0)
    _, text = judge(a_run(stages=[row, other], threads=1, readers=1, making_seconds=10.0))
    assert "would feed 17 samples/s" in text  # the other 6 s of 10 are not shared


def test_threads_of_a_stage_that_are_idle_gain_nothing_from_more():
    row = decode(busy_seconds=4.0, threads=2)
    row.utilisation = 0.2
    _, text = judge(a_run(stages=[row], threads=1, readers=1))
    assert "its 2 threads are idle 80 % of the time" in text


def test_cores_that_are_in_use_are_told():
    _, text = judge(a_run(stages=[decode()], cores=2))
    assert "all 2 cores that there are for it are in use" in text


def test_threads_that_sleep_need_no_cores():
    _, text = judge(a_run(stages=[decode(cpu_seconds=0.1)], cores=2))
    assert "threads=4 would feed" in text


def test_pythons_lock_is_known_by_threads_that_share_one_processor(monkeypatch):
    row = StageRow("map(f)", own_seconds=18.0, cpu_seconds=9.5, can_thread=True, python=True)
    for gil in True, False:
        monkeypatch.setattr("streampipe.report.verdict.has_gil", lambda gil=gil: gil)
        _, text = judge(a_run(stages=[row]))
        assert ("Python's lock" in text) == gil
        assert ("num_workers=16" if gil else "threads=") in text


def test_idle_workers_and_a_waiting_consumer_mean_the_hand_over():
    limit, text = judge(a_run(workers=2, threads=0, idle_seconds=60.0, stages=[decode()]))
    assert limit == "hand-over"
    assert "2 workers are idle 75 %" in text


def test_a_network_that_is_waited_for():
    row = StageRow(READING, own_seconds=18.0, share=0.9)
    limit, text = judge(a_run(stages=[row, decode(own_seconds=0.5)], remote=True, network_bytes=10**8, requests=7))
    assert limit == "network"
    assert "10.0 MB/s in 7 requests" in text


@pytest.mark.parametrize("share", [0.0, 0.049])
def test_a_consumer_that_does_not_wait(share):
    assert judge(a_run(stages=[decode()], wait_share=share))[0] == "consumer"


def test_nothing_measured_is_said():
    assert judge(Summary()) == ("", "nothing was measured yet")


def test_a_device_that_is_busy_is_to_blame_though_the_loader_is_idle():
    idle = {"device": "cuda:0", "device_share": 0.9, "idle_seconds": 60.0, "stages": [decode()]}
    limit, text = judge(a_run(**idle, device_decode_seconds=18.0, device_copy_seconds=2.0))
    assert limit == "device"
    assert text.startswith("decoding on cuda:0 takes 90 % of the time, and you wait 50 % of it: decode without device=")
    _, text = judge(a_run(**idle, device_decode_seconds=2.0, device_copy_seconds=18.0))
    assert text.startswith("copying batches to cuda:0 takes 90 %")
    limit, _ = judge(a_run(**{**idle, "device_share": 0.2}))
    assert limit == "hand-over"


def test_ranks_together_are_told_what_each_of_them_should_change():
    row = decode(own_seconds=30.0)
    _, text = judge(a_run(stages=[row], ranks=2, readers=4, making_seconds=40.0, cores=32, consumer_rate=40.0))
    assert "of 4 threads: threads=7 would feed" in text  # 14 in all: 0.3 s a sample, 40 samples/s, 90 % of each
