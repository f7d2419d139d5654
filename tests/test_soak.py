"""A short slice of ``tests/soak.py``: the long one is run by hand."""

from tests.soak import soak


def test_a_killed_job_behind_a_breaking_server_is_exact_and_leaves_nothing(tmp_path):
    report = soak(tmp_path, seconds=6, seed=1, workers=1, jobs=["sequential"], every=2)
    assert report["kills"] >= 1
    assert report["faults"] > 10
    assert report["sequential"]["samples"] > 100
