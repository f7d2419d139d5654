"""Parquet files that are damaged: an exception, whatever pyarrow makes of them."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streampipe.errors import IndexMismatch
from streampipe.index.parquet import read_table
from tests.warm import PIPE, Program


def read_with_flips(data):
    end = len(data) - 8
    refused = 0
    for at in range(end - int.from_bytes(data[end : end + 4], "little"), end):
        for bit in (0, 6):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                read_table(bytes(damaged), "a.parquet", 1 << 20)
            except IndexMismatch:
                refused += 1
    print("refused", refused)


def written(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.mark.usefixtures("warm")
def test_no_flipped_bit_of_what_a_file_says_of_itself_ends_the_process():
    """In a process of its own, because pyarrow ends it where a column's sizes contradict its type and Python asks."""
    table = pa.table({"n": pa.array([1, None], pa.int64()), "text": ["a", "b"], "list": [[1.5], [2.5, 3.5]]})
    data = written(table.replace_schema_metadata(None), store_schema=False)
    program = Program(read_with_flips, data, stdout=PIPE, stderr=PIPE)
    said, errors = program.communicate()
    assert program.returncode == 0, errors[-2000:]
    assert int(said.removeprefix("refused ")) > 50


def test_a_text_that_is_no_utf8_is_refused_before_anybody_reads_it():
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\x02\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    data = written(pa.table({"n": [1], "text": texts}))
    with pytest.raises(IndexMismatch, match=r"a\.parquet is damaged"):
        read_table(data, "a.parquet", 1 << 20)
    assert read_table(data, "a.parquet", 1 << 20, lambda schema: ["n"]).to_pydict() == {"n": [1]}
