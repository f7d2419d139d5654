import inspect
import pickle

import pytest

from streampipe import errors


@pytest.mark.parametrize("kind", [kind for _, kind in inspect.getmembers(errors, inspect.isclass)])
def test_every_error_is_one_string_and_survives_the_trip_from_a_worker(kind):
    from torch._utils import ExceptionWrapper

    assert issubclass(kind, errors.StreampipeError)
    assert str(pickle.loads(pickle.dumps(kind("what, where")))) == "what, where"
    try:
        raise kind("what, where")
    except kind as error:
        wrapped = ExceptionWrapper(where="in a worker", exc_info=(type(error), error, error.__traceback__))
    with pytest.raises(kind, match="what, where"):
        wrapped.reraise()


def test_the_tree_in_the_docstring_is_the_tree():
    for name, _ in inspect.getmembers(errors, inspect.isclass):
        assert name in errors.__doc__
