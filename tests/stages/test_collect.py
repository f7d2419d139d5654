"""Several images of a sample are one field, in order; what is missing is said."""

import pickle

import pytest
import torch

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import decode_image
from streampipe.decoding.several import Images
from streampipe.device.transfer import mapped
from tests.data import photo


def sample(key, references, first=0, width=64, **more):
    names = (f"ref.{first + i}.jpg" for i in range(references))
    return {
        "__key__": key,
        "jpg": photo(1, 96, 64),
        **{n: photo(i, width + 16 * i, 48) for i, n in enumerate(names)},
        **more,
    }


def collected(*samples, **options):
    return sp.from_iterable(list(samples)).collect("ref", **options)


def test_members_of_one_name_become_a_list_in_the_order_of_their_numbers():
    many = sample("a", 11)
    mixed = dict(sorted(many.items(), reverse=True))
    for given in (many, mixed, {**sample("a", 11, first=1)}):
        (found,) = collected(given)
        assert found["ref"] == [many[f"ref.{i}.jpg"] for i in range(11)]
        assert set(found) >= {"__key__", "jpg", "ref"}
        assert not any(name.startswith("ref.") for name in found)
    (found,) = collected({"__key__": "a", "jpg": b"", "ref.png": b"x"})
    assert found["ref"] == [b"x"]


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (lambda s: s.pop("ref.1.jpg"), "numbers 0, 2"),
        (lambda s: s.pop("ref.0.jpg") and s.pop("ref.1.jpg"), "numbers 2"),
        (lambda s: s.update({"ref.1.png": b""}), "there twice"),
        (lambda s: [s.pop(f"ref.{i}.jpg") for i in range(3)], "it has 0 'ref', and 1 are wanted"),
        (lambda s: s.update(json=b'{"refs": ["gone.jpg"]}'), "lists 'gone.jpg' for 'more', which is not there"),
    ],
)
def test_what_is_missing_is_an_error_that_names_the_sample(gone, words):
    broken = sample("a", 3, json=b'{"refs": ["jpg"]}')
    gone(broken)
    with pytest.raises(sp.StageError, match=f"sample 'a'.*{words}"):
        list(collected(broken, listed={"more": "refs"}))


@pytest.mark.parametrize(("missing", "keys"), [("keep", ["a", "b"]), ("drop", ["b"])])
def test_fewer_than_wanted_are_kept_or_dropped_and_counted(missing, keys):
    what = f"fewer than 2 ref (sample {'dropped' if missing == 'drop' else 'kept'})"
    before = counters.get("collect", what)
    found = list(collected(sample("a", 1), sample("b", 2), least=2, missing=missing))
    assert [each["__key__"] for each in found] == keys
    assert counters.get("collect", what) == before + 1
    (none,) = collected(sample("a", 0), least=0)
    assert none["ref"] == []


def test_the_json_lists_members_by_field_or_by_their_whole_name():
    given = {
        **sample("x/a", 0),
        "style.png": b"s",
        "source.jpg": b"o",
        "json": b'{"r": {"in": ["a.source.jpg", "style.png"]}}',
    }
    (found,) = sp.from_iterable([given]).collect(listed={"ref": "json.r.in"})
    assert found["ref"] == [b"o", b"s"]


def test_a_batch_has_a_tensor_for_each_number_and_unbatch_takes_it_apart():
    samples = [sample("a", 2), sample("b", 2, first=1)]
    pipe = collected(*samples).decode(size={"jpg": 32, "ref": (16, 24)}, flip=0.5)
    (batch,) = pipe.batch(2)
    assert [each.shape for each in batch["ref"]] == [(2, 3, 16, 24)] * 2
    singles = list(pipe)
    for whole in (singles, list(pipe.batch(2).unbatch())):
        for row, one in enumerate(whole):
            assert all(torch.equal(a, b[row]) for a, b in zip(one["ref"], batch["ref"], strict=True))
    assert singles[0]["ref.original_size"] == [(48, 64), (48, 80)]
    assert type(pickle.loads(pickle.dumps(batch["ref"]))) is Images
    assert mapped(batch["ref"], torch.zeros_like)[1].sum() == 0


def test_lists_that_differ_are_refused_or_filled_up():
    pipe = collected(sample("a", 2), sample("b", 1)).decode(size={"jpg": 32, "ref": None})
    with pytest.raises(sp.StageError, match=r"1 to 2 images in it.*pad=\{'ref': 0\}"):
        list(pipe.batch(2))
    with pytest.raises(sp.StageError, match=r"'ref.0' cannot be stacked"):
        list(collected(sample("a", 1), sample("b", 1, width=70)).decode(size={"jpg": 32, "ref": None}).batch(2))
    (batch,) = pipe.batch(2, pad={"ref": 7})
    assert batch["ref"].shape == (2, 2, 3, 48, 80)
    assert batch["ref.count"].tolist() == [2, 1]
    assert batch["ref.size"].tolist() == [[[48, 64], [48, 80]], [[48, 64], [0, 0]]]
    assert torch.equal(batch["ref"][0, 1], decode_image(sample("a", 2)["ref.1.jpg"]))
    assert (batch["ref"][1, 1] == 7).all()
    assert (batch["ref"][0, 0, :, :, 64:] == 7).all()


def test_a_list_is_decoded_with_the_main_image_where_it_has_no_size_and_damage_names_it():
    layers = {"__key__": "a", "jpg": photo(1, 64, 48), "layer.0.png": photo(2, 64, 48), "layer.1.png": photo(3, 32, 24)}
    pipe = sp.from_iterable([layers]).collect("layer").decode(24, crop="random", flip=1.0)
    (found,) = pipe
    assert [each.shape for each in found["layer"]] == [(3, 24, 24)] * 2
    assert found["flipped"]
    (fitted,) = sp.from_iterable([layers]).collect("layer").decode().fit(24, crop="random", flip=1.0)
    assert all(
        (a.int() - b.int()).abs().float().mean() < 3 for a, b in zip(fitted["layer"], found["layer"], strict=True)
    )
    for broken in (b"no image", layers["layer.1.png"][:400]):
        with pytest.raises(sp.DecodeError, match=r"sample 'a'.*'layer.1.image'"):
            list(sp.from_iterable([{**layers, "layer.1.png": broken}]).collect("layer").decode(24))


def test_a_list_is_written_as_numbered_members(tmp_path):
    given = sample("a", 2)
    sp.from_iterable([given]).collect("ref").write(str(tmp_path / "{:05d}.tar"), progress=False)
    pipe = sp.stream(str(tmp_path)).collect("ref")
    (found,) = pipe
    assert found["ref"] == [given["ref.0.jpg"], given["ref.1.jpg"]]
    pipe.decode().write(str(tmp_path / "b" / "{:05d}.tar"), progress=False)
    (again,) = sp.stream(str(tmp_path / "b")).collect("ref").decode()
    assert torch.equal(again["ref"][1], decode_image(given["ref.1.jpg"]))
