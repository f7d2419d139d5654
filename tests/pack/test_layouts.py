"""Every layout of a folder that trainers use becomes the samples that it means."""

import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.cli import main
from streampipe.folders.layouts import layout_of
from streampipe.folders.metadata import Rows
from tests.data import photo
from tests.pack.test_pack import contents, quiet

JPG = photo(0, 16, 16)


def folder(path, *names, **texts):
    """Images of these names, and files of these texts (``__`` for a slash)."""
    for name in (*names, *texts):
        place = path / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(JPG if name in names else texts[name].encode())
    return path


def texts_of(path, out, **options):
    """What is packed: of each sample its fields, images as their names, the rest as text."""
    quiet(path, out, **options)
    return {
        key: {name: "image" if value == JPG else value.decode() for name, value in fields.items()}
        for key, fields in contents(out).items()
    }


def test_kohya_repeats_are_facts_and_class_tokens_a_caption_where_there_is_none(tmp_path):
    source = folder(tmp_path / "in", "10_my dog/a.jpg", "10_my dog/b.jpg", "3_cat/c.png", "3_cat/deep/d.jpg",
                    **{"10_my dog__a.caption": "a dog on grass"})  # fmt: skip
    assert layout_of(str(source)).name == "kohya"
    dog, cat = '{"repeats": 10, "class_tokens": "my dog"}', '{"repeats": 3, "class_tokens": "cat"}'
    assert texts_of(source, tmp_path / "out") == {
        "10_my dog/a": {"jpg": "image", "caption": "a dog on grass", "json": dog},
        "10_my dog/b": {"jpg": "image", "txt": "my dog", "json": dog},
        "3_cat/c": {"png": "image", "txt": "cat", "json": cat},
    }
    assert next(iter(sp.stream(str(tmp_path / "out")).where("repeats == 3")))["__key__"] == "3_cat/c"


def test_kohya_regularization_images_are_told_from_others(tmp_path):
    names = ("img/10_my dog/a.jpg", "reg/1_dog/a.jpg", "reg/1_dog/b.jpg", "log/x.txt", "img/loose.jpg")
    source = folder(tmp_path / "in", *names)
    (source / "model").mkdir()
    assert layout_of(str(source)).name == "kohya"
    dog = '{"repeats": 10, "class_tokens": "my dog", "is_reg": false}'
    reg = {"jpg": "image", "txt": "dog", "json": '{"repeats": 1, "class_tokens": "dog", "is_reg": true}'}
    assert texts_of(source, tmp_path / "out") == {
        "img/10_my dog/a": {"jpg": "image", "txt": "my dog", "json": dog},
        "reg/1_dog/a": reg,
        "reg/1_dog/b": reg,
    }
    kept = [sample["__key__"] for sample in sp.stream(str(tmp_path / "out")).where("not is_reg")]
    assert kept == ["img/10_my dog/a"]


def test_classes_are_numbered_in_the_order_of_their_names(tmp_path):
    source = folder(tmp_path / "in", "zebra/a.jpg", "ant/b.jpg", "ant/more/c.jpg")
    assert layout_of(str(source)).name == "plain"  # which folders are classes is for the user to say
    assert texts_of(source, tmp_path / "out", layout="classes") == {
        "ant/b": {"jpg": "image", "cls": "0", "json": '{"class": "ant"}'},
        "ant/more/c": {"jpg": "image", "cls": "0", "json": '{"class": "ant"}'},
        "zebra/a": {"jpg": "image", "cls": "1", "json": '{"class": "zebra"}'},
    }


ROWS = [
    {"file_name": "a.jpg", "text": "one", "score": 0.5, "control_file_name": "c/1.png"},
    {"file_name": "sub/b.v2.jpg", "text": "two", "score": 3, "control_file_name": "c/2.png"},
]


def write_table(place, kind, rows):
    if kind == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        place.write_text("\n".join(lines), encoding="utf-8-sig")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist([{**row, "score": float(row["score"])} for row in rows]), place)
    else:
        place.write_text("\n\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("below", ["", "train/"])
def test_tables_of_an_image_folder_are_facts_captions_and_control_images(tmp_path, kind, below):
    names = [f"{below}{name}" for name in ("a.jpg", "sub/b.v2.jpg", "c/1.png", "c/2.png", "extra.jpg")]
    source = folder(tmp_path / "in", *names)
    write_table(source / below / f"metadata.{kind}", kind, ROWS)
    assert layout_of(str(source)).name == "tables"
    found = texts_of(source, tmp_path / "out")
    assert found.pop(f"{below}extra") == {"jpg": "image"}
    assert sorted(found) == [f"{below}a", f"{below}sub/b_v2"]
    for row, fields in zip(ROWS, found.values(), strict=True):
        assert {name: fields[name] for name in ("jpg", "control.png", "txt")} == {
            "jpg": "image",
            "control.png": "image",
            "txt": row["text"],
        }
        assert json.loads(fields["json"]) == {"text": row["text"], "score": row["score"]}


def test_lists_of_references_and_lists_of_captions(tmp_path):
    source = folder(tmp_path / "in", "a.jpg", "r/1.jpg", "r/2.jpg")
    row = {"file_name": "a.jpg", "ref_file_names": ["r/1.jpg", "r/2.jpg"], "captions": ["x", "y"]}
    (source / "metadata.jsonl").write_text(json.dumps(row))
    (fields,) = texts_of(source, tmp_path / "out").values()
    assert fields == {"jpg": "image", "ref0.jpg": "image", "ref1.jpg": "image", "json": '{"captions": ["x", "y"]}'}


def test_a_json_of_captions_by_name_and_a_trainers_json_elsewhere(tmp_path):
    source = folder(tmp_path / "in", "a.jpg", "b.jpg", **{"captions.json": '{"a.jpg": ["x", "y"], "b.jpg": "z"}'})
    found = texts_of(source, tmp_path / "out")
    assert found["a"] == {"jpg": "image", "json": '{"caption": ["x", "y"]}'}
    assert found["b"] == {"jpg": "image", "json": '{"caption": "z"}', "txt": "z"}
    given = tmp_path / "meta_lat.json"
    given.write_text(json.dumps({str(source / "a.jpg"): {"caption": "by path", "tags": "1girl"}, "b": {"tags": "2"}}))
    found = texts_of(source, tmp_path / "other", metadata=given)
    assert (found["a"]["txt"], json.loads(found["b"]["json"])) == ("by path", {"tags": "2"})


def test_prompt_lines_with_source_and_target(tmp_path):
    source = folder(tmp_path / "in", "source/0.png", "target/0.png")
    row = {"source": "source/0.png", "target": "target/0.png", "prompt": "a circle"}
    (source / "prompt.json").write_text(json.dumps(row) + "\n")
    assert texts_of(source, tmp_path / "out") == {
        "target/0": {"png": "image", "source.png": "image", "json": '{"prompt": "a circle"}', "txt": "a circle"}
    }


def test_folders_side_by_side_are_parts_of_samples(tmp_path):
    source = folder(
        tmp_path / "in", "images/a.jpg", "images/s/b.v2.jpg", "conditioning_images/a.png", "masks/s/b.v2.png",
        "references/a/0.jpg", "references/a/1.jpg", "masks/nobody.png",
        **{"captions__a.txt": "A", "captions__s__b.v2.txt": "B"},
    )  # fmt: skip
    assert layout_of(str(source)).name == "pairs"
    assert texts_of(source, tmp_path / "out") == {
        "a": {"jpg": "image", "conditioning.png": "image", "ref0.jpg": "image", "ref1.jpg": "image", "txt": "A"},
        "s/b_v2": {"jpg": "image", "mask.png": "image", "txt": "B"},
    }
    summary = quiet(source, tmp_path / "again", dry_run=True)
    assert summary.orphans == 1
    assert any("masks/nobody.png" in note for note in summary.notes)


def test_one_trainer_names_masks_with_a_dash(tmp_path):
    source = folder(tmp_path / "in", "a.jpg", "a-masklabel.png", "b-c.jpg")
    assert texts_of(source, tmp_path / "out") == {
        "a": {"jpg": "image", "masklabel.png": "image"},
        "b-c": {"jpg": "image"},
    }


def test_a_caption_for_images_that_have_none(tmp_path):
    source = folder(tmp_path / "in", "dogs/old_dog.jpg", "dogs/b.jpg", **{"dogs__b.txt": "mine"})
    found = texts_of(source, tmp_path / "out", caption="a photo of {name}, one of the {folder}")
    assert found["dogs/old_dog"]["txt"] == "a photo of old dog, one of the dogs"
    assert found["dogs/b"]["txt"] == "mine"


def test_a_default_caption_is_that_of_the_images_in_its_folder_that_have_none(tmp_path):
    source = folder(
        tmp_path / "in", "a.jpg", "b.jpg", "sub/c.jpg", **{"default.txt": "\ufeffone of mine\n", "b.txt": "B"}
    )
    assert layout_of(str(source)).name == "ai-toolkit"
    assert {key: fields.get("txt") for key, fields in texts_of(source, tmp_path / "out").items()} == {
        "a": "one of mine",
        "b": "B",
        "sub/c": None,
    }
    assert quiet(source, tmp_path / "again", dry_run=True).other == 0


def test_the_files_of_img2dataset_and_its_failed_downloads(tmp_path):
    source = folder(
        tmp_path / "in", "00000/000000000.jpg",
        **{"00000__000000000.txt": "T", "00000__000000000.json": '{"status": "success"}', "00000_stats.json": "{}"},
    )  # fmt: skip
    pq.write_table(pa.table({"status": ["success", "failed_to_download"]}), source / "00000.parquet")
    summary = quiet(source, tmp_path / "again", dry_run=True)
    assert summary.notes == [
        "layout: img2dataset (of img2dataset, 1 tables; 1 of 2 downloads failed, so there are no images of them)"
    ]
    assert summary.examples == [
        "00000/000000000: jpg <- 00000/000000000.jpg, json <- 00000/000000000.json, txt <- 00000/000000000.txt"
    ]
    assert texts_of(source, tmp_path / "out") == {
        "00000/000000000": {"jpg": "image", "txt": "T", "json": '{"status": "success"}'}
    }


def test_images_beside_the_folders_of_img2dataset_are_told(tmp_path):
    source = folder(tmp_path / "in", "00000/000000000.jpg", "b.jpg", **{"00000_stats.json": "{}"})
    summary = quiet(source, tmp_path / "out", layout="img2dataset")
    assert (summary.samples, summary.other) == (1, 1)


def test_parts_that_lie_in_folders_elsewhere(tmp_path):
    source = folder(tmp_path / "in", "10_dog/a.jpg", "10_dog/b.jpg", "masks/10_dog/a.png")
    folder(tmp_path / "edges", "10_dog/a.png", "10_dog/nobody.png")
    folder(tmp_path / "words", **{"10_dog__b.txt": "B"})
    beside = {"mask": source / "masks", "control": tmp_path / "edges", "caption": tmp_path / "words"}
    summary = quiet(source, tmp_path / "dry", layout="kohya", beside=beside, dry_run=True)
    assert (summary.orphans, summary.fields) == (
        1,
        {"control.png": 1, "jpg": 2, "json": 2, "mask.png": 1, "txt": 2},
    )
    found = texts_of(source, tmp_path / "out", layout="kohya", beside=beside)
    assert found["10_dog/b"]["txt"] == "B"
    assert sorted(found["10_dog/a"]) == ["control.png", "jpg", "json", "mask.png", "txt"]
    (tmp_path / "edges" / "10_dog" / "a.png").write_bytes(JPG + b"x")
    with pytest.raises(sp.OutputBusy, match="changed since"):
        quiet(source, tmp_path / "out", layout="kohya", beside=beside)
    with pytest.raises(sp.PackError, match="is no folder; give the folder that holds what belongs"):
        quiet(source, tmp_path / "x", beside={"mask": tmp_path / "gone"})


def test_a_table_names_images_by_a_number_in_a_column_of_its_own(tmp_path):
    source = folder(tmp_path / "in", "01/4567.jpg", "02/89.png", "02/7.jpg")
    rows = [{"post": 4567, "tag_string": "1girl solo", "score": 3}, {"post": 89, "tag_string": "2boys", "score": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "posts.parquet")
    options = {"metadata": tmp_path / "posts.parquet", "file_column": "post", "caption_column": "tag_string"}
    found = texts_of(source, tmp_path / "out", **options)
    assert (found["01/4567"]["txt"], json.loads(found["02/89"]["json"])) == (
        "1girl solo",
        {"tag_string": "2boys", "score": 1},
    )
    assert found["02/7"] == {"jpg": "image"}
    with pytest.raises(sp.ConfigError, match="file_column and caption_column are of layout 'tables'"):
        quiet(source, tmp_path / "x", layout="plain", file_column="post")


def test_caches_of_trainers_and_foreign_files_are_not_packed(tmp_path):
    source = folder(
        tmp_path / "in", "a.jpg", "_latent_cache/x.jpg", "a.npz",
        **{"aspect_ratio_bucket_indices_x.json": "{}", "00000_stats.json": "{}", "x.safetensors": "", "a.xmp": ""},
    )  # fmt: skip
    summary = quiet(source, tmp_path / "out")
    assert (summary.samples, summary.hidden, summary.other) == (1, 1, 1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.jsonl", '{"text": "x"}', "a row names no image: it has text, no file_name"),
        ("metadata.jsonl", "[1]", "a line is no JSON object"),
        ("metadata.jsonl", '{"file_name": ', "metadata.jsonl cannot be read"),
        ("metadata.csv", "file_name,text\na.jpg", "a line has more or fewer columns"),
        ("metadata.jsonl", '{"file_name": "a.jpg"}\n{"file_name": "./a.jpg"}', "two rows are of a.jpg"),
        ("metadata.csv", "file_name,text,text\na.jpg,one,two", "it has 'text' twice"),
        ("captions.json", '{"a.jpg": "one", "a.jpg": "two"}', "two rows are of a.jpg"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "mask_file_name": 1}', "has 1 as its 'mask_file_name'"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "ref_file_names": ["b.jpg", null]}', "has None as its 'ref_file_na"),
        ("metadata.parquet", "nonsense", "metadata.parquet cannot be read"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "n": ' + "[" * 3000 + "]" * 3000 + "}", "cannot be read"),
        ("captions.json", "3", "neither an object nor a list of objects"),
    ],
)  # fmt: skip
def test_a_table_that_is_damaged_is_one_sentence_and_nothing_is_written(tmp_path, capsys, name, text, words):
    source = folder(tmp_path / "in", "a.jpg", "b.jpg", "c.png", **{name: text})
    assert main(["pack", str(source), str(tmp_path / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_kinds_of_tables_in_one_folder_are_refused_and_a_layout_can_be_chosen(tmp_path):
    row = '{"file_name": "a.jpg"}'
    source = folder(tmp_path / "in", "a.jpg", **{"metadata.jsonl": row, "metadata.csv": "file_name\na.jpg"})
    with pytest.raises(sp.PackError, match=r"metadata\.csv and metadata\.jsonl: keep the one that is right"):
        quiet(source, tmp_path / "out")
    assert texts_of(source, tmp_path / "out", layout="plain") == {"a": {"jpg": "image"}}
    with pytest.raises(sp.ConfigError, match="there is no layout 'cube'; there are auto, plain"):
        quiet(source, tmp_path / "x", layout="cube")
    with pytest.raises(sp.ConfigError, match="metadata= is a table of layout 'tables'"):
        quiet(source, tmp_path / "x", layout="kohya", metadata=source / "metadata.csv")


def test_a_file_that_a_row_names_and_that_is_not_there_keeps_its_sample_out(tmp_path, capsys):
    names = ("in/a.jpg", "in/b.jpg", "in/c.jpg", "in/c/1.png", "elsewhere/2.png")
    rows = "file_name,text,control_file_name\na.jpg,one,c/0.png\nb.jpg,two,../elsewhere/2.png\nc.jpg,three,c/1.PNG\n"
    source = folder(tmp_path / "x", *names, **{"in__metadata.csv": rows.replace("1.PNG", "1.png")}) / "in"
    assert main(["pack", str(source), str(tmp_path / "out"), "--quiet"]) == 1
    assert "a.jpg cannot be packed (its row names c/0.png, which is not in the folder)" in capsys.readouterr().err
    assert main(["pack", str(source), str(tmp_path / "out"), "--quiet", "--on-error", "skip"]) == 3
    assert list(contents(tmp_path / "out")) == ["c"]
    skipped = [json.loads(line)["reason"] for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert skipped == [
        f"its row names {name}, which is not in the folder" for name in ("c/0.png", "../elsewhere/2.png")
    ]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_columns_of_a_csv_file_may_be_separated_by_what_spreadsheets_use(tmp_path, sign):
    text = f'file_name{sign}text{sign}n\na.jpg{sign}"one{sign} two, three"{sign}7\n'
    source = folder(tmp_path / "in", "a.jpg", **{"metadata.csv": text})
    assert texts_of(source, tmp_path / "out")["a"]["txt"] == f"one{sign} two, three"
    assert json.loads(texts_of(source, tmp_path / "out")["a"]["json"])["n"] == 7
    summary = quiet(source, tmp_path / "dry", dry_run=True)
    assert not any("not packed" in note for note in summary.notes)  # the table is no foreign file


def test_a_plain_folder_that_looks_like_another_layout_says_so(tmp_path):
    about = layout_of(str(folder(tmp_path / "a", "images/a.jpg", "masks/a.png", "loose.jpg"))).about
    assert about.endswith("; should images, masks be parts of samples, say --layout pairs")
    about = layout_of(str(folder(tmp_path / "b", "10_dog/a.jpg", "others/b.jpg"))).about
    assert about.endswith("; should 10_dog say how often images are repeated: --layout kohya")


def test_a_folder_in_a_folder_that_has_a_layout_is_named(tmp_path):
    source = folder(tmp_path / "in", "top/img/1_dog/a.jpg", "top/reg/1_x/b.jpg")
    assert layout_of(str(source)).about.endswith("; top by itself looks like kohya: pack that")
    assert (
        layout_of(str(folder(tmp_path / "two", "top/a.jpg"))).about == "images with files of the same name beside them"
    )


def test_a_column_that_no_row_has_and_a_table_that_is_not_there_are_said(tmp_path, capsys):
    source = folder(tmp_path / "in", "a.jpg", **{"metadata.csv": "file_name,text\na.jpg,x\n"})
    assert main(["pack", str(source), str(tmp_path / "out"), "--caption-column", "prompt"]) == 1
    said = "metadata.csv: no row has a column 'prompt', they have file_name, text; say which is the caption"
    assert said in capsys.readouterr().err
    assert main(["pack", str(source), str(tmp_path / "out"), "--metadata", str(tmp_path / "no.csv")]) == 1
    assert f"streampipe: {tmp_path}/no.csv cannot be read (No such file or directory)" in capsys.readouterr().err


def test_rows_without_an_image_are_told(tmp_path):
    source = folder(tmp_path / "in", "a.jpg", **{"metadata.csv": "file_name,text\na.jpg,x\ngone.jpg,y\n"})
    summary = quiet(source, tmp_path / "out")
    assert any("1 rows of tables are of no image (gone.jpg)" in note for note in summary.notes)
    assert summary.notes[0] == "layout: tables (2 rows of metadata.csv)"


def test_numbers_of_a_csv_file_can_be_asked_for(tmp_path):
    source = folder(
        tmp_path / "in", "a.jpg", "b.jpg", **{"metadata.csv": "file_name,score,text\na.jpg,7,7\nb.jpg,2,2\n"}
    )
    found = texts_of(source, tmp_path / "out")
    assert json.loads(found["a"]["json"]) == {"score": 7, "text": "7"}
    assert [sample["__key__"] for sample in sp.stream(str(tmp_path / "out")).where("score > 5")] == ["a"]


def test_values_that_json_does_not_have(tmp_path):
    table = pa.table({"file_name": ["a.jpg"], "score": [float("nan")], "when": pa.array([0], pa.timestamp("s"))})
    pq.write_table(table, tmp_path / "t.parquet")
    rows = Rows(str(tmp_path), ["t.parquet"])
    assert rows.row("a.jpg") == ('{"score": null, "when": "1970-01-01 00:00:00"}', None, {})
    rows.close()


@pytest.mark.parametrize("layout", ["auto", "classes"])
def test_a_folder_that_holds_its_own_output_is_the_same_dataset_again(tmp_path, layout):
    source = folder(tmp_path / "in", "10_cat/a.jpg", "20_zebra/b.jpg")
    (source / "1_out").mkdir()  # as after kill -9 before the first shard was there
    (source / "1_out" / "left.txt").write_text("what was begun")
    first = texts_of(source, source / "1_out", layout=layout)
    assert (
        texts_of(source, source / "1_out", layout=layout) == first == texts_of(source, tmp_path / "out", layout=layout)
    )


def test_an_output_in_the_folder_of_the_shards_that_are_packed_is_none_of_them(tmp_path):
    quiet(folder(tmp_path / "in", "a.jpg"), tmp_path / "shards")
    for _ in range(2):
        assert quiet(tmp_path / "shards", tmp_path / "shards" / "again").samples == 1


def test_a_folder_of_parts_that_lies_in_the_folder_does_not_decide_its_layout(tmp_path):
    source = folder(tmp_path / "in", "10_cat/a.jpg", "masks/10_cat/a.png")
    assert set(texts_of(source, tmp_path / "out", beside={"mask": source / "masks"})["10_cat/a"]) == {
        "jpg", "json", "txt", "mask.png",
    }  # fmt: skip


def test_only_folders_with_images_are_classes(tmp_path):
    source = folder(tmp_path / "in", "cat/a.jpg", "zebra/b.jpg", "notes/x.txt", "__MACOSX/cat/a.jpg")
    for empty in ("empty", "_latent_cache", ".git"):
        (source / empty).mkdir()
    numbers = {key: fields["cls"] for key, fields in texts_of(source, tmp_path / "out", layout="classes").items()}
    assert numbers == {"cat/a": "0", "zebra/b": "1"}


def test_references_of_numbered_images_in_folders_are_theirs(tmp_path):
    source = folder(tmp_path / "in", "images/train/0001.jpg", "images/x.jpg", "references/train/0001.jpg",
                    "references/x/0.jpg", captions__x="no")  # fmt: skip
    assert {key: set(fields) for key, fields in texts_of(source, tmp_path / "out").items()} == {
        "train/0001": {"jpg", "ref.jpg"},
        "x": {"jpg", "ref0.jpg"},
    }


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({"a.json": "{}", "a.meta.json": "{}", "metadata.csv": "file_name,n\na.jpg,1"}, {}, "a.meta.json and what"),
        ({"cat__a.cls": "7", "cat__a.png": "no"}, {"layout": "classes"}, "cat/a.cls and what the layout says"),
    ],
)
def test_facts_of_a_layout_never_take_the_place_of_a_file(tmp_path, files, options, words):
    source = folder(tmp_path / "in", "a.jpg", **files)
    with pytest.raises(sp.NameCollision, match=words) as caught:
        quiet(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert str(caught.value).endswith("(--layout plain keeps the file)")
    assert not set(files) - {"metadata.csv"} - set(packed_files(source, tmp_path / "plain"))


def packed_files(source, out):
    """The files that layout ``plain`` packs, as ``folder`` was told them."""
    return [f"{key}.{name}".replace("/", "__") for key, fields in texts_of(source, out, layout="plain").items()
            for name in fields]  # fmt: skip


def test_a_file_that_says_the_number_of_its_class_is_no_other_thing(tmp_path):
    source = folder(
        tmp_path / "in", "cat/a.jpg", "zebra/b.jpg", cat__a="", **{"cat__a.cls": "0\n", "zebra__b.cls": "1"}
    )
    found = texts_of(source, tmp_path / "out", layout="classes")
    assert {key: fields["cls"] for key, fields in found.items()} == {"cat/a": "0\n", "zebra/b": "1"}
    assert json.loads(found["cat/a"]["json"]) == {"class": "cat"}
    (source / "zebra" / "b.cls").write_text("0")
    with pytest.raises(sp.NameCollision, match="1 name collisions.* zebra/b.cls and what the layout says"):
        quiet(source, tmp_path / "other", layout="classes")


def test_a_default_caption_is_found_in_decomposed_folders_and_never_outside(tmp_path):
    there = unicodedata.normalize("NFD", "é")
    source = folder(tmp_path / "in", "x.jpg", f"{there}/b.jpg", **{"default.txt": "root", f"{there}__default.txt": "é"})
    assert {key: fields["txt"] for key, fields in texts_of(source, tmp_path / "out").items()} == {
        "x": "root",
        "é/b": "é",
    }
    (tmp_path / "secret.txt").write_text("secret")
    (source / "default.txt").unlink()
    (source / "default.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(
        sp.PackError,
        match=rf"default.txt is a symbolic link out of the folder, to {tmp_path}/secret.txt; "
        rf"--follow-symlinks {tmp_path} allows it",
    ):
        quiet(source, tmp_path / "other")
    (source / "default.txt").unlink()
    (source / "default.txt").symlink_to(source / "none")
    with pytest.raises(sp.PackError, match="default.txt is no file, but the caption of a folder; put a text in its"):
        quiet(source, tmp_path / "other")


@pytest.mark.parametrize("layout", ["auto", "ai-toolkit"])
def test_a_default_caption_may_be_a_link_into_the_folder_that_links_may_lead_into(tmp_path, layout):
    source = folder(tmp_path / "in", "x.jpg")
    folder(tmp_path, caps__of_all="shared")
    (source / "default.txt").symlink_to("../caps/of_all")
    links = str(tmp_path / "caps")
    assert texts_of(source, tmp_path / "out", layout=layout, follow_symlinks=links)["x"]["txt"] == "shared"
    (sample,) = sp.stream(sp.Folder(source, layout=layout, follow_symlinks=links))
    assert sample["txt"] == b"shared"


def test_links_to_the_folder_lead_to_the_right_files(tmp_path):
    folder(tmp_path, "real/deep/images/a.jpg", "masks/a.png", real__deep__masks="x", **{
        "table.csv": "file_name,text\na.jpg,right", "real/deep/table.csv": "file_name,text\na.jpg,wrong"})  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep" / "images")
    absolute = f"file_name,text\n{tmp_path / 'real' / 'deep' / 'images' / 'a.jpg'},right"
    (tmp_path / "absolute.csv").write_text(absolute)
    for number, table in enumerate(("table.csv", "absolute.csv")):
        found = texts_of(tmp_path / "link", tmp_path / f"{number}", metadata=tmp_path / table,
                         beside={"mask": tmp_path / "masks"})  # fmt: skip
        assert found["a"]["txt"] == "right"
        assert found["a"]["mask.png"] == "image"


def test_images_that_are_packed_once_are_chosen_among_those_that_are_wanted(tmp_path):
    scores = {"a.json": '{"score": 1}', "b.json": '{"score": 9}', "c.json": '{"score": 9}'}
    source = folder(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg", **scores)
    assert set(texts_of(source, tmp_path / "out", where="score > 5", deduplicate=True)) == {"b"}
