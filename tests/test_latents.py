"oplas.latents: draws, paths between codes, turning a dimension, reparametrisation, and bad input."
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from oplas import latents as L

vectors = st.integers(2, 6).flatmap(lambda d: st.tuples(*[st.lists(st.floats(-5, 5, width=32), min_size=d, max_size=d).map(torch.tensor)] * 2))

def same(z): return z


def test_sample_takes_any_decoder():
    z = L.sample(same, 2000, 3, seed=4)
    assert z.shape == (2000, 3) and abs(z.mean()) < .1 and abs(z.std() - 1) < .1
    assert torch.equal(z, L.sample(same, 2000, 3, seed=4)) and not torch.equal(z, L.sample(same, 2000, 3, seed=5))


@settings(deadline=None)
@given(vectors, st.sampled_from(["linear", "spherical"]), st.integers(2, 7))
def test_ends_of_a_path(ab, kind, steps):
    a, b = ab
    path = L.interpolate(a, b, steps, kind)
    assert path.shape == (steps, len(a)) and torch.isfinite(path).all()
    scale = 1 + a.norm() + b.norm()
    assert (path[0] - a).norm() < 1e-5 * scale and (path[-1] - b).norm() < 1e-5 * scale


@settings(deadline=None)
@given(vectors, st.floats(0, 1))
def test_arc_has_the_length_between(ab, t):
    a, b = ab
    got, want = L.slerp(a, b, t).norm(), (1 - t) * a.norm() + t * b.norm()
    assert abs(got - want) < 1e-4 * (1 + want)


@settings(deadline=None)
@given(vectors, st.floats(0, 1))
def test_paths_do_not_depend_on_the_side_one_starts_from(ab, t):
    a, b = ab
    assert torch.allclose(L.lerp(a, b, t), L.lerp(b, a, 1 - t), atol=1e-4)
    u, v = torch.nn.functional.normalize(torch.stack([a, b]), dim=1)
    if -.99 < u @ v: assert torch.allclose(L.slerp(a, b, t), L.slerp(b, a, 1 - t), atol=2e-2)


def test_arc_special_cases():
    a, zero = torch.tensor([3., 4., 0.]), torch.zeros(3)
    t = torch.tensor([0., .25, 1.])
    assert torch.allclose(L.slerp(a, 2 * a, t), L.lerp(a, 2 * a, t), atol=1e-6)        # parallel: straight
    assert torch.allclose(L.slerp(a, zero, t), L.lerp(a, zero, t), atol=1e-6)          # zero: along the other
    assert torch.allclose(L.slerp(zero, a, t), L.lerp(zero, a, t), atol=1e-6)
    assert torch.equal(L.slerp(zero, zero, t), torch.zeros(3, 3))
    middle = L.slerp(a, -a, .5)                                                        # opposite: round
    assert middle.norm() == pytest.approx(5, rel=1e-5) and abs(middle @ a) < 1e-4
    assert torch.allclose(L.slerp(a, -a, t)[-1], -a, atol=1e-5)


def test_arc_is_an_arc():
    a, b = torch.eye(5)[:2] * 2
    path = L.slerp(a, b, torch.linspace(0, 1, 7))
    angles = torch.acos((path[:-1] * path[1:]).sum(1) / 4)
    assert torch.allclose(angles, torch.full((6,), math.pi / 12), atol=1e-4)           # even steps


def test_batches_of_paths():
    a, b = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    a[0], b[1], b[2] = -b[0], 0., 3 * a[2]                                             # the special cases beside ordinary ones
    for kind in ("linear", "spherical"):
        all_at_once = L.interpolate(a, b, 5, kind)
        assert all_at_once.shape == (5, 6, 4)
        for k in range(6): assert torch.allclose(all_at_once[:, k], L.interpolate(a[k], b[k], 5, kind), atol=1e-5)


def test_gradient_through_an_arc():
    a = torch.tensor([1., 2.], requires_grad=True)
    L.slerp(a, torch.tensor([-1., 1.]), .3).sum().backward()
    assert torch.isfinite(a.grad).all() and a.grad.abs().sum() > 0


def test_turned_changes_one_dimension():
    z, values = torch.randn(3, 5), [-2., 0., 7.]
    before, out = z.clone(), L.turned(z, 2, values)
    assert out.shape == (3, 3, 5) and torch.equal(z, before)
    assert torch.equal(out[..., 2], torch.tensor(values).expand(3, 3))
    rest = [0, 1, 3, 4]
    assert torch.equal(out[..., rest], z[:, None, rest].expand(3, 3, 4))


@pytest.mark.parametrize("shape", [(), (7,), (2, 7)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_traverse_decodes_what_is_turned(shape, kind):
    "Whatever shape comes out of the decoder, and if it answers with an array."
    def decode(z): return (z @ torch.ones(5, 7, dtype=kind).cumsum(1)).reshape(-1, 1, 7).expand(-1, 2, 7)[(slice(None), *[0] * (2 - len(shape)))]
    z, values = torch.randn(4, 5, dtype=kind), (-30., 0., 30.)
    out = L.traverse(decode, z, 3, values)
    assert out.shape == (4, 3, *shape) and L.traverse(decode, z, 0).shape == (4, 5, *shape)
    for k, v in enumerate(values):
        y = z.clone()
        y[:, 3] = v
        assert torch.equal(out[:, k], decode(y))
    assert np.array_equal(L.traverse(lambda z: decode(z).numpy(), z, 3, values), out)


def test_gradients_reach_the_code_that_is_turned():
    z = torch.randn(2, 3, requires_grad=True)
    L.traverse(torch.square, z, 1, [4.]).sum().backward()
    assert torch.equal(z.grad, 2 * z.detach() * torch.tensor([1., 0., 1.]))


def test_reparametrise_has_the_right_mean_and_spread():
    torch.manual_seed(0)
    mu, logvar = torch.full((50_000, 1), 2., requires_grad=True), torch.full((50_000, 1), math.log(.25), requires_grad=True)
    draws = L.reparametrise(mu, logvar)
    assert abs(draws.mean() - 2) < .02 and abs(draws.std() - .5) < .02
    draws.sum().backward()
    assert torch.equal(mu.grad, torch.ones_like(mu)) and torch.allclose(logvar.grad, (draws.detach() - 2) / 2, atol=1e-6)


def test_reparametrise_draws_from_the_generator():
    mu, logvar = torch.zeros(3, 2), torch.zeros(3, 2)
    a, b = (L.reparametrise(mu, logvar, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(a, torch.randn(3, 2, generator=torch.Generator().manual_seed(4)))
    assert not torch.equal(L.reparametrise(mu, logvar), L.reparametrise(mu, logvar))


# --- bad input: named errors, before any work

@pytest.mark.parametrize("n, dim", [(0, 2), (-1, 2), (1.5, 2), (2, 0)])
def test_bad_samples(n, dim):
    with pytest.raises(ValueError, match="must be a whole number"): L.sample(same, n, dim)

@pytest.mark.parametrize("walk", [L.lerp, L.slerp])
@pytest.mark.parametrize("a, b, t, word", [
    (torch.zeros(2), torch.zeros(3), .5, "same shape"), (torch.zeros(2), [0., 0.], .5, "b must be a float tensor"), (torch.zeros(0), torch.zeros(0), .5, "a must be"), (torch.tensor([1, 2]), torch.tensor([1, 2]), .5, "float"),
    (torch.tensor([0., math.nan]), torch.zeros(2), .5, "NaN"), (torch.zeros(2), torch.ones(2), 1.1, r"\[0, 1\]"), (torch.zeros(2), torch.ones(2), -.1, r"\[0, 1\]"), (torch.zeros(2), torch.ones(2), math.nan, r"\[0, 1\]")])
def test_bad_walks(walk, a, b, t, word):
    with pytest.raises(ValueError, match=word): walk(a, b, t)

@pytest.mark.parametrize("settings, word", [(dict(steps=1), "steps"), (dict(steps=2.5), "steps"), (dict(kind="cubic"), "kind")])
def test_bad_paths(settings, word):
    with pytest.raises(ValueError, match=word): L.interpolate(torch.zeros(2), torch.ones(2), **settings)

@pytest.mark.parametrize("z, dim, values, word", [
    (torch.zeros(2, 3), 3, [0.], "dim must be a whole number from 0 to 2, got 3"), (torch.zeros(2, 3), -1, [0.], "dim must"), (torch.zeros(2, 3), 1., [0.], "dim must"),
    (torch.zeros(2, 3), True, [0.], "dim must"), (torch.zeros(3), 0, [0.], r"z must be .*\(n, dim\)"), (torch.zeros(1, 2, 3), 0, [0.], "z must"), ([[0.]], 0, [0.], "z must"),
    (torch.zeros(2, 3), 0, [], "values must"), (torch.zeros(2, 3), 0, [[0.]], "values must"), (torch.zeros(2, 3), 0, 1., "values must")])
def test_bad_turns(z, dim, values, word):
    for turn in (L.turned, lambda *a: L.traverse(same, *a)):
        with pytest.raises(ValueError, match=word): turn(z, dim, values)

def test_bad_clouds():
    with pytest.raises(ValueError, match="mu and logvar"): L.reparametrise(torch.zeros(2, 3), torch.zeros(2, 1))
