"""What a shard's writer knows is what a scan of the shard finds, to the byte."""

from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.index import scan
from streampipe.index.writer import IndexWriter
from streampipe.source import Source
from streampipe.tar import Limits
from tests.data import photo

FIELDS = {
    "jpg": st.sampled_from([photo(0, 20, 10), photo(1, 16, 16), photo(2)[:50], b""]),
    "mask.png": st.just(b"no image"),
    "txt": st.binary(max_size=600),
    "json": st.sampled_from([b'{"a": 1, "width": 3, "in": {"x": "y"}}', b"[", b'{"a": "text"}', b"{}"]),
    "json.gz": st.just(b"\x1f\x8b"),
    "\u00fc.txt": st.just(b"x"),
}
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["a", "dir/b", "\u00fcber", "x" * 120, "d" * 90 + "/" + "e" * 90]),
        st.fixed_dictionaries({}, optional=FIELDS).filter(bool),
    ),
    max_size=5,
    unique_by=lambda sample: sample[0],
)


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_an_index_that_was_written_is_the_one_that_is_scanned(tmp_path_factory, samples):
    path = tmp_path_factory.mktemp("s") / "0.tar"
    with path.open("wb") as file:
        shard = IndexWriter(file.write, str(path))
        for key, fields in samples:
            shard.add(key, fields)
        index = shard.close()
    assert index.to_bytes() == scan(str(path), Source(), Limits()).to_bytes()
