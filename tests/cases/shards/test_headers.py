"""Sound archives of many writers: values that are never used refuse nothing; what is refused has a true reason."""

import io
import shutil
import subprocess
import tarfile

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.samples import group
from streampipe.tar import Limits, read_members, stream_members
from tests.cases.shards.archives import BLOCK, END, header, member, padded, patched, pax, record


def names(data, **limits):
    """Names and bytes, the same mapped and streamed."""
    found = [(each.name, bytes(each.data)) for each in read_members(data, shard="s", limits=Limits(**limits))]
    chunks = [data[i : i + 700] for i in range(0, len(data), 700)]
    assert [
        (each.name, bytes(each.data)) for each in stream_members(chunks, shard="s", limits=Limits(**limits))
    ] == found
    return found


def tarfiles(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(each.name, tar.extractfile(each).read()) for each in tar if each.isreg()]


UNUSED = {
    "mtime in Python's float notation": record(b"mtime", b"1e-05"),
    "mtime that is no number": record(b"mtime", b"yesterday"),
    "atime and ctime that are no numbers": record(b"atime", b"x") + record(b"ctime", b""),
    "a negative mtime": record(b"mtime", b"-1.5"),
    "an extended attribute with a name of its own": record("SCHILY.xattr.user.\u0430".encode(), b"me"),
    "an extended attribute of binary data": record(b"SCHILY.xattr.user.x", bytes(range(1, 256))),
    "a binary attribute with line breaks": record(b"LIBARCHIVE.xattr.user.x", b"a\n12 b=c\n"),
    "an access control list": record(b"SCHILY.acl.access", b"user::rw-"),
    "users and groups": record(b"uid", b"9" * 12) + record(b"uname", b"\xff") + record(b"gname", b""),
    "a vendor's keyword": record(b"RHT.security.selinux", b"x") + record(b"com.apple.metadata", b"\0\1"),
    "a comment": record(b"comment", "caf\u00e9".encode("cp1252")),
    "a character set": record(b"hdrcharset", b"BINARY"),
    "an empty size takes it back": record(b"size", b""),
    "an empty path takes it back": record(b"path", b""),
    "a keyword that is not UTF-8": record(b"user.\xff", b"x"),
}


@pytest.mark.parametrize("name", UNUSED)
@pytest.mark.parametrize("kind", [b"x", b"g", b"X"])
def test_records_that_are_not_used(name, kind):
    data = pax(UNUSED[name], kind) + member("x.txt") + member("y.txt") + END
    assert names(data) == [("x.txt", b"hi"), ("y.txt", b"hi")]


def test_a_later_empty_record_takes_a_global_one_back():
    data = pax(record(b"path", b"all.txt"), b"g") + pax(record(b"path", b"")) + member("x.txt") + END
    assert names(data) == [("x.txt", b"hi")]


def test_padding_behind_an_extended_header_is_not_looked_at():
    data = pax(record(b"mtime", b"1"), fill=b"\xcc") + member("x.txt") + END
    assert names(data) == [("x.txt", b"hi")]


@pytest.mark.parametrize("end", [b"\0 ", b" \0", b"\0\0"])
def test_ends_of_the_checksum_field(end):
    block = bytearray(header("x.txt", 2))
    block[154:156] = end
    assert names(bytes(block) + padded(b"hi") + END) == [("x.txt", b"hi")]


FIELDS = {
    "users and groups that are no numbers": (108, b"abcdefg\0hijklmn\0"),
    "a mode that is none": (100, b"zzzzzzz\0"),
    "a time that is none": (136, b"zzzzzzzzzzz\0"),
    "a time before 1970, in base 256": (136, b"\xff" * 12),
    "a user's name that is not UTF-8": (265, b"\xff\xfe"),
    "device numbers that are none": (329, b"zzzzzzz\0"),
    "old GNU magic": (257, b"ustar  \0"),
    "no magic (version 7)": (257, b"\0" * 8),
    "star's mark": (508, b"tar\0"),
    "a size with blanks in front": (124, b"          2 "),
    "a size in base 256": (124, b"\x80" + bytes(10) + b"\x02"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_a_header(name):
    at, value = FIELDS[name]
    data = patched(header("x.txt", 2), at, value) + padded(b"hi") + END
    assert names(data) == [("x.txt", b"hi")]
    assert isinstance(next(read_members(data, shard="s")).mtime, float)  # a time that is none does not raise either


def test_other_kinds_of_entries_are_passed_over_and_counted():
    before = counters.snapshot()
    dump = b"Yx.txt\0\0"
    data = (
        header("my label", kind=b"V")
        + header("./", len(dump), kind=b"D")
        + padded(dump)
        + header("acl", 5, kind=b"A")
        + padded(b"12345")
        + header("/", kind=b"5")
        + header("../", kind=b"5")
        + header("latest", kind=b"2", link="x.txt")
        + header("null", kind=b"3")
        + header(".lock", kind=b"6")
        + member("x.txt")
        + END
    )
    assert names(data) == [("x.txt", b"hi")]
    for what in ("volume labels", "GNU directories", "access control lists", "links and devices without a field"):
        assert counters.get("ignored members", what) > before.get(("ignored members", what), 0)


REFUSED = {
    "a symbolic link with a field": (header("x.jpg", kind=b"2", link="y.jpg"), "symbolic link to 'y.jpg'"),
    "a hard link with a field": (header("x.jpg", kind=b"1", link="y.jpg"), "hard link to 'y.jpg'"),
    "a device with a field": (header("x.jpg", kind=b"3"), "character device"),
    "a part of another volume": (header("x.jpg", kind=b"M"), "unknown type b'M'"),
    "GNU's sparse file": (header("x.jpg", kind=b"S"), "sparse file"),
    "a sparse file in PAX records": (pax(record(b"GNU.sparse.major", b"1")) + member("x.jpg"), "sparse file"),
    "a sparse file of star's": (pax(record(b"SCHILY.filetype", b"sparse")) + member("x.jpg"), "sparse file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_it_is(name):
    data, words = REFUSED[name]
    with pytest.raises(sp.UnsupportedMember, match=words):
        names(data + END)


def test_a_long_link_name_is_shown_whole():
    target = "d" * 150 + "/y.jpg"
    long = header("././@LongLink", len(target) + 1, kind=b"K") + padded(target.encode() + b"\0")
    with pytest.raises(sp.UnsupportedMember, match=target):
        names(long + header("x.jpg", kind=b"1", link=target[:99]) + END)


@pytest.mark.parametrize(
    "name", ["caf\u00e9.jpg", "\u732b.jpg", "a b.jpg", "a\tb.jpg", "\u202eb.jpg", "'\"\\.jpg", "-x.jpg"]
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_every_sign(name, form):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        info = tarfile.TarInfo(name)
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    assert names(file.getvalue()) == tarfiles(file.getvalue()) == [(name, b"hi")]


@pytest.mark.parametrize(
    "options",
    [
        ["--format=v7"],
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=ustar"],
        ["--format=posix"],
        ["--format=posix", "--pax-option=exthdr.name=%d/x,comment=hello,delete=mtime"],
        ["--format=posix", "--pax-option=globexthdr.name=g,uname:=me"],
        ["--format=gnu", "-V", "my label"],
        ["--format=gnu", "-g", "/dev/null"],
        ["--format=posix", "--acls", "--xattrs"],
        ["--blocking-factor=1"],
    ],
    ids=" ".join,
)
@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
def test_what_gnu_tar_writes_is_read(tmp_path, options):
    source = tmp_path / "in"
    source.mkdir()
    long = "n" * 80 + ".txt"
    for name in ("a.jpg", "a.txt", "caf\u00e9.txt", *([] if "v7" in options[0] else [long])):
        (source / name).write_bytes(name.encode())
    command = ["tar", *options, "-C", str(source), "-cf", str(tmp_path / "s.tar"), "."]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(made.stderr)
    data = (tmp_path / "s.tar").read_bytes()
    files = {"./" + each.name: each.read_bytes() for each in source.iterdir()}
    assert dict(names(data)) == files


FOREIGN = {
    "version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer; fetch what it points to: git lfs pull",
    "PK\x03\x04": "a zip archive",
    "<!DOCTYPE html>": "a web page",
    "\n<?xml version='1.0'?><Error>": "an XML text",
    "PAR1": "a Parquet file",
    "\xff\xd8\xff\xe0": "an image; give the folder that it lies in",
    "\x89PNG\r\n": "an image",
    "\x1f\x9d": "compressed with compress",
}


@pytest.mark.parametrize("head", FOREIGN)
def test_a_file_that_is_no_archive_is_called_by_its_name(head):
    data = padded(head.encode("latin-1") + b"x" * 300)
    with pytest.raises(sp.CorruptShard, match=f"s, byte 0: no tar header; it is {FOREIGN[head]}"):
        names(data)


@pytest.mark.parametrize("head", FOREIGN)
def test_so_is_one_that_is_shorter_than_a_header_as_pointers_of_git_lfs_are(head):
    for data in (head.encode("latin-1"), head.encode("latin-1") + b"x" * 100):
        with pytest.raises(sp.CorruptShard, match=f"s, byte 0: no tar header; it is {FOREIGN[head]}"):
            names(data)


def test_what_is_allowed_already_is_not_what_to_do():
    for data, words in ((b"", "ends at byte 0, for it is empty"), (member("a.jpg"), "or is the only one")):
        with pytest.raises(sp.TruncatedShard, match=words) as error:
            list(group(read_members(data, shard="s", limits=Limits(missing_end=True)), "s"))
        assert "missing_end" not in str(error.value)


def test_hard_links_are_read_where_that_is_allowed():
    data = (
        member("a.jpg", b"pixels") + member("a.txt") + header("b.jpg", kind=b"1", link="a.jpg") + member("b.txt") + END
    )
    with pytest.raises(sp.UnsupportedMember, match=r"hard link to 'a.jpg'.*sp\.Limits\(hard_links=True\)"):
        names(data)
    assert names(data, hard_links=True)[2] == ("b.jpg", b"pixels")
    chain = data[: -len(END)] + header("c.jpg", kind=b"1", link="b.jpg") + END
    assert names(chain, hard_links=True)[-1] == ("c.jpg", b"pixels")


def test_a_long_target_is_of_the_link_behind_it_alone():
    far = "x" * 120 + "/far.jpg"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, target in ((far, None), ("near.jpg", None), ("a.jpg", far), ("b.jpg", "near.jpg")):
            info = tarfile.TarInfo(name)
            if target is None:
                info.size = len(name)
            else:
                info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info, io.BytesIO(name.encode()))
    found = dict(names(file.getvalue(), hard_links=True))
    assert (found["a.jpg"], found["b.jpg"]) == (far.encode(), b"near.jpg")


@pytest.mark.parametrize("link", ["a.jpg", "z.jpg", "b.jpg"])
def test_a_hard_link_that_leads_nowhere_earlier_is_refused(link):
    data = header("a.jpg", kind=b"1", link=link) + member("b.jpg") + END
    with pytest.raises(sp.UnsupportedMember, match=f"hard link to {link!r}"):
        names(data, hard_links=True)


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_shard_with_hard_links_streams_forward(tmp_path, tier):
    data = member("a.jpg", b"pixels") + header("b.jpg", kind=b"1", link="a.jpg") + END
    (tmp_path / "0.tar").write_bytes(data)
    pipe = sp.stream(tmp_path / "0.tar", tier=tier, limits=sp.Limits(hard_links=True))
    assert [(each["__key__"], each["jpg"]) for each in pipe] == [("a", b"pixels"), ("b", b"pixels")]
    with pytest.raises(sp.ConfigError, match="holds hard links"):
        list(sp.stream(tmp_path / "0.tar", tier="planned", limits=sp.Limits(hard_links=True)))


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("behind", [0, 100, BLOCK, BLOCK + 100])
def test_a_missing_end_marker_is_accepted_where_that_is_allowed(tmp_path, tier, behind):
    whole = b"".join(member(f"{key}.{field}") for key in "ab" for field in ("jpg", "txt"))
    (tmp_path / "0.tar").write_bytes(whole + bytes(behind))
    before = counters.get("reading", "shards without an end marker")
    with pytest.raises(sp.TruncatedShard, match=r"before its end marker.*sp\.Limits\(missing_end=True\)"):
        list(sp.stream(tmp_path / "0.tar", tier=tier))
    allowed = sp.Limits(missing_end=True)
    assert [each["__key__"] for each in sp.stream(tmp_path / "0.tar", tier=tier, limits=allowed)] == ["a", "b"]
    if tier == "sequential":
        assert counters.get("reading", "shards without an end marker") == before + 1
    with pytest.raises(sp.TruncatedShard):
        list(sp.stream(tmp_path / "0.tar", tier=tier))  # what was remembered of it allows nothing


@pytest.mark.parametrize("cut", [1, BLOCK, 2 * BLOCK, 2 * BLOCK + 1, 4 * BLOCK])
def test_a_missing_end_marker_behind_less_than_a_whole_sample_is_damage(cut):
    """Also where one sample alone is left: nothing says whether it is whole."""
    whole = b"".join(member(f"{key}.{field}") for key in "ab" for field in ("jpg", "txt"))
    chunks = [whole[: len(whole) - cut]]
    from streampipe.samples import group

    allowed = Limits(missing_end=True)
    with pytest.raises(sp.TruncatedShard):
        list(group(stream_members(chunks, shard="s", limits=allowed), "s", limits=allowed))


def test_an_index_of_a_shard_that_needs_leave_says_so(tmp_path):
    from streampipe.cli import main
    from tests.data import shard

    path = tmp_path / "0.tar"
    path.write_bytes(shard([("a", {"txt": "x"})]) + shard([("b", {"txt": "y"})]))
    assert main(["index", "--quiet", str(path)]) == 1
    assert main(["index", "--quiet", "--limits", "concatenated", str(path)]) == 0
    with pytest.raises(sp.CorruptShard, match=r"sp\.Limits\(concatenated=True\)"):
        list(sp.stream(path))
    pipe = sp.stream(path, tier="planned", limits=sp.Limits(concatenated=True))
    assert [each["__key__"] for each in pipe] == ["a", "b"]


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_a_sample_of_which_one_archive_has_the_beginning_and_the_next_one_the_rest_is_read_whole(tmp_path, tier):
    long = "x" * 120 + "/a"  # in an extended header, so that it is parsed whenever it is read
    parts = [[(f"{long}.jpg", b"pixels")], [(f"{long}.txt", b"words"), ("b.txt", b"more")]]
    data = b""
    for members in parts:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, body in members:
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        data += file.getvalue()
    (tmp_path / "0.tar").write_bytes(data)
    first, second = sp.stream(tmp_path / "0.tar", tier=tier, limits=sp.Limits(concatenated=True))
    assert (first["__key__"], first["jpg"], first["txt"]) == (long, b"pixels", b"words")
    assert second["__key__"] == "b"
