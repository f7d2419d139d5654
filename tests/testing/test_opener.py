"""Files in memory break where they were told."""

import io
import pickle
import tarfile

import pytest

from streampipe.testing import BrokenOpener

DATA = bytes(range(100))


def test_a_read_returns_the_bytes_before_the_break_then_raises_once():
    opener = BrokenOpener({"a": DATA}, [40])
    with opener("a") as file:
        assert file.read(30) == DATA[:30]
        assert file.read(30) == DATA[30:40]
        with pytest.raises(ConnectionResetError, match="a broke at byte 40"):
            file.read(30)
        assert file.read() == DATA[40:]
        assert file.read() == b""


def test_breaks_happen_in_turn_over_all_openings():
    opener = BrokenOpener({"a": DATA, "b": DATA}, [40, 40, 70, 0, 100])
    got = []
    at = 0
    while at < 100:
        with opener("a") as file:
            file.seek(at)
            try:
                while part := file.read():
                    at += len(part)
            except ConnectionResetError:
                got.append(at)
    assert got == [40, 40, 70]
    assert opener.opened == 4
    with opener("b") as file:
        with pytest.raises(ConnectionResetError):
            file.read(1)
        assert file.read() == DATA
        with pytest.raises(ConnectionResetError):
            file.read()
    assert opener.opened == 5


def test_a_seek_past_a_break_does_not_reach_it():
    opener = BrokenOpener({"a": DATA}, [40])
    with opener("a") as file:
        assert file.seekable()
        assert not file.writable()
        assert file.seek(-10, io.SEEK_END) == 90
        assert file.read() == DATA[90:]
        file.seek(35)
        assert file.read(0) == b""
        assert file.read() == DATA[35:40]
        assert file.tell() == 40
        with pytest.raises(ConnectionResetError):
            file.read()


@pytest.mark.parametrize("how", ["read1", "readinto", "readinto1", "readline", "next"])
def test_every_way_to_read_breaks(how):
    opener = BrokenOpener({"a": b"x" * 100}, [40])
    ways = {
        "read1": lambda file: file.read1(),
        "readinto": lambda file: file.readinto(bytearray(60)),
        "readinto1": lambda file: file.readinto1(bytearray(60)),
        "readline": lambda file: file.readline(),
        "next": next,
    }
    with opener("a") as file:
        got = ways[how](file)
        assert (got if isinstance(got, int) else len(got)) == 40
        with pytest.raises(ConnectionResetError):
            ways[how](file)


def test_lines_end():
    with BrokenOpener({"a": b"1\n2\n3"})("a") as file:
        assert list(file) == [b"1\n", b"2\n", b"3"]


def test_the_error_is_the_one_asked_for():
    opener = BrokenOpener({"a": DATA}, [0], error=TimeoutError)
    with opener("a") as file, pytest.raises(TimeoutError):
        file.read()


def test_files_have_a_size_if_sized():
    with BrokenOpener({"a": DATA})("a") as file:
        assert file.size == 100
    with BrokenOpener({"a": DATA}, sized=False)("a") as file:
        assert not hasattr(file, "size")


def test_what_is_not_there_is_not_found():
    opener = BrokenOpener({})
    with pytest.raises(FileNotFoundError):
        opener("a")
    assert opener.opened == 1


def test_a_closed_file_cannot_be_read():
    file = BrokenOpener({"a": DATA}, [0])("a")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_an_opener_can_be_sent_to_another_process():
    opener = pickle.loads(pickle.dumps(BrokenOpener({"a": DATA}, [40])))
    with opener("a") as file:
        assert len(file.read()) == 40


def test_other_libraries_can_read_the_files():
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        info = tarfile.TarInfo("x")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    with BrokenOpener({"a": memory.getvalue()})("a") as file, tarfile.open(fileobj=io.BufferedReader(file)) as tar:
        assert tar.extractfile("x").read() == b"hello"
