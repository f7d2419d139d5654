"""open_clip's data function: the contract of its loop, and the numbers of its samples, on two ranks and resumed."""

import random
from types import SimpleNamespace

import pytest
import torch

import streampipe as sp
from streampipe.compat.open_clip import DataInfo, get_wds_dataset
from tests.data import photo, shard

BATCH = 2


def tokenize(text):
    """As open_clip's tokenizers: a row for each text. The number in the caption stands for it."""
    return torch.tensor([[int(text.split()[-1]), 0]])


def preprocess(image):
    """A random crop, by the two generators that transforms draw from."""
    assert image.mode == "RGB"
    return torch.full((3, 4, 4), float(torch.rand(())) + random.random())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three shards of eight photos, with a sample without caption and a broken image in the last one."""
    found = tmp_path_factory.mktemp("clip")
    samples = [(f"{n:02d}", {"jpg": photo(n, 16, 12), "txt": f"photo {n}"}) for n in range(24)]
    for number in range(3):
        (found / f"{number:05d}.tar").write_bytes(shard(samples[8 * number : 8 * number + 8]))
    return found


def arguments(shards, **given):
    defaults = {"train_data": str(shards), "val_data": str(shards), "batch_size": BATCH, "workers": 0, "seed": 1}
    counts = {"train_num_samples": None, "val_num_samples": None, "rank": 0, "world_size": 1}
    return SimpleNamespace(**{**defaults, **counts, "train_data_upsampling_factors": None, **given})


def train(args, epochs, start=0, **options):
    """What train_one_epoch and its caller ask of data: the texts of each epoch, and a crop of each."""
    data = {"train": get_wds_dataset(args, preprocess, True, epoch=start, tokenizer=tokenize, **options)}
    seen = []
    for epoch in range(start, epochs):
        data["train"].set_epoch(epoch)
        dataloader = data["train"].dataloader
        rows, crops = [], []
        for images, texts in dataloader:
            assert images.dtype == torch.float32
            assert images.shape == (BATCH, 3, 4, 4)
            rows += texts[:, 0].tolist()
            crops += images[:, 0, 0, 0].tolist()
        assert len(rows) == dataloader.num_batches * BATCH
        assert dataloader.num_samples == dataloader.num_batches * BATCH * args.world_size
        seen.append((rows, crops))
    return seen


def test_two_ranks_see_each_sample_once_in_an_epoch_and_other_orders_later(folder):
    first, second = (train(arguments(folder, rank=rank, world_size=2), 2) for rank in range(2))
    for epoch in range(2):
        assert sorted(first[epoch][0] + second[epoch][0]) == list(range(24))
    assert first[0][0] != first[1][0]


def test_a_run_that_is_resumed_at_an_epoch_has_its_batches_and_crops_whatever_the_workers(folder):
    whole = train(arguments(folder), 3)
    random.seed(7)
    torch.manual_seed(7)
    assert train(arguments(folder, workers=2), 3, start=2) == whole[2:]


def test_epochs_of_a_given_number_of_samples_go_on_in_the_stream(folder):
    seen = train(arguments(folder, train_num_samples=15), 3)
    assert [len(rows) for rows, _ in seen] == [16, 16, 16]
    assert sorted(seen[0][0] + seen[1][0][:8]) == list(range(24))
    floored = train(arguments(folder, train_num_samples=15), 1, floor=True)
    assert len(floored[0][0]) == 14


def test_validation_is_the_same_every_time_and_whole(folder):
    info = get_wds_dataset(arguments(folder, rank=1, world_size=2), preprocess, False, tokenizer=tokenize)
    passes = [[row for _, texts in info.dataloader for row in texts[:, 0].tolist()] for _ in range(2)]
    assert passes == [list(range(24))] * 2
    assert (info.dataloader.num_batches, info.dataloader.num_samples) == (12, 24)


def test_samples_without_caption_or_with_a_broken_image_are_skipped_and_counted(tmp_path):
    samples = [(f"{n:02d}", {"jpg": photo(n, 16, 12), "txt": f"photo {n}"}) for n in range(24)]
    del samples[3][1]["txt"]
    samples[9][1]["jpg"] = b"<html>404</html>"
    (tmp_path / "00000.tar").write_bytes(shard(samples))
    info = get_wds_dataset(arguments(tmp_path), preprocess, True, tokenizer=tokenize, pairs=False)
    rows = [row for batch in info.dataloader for row in batch["text"][:, 0].tolist()]
    assert len(rows) == 24
    assert {*range(24)} - {*rows} == {3, 9}
    assert sum(each["samples"] for each in info.dataloader.summary().errors) == 2


def test_what_cannot_be_right_is_refused(folder):
    with pytest.raises(sp.ConfigError, match=r"sp.mix"):
        get_wds_dataset(arguments(folder, train_data_upsampling_factors="1::2"), preprocess, True, tokenizer=tokenize)
    with pytest.raises(sp.ConfigError, match="fewer samples than a batch"):
        get_wds_dataset(arguments(folder, train_num_samples=1), preprocess, True, floor=True, tokenizer=tokenize)
    with pytest.raises(sp.ConfigError, match="batches of an epoch"):
        DataInfo(sp.stream(folder, epochs=None).batch(2).loader(), 24)
