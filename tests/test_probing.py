"""Probing: what any decoder may return, how batches and stopped work behave, the statistics against scipy and against truth, and on
a cluster of two workers the same numbers to the bit."""
import functools, math, warnings

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

import oplas.probing as P
from oplas.models import fresh
from oplas.music import HOLD, REST
from oplas.pretrained import MusicVAE
from oplas.probing import (METHODS, KINDS, chance, directions, discrepancy, explained, holm, largest_correlation, latin_hypercube, mds_map,
                           melody_model, planted, probe, ranges, reading, silent, steer, trend)

torch.set_num_threads(1)
POINTS = latin_hypercube(20, 6, spread=.8)


def double(z): return 2 * z
def first(batch): return batch[:, 0]
def second(batch): return batch[:, 1]


BOTH = {"first": first, "second": second}


# --- where to ask

@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.sampled_from([("normal", 1.), ("normal", .5), ("uniform", 3.)]), st.integers(0, 99))
def test_each_slice_of_each_dimension_holds_one_point(n, dim, how, seed):
    prior, spread = how
    z = latin_hypercube(n, dim, prior, spread, seed).double().numpy()
    unit = stats.norm.cdf(z / spread) if prior == "normal" else (z / spread + 1) / 2
    assert all(sorted(np.floor(column * n).clip(0, n - 1).astype(int)) == [*range(n)] for column in unit.T)
    assert np.array_equal(z, latin_hypercube(n, dim, prior, spread, seed).double().numpy())


def test_normal_points_are_distributed_as_the_prior():
    z = latin_hypercube(1000, 3)
    assert all(stats.kstest(column, "norm").statistic < .002 for column in z.T.numpy())   # random points: about .03


@pytest.mark.parametrize("bad", [dict(n=1), dict(dim=0), dict(prior="flat"), dict(spread=0.), dict(spread=math.nan), dict(seed=-1), dict(n=2.5)])
def test_points_refuse(bad):
    with pytest.raises(ValueError, match=[*bad][0]): latin_hypercube(**{"n": 10, "dim": 2, **bad})


def test_discrepancy_tells_even_from_uneven():
    even, odd = latin_hypercube(64, 2, "uniform"), torch.rand(64, 2) * .2
    assert discrepancy(even, "uniform") < discrepancy(odd, "uniform")
    with pytest.raises(ValueError, match="points must lie within"): discrepancy(2 * even, "uniform")


# --- asking

def test_codes_lie_round_their_points():
    found = probe(double, BOTH, POINTS, 400, .5)
    assert found.z.shape == (20, 400, 6) and found.values.shape == (20, 400, 2)
    offset = found.z - POINTS[:, None]
    assert abs(offset.mean()) < .01 and abs(offset.std() - .5) < .01
    assert np.allclose(found.values[..., 0], 2 * found.z[..., 0].numpy(), atol=1e-6)
    assert [*found.to_dict()] == ["cell", "first", "second"] and len(found.to_dict()["cell"]) == 8000


def test_batches_do_not_change_the_numbers():
    whole_, parts = (probe(double, BOTH, POINTS, 50, .5, memory=m) for m in (64, .01))
    assert np.array_equal(whole_.values, parts.values)
    sizes = []
    probe(lambda z: sizes.append(len(z)) or z, BOTH, POINTS, 50, .5, memory=.01)
    assert max(sizes) * 48 <= .01 * 2 ** 20 and sum(sizes) == 1004      # two to measure, two to tell decoders apart


def test_other_seeds_give_other_codes():
    a, b = (probe(double, BOTH, POINTS, 10, .5, seed=s).values for s in (0, 1))
    assert not np.array_equal(a, b)


def test_loky_gives_the_same():
    with joblib.parallel_config(backend="loky", n_jobs=2): spread = probe(double, BOTH, POINTS, 50, .5, memory=.01)
    assert np.array_equal(spread.values, probe(double, BOTH, POINTS, 50, .5, memory=.01).values)


def test_a_cluster_gives_the_same():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp") as cluster, distributed.Client(cluster):
        with joblib.parallel_config(backend="dask"): spread = probe(double, BOTH, POINTS, 50, .5, memory=.01)
    assert np.array_equal(spread.values, probe(double, BOTH, POINTS, 50, .5, memory=.01).values)


class Stops:
    "A decoder that is stopped at its k-th call."
    def __init__(self, k): self.k, self.calls = k, 0
    def __call__(self, z):
        self.calls += 1
        if self.calls == self.k: raise KeyboardInterrupt
        return 2 * z


def test_stopped_and_resumed(tmp_path):
    ask = functools.partial(probe, attributes=BOTH, points=POINTS, samples_per_point=50, sigma=.5, memory=.01)
    with pytest.raises(KeyboardInterrupt): ask(Stops(5), folder=tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 2
    later = Stops(99)
    assert np.array_equal(ask(later, folder=tmp_path).values, ask(double).values)
    assert later.calls == len([*tmp_path.iterdir()])
    kept[0].write_bytes(kept[0].read_bytes()[:-9])                              # damaged: asked again
    assert np.array_equal(ask(double, folder=tmp_path).values, ask(double).values)
    for other in (dict(decode=lambda z: 3 * z), dict(decode=double, sigma=.6), dict(decode=double, seed=1), dict(decode=double, attributes={"first": first})):
        with pytest.raises(ValueError, match="belongs to another probe"): ask(**other, folder=tmp_path)


def test_a_failing_attribute_is_told_and_the_others_kept():
    def fussy(batch):
        if (batch[:, 0] > 3).any(): raise RuntimeError("too bright")
        return batch[:, 1]
    with pytest.warns(UserWarning, match="fussy failed on some outputs, first: RuntimeError: too bright"):
        found = probe(double, {"fussy": fussy, "first": first}, POINTS, 50, .5)
    bright = int((2 * found.z[..., 0] > 3).sum())
    assert found.left_out == {"fussy": bright} and bright > 0
    assert len(found.items("fussy")[1]) == 1000 - bright and len(found.items("first")[1]) == 1000
    assert trend(found, "fussy").r2 > .99 and found.matrix().shape == (2, 2)


def test_empty_outputs_are_counted_and_left_out():
    found = probe(double, BOTH, POINTS, 50, .5, empty=lambda batch: batch[:, 0] < 0)
    none = int((found.z[..., 0] < 0).sum())
    assert found.left_out == {"first": none, "second": none} and (found.items("second")[0][:, 0] >= 0).all()


def test_an_attribute_that_says_nothing():
    with pytest.warns(UserWarning, match="same is left out: 1000 outputs have it, and no two differ"):
        found = probe(double, {"same": lambda b: np.ones(len(b)), "first": first}, POINTS, 50, .5)
    assert found.names == ("first",)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="attributes: none of same differs"):
        probe(double, {"same": lambda b: np.ones(len(b))}, POINTS, 50, .5)


def test_codes_outside_the_prior_are_told():
    with pytest.warns(UserWarning, match="100% of the codes lie where the prior"):
        assert probe(double, BOTH, latin_hypercube(20, 32, "uniform", 3.), 10, 8.33).outside > .99
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe(double, BOTH, latin_hypercube(20, 32, spread=.8), 10, .6).outside < .01


@pytest.mark.parametrize("bad, words", [
    (dict(decode=lambda z: z[:-1]), "decode must return an item for each code, got 1 for 2 codes"),
    (dict(decode=lambda z: None), "decode must return an item for each code, got NoneType"),
    (dict(decode=lambda z: z * math.nan), "what decode returned holds NaN"),
    (dict(decode=3), "decode must be a function"), (dict(attributes={}), "attributes must be functions"),
    (dict(attributes=[first]), "attributes must be functions"), (dict(attributes={"a": 1}), "attributes must be functions"),
    (dict(attributes={"a": lambda b: b}), "attributes: a must return a number for each item, got shape"),
    (dict(attributes={"a": lambda b: 1.}), "attributes: a must return a number for each item"),
    (dict(points=POINTS[:1]), "points must be"), (dict(points=POINTS * math.inf), "points holds NaN or Inf"),
    (dict(points=POINTS.long()), "points must be"), (dict(samples_per_point=1), "samples_per_point must be a whole number of at least 2"),
    (dict(sigma=0.), "sigma must be a finite number above 0"), (dict(sigma=-1.), "sigma must"), (dict(seed=-1), "seed must"),
    (dict(memory=1e-6), "memory must hold at least one code and its output"), (dict(memory=0), "memory must be a finite number above 0")])
def test_probe_refuses(bad, words):
    with pytest.raises(ValueError, match=words): probe(**{"decode": double, "attributes": BOTH, "points": POINTS, "samples_per_point": 10, **bad})


def test_lists_are_a_batch_too():
    sounds = lambda z: [np.zeros(int(5 + abs(v) * 10)) for v in z[:, 0]]
    found = probe(sounds, {"length": lambda batch: [len(x) for x in batch]}, POINTS, 10, .5)
    assert found.names == ("length",) and found.values.min() >= 5


# --- what it says

FOUND = probe(double, {**BOTH, "sum": lambda b: b[:, 0] + b[:, 1]}, latin_hypercube(60, 6, spread=.8), 32, .6)


def test_correlations_are_those_of_scipy():
    z, a, _ = FOUND.items("sum")
    assert FOUND.correlations()[2, 2] == pytest.approx(stats.pearsonr(z[:, 2], a).statistic)
    centres, means, cells = FOUND.items("sum", "cell")
    assert FOUND.correlations("cell")[0, 2] == pytest.approx(stats.pearsonr(centres[:, 0], means).statistic) and [*cells] == [*range(60)]
    assert largest_correlation(z, a[:, None])[0] == pytest.approx(np.abs(FOUND.correlations()[:, 2]).max())
    with pytest.raises(ValueError, match="name must be one of first, second, sum, got 'third'"): FOUND.items("third")


def test_chance_of_the_largest_grows_with_dimensions():
    rng = np.random.default_rng(0)
    a, small, large = rng.standard_normal((100, 1)), rng.standard_normal((100, 4)), rng.standard_normal((100, 256))
    tops = [np.median(P.permutation_null(largest_correlation, z, a, 200, progress=False).null) for z in (small, large)]
    assert tops[0] < .2 < tops[1]
    assert chance(FOUND, "first", 99).p[0] == pytest.approx(.01)


def test_share_between_cells_is_the_variance_that_was_put_there():
    rng = np.random.default_rng(0)
    for share in (.1, .5, .9):
        found = probe(double, {"first": first}, latin_hypercube(400, 3, spread=share ** .5), 50, (1 - share) ** .5, seed=int(rng.integers(99)))
        assert explained(found, "first") == pytest.approx(share, abs=.04)


def test_direction_and_axis():
    along = trend(FOUND, "sum")
    wanted = torch.tensor([1., 1, 0, 0, 0, 0]) / 2 ** .5
    assert along.direction @ wanted > .9999 and along.r2 > .999 and .3 < along.r2_axis < .7 and along.axis in (0, 1)
    assert along.plot().axes[0].get_ylabel() == "sum"


def test_ranges_are_chosen_and_shown_on_different_samples():
    noise = {"noise": lambda b: torch.sin(1e4 * b[:, 0])}
    found = probe(double, noise, latin_hypercube(100, 6, spread=.8), 64, .6)
    low = ranges(found, "noise")
    means = np.nanmean(found.values[..., 0], 1)
    assert means[low.cells["high"]] > means[low.cells["low"]]
    honest = [row["Mann–Whitney"] for seed in range(20) for row in ranges(probe(double, noise, latin_hypercube(30, 6, spread=.8, seed=seed), 64, .6, seed=seed), "noise").tests()
              if row["pair"] == "low/high"]
    assert np.mean(np.array(honest) < .05) < .25
    assert stats.kstest(honest, "uniform").pvalue > .001
    low, *_, high = sorted(found.values[..., 0].tolist(), key=np.mean)           # chosen by what is tested: a difference where there is none
    assert stats.mannwhitneyu(low, high).pvalue < .05


def test_effect_sizes():
    r = P.Ranges("a", {}, {"low": np.arange(10.), "middle": np.arange(10.) + 100, "high": np.arange(10.) + 1})
    rows = {row["pair"]: row for row in r.tests()}
    assert rows["low/middle"]["δ"] == 1 and rows["middle/high"]["δ"] == -1
    assert rows["low/high"]["d"] == pytest.approx(1 / np.arange(10.).std(ddof=1))
    assert rows["low/high"]["Welch"] == pytest.approx(stats.ttest_ind(np.arange(10.), np.arange(10.) + 1, equal_var=False).pvalue)


def test_too_few_cells_for_ranges():
    few = probe(double, BOTH, POINTS[:2], 10, .5)
    with pytest.raises(ValueError, match="found must have 3 cells"): ranges(few, "first")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p):
    q = holm(p)
    order = np.argsort(p, kind="stable")
    assert (q >= np.array(p) - 1e-12).all() and (q <= 1).all() and (np.diff(q[order]) >= -1e-12).all()
    assert q[order[0]] == pytest.approx(min(1, len(p) * p[order[0]]))


def test_map_keeps_distances_of_a_plane():
    flat = latin_hypercube(30, 2) @ torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    found = probe(double, BOTH, flat, 4, .5)
    assert np.allclose(torch.pdist(torch.from_numpy(mds_map(found))), torch.pdist(flat.double()), rtol=.02, atol=.02)


# --- moving

def test_steering_measures_slope_leak_and_chance():
    u = torch.tensor([3., 0, 0, 0, 0, 0])                            # any length
    moved = steer(double, {"right": u, "up": u.roll(1), "wrong": u.roll(3)}, BOTH)
    assert moved.slope("right", "first") == pytest.approx(1, abs=.25) and moved.leak("right", "first") < 1e-5
    assert moved.p("right", "first") == .01 and moved.p("wrong", "first") > .5
    assert np.allclose(moved.slopes[0, 0], moved.null[:, 0].std() * 6 ** .5, rtol=.35)
    assert moved.plot().axes
    for label, name in (("left", "first"), ("right", "third")):
        with pytest.raises(ValueError, match="must be one of"): moved.slope(label, name)


def test_a_direction_that_reads_and_does_not_steer():
    "The encoder's world ties two numbers; the decoder listens to one of them."
    def deaf(z): return z[:, :1].expand(-1, 2)
    moved = steer(deaf, {"the other": torch.eye(6)[1]}, {"first": first})
    assert moved.slope("the other", "first") == 0 and moved.p("the other", "first") == 1


@pytest.mark.parametrize("bad, words", [
    (dict(directions={"a": torch.zeros(6, 1)}), "directions: a must be"), (dict(n=1), "n must"), (dict(random=0), "random must"),
    (dict(directions={"a": torch.zeros(6)}), "directions: a must be longer than 0"), (dict(directions={}), "directions must be at least one"),
    (dict(decode=lambda z: z[:1]), "decode must return an item for each code")])
def test_steer_refuses(bad, words):
    with pytest.raises(ValueError, match=words): steer(**{"decode": double, "directions": {"a": torch.ones(6)}, "attributes": BOTH, **bad})


# --- planted truth

@pytest.mark.parametrize("kind", KINDS)
def test_planted_truth_is_what_steering_finds(kind):
    world = planted(kind, seed=5)
    assert world.decode(torch.zeros(3, 32)).shape == (3, 16)
    z = torch.randn(50, 32)
    assert torch.equal(world.decode(z)[7:9], world.decode(z[7:9])) or torch.allclose(world.decode(z)[7:9], world.decode(z[7:9]), atol=1e-5)
    for name, rows in world.truth.items():
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
        if len(rows): assert world.cosine(name, rows[0] * 7) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_methods_on_an_axis(method):
    world = planted("axis", dim=12, seed=1)
    found = probe(world.decode, world.attributes, latin_hypercube(100, 12, spread=.8), 32, .6)
    u = directions(found, method, world.decode)
    assert all(v.norm() == pytest.approx(1, abs=1e-5) for v in u.values()) and world.cosine("first", u["first"]) > .7
    assert reading(found, "first", u["first"]).rho > .5 and reading(found, "first", u["first"]).p < 1e-6
    assert steer(world.decode, u, world.attributes).slope("first", "first") > .3


def test_unknown_kind_method_dimension():
    with pytest.raises(ValueError, match="kind must be one of axis"): planted("knot")
    with pytest.raises(ValueError, match="dim must"): planted("axis", dim=6)
    with pytest.raises(ValueError, match="method must be one of axis"): directions(FOUND, "tea leaves", double)


# --- melodies

def test_silent():
    assert silent(torch.tensor([[REST] * 32, [HOLD] * 32, [60] + [HOLD] * 31])).tolist() == [True, True, False]


def test_weights_from_outside_are_used(tmp_path, monkeypatch):
    from test_pretrained import VARIABLES, write_tfjs
    write_tfjs(tmp_path, VARIABLES)
    monkeypatch.setenv("OPLAS_MUSICVAE", str(tmp_path))
    model = melody_model()
    assert isinstance(model, MusicVAE)
    found = probe(model.decode, P.MELODY, latin_hypercube(10, model.dim, spread=.8), 8, .6)
    assert found.values.shape[:2] == (10, 8)


def test_places_on_a_map_are_all_different():
    places = P._spread_out(np.array([[0., 0], [0, .001], [1, 1], [1, 1], [1.0001, 1]]), 2.9)
    assert len(places.unique(dim=0)) == 5 and places.abs().max() <= 2.95
