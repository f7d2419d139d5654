"""``inference``: modules over samples as at test time, and nothing of it left behind."""

import functools
import pickle

import pytest
import torch

import streampipe as sp
from tests.data import write_photos, write_shards


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.dropout = torch.nn.Dropout(0.5)
        self.frozen = torch.nn.BatchNorm1d(2).eval()

    def forward(self, x):
        return self.dropout(self.frozen(self.linear(x)))


def net():
    torch.manual_seed(0)
    return Net()


def scripted():
    return torch.jit.script(net())


def exported():
    return torch.export.export(net().eval(), (torch.zeros(4, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))


def wanted(x):
    with torch.no_grad():
        return net().eval()(x)


@sp.inference(model=net)
def doubled(model, x):
    return {"out": [2 * model(x)], "mode": (model.training, torch.is_inference_mode_enabled()), "x": x}


ROWS = torch.arange(18.0).reshape(6, 3)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [net, scripted, exported])
def test_modules_run_in_eval_mode_without_gradients_and_can_be_pickled(make):
    call = sp.inference(make())
    for each in (call, pickle.loads(pickle.dumps(call))):
        result = each(ROWS)
        torch.testing.assert_close(result, wanted(ROWS))
        assert not result.requires_grad
        assert not result.is_inference()
        (result * torch.ones(2, requires_grad=True)).sum().backward()  # a plain tensor: training may use it


def test_modules_are_afterwards_in_the_mode_that_they_were_in():
    module = net()
    modes = [each.training for each in module.modules()]
    assert modes == [True, True, True, False]
    sp.inference(module)(ROWS)
    assert [each.training for each in module.modules()] == modes
    with pytest.raises(RuntimeError):
        sp.inference(module)(torch.zeros(1, 7))
    assert [each.training for each in module.modules()] == modes


def test_a_function_is_given_the_model_that_its_process_made():
    made = []

    @sp.inference(model=lambda: made.append(1) or net())
    def run(model, x):
        return model(x)

    assert not made
    assert torch.equal(run(ROWS), run(ROWS))
    assert made == [1]
    result = doubled(ROWS)
    assert result["mode"] == (False, True)
    torch.testing.assert_close(result["out"][0], 2 * wanted(ROWS))
    assert pickle.loads(pickle.dumps(doubled)) is doubled


def test_autocast_has_its_dtype_and_ends_with_the_call():
    result = sp.inference(net(), autocast=torch.bfloat16)(ROWS)
    assert sp.inference(torch.nn.Linear(3, 2), autocast=torch.bfloat16)(ROWS).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(result.float(), wanted(ROWS), atol=0.1, rtol=0.1)
    with pytest.raises(sp.ConfigError, match="torch.bfloat16 or torch.float16"):
        sp.inference(net(), autocast=torch.float32)


def test_tensors_are_moved_wherever_they_are_and_nothing_else_is():
    seen = []

    @sp.inference(device="meta")
    def look(batch):
        seen.append((batch["a"].device.type, batch["b"][0].device.type, batch["__key__"]))
        return 1

    look({"a": torch.zeros(1), "b": (torch.zeros(2), "x"), "__key__": ["k"]})
    assert seen == [("meta", "meta", ["k"])]


def test_a_stage_runs_without_gradients_but_what_is_before_and_behind_it_does_not():
    modes = []

    def source():
        for i in range(3):
            modes.append(("source", torch.is_inference_mode_enabled()))
            yield {"__key__": str(i), "x": torch.ones(2)}

    @sp.inference
    @sp.stage
    def double(samples):
        for sample in samples:
            modes.append(("stage", torch.is_inference_mode_enabled()))
            yield {**sample, "x": 2 * sample["x"]}

    for sample in double(source()):
        modes.append(("behind", torch.is_inference_mode_enabled()))
        assert not sample["x"].is_inference()
    assert set(modes) == {("source", False), ("stage", True), ("behind", False)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, [7, 4])
    return str(folder)


def means(image):
    return image.float().mean((-2, -1))


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_sizes_threads_and_workers_do_not_change_results(folder, workers):
    def rows(size, **options):
        pipe = sp.stream(folder).decode(16).map(means, "jpg").batch(size).map(net(), "jpg").unbatch()
        return {sample["__key__"]: sample["jpg"] for sample in pipe.loader(workers, **options)}

    one = rows(1)
    for other in (rows(4), rows(11), rows(3, threads=3)):
        assert one.keys() == other.keys()
        for key, row in one.items():
            torch.testing.assert_close(row, other[key])


def test_map_takes_a_module_as_it_is_and_names_it(folder):
    pipe = sp.stream(folder).decode(16).map(means, "jpg").batch(4).map(net(), "jpg")
    assert "map(fn=Net, field='jpg')" in repr(pipe)
    batch = next(iter(pipe))
    assert batch["jpg"].shape == (4, 2)
    with pytest.raises(sp.StageError, match=r"stage 'map\(Net\)'"):
        next(iter(sp.stream(folder).decode(16).batch(2).map(net(), "jpg")))


def test_what_is_no_model_is_refused():
    with pytest.raises(sp.ConfigError, match="not a int"):
        sp.inference(model=7)(len)
    with pytest.raises(sp.ConfigError, match="not two modules"):
        sp.inference(net(), model=net())
    with pytest.raises(sp.ConfigError, match="returned a dict"):
        sp.inference(model=functools.partial(dict))(len)(1)


def test_shards_written_with_other_weights_are_another_job(tmp_path):
    write_shards(tmp_path / "in", [3])
    pipe = sp.stream(str(tmp_path / "in")).map(lambda s: {**s, "x": torch.ones(1, 3)})

    def write(module):
        return pipe.map(module, "x").write(f"{tmp_path}/out/{{:05d}}.tar", progress=False)

    write(net())
    assert write(net()).kept == 1
    other = net()
    with torch.no_grad():
        other.linear.bias += 1
    with pytest.raises(sp.OutputBusy, match="its pipeline was"):
        write(other)
