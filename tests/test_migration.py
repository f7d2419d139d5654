"""docs/webdataset.md: each row of its table gives the same samples on both sides, and its code runs."""

import io
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.compat import webdataset as compat
from tests.data import photo, shard

wds = pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TEXT = (Path(__file__).parent.parent / "docs" / "webdataset.md").read_text()
ROWS = re.findall(r"^\| `(wds\..*)` \| `(sp\..*)` \|$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in range(2):
        keys = [f"{number}{i}" for i in range(5)]
        samples = [(key, {"jpg": photo(int(key), 24, 16), "txt": f"text {key}", "cls": key}) for key in keys]
        (folder / f"{number}.tar").write_bytes(shard(samples))
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def stage(samples):
    for sample in samples:
        yield {"__key__": sample["__key__"], "twice": sample["txt"] * 2}


def fn(sample):
    return {"__key__": sample["__key__"], "n": len(sample["txt"])}


def keep(sample):
    return int(sample["__key__"]) % 3 > 0


def plain(value):
    """A value as both libraries have it."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "tobytes"):
        return value.size, value.mode
    return value


def found(items):
    """Samples or batches without metadata, and without pixels, which two decoders have otherwise."""
    result = []
    for item in items:
        if isinstance(item, dict):
            fields = {name: plain(v) for name, v in item.items() if not name.startswith("__") and name != "jpg"}
            result.append(dict(sorted(fields.items())))
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            result.append(found(item))
        else:
            result.append(plain(item))
    return result


def test_there_are_rows():
    assert len(ROWS) > 20


@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=[theirs[15:60] for theirs, _ in ROWS])
def test_both_sides_of_a_row_give_the_same(urls, theirs, ours):
    names = {"wds": wds, "sp": sp, "urls": urls, "fn": fn, "keep": keep, "stage": stage}
    names |= {"to_tuple": compat.to_tuple, "map_tuple": compat.map_tuple}
    left, right = found(islice(eval(theirs, names), 30)), found(islice(eval(ours, names), 30))
    if any(word in theirs for word in ("shuffle=100", "shuffle(", "resampled", "select(")):  # another order
        assert len(left) == len(right)
        if "resampled" not in theirs:
            assert sorted(map(repr, left)) == sorted(map(repr, right))
    else:
        assert left == right


def test_the_code_of_the_page_runs(urls, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, {"urls": urls})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["4 torch.Size([4])"] * 2 + ["2 torch.Size([2])"]
    assert "'epoch': 1" in lines[3]


def test_a_chain_of_webdatasets_own_words_gives_what_webdataset_gives(urls):
    def chain(library):
        made = library.WebDataset(urls, shardshuffle=False).decode("torchrgb").map_dict(txt=str.upper)
        return made.to_tuple("jpg txt cls").map_tuple(torch.mean, None, None).batched(4, partial=False)

    ours, theirs = list(chain(compat)), list(chain(wds))
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert np.allclose(np.asarray(mine[0]), np.asarray(other[0]), atol=0.02)
        assert plain(mine[1:]) == plain(other[1:])


def test_decode_by_webdatasets_names_gives_its_arrays_and_leaves_those_that_are_no_images(tmp_path):
    array = io.BytesIO()
    np.save(array, np.full((2, 3, 3), 200, np.uint8))
    fields = {"png": photo(1, 16, 24, kind="PNG", quality=None), "n.npy": array.getvalue()}
    (tmp_path / "0.tar").write_bytes(shard([("a", fields)]))
    for name in ("rgb", "rgb8", "torchrgb", "torchrgb8"):
        (ours,) = compat.WebDataset(tmp_path).decode(name)
        (theirs,) = wds.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False).decode(name)
        assert ours["png"].dtype == theirs["png"].dtype
        assert np.allclose(np.asarray(ours["png"]), np.asarray(theirs["png"]))
        assert np.array_equal(ours["n.npy"], theirs["n.npy"])


@pytest.mark.parametrize("given", ["l8", "rgba", len, "rbg"])
def test_a_decoder_of_webdatasets_that_has_no_counterpart_is_refused_with_those_that_have(urls, given):
    with pytest.raises(sp.ConfigError, match="takes one name of 'torch'.*decoders="):
        compat.WebDataset(urls).decode(given)


@pytest.mark.parametrize(
    ("name", "words"),
    [("warn_and_continue", "on_error='skip'"), ("ShardWriter", "write"), ("split_by_node", "left out"), ("x", "$")],
)
def test_what_only_webdataset_has_says_what_is_here(name, words):
    with pytest.raises(AttributeError, match=f"streampipe.compat.webdataset has no '{name}'.*{words}"):
        getattr(compat, name)


def test_with_epoch_goes_on_where_the_last_pass_stopped(urls):
    loader = compat.WebDataset(urls, resampled=True).decode().batched(4).with_epoch(3).loader()
    seen = [key for _ in range(5) for batch in loader for key in batch["__key__"]]
    assert len(loader) == 3
    assert [seen.count(key) for key in set(seen)].count(6) + [seen.count(key) for key in set(seen)].count(5) >= 9


def test_with_epoch_is_kept_by_what_stands_behind_and_refused_where_a_pass_would_have_no_end(urls):
    made = compat.WebDataset(urls).with_epoch(3)
    for changed in (made.repeat(2), made.of_rank(0, 2), made.map_dict(txt=len), compat.WebDataset(made)):
        assert len(list(changed.loader())) == 3
    with pytest.raises(sp.ConfigError, match=r"with_epoch\(3\) is of passes of WebLoader"):
        iter(made)


@pytest.mark.parametrize("option", [{"shardshuffle": 9}, {"resampled": True}, {"seed": 4}, {"epochs": 2}])
def test_options_beside_a_pipeline_are_refused(urls, option):
    with pytest.raises(sp.ConfigError, match=f"{next(iter(option))}= is of the pipeline that is given"):
        compat.WebDataset(sp.stream(urls), **option)


def test_a_random_mix_has_its_shares(urls):
    parts = [compat.WebDataset(url) for url in urls]
    keys = [sample["__key__"][0] for sample in islice(compat.RandomMix(parts, [3, 1]), 8)]
    assert keys.count("0") == 6
    with pytest.raises(sp.ConfigError, match="batched"):
        compat.WebLoader(parts[0], batch_size=4)
