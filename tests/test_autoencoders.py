"oplas.autoencoders: shapes, gradients, seeds, the cache, and bad input."
import math

import pytest
import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from oplas import autoencoders as A
from oplas.web import InV8

torch.set_num_threads(1)
KINDS = ("ae", "vae", "wae", "wae-cloud")
LOSSES = (A.ae_loss, A.vae_loss, A.wae_loss)


def images(n=64, size=8, seed=0): return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))

def same(a, b): return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


# --- the network and its losses

@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(2, 10), st.integers(1, 9))
def test_shapes(n, size, dim):
    m = A.Autoencoder(size, dim, width=8)
    x = images(n, size)
    z = m.encode(x)
    assert z.shape == (n, dim) and m.decode(z).shape == x.shape
    assert 0 <= m.decode(10 * z).min() and m.decode(10 * z).max() <= 1
    assert torch.equal(m.posterior(x)[0], z) and m.posterior(x)[1].shape == (n, dim)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_encoder_and_decoder(loss):
    m = A.Autoencoder(8, 3, width=16)
    parts = loss(m, images())
    assert set(parts) == {"loss", "mse", "prior"} and all(v.shape == () for v in parts.values())
    parts["loss"].backward()
    for net in (m.encoder, m.decoder): assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.dim() == 2)


def test_loss_is_the_sum_of_its_parts():
    m, x = A.Autoencoder(), images()
    for loss in (A.vae_loss, A.wae_loss):
        p = loss(m, x, weight=.7)
        assert p["loss"].item() == pytest.approx((p["mse"] + .7 * p["prior"]).item(), rel=1e-5)
    ae = A.ae_loss(m, x)
    assert ae["prior"] == 0 and ae["loss"].item() == pytest.approx(torch.nn.functional.mse_loss(m.decode(m.encode(x)), x).item(), rel=1e-5)


# --- training

@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_model(kind):
    a, b, c = (A.train_autoencoder(images(), kind, width=8, epochs=2, seed=s) for s in (1, 1, 2))
    assert same(a, b) and not same(a, c) and not a.training


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5); first = torch.rand(3)
    torch.manual_seed(5); A.train_autoencoder(images(), "vae", width=8, epochs=1)
    assert torch.equal(torch.rand(3), first)


def test_kinds_start_alike_and_end_apart():
    x = images()
    a, v, w = (A.train_autoencoder(x, k, width=8, epochs=3, weight=.5) for k in ("ae", "vae", "wae"))
    assert not same(a, v) and not same(a, w)
    assert same(a, A.train_autoencoder(x, "wae", width=8, epochs=3, weight=0.))   # without weight a WAE is an AE


def test_28_by_28():
    m = A.train_autoencoder(images(32, 28), "wae", dim=4, width=16, epochs=1)
    assert m.decode(m.encode(images(3, 28))).shape == (3, 1, 28, 28)


def test_wae_pulls_the_codes_to_the_prior():
    from oplas.pictures import digits
    from oplas.divergences import mmd2_normal
    x = digits().x_train[:512]
    gap = {k: mmd2_normal(A.train_autoencoder(x, k, epochs=40).encode(x).detach()).item() for k in ("ae", "wae")}
    assert gap["wae"] < .2 * gap["ae"]


def test_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    settings = dict(kind="wae", width=8, epochs=1)
    a = A.load_autoencoder(**settings)
    kept = list(tmp_path.glob("autoencoder-*.safetensors"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert same(a, A.load_autoencoder(**settings)) and kept[0].stat().st_mtime_ns == before and not a.training
    assert not same(a, A.load_autoencoder(**settings, seed=1)) and len(list(tmp_path.glob("*.safetensors"))) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-9])                                # damaged: set aside and trained again
    with pytest.warns(UserWarning): assert same(a, A.load_autoencoder(**settings))
    assert list(tmp_path.glob("*.damaged"))


def test_holdout_keeps_the_last_digits_out(monkeypatch, tmp_path):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    from oplas.pictures import digits
    x = digits().x_train
    a = A.load_autoencoder("ae", width=8, epochs=1, holdout=.2)
    assert same(a, A.train_autoencoder(x[:round(len(x) * .8)], "ae", width=8, epochs=1))


def test_split_chooses_the_digits(monkeypatch, tmp_path):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    from oplas.pictures import digits
    a, b = (A.load_autoencoder("ae", width=8, epochs=1, split=s) for s in (0, 3))
    assert not same(a, b) and same(b, A.train_autoencoder(digits(seed=3).x_train, "ae", width=8, epochs=1))
    assert same(a, A.load_autoencoder("ae", width=8, epochs=1)) and len(list(tmp_path.glob("*.safetensors"))) == 2


# --- the control

def walk(widget): return [widget, *(w for child in getattr(widget, "children", ()) for w in walk(child))]

def test_compare_planes_draws_every_kind_in_its_own_spreads(monkeypatch):
    trained = {}
    def load(kind, weight, seed, split):
        return trained.setdefault((kind, weight, seed, split), A.train_autoencoder(images(64, seed=1), kind, width=8, epochs=1, weight=weight, seed=seed))
    monkeypatch.setattr(A, "load_autoencoder", load)
    pad = A.compare_planes({"wae": .5, "ae": 0.}, seed=3, split=1)
    assert list(trained) == [("wae", .5, 3, 1), ("ae", 0., 3, 1)]
    assert pad.faces.count("2 drawings, from left to right by the WAE, the AE, at across") == 9 and pad.options["view"]["width"] == 17
    x, models = A.digits(seed=1).x_train, [*trained.values()]
    drawn = InV8(pad.decode.text).decode([1., -2.]).view(8, 17)
    for model, part in zip(models, (drawn[:, :8], drawn[:, 9:])):
        assert np.abs(part.numpy() - A._drawer(model, x)(1., -2.)).max() < 1e-3
    assert (drawn[:, 8] == drawn[0, 8]).all()

def test_a_drawer_measures_from_the_mean_of_codes_in_their_deviation():
    class Plane:
        def encode(self, x): return x
        def decode(self, z): return z[:, None, None]                                              # a picture of two pixels: the code
    draw = A._drawer(Plane(), torch.tensor([[0., 10.], [2., 30.]]))
    assert draw(0., 0.).tolist() == [[1., 20.]] and draw(1., -1.)[0] == pytest.approx([1 + 2**.5, 20 - 200**.5])

@pytest.mark.parametrize("weights, word", [({}, "weights must name"), ({"gan": 0.}, "kind must be"), ({"vae": -1.}, "weight")])
def test_bad_planes(weights, word, tmp_path, monkeypatch):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=word): A.compare_planes(weights)


# --- measures

def test_noise_growth():
    x = images(200)
    flat = lambda v: v.flatten(1)
    assert A.noise_growth(flat, lambda z: torch.zeros(len(z), 1, 8, 8), x) == pytest.approx(1)     # a decoder that does not listen
    m = A.Autoencoder(8, 2)
    assert A.noise_growth(m.encode, m.decode, x, step=0.) == pytest.approx(1)
    assert A.noise_growth(m.encode, m.decode, x, seed=1) == A.noise_growth(m.encode, m.decode, x, seed=1)
    decode = lambda z: z.view(-1, 1, 8, 8) * .9
    assert A.noise_growth(flat, decode, x, .1) < A.noise_growth(flat, decode, x, .5)
    big = lambda z: decode(z / 100)
    assert A.noise_growth(lambda v: 100 * flat(v), big, x) == pytest.approx(A.noise_growth(flat, decode, x), rel=1e-3)   # the scale of the code does not count


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 12), st.integers(4, 12), st.floats(.05, .5), st.integers(0, 99))
def test_high_frequency_share(h, w, cutoff, seed):
    x = torch.rand(3, 1, h, w, generator=torch.Generator().manual_seed(seed))
    share = A.high_frequency_share(x, cutoff)
    assert share.shape == (3, 1) and (share >= 0).all() and (share <= 1 + 1e-5).all()
    assert torch.allclose(A.high_frequency_share(3 * x + 1, cutoff), share, atol=1e-3)             # brightness and contrast do not count
    assert (A.high_frequency_share(x, .5) <= share + 1e-6).all()


def test_high_frequency_share_of_known_images():
    t = torch.arange(8.)
    assert A.high_frequency_share(torch.sin(2 * math.pi * t / 8).expand(8, 8)) < 1e-6               # a wave of 8 pixels
    assert A.high_frequency_share(torch.sin(2 * math.pi * t / 4).expand(8, 8)) > 1 - 1e-6           # of 4 pixels: at the cutoff, counted
    assert A.high_frequency_share(torch.full((8, 8), .3)) == 0


# --- bad input: named errors, before any work

nan = images(4).index_fill(0, torch.tensor([2]), math.nan)

@pytest.mark.parametrize("x, word", [
    (images(2, 28), "x must be"), (torch.rand(2, 8, 8), "x must be"), (torch.rand(2, 3, 8, 8), "x must be"), (images(0), "x must be"),
    (torch.zeros(2, 1, 8, 8, dtype=torch.int64), "int64"), ([[0.]], "list"), (nan, "NaN")])
def test_bad_images(x, word):
    m = A.Autoencoder(8, 2, 8)
    for call in (m.encode, m.posterior):
        with pytest.raises(ValueError, match=word): call(x)

@pytest.mark.parametrize("z, word", [
    (torch.zeros(2, 3), r"z must be .*\(n ≥ 1, 2\)"), (torch.zeros(2), "z must be"), (torch.zeros(0, 2), "z must be"), (torch.zeros(2, 2, dtype=torch.int32), "int32"),
    (torch.tensor([[0., math.inf]]), "NaN or Inf")])
def test_bad_codes(z, word):
    with pytest.raises(ValueError, match=word): A.Autoencoder(8, 2, 8).decode(z)

@pytest.mark.parametrize("settings, word", [(dict(size=0), "size"), (dict(dim=0), "dim"), (dict(dim=2.5), "dim"), (dict(width=-1), "width"), (dict(dim=True), "dim")])
def test_bad_sizes(settings, word):
    with pytest.raises(ValueError, match=word): A.Autoencoder(**settings)

@pytest.mark.parametrize("x, settings, word", [
    (images(), dict(kind="gan"), "kind"), (images(), dict(weight=-1.), "weight"), (images(), dict(weight=math.nan), "weight"), (images(), dict(seed=-1), "seed"), (images(), dict(seed=.5), "seed"),
    (images(), dict(epochs=0), "epochs"), (images(), dict(dim=0), "dim"), (images(0), {}, "x must be"), (nan, {}, "NaN"), (torch.rand(4, 1, 8, 9), {}, "x must be"), (torch.tensor(1.), {}, "x must be"), (None, {}, "x must be")])
def test_bad_training(x, settings, word):
    with pytest.raises(ValueError, match=word): A.train_autoencoder(x, **{"width": 8, "epochs": 1, **settings})

@pytest.mark.parametrize("settings, word", [(dict(holdout=1.), "holdout"), (dict(holdout=-.1), "holdout"), (dict(kind="x"), "kind"), (dict(dim=0), "dim")])
def test_bad_loading(settings, word, tmp_path, monkeypatch):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=word): A.load_autoencoder(**settings)
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("x, settings, word", [(images(1), {}, "at least 2"), (images(4), dict(step=-1.), "step"), (images(4), dict(step=math.inf), "step"), (images(4), dict(repeats=0), "repeats")])
def test_bad_growth(x, settings, word):
    m = A.Autoencoder(8, 2, 8)
    with pytest.raises(ValueError, match=word): A.noise_growth(m.encode, m.decode, x, **settings)

@pytest.mark.parametrize("x, cutoff, word", [(images(2), 0, "cutoff"), (images(2), .6, "cutoff"), (torch.zeros(3), .2, "shape"), (torch.zeros(0, 8, 8), .2, "empty"), (nan, .2, "NaN")])
def test_bad_spectra(x, cutoff, word):
    with pytest.raises(ValueError, match=word): A.high_frequency_share(x, cutoff)
