import logging

import pytest

import streampipe as sp
from streampipe.counters import counters


def test_raise_is_the_default():
    with pytest.raises(sp.DecodeError, match="bad"):
        sp.ErrorPolicy().failed(sp.DecodeError("bad"), "decode")


def test_only_errors_of_samples_and_shards_are_skipped():
    policy = sp.ErrorPolicy("skip")
    policy.failed(sp.DecodeError("bad"), "decode")
    policy.failed(sp.TruncatedShard("bad"), "reading")
    for error in (sp.ShardMissing("x"), sp.AccessDenied("x"), sp.ConfigError("x"), sp.TooManyErrors("x")):
        with pytest.raises(type(error)):
            policy.failed(error, "reading")


def test_a_share_is_judged_from_a_hundred_on():
    policy = sp.ErrorPolicy("skip", max_share=0.1)
    for _ in range(98):
        policy.failed(sp.DecodeError("bad"), "decode")
        policy.passed("decode")
    policy.failed(sp.DecodeError("bad"), "decode")
    with pytest.raises(sp.TooManyErrors, match=r"decode skipped 100 of 198.*allowed: 10.00% of all"):
        policy.failed(sp.DecodeError("bad"), "decode")


def test_a_row_is_counted_at_its_own_place():
    policy = sp.ErrorPolicy("skip", max_in_row=2)
    for _ in range(2):
        policy.passed("reading")
        policy.failed(sp.DecodeError("bad"), "decode")
    with pytest.raises(sp.TooManyErrors, match="3 in a row"):
        policy.failed(sp.DecodeError("bad"), "decode")


def test_skips_are_counted_and_logged_less_and_less(caplog):
    counters.take()
    policy = sp.ErrorPolicy("skip")
    with caplog.at_level(logging.WARNING, "streampipe"):
        for _ in range(70):
            policy.failed(sp.DecodeError("bad"), "decode")
    assert len(caplog.records) == 7  # the 1st, 2nd, 4th, ... 64th
    assert counters.get("skipped", "DecodeError") == 70


@sp.stage
def refusing(samples, *, run):
    """A stage of one's own that gives every third sample to the policy, and says nothing of the others."""
    for number, sample in enumerate(samples):
        if number % 3:
            yield sample
        else:
            run.policy.failed(sp.StageError(f"sample {sample['__key__']!r} is odd"), run.stage)


def test_what_a_stage_yields_came_through_though_it_does_not_say_so():
    pipe = sp.from_iterable([{"__key__": str(i)} for i in range(60)], on_error=sp.ErrorPolicy("skip", max_in_row=2))
    assert len(list(pipe.apply(refusing()))) == 40


def test_a_stage_of_ones_own_that_gives_all_to_the_policy_is_still_too_much():
    @sp.stage
    def none(samples, *, run):
        for _ in samples:
            run.policy.failed(sp.StageError("odd"), run.stage)
            yield from ()

    pipe = sp.from_iterable([{"__key__": str(i)} for i in range(5)], on_error="skip")
    with pytest.raises(sp.TooManyErrors, match="none skipped 5 of 5"):
        list(pipe.apply(none()))
