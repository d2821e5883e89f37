"""Surrogates, searches and knobs on tones whose level and brightness a formula gives: the truth is known, and nothing waits for a sampler.
What a decoder, a prior, a folder or a file may do wrong is told from what it may do."""
import functools, json, os, warnings

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from sklearn.exceptions import NotFittedError

import oplas.surrogates as S
from oplas.cache import write
from oplas.descriptors import DESCRIPTORS
from oplas.probing import latin_hypercube
from oplas.surrogates import (CONTROLS, DECODES, FittedKnob, Heard, Knob, Surrogate, Synth, Word, across_pitches, dependence, domain, follow,
                              heatmap, importance, invert, listen, make_knob, mapping, navigate, score, transfer)

torch.set_num_threads(1)
RATE, T = 22_050, torch.arange(2205) / 22_050       # a tenth of a second: whole periods of 300 and 3000 Hz
PRIOR = functools.partial(latin_hypercube, dim=3)
Z = PRIOR(100, seed=3)


def pair(decibels, share):
    "Two sines of a level in all, the upper with a share of the power, (n, samples)."
    low, high = (torch.sin(2 * np.pi * hz * T) for hz in (300, 3000))
    return 10 ** (decibels[:, None] / 20) * 2 ** .5 * ((1 - share)[:, None].sqrt() * low + share[:, None].sqrt() * high)

def tones(z): return pair(-30 + 4 * z[:, 0], torch.sigmoid(z[:, 1]))     # the third number does nothing

def turned(dim):
    "A generator of that size: level and share along two directions that no axis shows."
    ways = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, 2)))[0] if dim > 1 else np.array([[.1, 1.]])
    return lambda z: tones(z @ torch.from_numpy(ways).float())

def prior_of(dim): return functools.partial(latin_hypercube, dim=dim)

def truth(z):
    "Level and centre of what `tones` makes."
    z = np.asarray(z, dtype=float)
    return np.stack([-30 + 4 * z[:, 0], 300 + 2700 / (1 + np.exp(-z[:, 1]))], 1)

def level(audio, rate): return 10 * audio.square().mean(1).log10()

def centre(audio, rate):
    power = torch.fft.rfft(audio).abs().square()
    return (power * torch.fft.rfftfreq(audio.shape[1], 1 / rate)).sum(1) / power.sum(1)

OWN = {"level": level, "centre": centre}

def same(audio, rate): return torch.full((len(audio),), 7.)

def hear(decode, z=Z, **settings): return listen(decode, z, **{"descriptors": OWN, "progress": False} | settings)

def learn(decode=tones, prior=PRIOR, descriptors=OWN, n=100, seed=0, **settings):
    return Surrogate(decode, prior, descriptors).fit(n, seed, progress=False, **settings)

class Counted:
    "A decoder, and how many codes it was asked for at each call."
    def __init__(self, decode): self.decode, self.calls = decode, []
    def __call__(self, z):
        self.calls.append(len(z))
        return self.decode(z)

@pytest.fixture(scope="module")
def surrogate(): return learn(n=300)


# --- listening

def test_what_is_heard_is_true():
    heard = hear(tones)
    assert heard.names == ("level", "centre") and heard.left_out == {} and heard.length == len(T)
    assert torch.equal(heard.z, Z) and np.allclose(heard.values, truth(Z), rtol=1e-4)

@pytest.mark.parametrize("given", [Z.numpy(), Z.double(), Z.double().numpy(), Z.tolist()])
def test_codes_may_be_arrays_and_of_any_precision(given):
    heard = hear(tones, given)
    assert heard.z.dtype == torch.float32 and np.array_equal(heard.values, hear(tones).values)

@pytest.mark.parametrize("returned", [lambda a: a.numpy(), lambda a: a.double(), list, lambda a: a.clone().requires_grad_(), lambda a: [*a.numpy()]])
def test_a_decoder_may_return_arrays_lists_and_gradients(returned):
    assert np.allclose(hear(lambda z: returned(tones(z))).values, truth(Z), rtol=1e-4)

BROKEN = {"silence": lambda sound: 0 * sound, "NaN or Inf": lambda sound: sound / 0, "another length": lambda sound: sound[:-1]}

@pytest.mark.parametrize("why", BROKEN)
def test_what_cannot_be_described_is_left_out_and_counted(why):
    bad = Z[:, 2] > .8
    with pytest.warns(UserWarning, match=rf"{bad.float().mean():.0%} of 100 sounds are left out: {bad.sum()} × {why}"):
        heard = hear(lambda z: [BROKEN[why](x) if code[2] > .8 else x for x, code in zip(tones(z), z)])
    assert heard.left_out == {why: bad.sum()} and torch.equal(heard.z, Z[~bad]) and np.allclose(heard.values, truth(Z[~bad]), rtol=1e-4)

def test_all_reasons_at_once_and_nothing_is_said_of_a_few():
    few = {tuple(Z[k].tolist()): change for k, change in zip((1, 40, 70), BROKEN.values())}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heard = hear(lambda z: [few.get(tuple(code.tolist()), lambda x: x)(x) for x, code in zip(tones(z), z)])
    assert heard.left_out == dict.fromkeys(BROKEN, 1) and len(heard.z) == 97

@pytest.mark.parametrize("decode, told", [
    (lambda z: tones(z)[1:], "a sound .samples,. for each of 32 codes, got 31"), (lambda z: [], "got 0"),
    (lambda z: tones(z)[:, None], r"of shape \(1, 2205\)"), (lambda z: tones(z)[0], r"got 2205 of shape \(\)"),
    (lambda z: 0 * tones(z), "nothing to describe from 100 codes: 100 × silence"), (lambda z: tones(z)[:, :100], "audio must last")])

def test_a_decoder_that_is_none_is_refused(decode, told):
    with pytest.raises(ValueError, match=told): hear(decode)

def test_what_a_decoder_raises_goes_through():
    with pytest.raises(ZeroDivisionError): hear(lambda z: 1 / 0)

@pytest.mark.parametrize("z", [Z[0], Z[:0], Z[:, :0], Z[None], Z * float("nan"), Z / 0])
def test_bad_codes_are_named(z):
    with pytest.raises(ValueError, match="^z "): hear(tones, z)

@pytest.mark.parametrize("bad, told", [({}, "^descriptors must"), (["level"], "^descriptors must"), ({"level": "loud"}, "^descriptors must"),
                                       ({"sum": lambda a, r: a}, "sum must return a number"), ({"odd": lambda a, r: a.mean(1) / 0}, "odd returned")])

def test_bad_descriptors_are_named(bad, told):
    with pytest.raises(ValueError, match=told): hear(tones, descriptors=bad)

@pytest.mark.parametrize("how", [dict(n_jobs=2), dict(n_jobs=2, backend="threading")])
def test_in_parallel_it_hears_the_same(how, tmp_path):
    with joblib.parallel_config(**how): found = hear(tones, folder=tmp_path)
    assert np.array_equal(found.values, hear(tones).values) and len([*tmp_path.iterdir()]) == 3

def test_batches_make_no_difference():
    assert np.allclose(np.concatenate([hear(tones, part).values for part in Z.split(7)]), hear(tones).values, rtol=1e-5)


# --- listening, resumed

def stopped_at(call):
    "A decoder that is stopped by hand at a call."
    decode = Counted(tones)
    def stops(z):
        if len(decode.calls) == call: raise KeyboardInterrupt
        return decode(z)
    return stops

def test_work_that_was_stopped_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt): hear(stopped_at(3), folder=tmp_path)     # the first batch, four codes again, a batch
    assert len([*tmp_path.iterdir()]) == 1
    again = Counted(tones)
    assert np.array_equal(hear(again, folder=tmp_path).values, hear(tones).values)
    assert again.calls == [32, 4, 32, 4]       # the first batch and its check are always heard; one of three others was kept
    last = Counted(tones)
    assert np.array_equal(hear(last, folder=tmp_path).values, hear(tones).values) and last.calls == [32, 4]

@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"", lambda b: b"x" * 500, lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]])
def test_a_damaged_batch_is_made_again(damage, tmp_path):
    whole = hear(tones, folder=tmp_path)
    path = tmp_path / "000002.safetensors"
    good = path.read_bytes()
    path.write_bytes(damage(good))
    again = Counted(tones)
    assert np.array_equal(hear(again, folder=tmp_path).values, whole.values) and again.calls == [32, 4, 32] and path.read_bytes() == good

@pytest.mark.parametrize("other", [
    dict(decode=lambda z: .5 * tones(z)), dict(z=Z + .1), dict(z=PRIOR(160, seed=3)), dict(z=torch.cat([Z[:70], Z[70:] + 1])),
    dict(descriptors={"level": level}), dict(descriptors=dict(reversed(OWN.items()))), dict(sample_rate=24_000),
    dict(descriptors=OWN | {"level": lambda a, r: 1 + level(a, r)})])

def test_the_folder_of_another_question_is_refused(other, tmp_path):
    hear(tones, folder=tmp_path)
    with pytest.raises(ValueError, match="^folder: .* belongs to other"): hear(**{"decode": tones, "folder": tmp_path} | other)

def test_a_decoder_that_changes_by_chance_may_be_resumed(tmp_path):
    def chance(z): return tones(z) * (1 + .1 * torch.randn(len(z), 1))
    kept = hear(chance, folder=tmp_path)
    assert np.array_equal(hear(chance, folder=tmp_path).values[32:], kept.values[32:])


# --- spreads

def spreads_of(values):
    "Scales of a column of numbers."
    spreads = S.Spreads()
    spreads.learn_spreads(Heard(torch.randn(len(values), 1, generator=torch.Generator().manual_seed(0)), values[:, None], ("a",), {}, 9))
    return spreads

@settings(max_examples=25)
@given(st.integers(0, 999), st.sampled_from([np.exp, np.tanh, np.square, lambda v: -np.exp(2 * v), lambda v: v - 20]))
def test_units_and_spreads_are_two_names_of_one_thing(seed, shape):
    values = shape(np.random.default_rng(seed).standard_normal(50))
    spreads = spreads_of(values)
    steps = spreads.to_steps(spreads.values_)
    assert np.allclose(spreads.to_units(steps)[:, 0], values, rtol=1e-7, atol=1e-9) and np.allclose(steps.std(), 1) and np.allclose(steps.mean(), 0, atol=1e-6)
    assert (np.argsort(steps[:, 0]) == np.argsort(values)).all()

def test_places_and_codes_are_two_names_of_one_thing(surrogate):
    x = surrogate.to_x(surrogate.z_)
    assert np.allclose(surrogate.to_z(x), surrogate.z_, atol=1e-6) and np.allclose(x.mean(0), 0, atol=1e-6) and np.allclose(x.std(0, ddof=1), 1)

def test_nothing_is_promised_that_no_sample_has(surrogate):
    units = surrogate.to_units(np.array([[99, -99.], [-99, 99]]))
    assert np.allclose(units, [[surrogate.values_[:, 0].max(), surrogate.values_[:, 1].min()], [surrogate.values_[:, 0].min(), surrogate.values_[:, 1].max()]])

def test_a_descriptor_that_never_changes_is_left_out():
    with pytest.warns(UserWarning, match="same is left out"): found = learn(descriptors=OWN | {"same": same})
    assert found.names == ("level", "centre") and found.predict(Z).shape == (100, 2)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="20 sounds that differ"): learn(descriptors={"same": same})

def test_twenty_sounds_must_be_left():
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="got 10, "):
        learn(lambda z: tones(z) * (z[:, :1] > 0), n=20)


# --- learning

def test_it_tells_what_a_sound_will_be_like(surrogate):
    z = PRIOR(200, seed=77)
    off = np.abs(surrogate.steps(z) - surrogate.to_steps(truth(z)))
    assert off.mean() < .03 and np.quantile(off, .95) < .1
    assert np.allclose(surrogate.predict(z), surrogate.to_units(surrogate.steps(z)))

def test_the_seed_decides_codes_and_network():
    a, b, c = (learn(seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(a.predict(Z), b.predict(Z)) and not np.array_equal(a.predict(Z), c.predict(Z))
    assert torch.equal(a.z_, PRIOR(100, seed=0)) and torch.equal(c.z_, PRIOR(100, seed=1))

def test_it_resumes_as_listening_does(tmp_path):
    learn(folder=tmp_path)
    decode = Counted(tones)
    again = learn(decode, folder=tmp_path)
    assert decode.calls == [2, 32, 4] and np.array_equal(again.predict(Z), learn().predict(Z))

@pytest.mark.parametrize("prior, told", [
    (lambda n, seed: PRIOR(10, seed=seed), r"^prior must be .* \(100, dim"), (lambda n, seed: PRIOR(n, seed=seed).numpy(), "^prior must be"),
    (lambda n, seed: PRIOR(n, seed=seed)[:, 0], "^prior must be"), (lambda n, seed: PRIOR(n, seed=seed) / 0, "^prior holds NaN"),
    (lambda n, seed: PRIOR(n, seed=seed).long(), "^prior must be"), (lambda n, seed: PRIOR(n, seed=seed).tolist(), "^prior must be"),
    (functools.partial(latin_hypercube, dim=5), "^prior gives codes of 5 numbers, which decode refuses")])

def test_a_prior_that_does_not_fit_is_named(prior, told):
    with pytest.raises(ValueError, match=told): learn(lambda z: tones(z @ torch.eye(3)), prior)

def test_a_prior_of_float64_fits(): assert learn(prior=lambda n, seed: PRIOR(n, seed=seed).double()).predict(Z.double()).shape == (100, 2)

@pytest.mark.parametrize("bad", [dict(n=19), dict(n=40.), dict(n=True), dict(seed=-1), dict(seed=None)])
def test_bad_settings_of_fit_are_named(bad):
    with pytest.raises(ValueError, match=f"^{[*bad][0]} must be a whole number"): learn(**bad)

@pytest.mark.parametrize("z", [Z[0], Z[:, :2], Z[:0], Z.long()])
def test_codes_of_another_size_are_named(surrogate, z):
    for call in (surrogate.predict, surrogate.steps):
        with pytest.raises(ValueError, match="^z must be a float tensor of shape"): call(z)

def test_it_takes_arrays_and_lists(surrogate):
    for given in (Z.numpy(), Z.double(), Z.tolist()): assert np.allclose(surrogate.predict(given), surrogate.predict(Z))

def test_some_descriptors_from_the_same_sounds(surrogate):
    few = surrogate.only(["centre"])
    assert few.names == ("centre",) and [*few.described()] == ["centre"] and few.predict(Z).shape == (100, 1)
    assert np.corrcoef(few.predict(Z)[:, 0], truth(Z)[:, 1])[0, 1] > .999
    for bad in (["loud"], "level", [None]):
        with pytest.raises(ValueError, match="^names must be one of level, centre"): surrogate.only(bad)
    with pytest.raises(ValueError): surrogate.only([])

BEFORE = {"predict": lambda s: s.predict(Z), "steps": lambda s: s.steps(Z), "heard": lambda s: s.heard(Z), "described": lambda s: s.described(),
          "only": lambda s: s.only(["level"]), "score": score, "importance": importance, "mapping": mapping, "heatmap": heatmap,
          "dependence": lambda s: dependence(s, "level"), "navigate": lambda s: navigate(s, Z, {"level": 1.}), "invert": lambda s: invert(s, {"level": 1.}),
          "follow": lambda s: follow(s, {"level": [1.]}), "make_knob": lambda s: make_knob(s, "level")}

@pytest.mark.parametrize("call", BEFORE)
def test_nothing_is_answered_before_fit(call):
    with pytest.raises(NotFittedError): BEFORE[call](Surrogate(tones, PRIOR, OWN))

def test_slopes_are_those_of_the_network(surrogate):
    net, x = surrogate.net_, np.random.default_rng(0).standard_normal((20, 3))
    y, slope = net.slope(x)
    assert np.array_equal(y, net(x)) and slope.shape == (20, 2, 3)
    step = 1e-6 * np.eye(3)
    finite = np.stack([(net(x + d) - net(x - d)) / 2e-6 for d in step], 2)
    assert np.allclose(slope, finite, atol=1e-7)
    by_torch = torch.from_numpy(x).requires_grad_()
    rows = S._said(net, by_torch).sum(0)
    auto = torch.stack([torch.autograd.grad(row, by_torch, retain_graph=True)[0] for row in rows], 1)
    assert np.allclose(slope, auto, atol=1e-12)


# --- how well, and why

def test_the_ceiling_is_one_unless_chance_is_in_the_sound(surrogate):
    found = score(surrogate, 60)
    assert np.array_equal(found.ceiling, [1, 1]) and (found.r2 > .99).all() and (found.hair > .99).all()
    assert found.linear[0] > .999 and found.linear[1] < found.r2[1]          # a level in dB is a straight line, a share is none

def test_a_ceiling_is_the_share_that_the_code_decides():
    def chance(z): return tones(z) * 10 ** (4 * torch.randn(len(z), 1) / 20)      # as many dB as the code sets
    torch.manual_seed(0)
    found = score(learn(chance), 400)
    assert abs(found.ceiling[0] - .5) < .1 and found.ceiling[1] > .999 and found.r2[0] < .6 < .99 < found.r2[1]

def test_a_jump_is_seen_a_hair_away():
    def jumps(z): return pair(-30 + 4 * z[:, 0], ((z[:, 1] * 20).floor() % 2) * .5 + .2)
    found = score(learn(jumps), 200)
    assert found.ceiling[1] == 1 and found.hair[1] < .9 < found.hair[0]

def test_the_one_number_that_matters_is_found():
    lost = importance(learn(descriptors={"level": level}), 80)
    for by in ("surrogate", "forest"): assert lost[by].shape == (1, 3) and lost[by][0, 0] > 1 and np.abs(lost[by][0, 1:]).max() < .1

def test_a_dependence_is_a_line_where_the_descriptor_is_one(surrogate):
    at, curves = dependence(surrogate, "level")
    assert curves.shape == (3, len(at)) and np.allclose(np.diff(curves[0]) / np.diff(at), 1, atol=.15) and np.ptp(curves[1:], axis=1).max() < .15
    with pytest.raises(ValueError, match="^name must be one of"): dependence(surrogate, "loud")

def test_a_linear_mapping_reads_what_the_formula_says(surrogate):
    found = mapping(surrogate)
    assert np.allclose(found.weights, [[1, 0, 0], [0, 1, 0]], atol=.06) and (found.r2 > .95).all() and np.abs(found.bias).max() < .05

@pytest.mark.parametrize("dim, n", [(1, 40), (40, 20)])
def test_generators_of_one_number_and_of_more_numbers_than_sounds(dim, n):
    known = learn(turned(dim), prior_of(dim), n=n)
    assert mapping(known).weights.shape == (2, dim) and score(known, 20).r2.shape == (2,) and dependence(known, "level")[1].shape == (dim, 33)
    for found in (navigate(known, torch.zeros(dim), {"centre": .1}, hold=[]), invert(known, {"centre": 1500.}, 1), follow(known, {"centre": [1500, 1600]})):
        assert found.z.shape[1] == dim and found.z.isfinite().all() and np.isfinite(found.hear().heard).all()

def test_results_are_columns_of_one_length(surrogate):
    for result in (score(surrogate, 40), mapping(surrogate), navigate(surrogate, Z[:4], {"level": .1}), invert(surrogate, {"level": -30}).hear()):
        columns = result.to_dict()
        assert len({len(column) for column in columns.values()}) == 1 and all(np.ndim(column) == 1 for column in columns.values())

def test_a_map_has_the_surrogates_values():
    few = learn()
    figure = heatmap(few, (1, 2), ["centre"], reach=1.)
    shown = figure.axes[0].images[0].get_array()
    assert figure.axes[0].get_title() == "centre" and shown.min() == pytest.approx(few.predict(few.to_z(np.array([[0., -1, 0]])))[0, 1], rel=.05)

@pytest.mark.parametrize("bad", [dict(dims=(0, 3)), dict(dims=(-1, 0)), dict(names=["loud"])])
def test_a_bad_map_is_named(surrogate, bad):
    with pytest.raises(ValueError, match=f"^{[*bad][0]} must be"): heatmap(surrogate, **bad)


# --- searching

@settings(max_examples=25)
@given(st.integers(0, 999), st.sampled_from([.01, .5, 1.5]), st.floats(.1, 50))
def test_a_search_never_goes_farther_than_it_is_trusted_nor_uphill(surrogate, seed, reach, far):
    rng = np.random.default_rng(seed)
    x0, aim, weights = rng.standard_normal((8, 3)), far * rng.standard_normal((8, 2)), np.array([1., seed % 2])
    x, cost = S._downhill(surrogate.net_, x0, aim, weights, reach)
    assert np.linalg.norm(x - x0, axis=1).max() <= reach * (1 + 1e-9)
    assert (cost <= S._cost(surrogate.net_, x0, x0, aim, weights)).all() and np.allclose(cost, S._cost(surrogate.net_, x, x0, aim, weights))

def test_an_inverse_has_what_was_asked(surrogate):
    wishes = truth(PRIOR(20, seed=5) * .8)
    found = [invert(surrogate, dict(zip(surrogate.names, wish))).hear() for wish in wishes]
    assert np.mean([np.abs(f.errors()) for f in found]) < .05 and all(f.reached.all() for f in found)
    assert np.allclose(np.concatenate([f.heard for f in found]), truth(torch.cat([f.z for f in found])), rtol=1e-3)

def test_what_is_not_asked_is_free(surrogate):
    found = invert(surrogate, {"level": -30.})
    assert np.isnan(found.asked[0, 1]) and np.isnan(found.errors("promised")[0, 1]) and np.isfinite(found.promised).all() and found.reached == [True]

def test_decodes_are_counted_and_correct_a_wrong_surrogate():
    wrong = learn(n=60)
    wrong.decode = Counted(lambda z: tones(z) * 10 ** .1)        # two dB louder than what it has learned
    errors = []
    for decodes in (0, 1, 3):
        wrong.decode.calls.clear()
        found = invert(wrong, {"level": -30., "centre": 1500.}, decodes)
        assert sum(wrong.decode.calls) == decodes
        errors.append(np.abs(found.hear().errors())[0, 0])
    assert errors[0] > .4 and errors[1] < .1 and errors[2] < .1

def test_navigate_changes_what_was_asked_and_holds_the_rest(surrogate):
    z = PRIOR(30, seed=8) * .5
    for by in (-.7, .7):
        found = navigate(surrogate, z, {"centre": by}).hear()
        moved = surrogate.to_steps(found.heard) - surrogate.to_steps(truth(z))
        assert found.reached.all() and np.abs(moved[:, 1] - by).mean() < .1 and np.abs(moved[:, 0]).mean() < .05
        assert (found.z[:, 1] - z[:, 1]).mul(np.sign(by)).min() > 0 and (found.z[:, [0, 2]] - z[:, [0, 2]]).abs().mean() < .1
    assert (navigate(surrogate, z, {"centre": 0}).z - z)[:, :2].abs().max() < .1          # the third is free to go to the middle

def test_hold_frees_all_others(surrogate):
    assert np.isnan(navigate(surrogate, Z[0], {"level": .5}, hold=[]).asked[0, 1])
    assert np.isfinite(navigate(surrogate, Z[0], {"level": .5}, hold=["centre"]).asked).all()
    both = [navigate(surrogate, Z[0] / 2, {"level": .5}, hold=hold) for hold in (["level"], [])]      # a name that changes cannot stay
    assert np.array_equal(both[0].asked, both[1].asked, equal_nan=True) and torch.equal(both[0].z, both[1].z)

def test_one_code_is_a_batch_of_one(surrogate):
    one, batch = navigate(surrogate, Z[0], {"level": .3}), navigate(surrogate, Z[:3], {"level": .3})
    assert one.z.shape == (1, 3) and batch.z.shape == (3, 3) and torch.allclose(one.z[0], batch.z[0]) and one.z.dtype == torch.float32
    for given in (Z[0].numpy(), Z[0].double(), Z[0].tolist()): assert torch.allclose(navigate(surrogate, given, {"level": .3}).z, one.z)

@pytest.mark.parametrize("target", [{"level": 50.}, {"level": -1e9}, {"centre": 1e5, "level": -30.}, {"centre": -1e12}])
def test_out_of_reach_the_nearest_is_returned_and_said(surrogate, target):
    worst = next(iter(target))
    with pytest.warns(UserWarning, match=f"out of reach together, {worst} the most: the nearest is returned"): found = invert(surrogate, target)
    k = surrogate.names.index(worst)
    heard = surrogate.to_steps(found.hear().heard)[0, k]
    assert found.reached.tolist() == [False] and np.sign(target[worst] - 0) * heard > 1.2

@pytest.mark.parametrize("wishes, told", [({}, "must be numbers by name"), (["level"], "must be numbers by name"), (None, "must be numbers by name"),
                                          ({"loud": 1.}, "must be one of level, centre, got 'loud'"), ({"level": float("nan")}, "level must be a finite number"),
                                          ({"level": "high"}, "level must be a finite number"), ({"level": True}, "level must be"), ({1: 1.}, "must be one of")])

def test_bad_wishes_are_named(surrogate, wishes, told):
    with pytest.raises(ValueError, match=f"^target.*{told}"): invert(surrogate, wishes)
    with pytest.raises(ValueError, match=f"^changes.*{told}"): navigate(surrogate, Z, wishes)

def test_bad_ways_of_searching_are_named(surrogate):
    for hold in (["loud"], "level"):
        with pytest.raises(ValueError, match="^hold must be one of"): navigate(surrogate, Z, {"level": 1}, hold)
    for decodes in (-1, 1.5, None):
        with pytest.raises(ValueError, match="^decodes must be"): invert(surrogate, {"level": -30}, decodes)
    for z in (Z[:, :2], Z[None], Z[0, 0], Z.long()):
        with pytest.raises(ValueError, match="^z must be"): navigate(surrogate, z, {"level": 1})
    with pytest.raises(ValueError, match="^of must be one of heard, promised"): invert(surrogate, {"level": -30}).errors("asked")

def test_a_path_follows_a_curve_in_small_steps(surrogate):
    curve = {"centre": np.geomspace(900, 2400, 25)}
    found = follow(surrogate, curve).hear()
    assert found.z.shape == (25, 3) and np.abs(found.errors()[:, 1]).mean() < .08 and found.reached.all()
    assert found.z.diff(dim=0).norm(dim=1).max() < .6

def test_a_curve_may_leave_the_reach_and_come_back(surrogate):
    with pytest.warns(UserWarning, match="out of reach"): found = follow(surrogate, {"level": [-30, -30, 60, 60, -30, -30, -30, -30, -30]})
    assert found.reached[[0, 1, -1]].all() and not found.reached[2:4].any()

@pytest.mark.parametrize("curve, told", [({}, "one length"), ({"level": [1., 2.], "centre": [300.]}, "one length"), ({"loud": [1.]}, "must be one of"),
                                         ({"level": [-30, float("nan")]}, "level must be a finite"), ({"level": ["a"]}, "level must be a finite")])

def test_bad_curves_are_named(surrogate, curve, told):
    with pytest.raises(ValueError, match=f"^curve.*{told}"): follow(surrogate, curve)


# --- the synthesiser

def test_the_synthesisers_controls_keep_their_ranges():
    z = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    for name, values in Synth(3).controls(z).items():
        low, high = sorted(CONTROLS[name][:2])
        assert values.shape == (200, 1) and low <= values.min() and values.max() <= high and np.ptp(values) > .8 * (high - low)

def test_a_code_is_turned_before_it_is_played():
    z = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    a, b, c = (Synth(seed).controls(z)["tilt"] for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c)
    sounds = Synth(0)(z)
    assert sounds.shape == (5, 16_384) and sounds.isfinite().all() and (sounds.square().mean(1).sqrt() < .2).all()
    for bad in (z[:, :11], z[0], z[:0]):
        with pytest.raises(ValueError, match="^z must be"): Synth()(bad)


# --- a word and its scale

def test_a_scale_goes_on_beyond_its_ends():
    word = Word("centre", "Hz", (300., 400., 800.))
    assert np.allclose(word.extended([0, .25, .5, 1, 1.5, -.5]), [300, 350, 400, 800, 1200, 200])
    values = np.linspace(100, 2000, 50)
    assert np.allclose(word.extended(word.position(values)), values)

@pytest.mark.parametrize("scale", [(), (1,), (1, 1), (2, 1), (1, float("nan"), 3), (1, 2, 2)])
def test_a_scale_must_rise(scale):
    with pytest.raises(ValueError, match="^scale must be"): Knob("centre", "Hz", scale)

def test_a_knob_goes_over_the_middle_of_what_was_heard(surrogate):
    knob = make_knob(surrogate, "centre")
    assert (knob.name, knob.unit) == ("centre", "") and np.allclose([knob.scale[0], knob.scale[-1]], np.quantile(truth(surrogate.z_)[:, 1], (.05, .95)), rtol=.02)
    steps = surrogate.to_steps(np.stack([np.full(17, -30.), knob.scale], 1))[:, 1]
    assert np.allclose(np.diff(steps), np.diff(steps).mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="^name must be one of"): make_knob(surrogate, "loud")


# --- a knob on a new generator

KNOB = Knob("brightness", "Hz", tuple(np.geomspace(400, 2800, 9)))
MINE = Knob("centre", "Hz", KNOB.scale)

@pytest.mark.parametrize("dim", [1, 2, 5, 6, 7, 12, 13, 40])
def test_sixteen_sounds_are_enough_for_any_size(dim):
    decode = Counted(turned(dim))
    fitted = MINE.fit(decode, prior_of(dim), descriptor=centre)
    assert sum(decode.calls) == DECODES == 16 and fitted.middle.shape == fitted.direction.shape == (dim,)
    asked = fitted.across(9)
    heard = centre(decode(fitted.code(asked)), RATE).numpy()
    assert stats.spearmanr(asked, heard).statistic > .99
    if dim <= 12: assert np.abs(heard / asked - 1).max() < .1 and np.ptp(asked) > 1800

def test_a_knob_of_the_toolbox_needs_no_descriptor():
    fitted = KNOB.fit(turned(3), prior_of(3))
    asked = fitted.across(7)
    heard = DESCRIPTORS["brightness"](turned(3)(fitted.code(asked)), RATE).numpy()
    assert np.abs(heard / asked - 1).max() < .1
    with pytest.raises(ValueError, match="^the knob's descriptor must be one of loudness"): MINE.fit(turned(3), prior_of(3))

@pytest.mark.parametrize("dim", [1, 3, 40])
def test_a_module_is_the_knob(dim):
    fitted = MINE.fit(turned(dim), prior_of(dim), descriptor=centre)
    values = torch.linspace(0, 4000, 301)          # beyond both ends as well
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = fitted.code(values)
    made, positions = fitted.module(), torch.from_numpy(MINE.position(values.numpy())).float()[:, None]
    assert torch.allclose(made(positions), codes, atol=1e-5) and not any(p.requires_grad for p in made.parameters())
    assert torch.allclose(torch.jit.script(made)(positions), codes, atol=1e-5)

def test_beyond_its_reach_the_end_is_returned_and_said():
    fitted = MINE.fit(turned(3), prior_of(3), descriptor=centre)
    low, high = fitted.values[[0, -1]]
    with pytest.warns(UserWarning, match=r"centre reaches .* Hz here"): codes = fitted.code([0, 1e6])
    assert torch.equal(codes, fitted.code([low, high])) and fitted.code(float(low)).shape == (1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.code(fitted.across(5))

def test_what_is_heard_along_a_knob_rises():
    fitted = MINE.fit(lambda z: tones(z) + .003 * torch.randn(len(z), len(T)), PRIOR, descriptor=centre)
    assert isinstance(fitted, FittedKnob) and (np.diff(fitted.values) > 0).all() and (np.diff(fitted.steps) > 0).all()

def test_the_seed_of_a_knob_decides():
    a, b, c = (MINE.fit(turned(5), prior_of(5), descriptor=centre, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(a.direction, b.direction) and np.array_equal(a.values, b.values) and not np.array_equal(a.direction, c.direction)
    with pytest.raises(ValueError, match="^seed must be"): MINE.fit(turned(5), prior_of(5), descriptor=centre, seed=-1)

@pytest.mark.parametrize("decode, told", [
    (lambda z: torch.sin(2 * np.pi * 300 * T).expand(len(z), -1), "centre is the same at 8 places"), (lambda z: 0 * tones(z), "nothing to describe"),
    (lambda z: tones(z) * (z[:, :1] > 0), "sounds that cannot be described"), (lambda z: tones(z) / 0, "NaN or Inf"), (lambda z: tones(z)[1:], "for each of 8")])

@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_generator_that_a_knob_cannot_turn_is_refused(decode, told):
    with pytest.raises(ValueError, match=told): MINE.fit(decode, PRIOR, descriptor=centre)

def test_a_line_along_which_nothing_rises_is_refused():
    def deceives(z):
        "Higher at the corners where a knob listens first, lower everywhere else."
        x = z[:, 0]
        return pair(torch.full_like(x, -30.), .5 + torch.where((x.abs() - 1).abs() < .05, .1, -.1) * x)
    with pytest.raises(ValueError, match="^centre does not rise along the direction"): MINE.fit(deceives, prior_of(1), descriptor=centre)


# --- a knob's file

def test_a_file_brings_the_knob_back(tmp_path):
    knob = Knob("Schärfe 𝄞", "acum", tuple(np.geomspace(.1, 3, 17).tolist()))
    path = knob.save(tmp_path / "knob.json")
    assert Knob.load(path) == Knob.load(str(path)) == knob and path.stat().st_size < 1000 and [*tmp_path.iterdir()] == [path]
    assert json.loads(path.read_text(encoding="utf-8"))["name"] == "Schärfe 𝄞"
    MINE.save(path)
    assert Knob.load(path) == MINE

def test_a_damaged_file_never_gives_another_knob(tmp_path):
    path = MINE.save(tmp_path / "knob.json")
    good, refused = path.read_bytes(), 0
    damaged = [good[:k] for k in range(len(good))] + [good[:k] + bytes([good[k] ^ bit]) + good[k + 1:] for k in range(len(good)) for bit in (1, 128)]
    for content in damaged:
        path.write_bytes(content)
        try: assert Knob.load(path) == MINE          # a space, or a digit that counts for nothing
        except ValueError as e: refused += str(path) in str(e)
    assert refused > .98 * len(damaged)

def test_what_is_no_knob_is_refused(tmp_path):
    path = MINE.save(tmp_path / "knob.json")
    content = json.loads(path.read_bytes())
    unsealed = {key: v for key, v in content.items() if key != "seal"}
    for other, told in ((content | {"knob": 2}, "has version 2, this reads 1"), (content | {"knob": "1"}, "has version 1"), (unsealed, "damaged"),
                        (content | {"unit": "kHz"}, "damaged"), (content | {"scale": [1, 2]}, "damaged"), ([1], "no knob"), (3, "no knob"), (None, "no knob"),
                        ({}, "no knob"), ("knob", "no knob")):
        path.write_text(json.dumps(other))
        with pytest.raises(ValueError, match=told): Knob.load(path)
    for raw in (b"", b"bright", bytes(range(256)), b"\xff\xfe"):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="damaged, or no knob"): Knob.load(path)
    with pytest.raises(FileNotFoundError): Knob.load(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError): MINE.save(tmp_path / "none" / "knob.json")

def test_a_write_that_is_interrupted_leaves_the_old_file(tmp_path, monkeypatch):
    path = MINE.save(tmp_path / "knob.json")
    def stop(*_): raise KeyboardInterrupt
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt): KNOB.save(path)
    assert Knob.load(path) == MINE


# --- transfer

def between(low, high):
    "A generator of sines from one pitch to another, by its first number."
    return lambda z: .1 * torch.sin(2 * np.pi * (low + (high - low) * torch.sigmoid(2 * z[:, :1])) * T)

def test_a_request_means_the_same_on_all_generators():
    found = transfer(MINE, {"one": (turned(3), prior_of(3)), "other": (turned(12), prior_of(12))}, 8, descriptor=centre)
    assert found.generators == ("one", "other") and found.asked.shape == found.heard.shape == (2, 8) and found.shared.shape == (8,)
    assert np.abs(found.heard - found.asked).max() < .1 and np.abs(found.agreed - found.shared).max() < .1
    columns = found.to_dict()
    assert {len(column) for column in columns.values()} == {2} and np.allclose(columns["ρ"], 1)

def test_generators_that_share_nothing_are_still_compared():
    found = transfer(MINE, {"low": (between(400, 800), PRIOR), "high": (between(1200, 2500), PRIOR)}, 6, descriptor=centre)
    assert len(found.shared) == 0 and found.agreed.shape == (2, 0) and found.heard.shape == (2, 6)
    assert found.asked[0, -1] < found.asked[1, 0] and (np.abs(found.heard - found.asked) < .05).all()

def test_one_knob_at_several_pitches():
    fitted = KNOB.fit(tones, PRIOR)
    found = across_pitches(fitted, [tones, lambda z: .5 * tones(z)], 5)
    assert found.shape == (2, 5) and np.allclose(found[0], found[1], atol=.01) and (np.diff(found, axis=1) > 0).all()


# --- what a descriptor is made for

def sounds():
    t = torch.arange(RATE) / RATE
    tone = .3 * torch.sin(2 * np.pi * 440 * t)
    noise = .1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    return {"tone": tone, "noise": noise, "pluck": tone * 10 ** (-6 * t), "hit": noise * 10 ** (-6 * t), "pulses": tone * 10 ** (-15 * (t % .25)), "silence": 0 * t}

@pytest.mark.parametrize("name, has", [("tone", (1, 1, 0)), ("noise", (0, None, 0)), ("pluck", (1, 1, 1)), ("hit", (0, 1, 1)), ("pulses", (1, 0, 1)), ("silence", (0, None, 0))])
def test_the_domain_of_plain_sounds(name, has):
    found = domain(sounds()[name][None])
    assert all(wanted in (None, share) for wanted, share in zip(has, found.values())) and {need for needs in S.NEEDS.values() for need in needs} == set(found)

def test_a_domain_is_a_share_of_the_sounds():
    assert domain(torch.stack([*sounds().values()]))["a pitch"] == pytest.approx(3 / 6)
    for bad in (sounds()["tone"], sounds()["tone"][None] / 0, torch.ones(2, 9000).long(), sounds()["tone"][None, :500]):
        with pytest.raises(ValueError, match="^audio "): domain(bad)


# --- what hostile input found

@pytest.mark.parametrize("hold", [[], None])
def test_a_change_out_of_reach_is_said(surrogate, hold):
    with pytest.warns(UserWarning, match="out of reach together, level the most"): found = navigate(surrogate, Z[0], {"level": 30.}, hold)
    assert found.reached.tolist() == [False] and found.errors("promised")[0, 0] < -20

def test_what_is_heard_is_never_cut():
    narrow = learn(prior=lambda n, seed: .2 * PRIOR(n, seed=seed))
    found = navigate(narrow, Z[0] / 5, {"level": .1})
    found.z = torch.tensor([[2., 2, 0]])           # farther than any sample
    assert np.allclose(found.hear().heard, truth(found.z), rtol=1e-3)

def test_errors_are_not_told_before_they_are_heard(surrogate):
    with pytest.raises(ValueError, match="^of must be promised"): invert(surrogate, {"level": -30.}).errors()

def test_silence_on_the_way_is_no_answer():
    mute = learn()
    mute.decode = lambda z: 0 * tones(z)
    with pytest.warns(UserWarning, match="no sound that can be described"): found = invert(mute, {"level": -30.}, decodes=3)
    assert np.isfinite(found.promised).all()

@pytest.mark.filterwarnings("ignore:out of reach")
def test_after_silence_the_best_that_was_heard_is_returned():
    calls = []
    def falls_silent(z):
        calls.append(z)
        return tones(z) * 10 ** .1 * (len(calls) < 2)
    mute = learn()
    mute.decode = falls_silent
    found = invert(mute, {"level": -30., "centre": 1500.}, decodes=3)
    assert len(calls) == 2 and torch.equal(found.z, calls[0]) and np.allclose(found.promised, truth(found.z) + [2, 0], rtol=1e-3)

@pytest.mark.parametrize("meta", [{"a": 1}, [1], "key", None])
def test_a_file_of_another_program_is_refused(meta, tmp_path):
    write(tmp_path / "000001.safetensors", {"values": torch.zeros(3)}, meta)
    with pytest.raises(ValueError, match="^folder: .* belongs to other"): hear(tones, folder=tmp_path)

def test_codes_that_are_no_numbers_are_named(surrogate):
    for z in (Z * float("nan"), Z / 0):
        for call in (surrogate.steps, surrogate.predict, lambda z: navigate(surrogate, z, {"level": .1})):
            with pytest.raises(ValueError, match="^z holds NaN or Inf"): call(z)

def test_codes_of_a_model_may_have_gradients(surrogate):
    z = Z[:3].clone().requires_grad_()
    assert np.array_equal(surrogate.predict(z), surrogate.predict(Z[:3])) and navigate(surrogate, z, {"level": .1}).z.shape == (3, 3)
    assert not hear(tones, z).z.requires_grad

def test_a_number_that_never_varies_is_named():
    with pytest.raises(ValueError, match=r"^prior must vary in every number.*in \[2\]"):
        learn(prior=lambda n, seed: PRIOR(n, seed=seed) * torch.tensor([1, 1, 0]))

@pytest.mark.parametrize("scale", [(1, float("inf")), ("a", "b"), None, 3, "12x"])
def test_a_scale_must_be_numbers(scale):
    with pytest.raises(ValueError, match="^scale must be two values or more that rise"): Knob("centre", "Hz", scale)

@pytest.mark.parametrize("scale", [[300, 400], np.array([300., 400.]), np.array([300, 400], np.float32), tuple(np.float32([300, 400]))])
def test_any_sequence_of_numbers_is_a_scale(scale, tmp_path):
    knob = Knob("centre", "Hz", scale)
    assert knob == Knob("centre", "Hz", (300., 400.)) == Knob.load(knob.save(tmp_path / "knob.json")) and hash(knob)

def test_a_file_that_someone_sealed_by_hand_is_refused(tmp_path):
    path = tmp_path / "knob.json"
    content = {"knob": 1, "name": "centre", "unit": "Hz", "scale": [1., 2.]}
    for wrong in ({"scale": "abc"}, {"scale": None}, {"scale": [2, 1]}, {"scale": {}}):
        path.write_text(json.dumps(content | wrong | {"seal": S._seal(content | wrong)}))
        with pytest.raises(ValueError): Knob.load(path)
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match="damaged, or no knob"): Knob.load(path)

@pytest.mark.parametrize("change", [lambda z: z.numpy(), lambda z: z[:, 0], lambda z: z / 0, lambda z: z[:10], lambda z: z[:1], lambda z: z.tolist()])
def test_a_prior_that_does_not_fit_a_knob_is_named(change):
    with pytest.raises(ValueError, match="^prior "): MINE.fit(tones, lambda n, seed: change(PRIOR(n, seed=seed)), descriptor=centre)

def test_a_transfer_needs_generators_and_requests():
    for bad in ({}, [(tones, PRIOR)], None):
        with pytest.raises(ValueError, match="^generators must be"): transfer(MINE, bad, descriptor=centre)
    for count in (0, 1, -1, 2.5):
        with pytest.raises(ValueError, match="^count must be"): transfer(MINE, {"one": (tones, PRIOR)}, count, descriptor=centre)

def test_a_knob_of_ones_own_descriptor_at_several_pitches():
    found = across_pitches(MINE.fit(tones, PRIOR, descriptor=centre), [tones, tones], 5, descriptor=centre)
    assert found.shape == (2, 5) and np.array_equal(found[0], found[1])

def test_a_value_that_is_no_number_is_named():
    fitted = MINE.fit(tones, PRIOR, descriptor=centre)
    for bad in (float("nan"), [1000, float("inf")]):
        with pytest.raises(ValueError, match="^value holds NaN or Inf"): fitted.code(bad)

def test_a_sound_of_no_samples_is_silence():
    with pytest.raises(ValueError, match="100 × silence"): hear(lambda z: tones(z)[:, :0])

@pytest.mark.parametrize("curve", [{"level": []}, {"level": -30.}, [1, 2], None, {"level": [[-30.]]}, {"level": "high"}])
def test_what_is_no_curve_is_named(surrogate, curve):
    with pytest.raises(ValueError, match="^curve must be values"): follow(surrogate, curve)

def test_a_curve_may_be_a_tensor(surrogate):
    assert torch.equal(follow(surrogate, {"level": torch.linspace(-32, -28, 5).double()}).z, follow(surrogate, {"level": np.linspace(-32, -28, 5)}).z)

@pytest.mark.parametrize("bad", [dict(names=[]), dict(reach=-1), dict(reach=float("nan")), dict(dims=(1, 1))])
def test_a_map_that_shows_nothing_is_named(surrogate, bad):
    with pytest.raises(ValueError, match=[*bad][0]): heatmap(surrogate, **bad)

def test_a_domain_takes_what_describe_takes():
    tone = sounds()["tone"][None]
    assert domain(tone.numpy()) == domain(tone, float(RATE)) == domain(tone)

@pytest.mark.parametrize("about, spread", [(100, 1), (-100, 1), (60, .1), (1000, .1), (-3000, 1), (1e6, 10)])
def test_values_that_lie_close_together_keep_their_units(about, spread):
    for seed in range(20):
        values = about + spread * np.random.default_rng(seed).standard_normal(200)
        spreads = spreads_of(values)
        assert np.abs(spreads.to_units(spreads.steps_)[:, 0] - values).max() < 1e-5 * spread

def test_a_module_is_the_knob_of_a_generator_that_saturates():
    steps, values = np.linspace(-2, 2, 7), np.array([500, 500.01, 500.02, 1500, 2800, 2800.001, 2800.002])
    fitted = FittedKnob(MINE, np.array([.3, -1, 2]), np.array([1., -2, .5]), steps, MINE.position(values))
    def made(v): return fitted.module()(torch.from_numpy(MINE.position(np.array(v))).float()[:, None])
    asked = [500.5, 700, 1000, 1500, 2000, 2799.5]
    assert torch.allclose(made(asked), fitted.code(asked), atol=1e-4)
    with pytest.warns(UserWarning, match="reaches"): ends = fitted.code([100, 4000])
    assert torch.allclose(made([100., 4000]), ends, atol=1e-5)

@pytest.mark.parametrize("ask", [score, importance])
def test_nothing_is_scored_by_silence(ask):
    mute = learn()
    mute.decode = lambda z: 0 * tones(z)
    with pytest.raises(ValueError, match="^decode must give sounds that can be described, got 0 of 40"): ask(mute, 40)

def test_a_mapping_of_one_descriptor_has_one_row(surrogate):
    found = mapping(surrogate.only(["level"]))
    assert found.weights.shape == (1, 3) and found.bias.shape == found.r2.shape == (1,) and all(np.shape(column) == (1,) for column in found.to_dict().values())

def test_a_network_that_is_asked_for_nothing_is_refused(surrogate):
    with pytest.raises(ValueError, match="^names must be"): S.requests(surrogate, [], n=100)
