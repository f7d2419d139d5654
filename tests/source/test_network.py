"""Settings that cannot work are refused where they are made."""

import pickle

import pytest

import streampipe as sp


@pytest.mark.parametrize(
    "options",
    [
        {"tries": 0},
        {"tries": 2.5},
        {"stall": 0},
        {"stall": "30"},
        {"connect": -1},
        {"longest_wait": float("nan")},
        {"stall": float("inf")},
        {"first_wait": -0.1},
        {"window": 0},
        {"memory": -1},
        {"requests": 0},
        {"gap": -1},
        {"schemes": "sftp"},
        {"redirects_to": "169.254.1.1"},
    ],
)
def test_what_cannot_work_is_refused(options):
    with pytest.raises(sp.ConfigError, match=rf"Network.*{next(iter(options))}"):
        sp.Network(**options)


def test_it_is_a_value():
    network = sp.Network(schemes=["sftp"], first_wait=0, gap=0)
    assert network == sp.Network(schemes=("sftp",), first_wait=0, gap=0)
    assert hash(network) == hash(pickle.loads(pickle.dumps(network)))
