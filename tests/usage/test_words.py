"""The words of options are those that mean something."""

from streampipe.cluster import ENGINES
from streampipe.folders.layouts import LAYOUTS
from streampipe.pack.change import FORMATS
from streampipe.plan.shapes import SETS
from streampipe.query.condition import MISSING
from streampipe.usage import words


def test_options_take_the_words_that_the_library_knows():
    assert ("auto", *LAYOUTS) == words.LAYOUTS
    assert tuple(FORMATS) == words.FORMATS
    assert tuple(SETS) == words.BUCKETS
    assert words.MISSING == MISSING
    assert words.ENGINES == ENGINES
