"What the page on metrics does not carry: known answers over many settings, invariances, nulls, bad input, and the estimators against scikit-learn."
import functools, subprocess, sys

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.special import digamma
from scipy.stats import kstest, norm, spearmanr
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LinearRegression

from oplas import metrics as M
from oplas.metrics import (interpretability, level_information, mig, modularity, mutual_information, permutation_null, sap,
                           scc)

settings.register_profile("oplas", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("oplas")

ALL = interpretability, scc, sap, mig, modularity
seeds = st.integers(0, 10_000)


def score(metric, z, a, **settings):
    "The numbers of a metric."
    found = metric(z, a, **settings)
    return np.asarray(getattr(found, "r2", found))


def draw(seed=0, n=600, dim=6):
    "Independent attributes, one continuous, one in 27 steps, both standardised; noise codes."
    rng = np.random.default_rng(seed)
    a = np.stack([rng.normal(size=n), rng.integers(0, 27, n) / 26], 1)
    return rng.normal(size=(n, dim)), (a - a.mean(0)) / a.std(0)


def codes(kind, **k):
    z, a = draw(**k)
    if kind == "aligned": z[:, :2] = a
    if kind == "flipped": z[:, :2] = -a
    if kind == "bent": z[:, :2] = np.exp(2 * a)
    if kind == "rotated": z[:, 0], z[:, 1] = (a[:, 0] + a[:, 1]) / 2 ** .5, (a[:, 0] - a[:, 1]) / 2 ** .5
    if kind == "shared": z[:, :2] = z[:, 2:4] = a
    if kind == "u": z[:, :2] = a ** 2
    return z, a


# ---- codes whose answers are known

@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["aligned", "flipped"])
def test_aligned(kind, seed):
    z, a = codes(kind, seed=seed)
    dims, r2 = interpretability(z, a)
    assert dims.tolist() == [0, 1] and r2 == pytest.approx([1, 1])
    assert scc(z, a) == pytest.approx([1, 1])
    assert sap(z, a).min() > .95 and mig(z, a).min() > .9
    assert modularity(z[:, :2], a) > .99


@pytest.mark.parametrize("seed", range(3))
def test_rotated_by_45_degrees(seed):
    z, a = codes("rotated", seed=seed, n=3000)
    assert score(interpretability, z, a) == pytest.approx([.5, .5], abs=.06)
    assert score(interpretability, z, a, dims=(0, 1)) == pytest.approx([.5, .5], abs=.06)
    assert scc(z, a) == pytest.approx([.7, .7], abs=.05)
    assert sap(z, a).max() < .06 and mig(z, a).max() < .06
    alike = np.random.default_rng(seed).normal(size=(3000, 2))     # equal information needs attributes of one shape
    assert modularity(alike @ [[1, 1], [1, -1]], alike) < .2 and modularity(alike, alike) > .99


@pytest.mark.parametrize("seed", range(3))
def test_noise(seed):
    z, a = codes("noise", seed=seed, n=2000)
    assert abs(score(interpretability, z, a)).max() < .02
    assert scc(z, a).max() < .12 and sap(z, a).max() < .02 and mig(z, a).max() < .03


def test_two_dimensions_share_an_attribute():
    z, a = codes("shared")
    assert sap(z, a) == pytest.approx([0, 0], abs=1e-9) and mig(z, a) == pytest.approx([0, 0], abs=1e-3)
    assert scc(z, a) == pytest.approx([1, 1]) and score(interpretability, z, a) == pytest.approx([1, 1])
    z[:, 2:4] += .05 * np.random.default_rng(1).normal(size=(len(z), 2))
    assert sap(z, a).max() < .02 and mig(z, a).max() < .6


def test_monotone_but_bent():
    z, a = codes("bent")
    assert scc(z, a) == pytest.approx([1, 1]) and mig(z, a).min() > .9
    assert (score(interpretability, z, a) < .8).all() and sap(z, a).max() < .8


def test_a_u_has_information_and_no_order():
    z, a = codes("u", n=2000)
    assert mig(z, a).min() > .5 and scc(z, a).max() < .15 and score(interpretability, z, a, dims=(0, 1)).max() < .05


@pytest.mark.parametrize("r", [0, .3, .7, .95])
def test_share_of_variance(r):
    z, a = draw(1, n=4000)
    z[:, 3] = r * a[:, 0] + np.sqrt(1 - r ** 2) * z[:, 3]
    assert score(interpretability, z, a[:, 0], dims=3) == pytest.approx([r ** 2], abs=.04)
    assert sap(z, a[:, 0]) == pytest.approx([r ** 2], abs=.04)
    assert scc(z, a[:, 0]) == pytest.approx([6 / np.pi * np.arcsin(r / 2)], abs=.05)


# ---- interpretability

def test_r2_is_that_of_scikit_learn_on_the_other_half():
    z, a = draw(2)
    z[:, 4] += a[:, 0]
    dims, r2 = interpretability(z, a, seed=5)
    first, second = np.array_split(np.random.default_rng(5).permutation(len(z)), 2)
    for j, d in enumerate(dims):
        line = LinearRegression().fit(z[first][:, [d]], a[first, j])
        assert r2[j] == pytest.approx(line.score(z[second][:, [d]], a[second, j]))
    assert dims[0] == 4


def test_choice_and_line_see_the_first_half_alone():
    z, a = draw(3)
    first, second = np.array_split(np.random.default_rng(0).permutation(len(z)), 2)
    other = z.copy()
    other[second] = np.random.default_rng(9).normal(size=other[second].shape)
    other[second, 5] = a[second, 0]                                # a dimension that is perfect where it is scored
    assert (interpretability(z, a).dims == interpretability(other, a).dims).all()


def test_fixed_dims():
    z, a = codes("aligned")
    for dims in ([1, 0], (1, 0), np.array([1, 0]), torch.tensor([1, 0])):
        found = interpretability(z, a, dims)
        assert found.dims.tolist() == [1, 0] and found.r2.max() < .1
    assert interpretability(z, a[:, 0], 0).r2 == pytest.approx([1])
    assert interpretability(z, a, [0, 0]).r2[0] == pytest.approx(1)


def test_noise_is_not_flattered():
    found = np.concatenate([interpretability(*draw(s, n=60, dim=32)).r2 for s in range(100)])
    assert -.5 < found.mean() < 0


# ---- invariances

@given(seeds)
def test_order_of_dimensions_does_not_matter(seed):
    z, a = codes("rotated", seed=seed, n=200)
    order = np.random.default_rng(seed).permutation(z.shape[1])
    for metric in ALL: assert score(metric, z[:, order], a) == pytest.approx(score(metric, z, a))
    assert (order[interpretability(z[:, order], a).dims] == interpretability(z, a).dims).all()


@given(seeds)
def test_order_of_attributes_only_permutes(seed):
    z, a = codes("rotated", seed=seed, n=200)
    for metric in (interpretability, scc, sap, mig): assert score(metric, z, a[:, ::-1]) == pytest.approx(score(metric, z, a)[::-1])
    assert modularity(z, a[:, ::-1]) == pytest.approx(modularity(z, a))


@given(seeds, st.floats(.01, 100), st.floats(-100, 100))
def test_scale_and_shift(seed, scale, shift):
    z, a = codes("rotated", seed=seed, n=200)
    for metric in ALL:
        expected = pytest.approx(score(metric, z, a), abs=1e-6)
        assert score(metric, scale * z + shift, a) == expected and score(metric, z, scale * a + shift) == expected
    for metric in (interpretability, scc, sap): assert score(metric, -scale * z + shift, a) == pytest.approx(score(metric, z, a), abs=1e-6)


@given(seeds)
def test_monotone_transforms(seed):
    z, a = codes("rotated", seed=seed, n=200)
    for metric in (scc, mig, modularity):
        assert score(metric, np.exp(z), a) == pytest.approx(score(metric, z, a))
        assert score(metric, z, np.sinh(a)) == pytest.approx(score(metric, z, a))
    assert mig(-z, a) == pytest.approx(mig(z, a), abs=.05)         # ties between neighbours fall the other way


@given(seeds)
def test_a_collapsed_dimension_adds_nothing(seed):
    z, a = codes("aligned", seed=seed, n=400)
    dead = np.concatenate([z, np.full((len(z), 2), .1)], 1)
    for metric in (interpretability, scc, sap): assert score(metric, dead, a) == pytest.approx(score(metric, z, a))
    assert level_information(dead, a)[0][-2:].max() < .25 and mutual_information(dead, a)[-2:].max() < .25
    assert score(interpretability, dead, a, dims=(6, 7)) == pytest.approx([0, 0], abs=.1)


def test_equal_codes_in_the_order_of_the_attribute_do_not_leak():
    a = np.sort(np.random.default_rng(0).normal(size=2000))
    assert level_information(np.zeros((2000, 4)), a)[0].max() < .06


@pytest.mark.parametrize("metric", [*ALL, mutual_information])
def test_kinds_of_input_agree(metric):
    z, a = codes("rotated", n=200)
    z, a = z.astype("float32"), a.astype("float32")
    same = pytest.approx(score(metric, z, a), abs=1e-6)
    tensor = torch.tensor(z, requires_grad=True)
    assert score(metric, tensor, torch.tensor(a)) == same
    assert score(metric, tensor, {"x": a[:, 0], "y": torch.tensor(a[:, 1])}) == same
    assert score(metric, z.tolist(), a.tolist()) == same
    assert score(metric, tensor.bfloat16(), a).shape == score(metric, z, a).shape
    if metric is not modularity: assert score(metric, z, a[:, 0]).shape[-1] == 1
    z.flags.writeable = a.flags.writeable = False                  # and nothing is written to
    assert score(metric, z, a) == same


@pytest.mark.parametrize("metric", [*ALL, mutual_information])
def test_the_same_call_gives_the_same_numbers(metric):
    z, a = codes("rotated", n=200)
    state = np.random.get_state()[1].copy()
    assert (score(metric, z, a) == score(metric, z, a)).all()
    assert (np.random.get_state()[1] == state).all()


# ---- information

@pytest.mark.parametrize("rho", [0, .5, .9, .99])
@pytest.mark.parametrize("n", [500, 3000])
def test_information_of_gaussians(rho, n):
    found = []
    for seed in range(5):
        x, e = np.random.default_rng(seed).normal(size=(2, n))
        found.append(mutual_information(x[:, None], rho * x + (1 - rho ** 2) ** .5 * e)[0, 0])
    assert np.mean(found) == pytest.approx(-.5 * np.log(1 - rho ** 2), abs=.06)


def information_of_levels(levels, s):
    "Of a uniform level and itself plus Gaussian noise of spread s, in nats, by numerical integration."
    at = np.linspace(levels.min() - 8 * s, levels.max() + 8 * s, 100_001)
    density = norm.pdf(at[:, None], levels, s).mean(1)
    return np.trapezoid(-density * np.log(np.maximum(density, 1e-300)), at) - .5 * np.log(2 * np.pi * np.e * s * s)


@pytest.mark.parametrize("steps", [3, 13, 27])
@pytest.mark.parametrize("s", [.003, .03, .1])
def test_information_of_an_attribute_with_ties(steps, s):
    rng = np.random.default_rng(0)
    a = rng.integers(0, steps, 2000) / 26
    z = a[:, None] + s * rng.normal(size=(2000, 1))
    truth = information_of_levels(np.arange(steps) / 26, s)
    found, entropy = level_information(z, a, bins=27)
    theirs = mutual_info_classif(z, (a * 26).round().astype(int), random_state=0)[0]
    assert found[0, 0] == pytest.approx(truth, abs=.06) and entropy[0] == pytest.approx(np.log(steps), abs=.02)
    assert mutual_information(z, a)[0, 0] == pytest.approx(truth, abs=.06)
    assert found[0, 0] == pytest.approx(theirs, abs=.06) and mutual_information(z, a)[0, 0] == pytest.approx(theirs, abs=.06)


def plain_information(rank, levels, k=3):
    "Ross's estimator by search: of two neighbours as far away, the one of lower rank is the nearer."
    n, terms = len(rank), []
    for i in range(n):
        far = 2 * abs(rank - rank[i]) + (rank > rank[i])
        own = np.sort(far[(levels == levels[i]) & (rank != rank[i])])
        if not len(own): continue
        near = min(k, len(own))
        terms.append(digamma(near) - digamma(len(own) + 1) - digamma((far < own[near - 1]).sum()))
    return max(0, digamma(len(terms)) + np.mean(terms))


@given(seeds, st.integers(30, 120), st.integers(2, 12))
def test_fast_information_is_the_plain_one(seed, n, steps):
    rng = np.random.default_rng(seed)
    levels = np.unique(rng.integers(0, steps, n) ** 2, return_inverse=True)[1]
    ranks = np.stack([rng.permutation(n), (levels + rng.normal(size=n)).argsort().argsort()], 1)
    found = M._information(ranks, levels)
    assert found == pytest.approx([plain_information(r, levels) for r in ranks.T])


@pytest.mark.parametrize("n", [300, 2000])
@pytest.mark.parametrize("rho", [0, .5, .9, 1])
def test_fast_information_is_that_of_scikit_learn(n, rho):
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    z = rho * a[:, None] + np.sqrt(1 - rho ** 2) * rng.normal(size=(n, 16))
    levels = M._levels(a, 20)
    ranks = z.argsort(0).argsort(0)
    found = M._information(ranks, levels)
    assert found == pytest.approx(mutual_info_classif(ranks.astype(float), levels, random_state=0), abs=.02)
    assert found.mean() == pytest.approx(mutual_info_classif(z, levels, random_state=0).mean(), abs=.05)


@given(seeds, st.integers(30, 300), st.integers(2, 30), st.integers(1, 60))
def test_levels(seed, n, bins, values):
    a = np.random.default_rng(seed).integers(0, values, n) * .37
    levels = M._levels(a, bins)
    assert set(levels) == set(range(levels.max() + 1)) and levels.max() < bins
    assert all(len(set(levels[a == v])) == 1 for v in np.unique(a))                    # ties stay together
    assert (np.diff(levels[np.argsort(a)]) >= 0).all()                                 # in order
    if len(np.unique(a)) <= bins: assert levels.max() + 1 == len(np.unique(a))
    assert 0 <= M._entropy(levels) <= np.log(levels.max() + 1) + 1e-9


def test_continuous_attributes_are_cut_evenly():
    a = np.random.default_rng(0).normal(size=1000)
    assert set(np.bincount(M._levels(a, 20))) == {50} and np.ptp(np.bincount(M._levels(a[:333], 20))) <= 1


def test_mig_does_not_shrink_with_more_items():
    def one(n):
        z, a = draw(0, n=n)
        z[:, 0] = a[:, 0] + .3 * z[:, 0]
        return mig(z, a)[0]
    assert one(4000) == pytest.approx(one(500), abs=.05)


def test_mig_is_at_most_about_one():
    for n in (30, 100, 1000): assert mig(*codes("aligned", n=n)).max() < 1.1


def test_modularity_of_a_matrix_by_hand(monkeypatch):
    "Dimensions that know (1, 0, 0), (2, 2, 2), (2, 1, 0) and nothing: 1, 0, 1 - 1 / (4 · 2) and 0."
    known = np.array([[1, 0, 0], [2, 2, 2], [2, 1, 0], [0, 0, 0.]])
    monkeypatch.setattr(M, "level_information", lambda *_: (known, None))
    rng = np.random.default_rng(0)
    assert modularity(rng.normal(size=(50, 4)), rng.normal(size=(50, 3))) == pytest.approx((1 + 0 + 7 / 8 + 0) / 4)


def test_mig_of_a_matrix_by_hand(monkeypatch):
    monkeypatch.setattr(M, "level_information", lambda *_: (np.array([[1, .2], [.4, .1], [0, .9]]), np.array([2., 1.])))
    rng = np.random.default_rng(0)
    assert mig(rng.normal(size=(50, 3)), rng.normal(size=(50, 2))) == pytest.approx([.3, .7])


# ---- correlation

@given(seeds)
def test_scc_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    z, a = rng.normal(size=(80, 5)).round(1), rng.integers(0, 5, (80, 2))
    rho = spearmanr(z, a).statistic[:5, 5:]
    assert scc(z, a) == pytest.approx(abs(rho).max(0))


# ---- nulls

@pytest.mark.parametrize("metric", ALL)
def test_null_of_each_metric(metric):
    z, a = codes("aligned", n=300)
    found = permutation_null(metric, z, a, n=39, progress=False)
    assert np.shape(found.value) == np.shape(found.p) == found.null.shape[1:] and len(found.null) == 39
    assert found.value == pytest.approx(score(metric, z, a))
    assert (found.p == (1 + (found.null >= found.value).sum(0)) / 40).all()
    if metric is not modularity: assert found.p == pytest.approx(1 / 40)
    again = permutation_null(metric, z, a, n=39, progress=False)
    other = permutation_null(metric, z, a, n=39, seed=1, progress=False)
    assert (again.null == found.null).all() and (other.null != found.null).any()


def test_null_of_mutual_information():
    z, a = codes("aligned", n=120, dim=3)
    found = permutation_null(mutual_information, z, a, n=19, progress=False)
    assert found.value.shape == (3, 2) and found.p[0, 0] == found.p[1, 1] == 1 / 20


@pytest.mark.parametrize("metric", [interpretability, scc, sap, mig])
def test_p_values_of_noise_are_uniform(metric):
    p = [permutation_null(metric, *draw(s, n=60, dim=4), n=39, seed=s, progress=False).p[0] for s in range(120)]
    assert kstest(p, "uniform").pvalue > 1e-3 and np.mean(np.array(p) <= .1) < .2


def test_rows_are_shuffled_together():
    z, a = draw(0, n=100)
    a = np.stack([a[:, 0], -a[:, 0]], 1)
    seen = []
    def metric(z, a):
        seen.append(a)
        return a[0, 0]
    permutation_null(metric, z, a, n=20, progress=False)
    assert all((b[:, 0] == -b[:, 1]).all() and sorted(b[:, 0]) == sorted(a[:, 0]) for b in seen)
    assert (seen[0] == a).all() and not any((b == a).all() for b in seen[1:])


def test_null_with_fixed_and_free_dimensions():
    z, a = draw(1, n=200, dim=16)
    free = permutation_null(interpretability, z, a, progress=False)
    fixed = permutation_null(interpretability, z, a, dims=(0, 1), progress=False)
    assert fixed.value == pytest.approx(interpretability(z, a, (0, 1)).r2)
    assert -.1 < free.null.mean() < 0 and -.1 < fixed.null.mean() < 0
    same = permutation_null(functools.partial(interpretability, dims=(0, 1)), z, a, progress=False)
    assert (same.null == fixed.null).all() and same.metric == "metric"


def test_null_in_parallel_is_the_same():
    z, a = draw(0, n=100)
    here = permutation_null(scc, z, a, n=20, progress=False)
    with joblib.parallel_config("threading", n_jobs=2): there = permutation_null(scc, z, a, n=20, progress=False)
    assert (here.null == there.null).all()


def test_result_can_be_plotted_and_written_down():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    z, a = draw(0, n=100)
    for metric, panels in ((scc, 2), (modularity, 1), (mutual_information, 4)):
        result = permutation_null(metric, z[:, :2], {"range": a[:, 1], "speed": a[:, 0]}, n=5, progress=False)
        fig = result.plot()
        assert len(fig.axes) == panels and fig.axes[0].get_ylabel() and all(ax.get_xlabel() and ax.get_title() for ax in fig.axes)
        if metric is scc: assert fig.axes[0].get_title().startswith("range: p = ")
        plt.close(fig)
        assert set(result.to_dict()) == {"metric", "value", "p", "shuffles", "null_mean", "null_95"}
    assert isinstance(permutation_null(modularity, z, a, n=5, progress=False).p, float)


def test_progress_can_be_silenced(capfd):
    z, a = draw(0, n=100)
    permutation_null(scc, z, a, n=5)                               # too short for a bar
    permutation_null(scc, z, a, n=5, progress=False)
    assert capfd.readouterr() == ("", "")


# ---- bad input

BAD = {
    "lengths": (lambda z, a: (z, a[:-1]), "z and a must describe the same items, got 600 and 599 rows"),
    "constant": (lambda z, a: (z, {"range": a[:, 0], "tempo": a[:, 1] * 0 + 120}), "'tempo' is constant"),
    "constant column": (lambda z, a: (z, a * [1, 0]), "'attribute 1' is constant"),
    "NaN in z": (lambda z, a: (np.where(z > 1, np.nan, z), a), "z holds NaN or Inf"),
    "NaN in a": (lambda z, a: (z, np.where(a > 1, np.inf, a)), "a holds NaN or Inf"),
    "NaN in a column": (lambda z, a: (z, {"range": a[:, 0] * np.nan}), r"a\['range'\] holds NaN or Inf"),
    "too few": (lambda z, a: (z[:29], a[:29]), "30 rows or more, got 29"),
    "empty": (lambda z, a: (z[:0], a[:0]), "30 rows or more, got 0"),
    "one code": (lambda z, a: (z[:, 0], a), r"z must be \(n, dim\) with dim ≥ \d, got shape \(600,\)"),
    "no dimension": (lambda z, a: (z[:, :0], a), r"z must be \(n, dim\)"),
    "no attribute": (lambda z, a: (z, a[:, :0]), r"a must be \(n, k\)"),
    "no attribute at all": (lambda z, a: (z, {}), "a holds no attribute"),
    "three axes": (lambda z, a: (z[None], a), r"z must have the items in rows, got shape \(1, 600, 6\)"),
    "words": (lambda z, a: (z, np.array(["high", "low"] * 300)), "a must hold numbers, got dtype <U4"),
    "columns differ": (lambda z, a: (z, {"x": a[:, 0], "y": a[:-1, 1]}), r"columns \(n,\) of one length, got .*599"),
    "columns of two axes": (lambda z, a: (z, {"x": a}), r"columns \(n,\) of one length"),
}


@pytest.mark.parametrize("metric", [*ALL, mutual_information, level_information, functools.partial(permutation_null, scc)])
@pytest.mark.parametrize("case", BAD)
def test_bad_input(metric, case):
    spoil, message = BAD[case]
    with pytest.raises(ValueError, match=message): metric(*spoil(*draw()))


@pytest.mark.parametrize("dims", [[0], [0, 1, 2], [0, 6], [-1, 0], [0., 1.], [True, False], [[0, 1]], "01", 0])
def test_bad_dims(dims):
    with pytest.raises(ValueError, match="dims must be 2 whole numbers in 0 … 5, one an attribute, got"): interpretability(*draw(), dims)


def test_other_bad_settings():
    z, a = draw()
    for metric in (sap, mig):
        with pytest.raises(ValueError, match="dim ≥ 2"): metric(z[:, :1], a)
    with pytest.raises(ValueError, match="k ≥ 2"): modularity(z, a[:, 0])
    for metric in (mig, modularity, level_information):
        with pytest.raises(ValueError, match="bins must be a whole number of at least 2, got 1"): metric(z, a, bins=1)
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got 0"): permutation_null(scc, z, a, n=0)
    with pytest.raises(ValueError, match="metric returned nan"): permutation_null(lambda z, a: np.nan, z, a)


def test_an_attribute_that_changes_in_one_half_only():
    z, a = draw()
    rare = np.zeros(len(z))
    rare[17] = 1
    with pytest.raises(ValueError, match="'rare' is constant in one half of the items"): interpretability(z, {"rare": rare})
    for metric in (scc, sap, mig): assert np.isfinite(metric(z, rare)).all()


@pytest.mark.parametrize("n", [30, 31, 45])
def test_fewest_items(n):
    for metric in (*ALL, mutual_information): assert np.isfinite(score(metric, *draw(n=n))).all()


def test_import_is_light():
    "The module needs the core dependencies only, and no matplotlib until something is drawn."
    code = "import sys, oplas.metrics; assert not {'matplotlib', 'IPython', 'librosa', 'music21', 'torch'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
