"What chapter 9 puts on a page: the network that asks, its knobs, and the plane in colours. No sound is described here."
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from oplas.models import fresh
from oplas.realtime import Host, export_nn_tilde, perform
from oplas.sampler import Sampler
from oplas.surrogates import ByRequest, FittedKnob, Heard, Knob, OnPlane, Surrogate, heat_pad, knob_pad, requests
from oplas.web import InV8, to_web

NAMES = ("brightness", "decay_time", "mine")


@pytest.fixture(scope="module")
def surrogate():
    "Of three descriptors that formulas give, of codes of four numbers about 1."
    z = 1 + torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    x, y, u, v = z.double().numpy().T
    values = np.stack([1000 * np.exp(.5 * x + .2 * np.sin(y)), 1 + .3 * np.tanh(y - u), v + .1 * x * y], 1)
    return Surrogate(None, None).learn(Heard(z, values, NAMES, {}, 9000))

@pytest.fixture(scope="module")
def asks(surrogate): return requests(surrogate)

@pytest.fixture(scope="module")
def sampler():
    "Untrained, but with a level for its pictures."
    made = fresh(0, Sampler).eval()
    made.logmel.top.fill_(1.)
    return made

def numbers(n, k, seed=1): return 3 * torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) - 1.5


# the network that asks

def test_the_surrogate_says_of_its_codes_what_was_asked(surrogate, asks):
    steps = surrogate.steps_[:100]
    with torch.no_grad(): z = asks(torch.from_numpy(steps).float())
    assert z.shape == (100, 4) and np.abs(surrogate.steps(z) - steps).mean() < .15
    assert np.abs(surrogate.to_x(z)).max() < 5

def test_what_is_not_named_is_free_and_the_order_is_that_of_the_names(surrogate):
    asks, steps = requests(surrogate, ["mine", "brightness"]), numbers(50, 2)
    with torch.no_grad(): said = surrogate.steps(asks(steps))
    assert asks.names == ["mine", "brightness"] and np.abs(said[:, [2, 0]] - steps.numpy()).mean() < .1

def test_a_seed_makes_one_network(surrogate, asks):
    again, other = (requests(surrogate, seed=seed) for seed in (0, 1))
    row = numbers(1, 3)
    assert torch.equal(again(row), asks(row)) and not torch.equal(other(row), asks(row))

def test_all_three_ways_out_of_python_take_it(asks):
    rows = numbers(20, 3)
    with torch.no_grad(): wanted = asks(rows)
    assert torch.equal(torch.jit.script(asks)(rows), wanted)
    assert torch.allclose(torch.export.export(asks, (rows[:1],)).module()(rows[:1]), wanted[:1], atol=1e-6)
    page = InV8(to_web(asks, rows, tolerance=1e-2).text)
    assert torch.allclose(torch.stack([page.decode(row) for row in rows]), wanted, atol=1e-2)

@pytest.mark.parametrize("wrong, told", [(dict(names=["loud"]), "names must be one of"), (dict(n=99), "n must be"), (dict(seed=-1), "seed must be")])
def test_requests_refuses(surrogate, wrong, told):
    with pytest.raises(ValueError, match=told): requests(surrogate, **wrong)

@pytest.mark.parametrize("pad", [requests, lambda s: heat_pad(s, fresh(0, Sampler))])
def test_a_surrogate_that_was_not_fitted_is_named(pad):
    with pytest.raises(NotFittedError): pad(Surrogate(None, None))


# pads

def test_knobs_in_the_page_make_the_picture_of_the_code_that_is_asked_for(asks, sampler):
    pad, row = knob_pad(asks, sampler), torch.tensor([[61., 1, -1, .5]])
    with torch.no_grad(): wanted = sampler.decode(asks(row[:, 1:]), 61)
    assert torch.allclose(ByRequest(asks, sampler)(row), wanted, atol=1e-5)
    assert torch.allclose(InV8(pad.decode.text).decode(row[0]), wanted.flatten(), atol=5e-3)
    assert pad.options["names"] == ["brightness", "decay time", "mine"] and pad.options["limit"] == 2 and pad.options["start"] == [60, 0, 0, 0]
    assert (pad.options["notes"][0], pad.options["notes"][-1]) == (48, 83) and pad.faces.count("<figure") == 5

def test_a_plane_is_one_note_of_codes_whose_other_numbers_are_zero(sampler):
    with torch.no_grad():
        made = OnPlane(sampler, (3, 1), 50)(torch.tensor([[.5, -2]]))
        assert torch.allclose(made, sampler.decode([0, -2, 0, .5], 50), atol=1e-5)

def test_colours_are_what_the_surrogate_says_in_the_middle_of_each_cell(surrogate, sampler):
    pad = heat_pad(surrogate, sampler, ["mine", "brightness"], axes=(2, 0), midi=50, cells=5)
    assert [*pad.options["backdrop"]] == ["mine", "brightness"] and pad.options["names"] == ["z3", "z1"]
    assert [plane["unit"] for plane in pad.options["backdrop"].values()] == ["", "Hz"]
    for row, up in enumerate((-2, -1, 0, 1, 2)):
        for column, right in enumerate((-2, -1, 0, 1, 2)):
            said = surrogate.predict(torch.tensor([[up, 0., right, 0]]))[0]
            seen = [pad.options["backdrop"][name]["values"][row][column] for name in ("brightness", "mine")]
            assert seen == pytest.approx(said[[0, 2]].tolist(), rel=5e-3, abs=1e-6)
    assert pad.faces.count("<figure") == 5 and pad.decode.inputs == 2 and pad.options["notes"] is None

@pytest.mark.parametrize("wrong, told", [(dict(names=["loud"]), "names must be one of"), (dict(axes=(0, 4)), "axes must be"), (dict(cells=1), "cells must be")])
def test_heat_pad_refuses(surrogate, sampler, wrong, told):
    with pytest.raises(ValueError, match=told): heat_pad(surrogate, sampler, **wrong)


# a knob, in a page and in a patch

def test_a_knob_runs_in_a_page_and_in_a_patch(sampler, tmp_path):
    knob = Knob("brightness", "Hz", (500., 1000., 2000., 3000.))
    fitted = FittedKnob(knob, np.array([.1, -.2, 0, .3]), np.array([.5, 1, -1, .2]), np.linspace(-2, 2, 6), np.array([0, .1, .3, .6, .8, 1.1]))
    z = fitted.module()(torch.tensor([[.4]]))
    assert torch.allclose(z, fitted.code(float(knob.extended(.4))), atol=1e-5)
    page = to_web(fitted.module(), torch.rand(50, 1, generator=torch.Generator().manual_seed(0)), tolerance=1e-3)
    assert np.allclose(InV8(page.text).decode([.4]), z[0], atol=1e-3)
    plain = Host(export_nn_tilde(sampler, tmp_path / "plain.ts"), 22_050, 256)
    named = Host(export_nn_tilde(sampler, tmp_path / "named.ts", steer=fitted.module(), names=["brightness"]), 22_050, 256)
    by_code, by_name = perform(plain, [(0, 60, z[0].tolist(), .8)], .3), perform(named, [(0, 60, [.4], .8)], .3)
    assert by_code.abs().max() > 0 and torch.equal(by_code, by_name)
