"""What systems and tools leave in archives beside the samples is passed over and counted."""

import pytest

from streampipe.counters import counters
from streampipe.samples import group
from streampipe.tar import read_members
from tests.cases.shards.archives import END, member

JUNK = {
    ".DS_Store": ".DS_Store",
    "cats/.DS_Store": ".DS_Store",
    "Thumbs.db": "Thumbs.db",
    "cats/Thumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    "._a.jpg": "._*",
    "cats/._a.jpg": "._*",
    "__MACOSX/._a.jpg": "._*",
    ".gitignore": "hidden files",
    "README": "without a field",
    "__meta__/a.json": "reserved names",
    "PaxHeaders.123/a.jpg": "PaxHeaders",
    "./PaxHeader/a.jpg": "PaxHeaders",
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_between_and_inside_samples(name):
    before = counters.get("ignored members", JUNK[name])
    data = member(name) + member("a.jpg") + member(name) + member("a.txt") + member("b.jpg") + member(name) + END
    found = [(each["__key__"], sorted(each)[3:]) for each in group(read_members(data, shard="s"), "s")]
    assert found == [("a", ["jpg", "txt"]), ("b", ["jpg"])]
    assert counters.get("ignored members", JUNK[name]) == before + 3


@pytest.mark.parametrize("name", ["PaxHeader.jpg", "my PaxHeaders/a.jpg", "thumbs.jpg", "desktop.json", "MACOSX/a.jpg"])
def test_names_that_only_look_like_junk_are_samples(name):
    assert len(list(group(read_members(member(name) + END, shard="s"), "s"))) == 1
