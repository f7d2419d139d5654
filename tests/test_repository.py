"""Repositories of the hub that are named by themselves: which files are shards, and of which split."""

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.source import Source

ROOT = "hf://datasets/o/d"
TARS = ["train/00000.tar", "train/00001.tar", "validation/00000.tar", "README.md", ".git/x.tar", "train/00000.txt"]


@pytest.fixture
def listed(monkeypatch):
    """A repository of these files, whose listing is asked for by nobody else."""

    def of(*names, root=ROOT):
        def glob(self, pattern):
            assert pattern == f"{root}/**"
            return [root, *(f"{root}/{name}" for name in names), "hf://datasets/o/d2/train/00009.tar"]

        monkeypatch.setattr(Source, "glob", glob)

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


@pytest.mark.parametrize("url", ["hf://datasets/o/d/train/*.tar", "https://host/{0..3}.tar", "shards/0.tar"])
def test_a_split_of_anything_else_is_refused(url):
    with pytest.raises(sp.ConfigError, match="is of a repository of the hub that is named by itself"):
        sp.stream(url, split="train")
