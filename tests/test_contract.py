"One contract for models (CONTRIBUTING.md, \"A model\"), held by all of them: what is called how, what goes in, what comes out."
import dataclasses, inspect, numbers
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure

from oplas import attributes, autoencoders, effects, mixing, sampler
from oplas.audio import LogMel
from oplas.cache import write
from oplas.divergences import mmd_test
from oplas.fx import EFFECTS, EffectStream, hits
from oplas.latents import interpolate, sample, traverse
from oplas.metrics import permutation_null, scc
from oplas.music import HOLD
from oplas.probing import latin_hypercube
from oplas.rotations import stargate
from oplas.strings import plucks
from oplas.surrogates import Surrogate, invert, load_surrogate, make_knob, mapping, score, transfer
from oplas.training import fit
from oplas.tunes import Melodies

torch.set_num_threads(1)


# --- the models, with data and settings that train in a moment

def images(n=64, seed=0): return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def bars(n=64, seed=0):
    g = torch.Generator().manual_seed(seed)
    pitch = 60 + torch.randint(24, (n, 24), generator=g)
    return torch.where(torch.rand(n, 24, generator=g) < torch.rand(n, 1, generator=g), pitch, HOLD)


def melodies(split):
    return (Melodies(bars(seed=split), torch.arange(64), torch.ones(64, dtype=torch.int64), tuple(map(str, range(64))), 24),) * 3


def some_blocks(split): return torch.rand(32, 9, 64, 8, generator=torch.Generator().manual_seed(split))


def some_streams(split):
    stream = EffectStream(hits(10, seed=split), {name: EFFECTS[name] for name in ("lowpass 500 Hz", "ring 230 Hz", "bits 4")}, passes=8, seed=split)
    return {"train": stream, "hits": stream}


def some_pairs(split=0): return effects.pictured(some_streams(split)["train"], LogMel(**effects.SOUND).fit(some_streams(split)["train"].hits.audio))


NOTES = plucks(1)
PICTURES = LogMel().fit_transform(NOTES.audio[:3])


def some_notes(split): return (NOTES[torch.randperm(len(NOTES), generator=torch.Generator().manual_seed(split))[:40]],) * 3


@dataclasses.dataclass
class Model:
    "What the contract needs to know of a model."
    train: Callable     # the public function
    load: Callable      # likewise
    kind: type          # what they return
    data: object        # to train on
    batch: torch.Tensor # to encode, three items
    quick: dict         # settings of `load` for a short training
    told: dict = dataclasses.field(default_factory=dict)  # what `decode` is told besides a code
    needs: dict = dataclasses.field(default_factory=dict)  # what `kind` cannot do without

    def trained(self, **settings): return self.train(self.data, **{**self.quick, **settings})
    def loaded(self, **settings): return self.load(**{**self.quick, **settings})


MODELS = {
    "autoencoder": Model(autoencoders.train_autoencoder, autoencoders.load_autoencoder, autoencoders.Autoencoder,
                         images(), images(3), dict(kind="vae", width=8, epochs=1)),
    "sampler": Model(sampler.train_sampler, sampler.load_sampler, sampler.Sampler, some_notes(0)[0], PICTURES, dict(epochs=1), dict(midi=60)),
    "bars": Model(attributes.train_bars, attributes.load_bars, attributes.BarVAE, bars(), bars(3), dict(epochs=1, dims={"density": 1})),
    "blocks": Model(mixing.train_blocks, mixing.load_blocks, mixing.BlockAutoencoder, some_blocks(0), some_blocks(1)[0, :3], dict(epochs=1, dim=6)),
    "effects": Model(effects.train_effects, effects.load_effects, effects.EffectModel, some_pairs() + some_pairs(), some_pairs().wet[:3].float(), dict(epochs=1), needs=dict(effects=["echo"]))}


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    "A model, with small data in place of the chapters' and a cache of its own."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(attributes, "bars_split", melodies)
        patch.setattr(sampler, "notes_split", some_notes)
        patch.setattr(mixing, "_fit_blocks", some_blocks)
        patch.setattr(effects, "streams", some_streams)
        effects.chapter_logmel.cache_clear()
        sampler.pictures_split.cache_clear()
        yield MODELS[request.param]
        sampler.pictures_split.cache_clear()
        effects.chapter_logmel.cache_clear()


@pytest.fixture(scope="module")
def model(case): return case.trained()


@pytest.fixture(scope="module")
def decode(case, model): return partial(model.decode, **case.told)


def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


# --- names

@pytest.mark.parametrize("made_by", ["train", "load"])
def test_names_and_defaults(case, made_by):
    made, trained = (inspect.signature(f) for f in (getattr(case, made_by), case.train))
    given = made.parameters
    assert given["seed"].default == 0 and given["progress"].default is None and given["progress"].annotation == "bool | None"
    assert isinstance(given.get("epochs", trained.parameters["epochs"]).default, int)   # `load_x` may leave settings to `train_x`
    assert made.return_annotation == case.kind.__name__
    if made_by == "load": assert isinstance(given["split"].default, int)
    else: assert next(iter(given.values())).default is inspect.Parameter.empty and "split" not in given    # first the data
    assert not {"steps", "data", "verbose", "random_state"} & set(given)
    assert [k for k in given if k in ("seed", "split", "progress")] == ["seed", "split", "progress"][::1 if made_by == "load" else 2]


# --- load and train

def test_a_model_comes_back_ready(case, model):
    for m in (model, case.loaded()):
        assert type(m) is case.kind and isinstance(m, torch.nn.Module) and not m.training
        assert all(p.device.type == "cpu" and p.requires_grad for p in m.parameters())


def test_the_seed_decides(case, model):
    assert same(model, case.trained(seed=0)) and not same(model, case.trained(seed=1))


def test_the_callers_random_numbers_stay(case):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    case.trained()
    assert torch.equal(torch.rand(3), expected)


def test_seed_split_and_the_cache(case):
    a, b, c, d = (case.loaded(**settings) for settings in ({}, {"progress": False}, {"seed": 1}, {"split": 1}))
    assert same(a, b) and not same(a, c) and not same(a, d) and not same(c, d)


def test_a_bar_can_be_silenced(case, capfd):
    case.trained(progress=False)
    assert not capfd.readouterr().err


# --- encode and decode

def test_shapes_and_gradients(case, model, decode):
    z = model.encode(case.batch)
    assert z.shape == (3, model.dim) and z.dtype == torch.float32 and z.requires_grad
    z.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    z = z.detach().requires_grad_()
    out = decode(z)
    assert out.shape == case.batch.shape and out.dtype == case.batch.dtype
    if not out.is_floating_point(): return                  # tokens have no gradient
    out.sum().backward()
    assert z.grad.abs().sum() > 0
    with torch.no_grad(): assert not decode(z).requires_grad and not model.encode(case.batch).requires_grad


@torch.no_grad()
def test_each_item_by_itself(case, model, decode):
    z = model.encode(case.batch)
    assert torch.allclose(model.encode(case.batch[1:2])[0], z[1], atol=1e-5)
    assert torch.allclose(decode(z[1:2])[0].float(), decode(z)[1].float(), atol=1e-4)


@pytest.mark.parametrize("change", [lambda z: torch.cat([z, z], 1), lambda z: z[:, 1:], lambda z: z[None], lambda z: z * float("nan"), lambda z: z / 0])
def test_bad_codes_are_named(model, decode, change):
    with pytest.raises(ValueError, match="^z "): decode(change(torch.randn(3, model.dim)))


@pytest.mark.parametrize("change", [lambda x: x[..., 1:], lambda x: x[0], lambda x: x[None], lambda x: x.bool()])
def test_bad_batches_are_named(case, model, change):
    with pytest.raises(ValueError, match="^(x|tokens) must"): model.encode(change(case.batch))


@pytest.mark.parametrize("change", [dict(seed=-1), dict(seed=.5), dict(epochs=0), dict(epochs=1.5)])
def test_bad_settings_are_named(case, change):
    for call in (case.trained, case.loaded):
        with pytest.raises(ValueError, match=f"^{[*change][0]} must"): call(**change)


@pytest.mark.parametrize("dim", [0, -1, 2.5, True])
def test_a_bad_size_is_named(case, dim):
    with pytest.raises(ValueError, match="^dim must"): case.kind(**case.needs, dim=dim)


# --- draw, walk, turn

@torch.no_grad()
def test_sample_interpolate_traverse(case, model, decode):
    drawn = sample(decode, 4, model.dim, seed=1)
    assert drawn.shape == (4, *case.batch.shape[1:]) and torch.equal(drawn, sample(decode, 4, model.dim, seed=1))
    a, b, _ = model.encode(case.batch)
    for kind in ("linear", "spherical"): assert decode(interpolate(a, b, 5, kind)).shape == (5, *case.batch.shape[1:])
    turned = traverse(decode, model.encode(case.batch), 1, [-1., 2.])
    assert turned.shape == (3, 2, *case.batch.shape[1:])
    with pytest.raises(ValueError, match=f"^dim must be a whole number from 0 to {model.dim - 1}, got {model.dim}"):
        traverse(decode, model.encode(case.batch), model.dim)


# --- files

@torch.no_grad()
def test_a_saved_model_is_the_same(case, model, decode, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = case.kind.load(path)
    assert type(again) is case.kind and same(model, again) and not again.training and again.config == model.config
    z = model.encode(case.batch)
    assert torch.equal(again.decode(z, **case.told), decode(z)) and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_that_is_no_such_model_is_refused(case, model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"): case.kind.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"): case.kind.load(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no model's file"): case.kind.load(path)
    write(path, {"a": torch.zeros(1)}, {"file": "of the cache"})
    with pytest.raises(ValueError, match=f"holds no {case.kind.__name__}"): case.kind.load(path)
    model.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"): case.kind.load(path)
    for other in MODELS.values():
        if other.kind is case.kind: continue
        other.kind(**other.needs).save(path)
        with pytest.raises(ValueError, match=f"holds no {case.kind.__name__}.*{other.kind.__name__}"): case.kind.load(path)


# --- results

@pytest.fixture(scope="module", params=["stargate", "history", "mmd_test", "permutation_null"])
def result(request):
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    return {"stargate": lambda: stargate(n_points=4, steps=3, seeds=(0, 1)),
            "history": lambda: fit(torch.nn.Linear(2, 2), lambda model, x: model(x).square().mean(), z, epochs=2),
            "mmd_test": lambda: mmd_test(z, z + 1, permutations=20, seed=0),
            "permutation_null": lambda: permutation_null(scc, z.numpy(), z.numpy(), n=5)}[request.param]()


def test_plot_returns_the_figure(result): assert isinstance(result.plot(), Figure)


def whistles(z): return .1 * torch.sin(2 * np.pi * 400 * 2 ** z[:, :1] * torch.arange(2205) / 22_050)


@pytest.fixture(scope="module", params=["scores", "mapping", "found", "transfer"])
def table(request):
    "Results of chapter 9, which are tables and have no figure."
    prior = partial(latin_hypercube, dim=2)
    surrogate = Surrogate(whistles, prior, {"loud": lambda x, rate: x.square().mean(1), "high": lambda x, rate: x.diff().square().mean(1)}).fit(40, progress=False)
    return {"scores": lambda: score(surrogate, 20), "mapping": lambda: mapping(surrogate), "found": lambda: invert(surrogate, {"high": .0005}).hear(),
            "transfer": lambda: transfer(make_knob(surrogate, "high"), {"same": (whistles, prior)}, descriptor=surrogate.descriptors["high"])}[request.param]()


def test_a_table_has_a_row_for_each(table): test_to_dict_gives_flat_columns(table)


def test_a_surrogate_comes_from_the_cache_as_a_model_does():
    given = inspect.signature(load_surrogate)
    assert [*given.parameters] == ["seed", "progress"] and given.return_annotation == "Surrogate"
    assert given.parameters["seed"].default == 0 and given.parameters["progress"].default is None and given.parameters["progress"].annotation == "bool | None"


def test_to_dict_gives_flat_columns(result):
    "A number or a word, or a column; all columns have a row for each run, step or attribute."
    columns = [v for v in result.to_dict().values() if not isinstance(v, (str, numbers.Number))]
    assert all(np.ndim(v) == 1 for v in columns) and len({len(v) for v in columns}) <= 1
