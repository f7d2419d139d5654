"""Whole chains of a text-to-image trainer over shards as they are found, in both tiers."""

import hashlib
from itertools import islice

import pytest

import streampipe as sp
from tests.data import encoded, natural, photo, shard

BUCKETS = sp.Buckets(base=64, step=8, min=32, max=128)


def chain(folder, tier, leftover="merge"):
    pipe = sp.stream(str(folder), seed=3, shuffle=4, tier=tier).where("width >= 32").bucket(BUCKETS, tail=leftover)
    pipe = pipe.rename(image="jpg;jpeg;png", text="txt").decode(crop="random", flip=0.5)
    return pipe.caption("text", dropout=0.3).batch(2)


def by_sample(batches):
    """What became of each sample: pixels, numbers and caption, by shard and key."""
    found = {}
    for batch in batches:
        for i, key in enumerate(batch["__key__"]):
            name = batch["__url__"][i].rpartition("/")[2], key
            assert name not in found, f"{name} came twice"
            pixels = hashlib.sha256(batch["image"][i].contiguous().numpy().tobytes()).hexdigest()
            found[name] = pixels, batch["time_ids"][i].tolist(), batch["flipped"][i], batch["caption"][i]
    return found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Five shards of JPEGs and PNGs; neighbours share keys."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(5):
        rows = []
        for i in range(4 if number != 2 else 1):
            seed = 10 * number + i
            picture = natural(60 + 9 * i, 90 - 7 * number, seed)
            data = {"png": encoded(picture, "PNG")} if seed % 3 else {"jpg": photo(seed, 60 + 9 * i, 60)}
            rows.append((f"{i + number % 2:04d}", {**data, "txt": f"text {seed}"}))
        (folder / f"{number}.tar").write_bytes(shard(rows))
    return folder


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("options", [{}, {"num_workers": 3}, {"threads": 2}])
def test_mixed_formats_and_keys_that_come_again_in_the_next_shard_lose_nothing(mixed, tier, options):
    found = by_sample(chain(mixed, tier).loader(**options))
    assert len(found) == 17
    assert len({key for _, key in found}) < 17


@pytest.mark.filterwarnings("ignore:.*stay idle")
def test_a_sample_is_cut_and_captioned_the_same_in_both_tiers_and_on_any_workers(mixed):
    """Under ``merge`` a leftover's size may differ between consumers, so pixels are compared under ``carry``."""
    whole = by_sample(chain(mixed, "sequential", "carry").loader())
    assert len(whole) == 17
    planned = by_sample(chain(mixed, "planned", "carry").loader())
    assert planned
    assert planned.items() <= whole.items()
    assert by_sample(chain(mixed, "sequential", "carry").loader(num_workers=3)) == whole


@pytest.mark.filterwarnings("ignore:.*stay idle")
@pytest.mark.parametrize("stop", [1, 4])
def test_after_a_resume_on_other_workers_nothing_is_lost_and_every_sample_is_as_it_was(mixed, stop):
    whole = by_sample(chain(mixed, "sequential", "carry").loader())
    first = chain(mixed, "sequential", "carry").loader(num_workers=2)
    begun = list(islice(first, stop))
    rest = chain(mixed, "sequential", "carry").loader(num_workers=3)
    rest.load_state_dict([first.state_dict()])
    assert by_sample([*begun, *rest]) == whole
