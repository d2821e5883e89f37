"oplas.autoencoders: shapes, gradients, seeds, paths between codes, the cache, and bad input."
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from oplas import autoencoders as A

torch.set_num_threads(1)
KINDS = ("ae", "vae", "wae", "wae-cloud")
LOSSES = (A.ae_loss, A.vae_loss, A.wae_loss)


def images(n=64, size=8, seed=0): return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))

def same(a, b): return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))

vectors = st.integers(2, 6).flatmap(lambda d: st.tuples(*[st.lists(st.floats(-5, 5, width=32), min_size=d, max_size=d).map(torch.tensor)] * 2))


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


def test_cloud_has_the_right_mean_and_spread():
    torch.manual_seed(0)
    draws = A._cloud(torch.full((50_000, 1), 2.), torch.full((50_000, 1), math.log(.25)))
    assert abs(draws.mean() - 2) < .02 and abs(draws.std() - .5) < .02


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


# --- sampling and walking

def test_sample_takes_any_decoder():
    z = A.sample(lambda z: z, 2000, 3, seed=4)
    assert z.shape == (2000, 3) and abs(z.mean()) < .1 and abs(z.std() - 1) < .1
    assert torch.equal(z, A.sample(lambda z: z, 2000, 3, seed=4)) and not torch.equal(z, A.sample(lambda z: z, 2000, 3, seed=5))


@settings(deadline=None)
@given(vectors, st.sampled_from(["linear", "spherical"]), st.integers(2, 7))
def test_ends_of_a_path(ab, kind, steps):
    a, b = ab
    path = A.interpolate(a, b, steps, kind)
    assert path.shape == (steps, len(a)) and torch.isfinite(path).all()
    scale = 1 + a.norm() + b.norm()
    assert (path[0] - a).norm() < 1e-5 * scale and (path[-1] - b).norm() < 1e-5 * scale


@settings(deadline=None)
@given(vectors, st.floats(0, 1))
def test_arc_has_the_length_between(ab, t):
    a, b = ab
    got, want = A.slerp(a, b, t).norm(), (1 - t) * a.norm() + t * b.norm()
    assert abs(got - want) < 1e-4 * (1 + want)


@settings(deadline=None)
@given(vectors, st.floats(0, 1))
def test_paths_do_not_depend_on_the_side_one_starts_from(ab, t):
    a, b = ab
    assert torch.allclose(A.lerp(a, b, t), A.lerp(b, a, 1 - t), atol=1e-4)
    u, v = torch.nn.functional.normalize(torch.stack([a, b]), dim=1)
    if -.99 < u @ v: assert torch.allclose(A.slerp(a, b, t), A.slerp(b, a, 1 - t), atol=2e-2)


def test_arc_special_cases():
    a, zero = torch.tensor([3., 4., 0.]), torch.zeros(3)
    t = torch.tensor([0., .25, 1.])
    assert torch.allclose(A.slerp(a, 2 * a, t), A.lerp(a, 2 * a, t), atol=1e-6)        # parallel: straight
    assert torch.allclose(A.slerp(a, zero, t), A.lerp(a, zero, t), atol=1e-6)          # zero: along the other
    assert torch.allclose(A.slerp(zero, a, t), A.lerp(zero, a, t), atol=1e-6)
    assert torch.equal(A.slerp(zero, zero, t), torch.zeros(3, 3))
    middle = A.slerp(a, -a, .5)                                                        # opposite: round
    assert middle.norm() == pytest.approx(5, rel=1e-5) and abs(middle @ a) < 1e-4
    assert torch.allclose(A.slerp(a, -a, t)[-1], -a, atol=1e-5)


def test_arc_is_an_arc():
    a, b = torch.eye(5)[:2] * 2
    path = A.slerp(a, b, torch.linspace(0, 1, 7))
    angles = torch.acos((path[:-1] * path[1:]).sum(1) / 4)
    assert torch.allclose(angles, torch.full((6,), math.pi / 12), atol=1e-4)           # even steps


def test_batches_of_paths():
    a, b = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    a[0], b[1], b[2] = -b[0], 0., 3 * a[2]                                             # the special cases beside ordinary ones
    for kind in ("linear", "spherical"):
        all_at_once = A.interpolate(a, b, 5, kind)
        assert all_at_once.shape == (5, 6, 4)
        for k in range(6): assert torch.allclose(all_at_once[:, k], A.interpolate(a[k], b[k], 5, kind), atol=1e-5)


def test_gradient_through_an_arc():
    a = torch.tensor([1., 2.], requires_grad=True)
    A.slerp(a, torch.tensor([-1., 1.]), .3).sum().backward()
    assert torch.isfinite(a.grad).all() and a.grad.abs().sum() > 0


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
    (torch.zeros(2, 3), r"z must be .*\(n, 2\)"), (torch.zeros(2), "z must be"), (torch.zeros(0, 2), "z must be"), (torch.zeros(2, 2, dtype=torch.int32), "int32"),
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

@pytest.mark.parametrize("n, dim", [(0, 2), (-1, 2), (1.5, 2), (2, 0)])
def test_bad_samples(n, dim):
    with pytest.raises(ValueError, match="whole number"): A.sample(lambda z: z, n, dim)

@pytest.mark.parametrize("walk", [A.lerp, A.slerp])
@pytest.mark.parametrize("a, b, t, word", [
    (torch.zeros(2), torch.zeros(3), .5, "same shape"), (torch.zeros(2), [0., 0.], .5, "same shape"), (torch.zeros(0), torch.zeros(0), .5, "same shape"), (torch.tensor([1, 2]), torch.tensor([1, 2]), .5, "float"),
    (torch.tensor([0., math.nan]), torch.zeros(2), .5, "NaN"), (torch.zeros(2), torch.ones(2), 1.1, r"\[0, 1\]"), (torch.zeros(2), torch.ones(2), -.1, r"\[0, 1\]"), (torch.zeros(2), torch.ones(2), math.nan, r"\[0, 1\]")])
def test_bad_walks(walk, a, b, t, word):
    with pytest.raises(ValueError, match=word): walk(a, b, t)

@pytest.mark.parametrize("settings, word", [(dict(steps=1), "steps"), (dict(steps=2.5), "steps"), (dict(kind="cubic"), "kind")])
def test_bad_paths(settings, word):
    with pytest.raises(ValueError, match=word): A.interpolate(torch.zeros(2), torch.ones(2), **settings)

@pytest.mark.parametrize("x, settings, word", [(images(1), {}, "at least 2"), (images(4), dict(step=-1.), "step"), (images(4), dict(step=math.inf), "step"), (images(4), dict(repeats=0), "repeats")])
def test_bad_growth(x, settings, word):
    m = A.Autoencoder(8, 2, 8)
    with pytest.raises(ValueError, match=word): A.noise_growth(m.encode, m.decode, x, **settings)

@pytest.mark.parametrize("x, cutoff, word", [(images(2), 0, "cutoff"), (images(2), .6, "cutoff"), (torch.zeros(3), .2, "shape"), (torch.zeros(0, 8, 8), .2, "empty"), (nan, .2, "NaN")])
def test_bad_spectra(x, cutoff, word):
    with pytest.raises(ValueError, match=word): A.high_frequency_share(x, cutoff)
