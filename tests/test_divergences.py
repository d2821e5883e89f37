"What the chapter on divergences does not carry: properties over many shapes, bad input, gradients, memory and devices. Speed is held by bench_divergences.py."
import math, statistics, subprocess, sys

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from oplas import divergences as D
from oplas.divergences import (Kernel, imq, kl_discrete, kl_mvn, kl_normal, median_bandwidth, mmd2, mmd2_normal, mmd_test,
                               prior_kernel, rbf, sigreg, sliced_wasserstein)

settings.register_profile("oplas", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("oplas")

KERNELS = {"rbf": rbf(1.3), "rbfs": rbf([.5, 1., 2.]), "imq": imq(.8), "imqs": imq([.5, 2.])}
kernels, seeds = st.sampled_from(sorted(KERNELS)), st.integers(0, 10_000)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
points, dims = st.integers(2, 40), st.integers(1, 6)


def draw(seed, *shape, dtype=torch.float64): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_mmd2(x, y, kernel, estimator):
    "The definition, with every pair in memory."
    k = lambda a, b: kernel((a[..., :, None, :] - b[..., None, :, :]).square().sum(-1))
    kxx, kyy, (n, m) = k(x, x), k(y, y), (x.shape[-2], y.shape[-2])
    if estimator == "biased": xx, yy = kxx.mean((-2, -1)), kyy.mean((-2, -1))
    else:
        off = lambda a, n: (a.sum((-2, -1)) - a.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))
        xx, yy = off(kxx, n), off(kyy, m)
    return xx + yy - 2 * k(x, y).mean((-2, -1))


# ---- Kullback-Leibler

@given(seeds, batches, st.integers(1, 9))
def test_kl_discrete_agrees_with_torch(seed, batch, k):
    p, q = draw(seed, *batch, k).softmax(-1), draw(seed + 1, *batch, k).softmax(-1)
    got = kl_discrete(p, q)
    assert got.shape == batch and (got >= -1e-12).all()
    torch.testing.assert_close(got, kl_divergence(Categorical(p), Categorical(q)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kl_discrete(p, p), torch.zeros(batch, dtype=p.dtype))


def test_kl_discrete_zeros():
    sure, fair = torch.tensor([1., 0.], requires_grad=True), torch.tensor([.5, .5], requires_grad=True)
    assert kl_discrete(fair, sure) == math.inf
    loss = kl_discrete(sure, fair)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert sure.grad.isfinite().all() and fair.grad.isfinite().all()
    assert kl_discrete(sure.detach(), sure.detach()) == 0


def covariance(seed, *shape):
    a = draw(seed, *shape, shape[-1])
    return a @ a.mT / shape[-1] + .3 * torch.eye(shape[-1], dtype=a.dtype)


@given(seeds, batches, dims)
def test_kl_mvn_agrees_with_torch(seed, batch, d):
    mp, mq, cp, cq = draw(seed, *batch, d), draw(seed + 1, *batch, d), covariance(seed + 2, *batch, d), covariance(seed + 3, *batch, d)
    got = kl_mvn(mp, cp, mq, cq)
    assert got.shape == batch and (got >= -1e-9).all()
    torch.testing.assert_close(got, kl_divergence(MultivariateNormal(mp, cp), MultivariateNormal(mq, cq)), atol=1e-5, rtol=1e-5)


@given(seeds, batches, dims)
def test_kl_normal_agrees_with_torch_and_kl_mvn(seed, batch, d):
    mu, logvar = draw(seed, *batch, d), draw(seed + 1, *batch, d)
    got = kl_normal(mu, logvar)
    torch.testing.assert_close(got, kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0., 1.)).sum(-1), atol=1e-5, rtol=1e-5)
    eye = torch.eye(d, dtype=mu.dtype)
    torch.testing.assert_close(got, kl_mvn(mu, logvar.exp().diag_embed(), torch.zeros_like(mu), eye.expand(*batch, d, d)))


def test_kl_mvn_broadcasts_one_prior_over_a_batch():
    mu, cov = draw(0, 7, 3), covariance(1, 7, 3)
    got = kl_mvn(mu, cov, torch.zeros(3, dtype=mu.dtype), torch.eye(3, dtype=mu.dtype))
    assert got.shape == (7,)


# ---- kernels

@given(st.floats(.05, 20))
def test_imq_is_the_mixture_it_says(c):
    k, sq = imq(c), torch.logspace(-6, 5, 60, dtype=torch.float64) * c * c
    sq = torch.cat([torch.zeros(1, dtype=sq.dtype), sq])
    torch.testing.assert_close(Kernel("sum", k.rates, k.weights)(sq), (sq + c * c).rsqrt(), atol=1e-7 / c, rtol=0)


def test_several_bandwidths_are_the_mean():
    sq = torch.linspace(0, 9, 20)
    torch.testing.assert_close(rbf([.5, 2.])(sq), (rbf(.5)(sq) + rbf(2.)(sq)) / 2)
    torch.testing.assert_close(imq([.5, 2.])(sq), (imq(.5)(sq) + imq(2.)(sq)) / 2)


@given(seeds, dims, st.floats(.1, 10))
def test_median_bandwidth_scales_and_ignores_shifts(seed, d, scale):
    x, y = draw(seed, 20, d), draw(seed + 1, 15, d)
    m = median_bandwidth(x, y)
    assert m > 0
    assert median_bandwidth(scale * x + 3, scale * y + 3) == pytest.approx(scale * m, rel=1e-6)


def test_median_bandwidth_of_equal_points_is_usable():
    assert median_bandwidth(torch.zeros(5, 2)) == 1.
    assert mmd2(torch.zeros(5, 2), torch.zeros(4, 2)).item() == pytest.approx(0)


# ---- MMD between samples

@given(seeds, batches, points, points, dims, kernels, st.sampled_from(["unbiased", "biased"]))
def test_mmd2_is_its_definition(seed, batch, n, m, d, name, estimator):
    x, y = draw(seed, *batch, n, d), draw(seed + 1, *batch, m, d) + .5
    got = mmd2(x, y, KERNELS[name], estimator)
    assert got.shape == batch and got.dtype == x.dtype
    torch.testing.assert_close(got, plain_mmd2(x, y, KERNELS[name], estimator))


@given(seeds, points, points, dims, kernels)
def test_mmd2_symmetry_order_and_invariance(seed, n, m, d, name):
    x, y, k = draw(seed, n, d), draw(seed + 1, m, d) + 1, KERNELS[name]
    got = mmd2(x, y, k)
    turn = torch.linalg.qr(draw(seed + 2, d, d)).Q
    for a, b in ((y, x), (x.flip(0), y.roll(1, 0)), (x + 1000, y + 1000), (x @ turn, y @ turn)):
        torch.testing.assert_close(mmd2(a, b, k), got, atol=1e-8, rtol=1e-8)
    assert mmd2(x, y, k, "biased") >= -1e-12
    assert mmd2(x, x, k, "biased").abs() < 1e-12


@pytest.mark.parametrize("tile", [256, 2**10, 2**15])
def test_tiles_change_nothing(monkeypatch, tile):
    x, y = draw(0, 2, 75, 3), draw(1, 2, 61, 3)
    whole = mmd2(x, y, rbf(1.)), mmd2_normal(x)
    monkeypatch.setattr(D, "_TILE", tile)
    torch.testing.assert_close((mmd2(x, y, rbf(1.)), mmd2_normal(x)), whole)


def test_leading_axes_broadcast():
    x, y = draw(0, 6, 3), draw(1, 5, 4, 3)
    torch.testing.assert_close(mmd2(x, y, rbf(1.)), torch.stack([mmd2(x, b, rbf(1.)) for b in y]))


def test_float32_survives_a_large_offset():
    x, y = draw(0, 200, 4, dtype=torch.float32), draw(1, 200, 4, dtype=torch.float32) + .5
    far = (x.double() + 4096).float(), (y.double() + 4096).float()
    torch.testing.assert_close(mmd2(*far, rbf(2.)), mmd2(x, y, rbf(2.)), atol=2e-4, rtol=2e-3)


def test_half_precision_is_widened_and_autocast_does_no_harm():
    x, y = draw(0, 50, 4, dtype=torch.float32), draw(1, 50, 4, dtype=torch.float32) + 1
    assert mmd2(x.half(), y.half(), rbf(2.)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16): inside = mmd2(x, y, rbf(2.)), mmd2_normal(x)
    torch.testing.assert_close(inside, (mmd2(x, y, rbf(2.)), mmd2_normal(x)))


def test_a_kernel_of_ones_own():
    x, y = draw(0, 30, 2), draw(1, 20, 2)
    laplace = lambda sq: torch.exp(-(sq + 1e-12).sqrt())
    torch.testing.assert_close(mmd2(x, y, laplace), plain_mmd2(x, y, laplace, "unbiased"), atol=1e-6, rtol=1e-5)


def test_unbiased_mean_is_zero_for_equal_distributions():
    x, y = draw(3, 2, 2000, 12, 5)
    for k in (rbf(2.), imq(2.)):
        v = mmd2(x, y, k)
        assert v.mean().abs() < 3 * v.std() / math.sqrt(2000)
        assert mmd2(x, y, k, "biased").min() >= 0
        w = mmd2_normal(x, k)
        assert w.mean().abs() < 3 * w.std() / math.sqrt(2000)


# ---- MMD to the prior

@given(seeds, batches, points, dims, kernels)
def test_mmd2_normal_shape_rotation_order(seed, batch, n, d, name):
    z, k = draw(seed, *batch, n, d), KERNELS[name]
    got, turn = mmd2_normal(z, k), torch.linalg.qr(draw(seed + 2, d, d)).Q
    assert got.shape == batch and got.dtype == z.dtype
    torch.testing.assert_close(mmd2_normal(z.flip(-2) @ turn, k), got, atol=1e-9, rtol=1e-9)
    assert (mmd2_normal(z, k, "biased") >= -1e-9).all()


@pytest.mark.parametrize("d", [1, 3, 16])
@pytest.mark.parametrize("name", ["rbf", "rbfs", "imq", "imqs", "default"])
def test_closed_form_agrees_with_monte_carlo(name, d):
    k = KERNELS.get(name) or prior_kernel(d)
    z, y = 1.4 * draw(0, 12, d) + .4, draw(1, 2000, 40, d)
    v = mmd2(z, y, k)
    assert (v.mean() - mmd2_normal(z, k)).abs() < 3 * v.std() / math.sqrt(2000)


def test_closed_form_agrees_with_quadrature():
    from scipy.integrate import quad
    phi = lambda y: math.exp(-y * y / 2) / math.sqrt(2 * math.pi)
    z, (a, b), k = torch.tensor([[.3], [1.7]], dtype=torch.float64), (.3, 1.7), lambda r2: 1 / math.sqrt(r2 + .64)
    cross = sum(quad(lambda y: k((x - y)**2) * phi(y), -12, 12)[0] for x in (a, b)) / 2
    prior = quad(lambda d: k(d * d) * math.exp(-d * d / 4) / math.sqrt(4 * math.pi), -17, 17)[0]      # Y - Y' is N(0, 2)
    assert mmd2_normal(z, imq(.8)).item() == pytest.approx(k((a - b)**2) - 2 * cross + prior, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_recommended_sees_collapse_and_published_does_not(seed):
    z, prior = draw(seed, 2, 100, 8, 32, dtype=torch.float32)
    wide = rbf(32 / math.sqrt(2))
    assert (mmd2_normal(0 * z) > mmd2_normal(z)).sum() >= 99
    assert (mmd2(0 * z, prior, wide, "biased") < mmd2(z, prior, wide, "biased")).sum() >= 97


@pytest.mark.parametrize("d", [2, 8, 64])
def test_training_by_the_default_reaches_the_prior(d):
    z = (.2 * draw(0, 128, d) + 1).requires_grad_()
    opt = torch.optim.Adam([z], lr=.05)
    for _ in range(200): opt.zero_grad(); mmd2_normal(z).backward(); opt.step()
    assert z.mean(0).abs().max() < .35 and .75 < z.std(0).mean() < 1.25


# ---- gradients

@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_gradients(name, estimator):
    x, y = draw(0, 2, 5, 3).requires_grad_(), draw(1, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, KERNELS[name], estimator), (x, y))
    assert torch.autograd.gradcheck(lambda a: mmd2_normal(a, KERNELS[name], estimator), (x,))


def test_gradients_of_the_others():
    x, y = draw(0, 6, 3).requires_grad_(), draw(1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: sliced_wasserstein(a, b, 5), (x, y))
    assert torch.autograd.gradcheck(lambda a: sliced_wasserstein(a, projections=5), (x,))
    assert torch.autograd.gradcheck(lambda a: sigreg(a, 5), (x,))
    assert torch.autograd.gradcheck(lambda m, v: kl_normal(m, v), (draw(2, 3).requires_grad_(), draw(3, 3).requires_grad_()))
    mean, root = draw(4, 3).requires_grad_(), draw(5, 3, 3).requires_grad_()
    eye = torch.eye(3, dtype=mean.dtype)
    assert torch.autograd.gradcheck(lambda m, r: kl_mvn(m, r @ r.mT + eye, 0 * m, 2 * eye), (mean, root))


def test_gradients_of_collapsed_codes_are_finite():
    for f in (mmd2_normal, lambda z: mmd2_normal(z, imq(1.)), sigreg, sliced_wasserstein, lambda z: mmd2(z, z.detach() + 1)):
        z = torch.zeros(8, 4, requires_grad=True)
        f(z).backward()
        assert z.grad.isfinite().all()


def test_adding_up_on_the_way_gives_the_same_gradient(monkeypatch):
    x, y, grads = draw(0, 90, 3), draw(1, 80, 3), []
    for limit in (2**22, 10):
        monkeypatch.setattr(D, "_KEEP", limit); monkeypatch.setattr(D, "_TILE", 400)
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        (mmd2(a, b, imq(1.)) + mmd2_normal(a) + sigreg(a, 7)).backward()
        grads.append((a.grad, b.grad))
    torch.testing.assert_close(*grads)


# ---- projections

@given(seeds, batches, points, points, dims)
def test_sliced_wasserstein_properties(seed, batch, n, m, d):
    x, y = draw(seed, *batch, n, d), draw(seed + 1, *batch, m, d)
    got = sliced_wasserstein(x, y, 16)
    assert got.shape == batch and (got >= 0).all()
    torch.testing.assert_close(sliced_wasserstein(y, x, 16), got)
    torch.testing.assert_close(sliced_wasserstein(x.flip(-2), x, 16), torch.zeros_like(got), atol=1e-12, rtol=0)
    torch.testing.assert_close(sliced_wasserstein(x + 5, y + 5, 16), got)
    torch.testing.assert_close(sliced_wasserstein(torch.cat([x, x], -2), y, 16), got)      # a cloud counted twice is the same cloud
    assert (sliced_wasserstein(x) >= -1e-12).all() and sliced_wasserstein(x).shape == batch


def test_sliced_wasserstein_in_one_dimension_is_scipys():
    from scipy.stats import norm
    from scipy.optimize import linear_sum_assignment
    x, y = draw(0, 9, 1), draw(1, 9, 1)
    cost = torch.cdist(x, y).square().numpy()
    assert sliced_wasserstein(x, y, 3).item() == pytest.approx(cost[linear_sum_assignment(cost)].sum() / 9)
    fine = torch.tensor(norm.ppf((torch.arange(200_000, dtype=torch.float64) + .5) / 200_000))[:, None]
    assert sliced_wasserstein(x, projections=3).item() == pytest.approx(sliced_wasserstein(x, fine, 3).item(), abs=2e-4)


@given(seeds, batches, points, dims)
def test_sigreg_properties(seed, batch, n, d):
    z = draw(seed, *batch, n, d)
    got = sigreg(z, 16)
    assert got.shape == batch and (got >= 0).all()
    torch.testing.assert_close(sigreg(z.flip(-2), 16), got)
    assert (sigreg(z + 3, 16) > sigreg(z, 16)).all() or n < 8


def test_sigreg_is_an_mmd_of_shadows():
    z = draw(0, 40, 1) * .8
    same = 40 * math.sqrt(2 * math.pi) * mmd2_normal(z, rbf(1.), "biased")
    torch.testing.assert_close(sigreg(z, 1), same, rtol=1e-4, atol=0)


@pytest.mark.parametrize("f", [sigreg, sliced_wasserstein])
def test_directions_follow_the_seed(f):
    z, g = draw(0, 30, 5), torch.Generator().manual_seed(1)
    assert f(z, seed=3) == f(z, seed=3) != f(z, seed=4)
    assert f(z, seed=g) != f(z, seed=g)


# ---- the test

def test_mmd_test_agrees_with_shuffling_by_hand():
    x, y = draw(0, 15, 2), draw(1, 11, 2) + .4
    got, pool, g = mmd_test(x, y, rbf(1.), permutations=200), torch.cat([x, y]), torch.Generator().manual_seed(9)
    assert got.mmd2 == pytest.approx(mmd2(x, y, rbf(1.)).item())
    by_hand = torch.stack([mmd2(*pool[torch.randperm(26, generator=g)].split([15, 11]), rbf(1.)) for _ in range(500)])
    assert abs(by_hand.mean() - got.null.mean()) < .01 and abs(by_hand.std() / got.null.std() - 1) < .25
    assert got.p_value == (1 + (got.null >= got.mmd2 - 1e-9).sum().item()) / 201
    assert got.to_dict()["permutations"] == 200


def test_mmd_test_keeps_its_level_and_finds_differences():
    same = [mmd_test(draw(2 * i, 20, 3), draw(2 * i + 1, 25, 3), permutations=99, seed=i).p_value for i in range(200)]
    assert .01 <= sum(p <= .05 for p in same) / 200 <= .10
    assert .4 < statistics.mean(same) < .6
    assert mmd_test(draw(0, 80, 3), draw(1, 80, 3) + 1).p_value < .01
    assert mmd_test(torch.zeros(9, 2), torch.zeros(9, 2)).p_value == 1


def test_mmd_test_is_repeatable_and_in_blocks(monkeypatch):
    x, y = draw(0, 60, 3), draw(1, 50, 3) + .2
    a, b = mmd_test(x, y, seed=1), mmd_test(x, y, seed=1)
    monkeypatch.setattr(D, "_KEEP", 1000)
    c = mmd_test(x, y, seed=1)
    assert a.p_value == b.p_value == c.p_value and torch.equal(a.null, b.null)
    torch.testing.assert_close(a.null, c.null)
    import matplotlib; matplotlib.use("Agg")
    assert a.plot().axes


# ---- bad input: ValueError, the argument's name, what came

z, ok = torch.randn(6, 3), torch.tensor([.5, .5])
eye, m3 = torch.eye(3), torch.zeros(3)
CLOUD_ERRORS = {
    "wrong shape": (torch.randn(6), r"must have shape \(\.\.\., points, dim\), got \(6,\)"), "integers": (torch.ones(6, 3, dtype=torch.long), "floating-point.*int64"),
    "complex": (torch.ones(6, 3, dtype=torch.complex64), "floating-point.*complex64"), "no points": (torch.empty(0, 3), r"empty.*\(0, 3\)"), "no dimensions": (torch.empty(6, 0), "empty"),
    "NaN": (torch.full((6, 3), math.nan), "finite.*NaN"), "Inf": (torch.tensor([[math.inf, 0., 0.]] * 6), "finite"), "a list": ([[1., 2.]], "torch.Tensor, got list"), "None": (None, "torch.Tensor, got NoneType")}
TAKES_A_CLOUD = {
    "mmd2 x": (lambda b: mmd2(b, z), "x"), "mmd2 y": (lambda b: mmd2(z, b, rbf(1.)), "y"), "mmd2_normal": (mmd2_normal, "z"), "sigreg": (sigreg, "z"), "sliced_wasserstein": (sliced_wasserstein, "x"),
    "sliced_wasserstein x": (lambda b: sliced_wasserstein(b, z), "x"), "mmd_test x": (lambda b: mmd_test(b, z), "x"), "mmd_test y": (lambda b: mmd_test(z, b), "y"), "median_bandwidth": (median_bandwidth, "x")}


@pytest.mark.parametrize("what", CLOUD_ERRORS)
@pytest.mark.parametrize("where", TAKES_A_CLOUD)
def test_a_bad_cloud_is_named(where, what):
    (f, name), (bad, message) = TAKES_A_CLOUD[where], CLOUD_ERRORS[what]
    with pytest.raises(ValueError, match=f"^{name} .*{message}"): f(bad)


@pytest.mark.parametrize("f, message", [
    (lambda: mmd2(z[:1], z), "x needs at least 2 points.*got 1"), (lambda: mmd2(z, z[:1]), "y needs at least 2 points"), (lambda: mmd2_normal(z[:1]), "z needs at least 2 points"), (lambda: mmd_test(z[:1], z), "x needs at least 2"),
    (lambda: mmd2(z, z[:, :2]), "x and y must have the same dimension, got 3 and 2"), (lambda: sliced_wasserstein(z, z[:, :2]), "same dimension"), (lambda: mmd_test(z, z[:, :2]), "same dimension"),
    (lambda: median_bandwidth(z, z[:, :2]), "same dimension"), (lambda: mmd2(z, z.double()), "one dtype and device, got torch.float32 on cpu and torch.float64"),
    (lambda: mmd2(z.expand(2, 6, 3), z.expand(3, 6, 3)), "leading axes of x and y"), (lambda: mmd_test(z[None], z[None]), r"shape \(points, dim\), got a batch"),
    (lambda: mmd2(z, z, rbf(1.), "umbiased"), "estimator must be one of unbiased, biased, got 'umbiased'"), (lambda: mmd2_normal(z, estimator=None), "estimator must be"),
    (lambda: rbf(-1.), "bandwidth must be positive and finite, got -1.0"), (lambda: rbf(0), "bandwidth must be positive"), (lambda: rbf([1., -2.]), "bandwidth must be positive"), (lambda: rbf([]), "bandwidth must be positive"),
    (lambda: rbf(math.nan), "bandwidth must be positive"), (lambda: rbf(math.inf), "bandwidth must be positive"), (lambda: rbf("wide"), "bandwidth must be a positive number"), (lambda: imq(-1), "c must be positive"), (lambda: imq(None), "c must be a positive number"),
    (lambda: prior_kernel(0), "dim must be at least 1, got 0"), (lambda: mmd2_normal(z, lambda sq: sq), "kernel must be rbf"), (lambda: mmd_test(z, z, permutations=0), "permutations must be at least 1, got 0"),
    (lambda: sigreg(z, projections=0), "projections must be at least 1"), (lambda: sliced_wasserstein(z, projections=0), "projections must be at least 1"), (lambda: sigreg(z, knots=1), "knots must be at least 2"),
    (lambda: kl_discrete(torch.tensor([.5, .6]), ok), "p must sum to 1.*off by 0.1"), (lambda: kl_discrete(ok, torch.tensor([.5, .4])), "q must sum to 1"), (lambda: kl_discrete(torch.tensor([1.5, -.5]), ok), "p must not be negative, got -0.5"),
    (lambda: kl_discrete(ok, torch.ones(3) / 3), "same number of outcomes, got 2 and 3"), (lambda: kl_discrete(torch.tensor([1, 0]), ok), "p must hold floating-point numbers.*int64"), (lambda: kl_discrete(torch.tensor([math.nan, 1.]), ok), "p must be finite"),
    (lambda: kl_discrete(torch.tensor(1.), ok), "p must have shape"), (lambda: kl_discrete(torch.empty(0), ok), "p is empty"),
    (lambda: kl_mvn(m3, torch.ones(3, 2), m3, eye), r"cov_p must have shape \(\.\.\., 3, 3\), got \(3, 2\)"), (lambda: kl_mvn(m3, eye, m3, -eye), "cov_q must be positive definite"), (lambda: kl_mvn(m3, torch.zeros(3, 3), m3, eye), "cov_p must be positive definite"),
    (lambda: kl_mvn(m3, eye + torch.ones(3, 3).triu(1), m3, eye), "cov_p must be symmetric"), (lambda: kl_mvn(m3, eye, torch.zeros(2), eye), "mean_p and mean_q must have the same last axis"), (lambda: kl_mvn(m3, eye, m3, eye * math.nan), "cov_q must be finite"),
    (lambda: kl_normal(m3, torch.zeros(2)), r"mu and logvar must have the same shape.*\(3,\) and \(2,\)"), (lambda: kl_normal(m3, m3 - math.inf), "logvar must be finite"), (lambda: kl_normal(m3.long(), m3), "mu must hold floating-point"),
])
def test_bad_input_is_named(f, message):
    with pytest.raises(ValueError, match=message): f()


# ---- size and device

PEAK = """
import re, resource, sys, torch
from oplas.divergences import mmd2, mmd2_normal, rbf
def peak():
    if sys.platform != "linux": return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10
x, y = torch.randn(2, {n}, 16)
{call}
print(peak())
"""


@pytest.mark.parametrize("call", ["mmd2(x, y, rbf(3.))", "mmd2_normal(x)", "x.requires_grad_(); mmd2(x, y, rbf(3.)).backward()"])
def test_memory_stays_under_a_gigabyte(call):
    run = subprocess.run([sys.executable, "-c", PEAK.format(n=20_000, call=call)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1000          # of the whole process, PyTorch included


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_any_device(device):
    x, y = torch.randn(2, 700, 5, generator=torch.Generator().manual_seed(0))
    for f in (lambda a, b: mmd2(a, b, rbf(1.)), lambda a, b: mmd2_normal(a), lambda a, b: sigreg(a), lambda a, b: sliced_wasserstein(a, b),
              lambda a, b: sliced_wasserstein(a)):
        got = f(x.to(device), y.to(device))
        assert got.device.type == device
        torch.testing.assert_close(got.cpu(), f(x.double(), y.double()).float(), atol=1e-4, rtol=1e-3)      # float64 on the CPU is the judge
    assert mmd_test(x.to(device), y.to(device)).p_value > 0


def test_a_kernel_with_parameters_learns_them_at_any_size(monkeypatch):
    monkeypatch.setattr(D, "_KEEP", 10)
    rate = torch.tensor(.5, requires_grad=True)
    mmd2(draw(0, 30, 2, dtype=torch.float32).requires_grad_(), draw(1, 30, 2, dtype=torch.float32) + 1, lambda sq: torch.exp(-rate * sq)).backward()
    assert rate.grad.abs() > 0


def test_the_number_of_threads_is_left_alone():
    before = torch.get_num_threads()
    mmd2(draw(0, 600, 2), draw(1, 600, 2))
    with pytest.raises(ValueError): mmd2_normal(torch.zeros(1, 2))
    assert torch.get_num_threads() == before
