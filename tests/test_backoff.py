import pytest

from streampipe.backoff import pause


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.0])
def test_pauses_are_drawn_from_nothing_up_to_a_bound_that_grows_and_ends(factor):
    for made in range(1, 9):
        drawn = [pause(made, 1.0, 20.0, factor) for _ in range(300)]
        most = min(20.0, factor ** (made - 1))
        assert 0 <= min(drawn) < 0.1 * most
        assert 0.9 * most < max(drawn) <= most


def test_any_number_of_tries_has_a_pause():
    assert 0 <= pause(100_000, 0.25, 20.0) <= 20.0
