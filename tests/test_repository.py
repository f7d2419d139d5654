"""Repositories of the hub that are named by themselves: which files are shards, and of which split."""

from pathlib import Path

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.repository import shards_of
from streampipe.source import Source
from tests.data import write_shards

ROOT = "hf://datasets/o/d"
TARS = ["train/00000.tar", "train/00001.tar", "validation/00000.tar", "README.md", ".git/x.tar", "train/00000.txt"]


@pytest.fixture
def listed(monkeypatch):
    """A repository of these files, whose listing is asked for by nobody else, and whose README.md is this."""

    def of(*names, root=ROOT, readme="# A dataset"):
        def glob(self, pattern):
            assert pattern == f"{root}/**"
            return [root, *(f"{root}/{name}" for name in names), "hf://datasets/o/d2/train/00009.tar"]

        def read_if_there(self, url, most):
            assert url == f"{root}/README.md"
            return readme.encode()

        monkeypatch.setattr(Source, "glob", glob)
        monkeypatch.setattr(Source, "read_if_there", read_if_there)

    return of


def shards(url=ROOT, **options):
    return list(sp.stream(url, **options).source.shards)


def test_a_split_is_found_by_the_names_of_files(listed):
    listed(*TARS)
    assert shards(split="train") == [f"{ROOT}/train/00000.tar", f"{ROOT}/train/00001.tar"]
    assert shards(split="validation") == [f"{ROOT}/validation/00000.tar"]
    with pytest.raises(sp.ConfigError, match=r"splits 'train' \(2 shards\), 'validation' \(1 shards\): say which"):
        shards()
    with pytest.raises(sp.ConfigError, match="no split 'test', but 'train', 'validation'"):
        shards(split="test")


def test_a_repository_without_names_of_splits_is_one_and_its_revision_stays(listed):
    root = f"{ROOT}@v1.0"
    listed("b/1.tar", "a/0.tar", root=root)
    assert shards(f"{root}/") == shards(root, split="train") == [f"{root}/a/0.tar", f"{root}/b/1.tar"]


def test_facts_beside_tars_are_no_second_kind_of_files(listed):
    facts = ["manifest.parquet", f"facts-{'0' * 32}.parquet", "00000.index.parquet"]
    listed(*TARS, *(f"train/{name}" for name in facts))
    assert shards(split="train") == [f"{ROOT}/train/00000.tar", f"{ROOT}/train/00001.tar"]
    listed(*(f"data/{name}" for name in facts))  # without tars they are what there is
    assert shards_of(ROOT, Source()) == [f"{ROOT}/data/{name}" for name in sorted(facts[:2])]


def test_files_of_no_split_are_counted_and_two_kinds_are_told_apart(listed, caplog):
    listed("train-0.tar", "more.tar", "train-0.parquet")
    with pytest.raises(sp.ConfigError, match="has tars and Parquet files: say which"):
        shards()
    before = counters.get("listing", "files of no split passed over")
    assert shards(format="tar") == [f"{ROOT}/train-0.tar"]
    assert counters.get("listing", "files of no split passed over") == before + 1
    assert "1 files of hf://datasets/o/d are passed over" in caplog.text
    listed("README.md")
    with pytest.raises(sp.ConfigError, match=r"has no shards \(.tar\) and no Parquet files"):
        shards()


@pytest.mark.parametrize("url", ["hf://datasets/o/d/train/*.tar", "https://host/{0..3}.tar", "shards/0.tar", "nowhere"])
def test_a_split_of_anything_else_is_refused(url):
    with pytest.raises(sp.ConfigError, match="is of a repository of the hub that is named by itself"):
        sp.stream(url, split="train")


CARD = """---
license: mit
configs:
- config_name: large
  data_files:
  - split: train
    path: ["big/a*.tar", big/more/**/*.tar]
  - split: held_out
    path: big/b.tar
- config_name: small
  default: true
  data_dir: little
  data_files: "*.tar"
---
# A dataset
configs: none of this is YAML: [
"""
FILES = [
    "README.md",
    "big/a0.tar",
    "big/a1.tar",
    "big/b.tar",
    "big/more/c.tar",
    "big/more/x/d.tar",
    "little/train-9.tar",
]


def below(found):
    return [url.removeprefix(f"{ROOT}/") for url in found]


def test_a_card_says_which_files_are_of_which_config_and_split(listed):
    listed(*FILES, readme=CARD)
    assert below(shards(config="large", split="train")) == ["big/a0.tar", "big/a1.tar", *FILES[4:6]]
    assert below(shards(config="large", split="held_out")) == ["big/b.tar"]
    assert below(shards()) == below(shards(split="train", config="small")) == ["little/train-9.tar"]
    with pytest.raises(sp.ConfigError, match=r"splits 'train' \(4 shards\), 'held_out' \(1 shards\): say which"):
        shards(config="large")
    with pytest.raises(sp.ConfigError, match=r"no split 'test', but 'train', 'held_out'; its README.md names them"):
        shards(config="large", split="test")
    with pytest.raises(
        sp.ConfigError, match=r"README.md has no config 'lrge', but 'large', 'small'; did you mean 'large'"
    ):
        shards(config="lrge")


def test_a_card_that_names_configs_and_no_files_leaves_splits_to_the_names_below_its_folder(listed):
    listed(*FILES, "big/test/e.tar", "big/train/f.tar", readme="---\nconfigs:\n- data_dir: big/\n---\n")
    assert below(shards(split="test")) == ["big/test/e.tar"]
    with pytest.raises(sp.ConfigError, match="has no config 'en', but 'default'"):
        shards(config="en", split="test")


def test_several_configs_without_a_default_must_be_named(listed):
    card = "---\nconfigs:\n- {config_name: en, data_files: a.tar}\n- {config_name: de, data_files: [b.tar]}\n---\n"
    listed("README.md", "a.tar", "b.tar", readme=card)
    with pytest.raises(sp.ConfigError, match="has the configs 'en', 'de': say which, as in config='en'"):
        shards()
    assert below(shards(config="de")) == ["b.tar"]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("configs: [", "README.md begins with YAML that cannot be read: while parsing"),
        ("configs: 5", "README.md has configs that are no list"),
        ("configs: [{data_files: [5]}]", "README.md has data_files that are no pattern, and no split with a path: 5"),
        ("configs: [{data_files: 's3://b/x.tar'}]", "README.md has data_files elsewhere, at 's3://b/x.tar'"),
        ("configs: [{data_files: gone.tar}]", r"has no shards \(.tar\) and no Parquet files"),
        (
            "configs: [{data_files: [{split: a, path: a.tar}, {split: b, path: gone.tar}]}]",
            "names no file of split 'b'",
        ),
        ("configs: !!python/object/apply:os.system [date]", "cannot be read: could not determine a constructor"),
        ("a: " + "[" * 5_000, "cannot be read"),
    ],
)
def test_a_card_that_cannot_be_followed_is_an_error_in_one_sentence(listed, head, words):
    listed("README.md", "a.tar", readme=f"---\n{head}\n---\n")
    with pytest.raises(sp.ConfigError, match=words):
        shards(split="b")


@pytest.mark.parametrize(
    "readme", ["", "# no head", "---\nlicense: mit\n---\n", "---\n- a\n---\n", "---\nunended: yes\n"]
)
def test_a_card_without_configs_leaves_it_to_the_names(listed, readme):
    listed(*TARS, readme=readme)
    assert below(shards(split="validation")) == ["validation/00000.tar"]
    with pytest.raises(sp.ConfigError, match="README.md has no config 'en', but none at all"):
        shards(split="validation", config="en")


def test_a_local_clone_is_read_by_its_card_and_by_the_names_of_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = write_shards(Path("clone/data"), [2, 3])
    write_shards(Path("clone/.git"), [1])
    Path("clone/README.md").write_text(
        "---\nconfigs:\n- data_files:\n  - {split: train, path: data/00000.tar}\n"
        "  - {split: dpo, path: data/*1.tar}\n---\n"
    )
    assert [sample["__key__"] for sample in sp.stream("clone/", split="train")] == keys[:2]
    assert [sample["__key__"] for sample in sp.stream(tmp_path / "clone", split="dpo")] == keys[2:]
    Path("clone/README.md").unlink()
    Path("clone/data/00000.tar").rename("clone/data/val-0.tar")
    Path("clone/data/00001.tar").rename("clone/data/train-0.tar")
    assert [sample["__key__"] for sample in sp.stream("clone", split="train")] == keys[2:]
