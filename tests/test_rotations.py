"What the page on rotations does not carry: matrices, groups, broadcasting, gradients, rings whose quality is known, bad input."
import copy, functools, io, math

import pytest
import numpy as np
import torch
from hypothesis import given, settings, strategies as st
from torch.autograd import gradcheck
from torch.func import functional_call, stack_module_state, vmap

from bench_rotations import aguilera_perez      # the paper's construction, which the chapter shows and the module has no use for
from oplas import rotations as R
from oplas.rotations import (FiLM, FiLMR, NOTE_NAMES, SquareMatrix, Stack, anneal, note_dial, ring_loss, ring_quality,
                             rotate_plane, rotate_toward, rotation_matrix, shepard_tone, stargate)

settings.register_profile("oplas", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("oplas")

seeds, sizes = st.integers(0, 10_000), st.integers(2, 24)
F64 = {"dtype": torch.float64}
close = functools.partial(torch.testing.assert_close, check_dtype=True)


def rng(seed=0): return torch.Generator().manual_seed(seed)
def draw(*shape, seed=0, dtype=torch.float64): return torch.randn(shape, generator=rng(seed), dtype=dtype)
def near(a, b, tol=1e-10): close(a, b, rtol=0, atol=tol)


def three(n, seed, shape=()):
    "x of a shape, u and v."
    w = draw(2 + math.prod(shape), n, seed=seed)
    return w[2:].reshape(*shape, n), w[0], w[1]


def frame(u, v):
    "Unit vectors along u, and across it on v's side; the angle from u to v."
    a, b = torch.linalg.qr(torch.stack([u, v], 1))[0].T
    a, b = a * (a @ u).sign(), b * (b @ v).sign()
    return a, b, torch.atan2(b @ v, a @ v)


def seeded(build, seed=0):
    "A module that was made from a seed, in double precision."
    torch.manual_seed(seed)
    return build().double()


def stirred(build, seed=0):
    "The same, its parameters moved away from where they start, γ not near 0."
    m = seeded(build, seed)
    with torch.no_grad():
        for name, p in m.named_parameters(): p += (.1 if name == "gamma" else .3) * draw(*p.shape, seed=seed + 1)
    return m


# ---- one rotation

@given(seeds, sizes, st.sampled_from([(), (3,), (2, 3), (2, 1, 3), (0,)]))
def test_rotate_plane_is_its_matrix_whatever_the_shape(seed, n, shape):
    x, u, v = three(n, seed, shape)
    y, m = rotate_plane(x, u, v), rotation_matrix(u, v)
    assert y.shape == x.shape and y.dtype == x.dtype
    near(y, x @ m.T)
    near(y.norm(dim=-1), x.norm(dim=-1))
    near(m @ m.T, torch.eye(n, **F64))
    assert torch.linalg.det(m).item() == pytest.approx(1)


@given(seeds, sizes)
def test_rotate_plane_turns_by_twice_the_angle_from_u_towards_v(seed, n):
    _, u, v = three(n, seed)
    a, b, angle = frame(u, v)
    near(rotate_plane(a, u, v), torch.cos(2 * angle) * a + torch.sin(2 * angle) * b)
    near(rotate_plane(b, u, v), torch.cos(2 * angle) * b - torch.sin(2 * angle) * a)
    near(rotate_plane(rotate_plane(a, u, v), v, u), a)


@given(seeds, st.integers(3, 24))
def test_rotate_plane_leaves_the_rest_alone(seed, n):
    x, u, v = three(n, seed, (5,))
    basis = torch.linalg.qr(torch.stack([u, v], 1))[0]
    rest = x - x @ basis @ basis.T
    near(rotate_plane(rest, u, v), rest)


@given(seeds, sizes, st.sampled_from([1., -1., 3e-4, -7e3]))
def test_parallel_or_opposite_is_the_identity(seed, n, factor):
    x, u, _ = three(n, seed, (4,))
    near(rotate_plane(x, u, factor * u), x)


@given(seeds, sizes, st.floats(-12, 12))
def test_only_the_directions_of_u_and_v_count(seed, n, power):
    x, u, v = three(n, seed, (3,))
    near(rotate_plane(x, 10 ** power * u, -10 ** -power * v), rotate_plane(x, u, v))


@pytest.mark.parametrize("size", [1e-15, 1e-8, 1e8, 1e15])
def test_short_and_long_vectors_in_single_precision(size):
    x, u, v = (t.float() for t in three(6, 0, (3,)))
    near(rotate_plane(x, size * u, v), rotate_plane(x, u, v), 1e-5)


@pytest.mark.parametrize("n", [2, 3, 16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_aguilera_perez_gives_the_same_matrix(n, dtype):
    for seed in range(3 if n < 64 else 1):
        u, v = draw(2, n, seed=seed, dtype=dtype)
        m, slow = rotation_matrix(u, v), aguilera_perez(u, v)
        one, single = torch.eye(n, dtype=dtype), dtype == torch.float32
        near(slow, m, 1e-5 if single else 1e-10)
        near(m @ m.T, one, 1e-6 if single else 1e-12)
        near(slow @ slow.T, one, 1e-5 if single else 1e-12)
        near(m, rotation_matrix(u.double(), v.double()).to(dtype), 1e-6 if single else 1e-12)


def test_gradients_of_both_ways_agree():
    x, u, v = (t.requires_grad_() for t in three(7, 3, (4,)))
    weight = draw(4, 7, seed=9)
    ours = torch.autograd.grad((rotate_plane(x, u, v) * weight).sum(), (x, u, v))
    theirs = torch.autograd.grad((x @ aguilera_perez(u, v).T * weight).sum(), (x, u, v))
    for a, b in zip(ours, theirs): near(a, b)


PLANES = [((5, 6), (5, 6)), ((4, 1, 6), (4, 1, 6)), ((4, 5, 6), (4, 5, 6)), ((5, 6), (6,)), ((6,), (4, 1, 6)), ((4, 1, 6), (5, 6))]


@pytest.mark.parametrize("u_shape, v_shape", PLANES)
def test_a_plane_for_each_vector(u_shape, v_shape):
    x, u, v = draw(4, 5, 6), draw(*u_shape, seed=1), draw(*v_shape, seed=2)
    u_all, v_all = u.expand(4, 5, 6), v.expand(4, 5, 6)
    one_by_one = torch.stack([torch.stack([rotate_plane(x[i, j], u_all[i, j], v_all[i, j]) for j in range(5)])
                              for i in range(4)])
    near(rotate_plane(x, u, v), one_by_one)
    turned = torch.stack([torch.stack([rotate_toward(x[i, j], u_all[i, j], v_all[i, j], .7) for j in range(5)])
                          for i in range(4)])
    near(rotate_toward(x, u, v, .7), turned)


@pytest.mark.parametrize("shapes", [((6,), (6,), (6,)), ((3, 6), (6,), (6,)), ((2, 3, 6), (6,), (6,)), ((3, 6), (3, 6), (6,)),
                                    ((3, 6), (3, 6), (3, 6))])
def test_gradcheck(shapes):
    x, u, v = (draw(*s, seed=i).requires_grad_() for i, s in enumerate(shapes))
    assert gradcheck(rotate_plane, (x, u, v))
    assert gradcheck(rotate_toward, (x, u, v, torch.tensor(.6, **F64, requires_grad=True)))


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 0])
@pytest.mark.parametrize("sign", [1, -1])
def test_gradcheck_where_the_vectors_are_nearly_parallel(gap, sign):
    x, u, w = three(5, 4, (3,))
    v = sign * u + gap * w
    assert gradcheck(rotate_plane, tuple(t.clone().requires_grad_() for t in (x, u, v)))


# ---- by an angle

angles = st.floats(-7, 7)


@given(seeds, sizes, angles, angles)
def test_angles_add(seed, n, s, t):
    x, u, v = three(n, seed, (3,))
    near(rotate_toward(rotate_toward(x, u, v, s), u, v, t), rotate_toward(x, u, v, s + t))
    near(rotate_toward(rotate_toward(x, u, v, s), u, v, -s), x)
    near(rotate_toward(x, u, v, s).norm(dim=-1), x.norm(dim=-1))
    near(rotate_toward(x, u, v, 2 * math.pi), x)
    near(rotate_toward(x, u, v, 0.), x)


@given(seeds, sizes)
def test_u_goes_towards_v(seed, n):
    x, u, v = three(n, seed, (3,))
    a, b, angle = frame(u, v)
    near(rotate_toward(a, u, v, math.pi / 2), b)
    near(rotate_toward(u / u.norm(), u, v, angle), v / v.norm())
    near(rotate_toward(x, u, v, 2 * angle), rotate_plane(x, u, v))
    near(rotate_toward(x, u, -v, .3), rotate_toward(x, u, v, -.3))


def test_an_angle_for_each_vector():
    x, u, v = three(5, 0, (4, 3))
    for shape in ((4, 3), (3,), (4, 1), (1, 1), ()):
        angle = draw(*shape, seed=7)
        y, every = rotate_toward(x, u, v, angle), angle.expand(4, 3)
        assert y.shape == x.shape
        for i in range(4):
            for j in range(3): near(y[i, j], rotate_toward(x[i, j], u, v, every[i, j].item()))
    many = rotate_toward(x[0, 0], u, v, torch.linspace(0, 6, 9, **F64))
    assert many.shape == (9, 5)
    near(many[3], rotate_toward(x[0, 0], u, v, 2.25))


def test_toward_a_vector_that_is_close():
    x, u, w = three(6, 5, (3,))
    v = u + 1e-4 * w
    near(rotate_toward(rotate_toward(x, u, v, 1.), u, v, -1.), x)
    near(rotate_toward(x, u, v, 1.).norm(dim=-1), x.norm(dim=-1))


# ---- layers

BUILDS = {"film": lambda: FiLM(6), "one": lambda: FiLMR(6), "three": lambda: FiLMR(6, planes=3),
          "turn": lambda: FiLMR(6, affine=False), "turns": lambda: FiLMR(7, planes=3, affine=False),
          **{kind: functools.partial(SquareMatrix, 6, kind) for kind in R.KINDS}}
each_build = pytest.mark.parametrize("name", BUILDS)
rotating = pytest.mark.parametrize("name", ["one", "three", "turn", "turns"])


def size_of(name): return 7 if name == "turns" else 6


@pytest.mark.parametrize("n, planes", [(2, 1), (5, 2), (6, 3), (64, 4)])
def test_all_parameters_are_registered(n, planes):
    layer, turn = FiLMR(n, planes), FiLMR(n, planes, affine=False)
    assert sum(p.numel() for p in layer.parameters()) == 2 * n + 2 * planes * n
    assert sum(p.numel() for p in turn.parameters()) == 2 * planes * n
    assert set(layer.state_dict()) == {"gamma", "beta", "u", "v"} and set(turn.state_dict()) == {"u", "v"}
    assert sum(p.numel() for p in FiLM(n).parameters()) == 2 * n


@each_build
def test_gradient_reaches_every_parameter(name):
    m = stirred(BUILDS[name])
    m(draw(8, size_of(name))).pow(3).sum().backward()
    for key, p in m.named_parameters(): assert p.grad is not None and p.grad.abs().max() > 0, key


@each_build
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_inverse_undoes_whatever_the_shape(name, shape):
    m, x = stirred(BUILDS[name], 1), draw(*shape, size_of(name))
    y = m(x)
    assert y.shape == x.shape
    near(m.inverse()(y), x, 1e-8)
    near(m(m.inverse()(x)), x, 1e-8)


@each_build
@pytest.mark.parametrize("k", range(-5, 8))
def test_power_is_k_steps(name, k):
    m, x = stirred(BUILDS[name], 2), draw(4, size_of(name))
    step, y = m if k >= 0 else m.inverse(), x
    for _ in range(abs(k)): y = step(y)
    close(m.power(k)(x), y, rtol=1e-7, atol=1e-8)


@given(seeds, st.integers(1, 3), st.integers(-300, 300))
def test_closed_form_is_as_good_as_many_steps(seed, planes, k):
    torch.manual_seed(seed)
    m, x = FiLMR(8, planes, affine=False), draw(3, 8, seed=seed, dtype=torch.float32)
    step, y = m if k >= 0 else m.inverse(), x
    for _ in range(abs(k)): y = step(y)
    near(m.power(k)(x), y, 1e-6 * max(30, abs(k)))
    near(m.double().power(k)(x.double()).norm(dim=-1), x.double().norm(dim=-1), 1e-9)


@rotating
def test_a_layer_is_film_then_its_planes_in_any_order(name):
    m, x = stirred(BUILDS[name], 3), draw(4, size_of(name))
    z = m.gamma * x + m.beta if m.affine else x
    for planes in (m.planes(), m.planes()[::-1]):
        y = z
        for u, v in planes: y = rotate_plane(y, u, v)
        near(m(x), y)


@pytest.mark.parametrize("n, planes", [(4, 2), (7, 3), (16, 8)])
def test_planes_stand_at_right_angles(n, planes):
    pairs = [torch.stack(p) for p in stirred(lambda: FiLMR(n, planes, affine=False), 4).planes()]
    assert len(pairs) == planes
    for i, p in enumerate(pairs):
        for q in pairs[:i]: near(p @ q.T, torch.zeros(2, 2, **F64))
    near(pairs[0], torch.stack(stirred(lambda: FiLMR(n, planes, affine=False), 4).planes()[0]))


@pytest.mark.parametrize("n, planes", [(2, 1), (5, 2), (6, 3)])
def test_angles_are_those_of_the_matrix(n, planes):
    m = stirred(lambda: FiLMR(n, planes, affine=False), 5)
    turned = torch.linalg.eigvals(m(torch.eye(n, **F64)).T).angle().abs().sort().values
    folded = torch.remainder(m.angles() + math.pi, 2 * math.pi).sub(math.pi).abs()
    expected = torch.cat([folded, folded, torch.zeros(n - 2 * planes, **F64)]).sort().values
    assert m.angles().shape == (planes,) and (m.angles() >= 0).all() and (m.angles() <= 2 * math.pi).all()
    near(turned, expected, 1e-7)
    if planes == 1: near(m.angles()[0], 2 * frame(m.u[0], m.v[0])[2].detach(), 1e-9)


def test_starts_as_a_small_turn_and_film_as_the_identity():
    x = draw(4, 32)
    near(seeded(lambda: FiLM(32))(x), x, 0)
    for planes in (1, 4): assert 0 < seeded(lambda: FiLMR(32, planes)).angles().max() < .5


# ---- a context

CONTEXTS = {"film": lambda c=3: FiLM(6, context=c), "one": lambda c=3: FiLMR(6, context=c),
            "two": lambda c=3: FiLMR(6, planes=2, context=c), "turns": lambda c=3: FiLMR(6, planes=2, affine=False, context=c)}
each_context = pytest.mark.parametrize("name", CONTEXTS)


@each_context
def test_context_starts_without_effect_and_then_moves_every_parameter(name):
    build = CONTEXTS[name]
    with_context, x, c = seeded(build), draw(4, 6), draw(4, 3, seed=1)
    plain = seeded(lambda: build(None))
    plain.load_state_dict({k: v for k, v in with_context.state_dict().items() if not k.startswith("shift")})
    near(with_context(x, c), plain(x))
    with_context(x, c).pow(3).sum().backward()
    for key, p in with_context.named_parameters(): assert p.grad.abs().max() > 0, key
    names = with_context.settings(c)
    for key, block in zip(names, with_context.shift.weight.grad.split([plain.get_parameter(k).numel() for k in names])):
        assert block.abs().max() > 0, key
    torch.optim.SGD(with_context.parameters(), lr=.01).step()
    one, other = with_context.settings(c[0]), with_context.settings(c[1])
    for key in one: assert one[key].shape == plain.get_parameter(key).shape and not torch.equal(one[key], other[key])


@each_context
def test_a_context_for_each_vector(name):
    m, x, c = stirred(CONTEXTS[name], 1), draw(4, 6), .5 * draw(4, 3, seed=1)
    one_by_one = torch.stack([m(a, b) for a, b in zip(x, c)])
    near(m(x, c), one_by_one)
    near(m(x, c[0]), torch.stack([m(a, c[0]) for a in x]))
    near(m.inverse()(m(x, c), c), x, 1e-7)
    for k in (-2, 0, 3):
        y = x
        for _ in range(abs(k)): y = (m if k > 0 else m.inverse())(y, c)
        near(m.power(k)(x, c), y, 1e-6)
    if name != "film":
        assert m.angles(c).shape == (4, len(m.planes(c)))
        near(m.angles(c)[2], m.angles(c[2]))


@each_context
def test_gradcheck_through_the_layer(name):
    m, x, c = stirred(CONTEXTS[name], 2), draw(2, 6), .5 * draw(2, 3, seed=1)
    plain = stirred(lambda: CONTEXTS[name](None), 2)
    for layer, given_too in ((m, (c,)), (plain, ())):
        names, params = zip(*((k, p.detach().clone().requires_grad_()) for k, p in layer.named_parameters()))

        def run(x, *params): return functional_call(layer, dict(zip(names, params)), (x, *given_too))
        assert gradcheck(run, (x.clone().requires_grad_(), *params))


@each_context
def test_context_missing_or_unwanted(name):
    with_context, plain, x = CONTEXTS[name]().double(), CONTEXTS[name](None).double(), draw(4, 6)
    with pytest.raises(ValueError, match="context"): with_context(x)
    with pytest.raises(ValueError, match="context"): plain(x, draw(4, 3))
    with pytest.raises(ValueError, match="context"): with_context.inverse()(x)
    with pytest.raises(ValueError, match="context"): with_context.power(2)(x)
    with pytest.raises(ValueError, match="context"): plain.power(2)(x, draw(4, 3))


# ---- copies, files, many at once

@each_build
def test_save_and_load(name):
    a, b, x = stirred(BUILDS[name], 1), seeded(BUILDS[name], 2), draw(4, size_of(name))
    assert not torch.allclose(a(x), b(x))
    file = io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    b.load_state_dict(torch.load(file))
    near(a(x), b(x), 0)
    near(copy.deepcopy(a)(x), a(x), 0)


@each_build
def test_vmap_through_the_layer(name):
    many, x = [stirred(BUILDS[name], s) for s in range(3)], draw(3, 4, size_of(name))
    params, buffers = stack_module_state(many)
    params = {k: p.detach() for k, p in params.items()}

    def one(p, b, x): return functional_call(many[0], (p, b), (x,))
    near(vmap(one)(params, buffers, x), torch.stack([m(a) for m, a in zip(many, x)]))
    near(vmap(one, (0, 0, None))(params, buffers, x[0]), torch.stack([m(x[0]) for m in many]))
    near(vmap(vmap(one, (None, None, 0)))(params, buffers, x), torch.stack([m(a) for m, a in zip(many, x)]))

    def total(p, b, x): return one(p, b, x).pow(3).sum()
    grads = vmap(torch.func.grad(total))(params, buffers, x)
    for i, m in enumerate(many):
        m(x[i]).pow(3).sum().backward()
        for k, p in m.named_parameters(): close(grads[k][i], p.grad, rtol=1e-9, atol=1e-9)


@each_build
def test_the_layer_learns_under_an_optimiser_and_the_inverse_follows(name):
    m, x = stirred(BUILDS[name], 1), draw(16, size_of(name))
    goal, before = draw(16, size_of(name), seed=5), m.inverse()
    optimizer = torch.optim.SGD(m.parameters(), lr=.01)
    losses = []
    for _ in range(20):
        loss = (m(x) - goal).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    near(before(m(x)), x, 1e-7)


# ---- square matrices

@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize("kind, det", [("rotation", 1), ("reflection", -1), ("exp", 1)])
def test_orthogonal_before_and_after_steps_of_an_optimiser(kind, det, n, seed):
    m, x = seeded(lambda: SquareMatrix(n, kind), seed), draw(8, n, seed=seed)
    start, optimizer = m.matrix().detach(), torch.optim.Adam(m.parameters(), lr=.1)
    for _ in range(5):
        near(m.matrix() @ m.matrix().T, torch.eye(n, **F64), 2e-6)
        assert torch.linalg.det(m.matrix()).item() == pytest.approx(det, abs=1e-5)
        near(m(x), x @ m.matrix().T)
        optimizer.zero_grad()
        (m(x) - x.roll(1, 0)).pow(2).sum().backward()
        optimizer.step()
    assert not torch.allclose(m.matrix(), start)


def test_single_precision_stays_orthogonal():
    for kind in R.KINDS[1:]:
        torch.manual_seed(0)
        m = SquareMatrix(64, kind).matrix()
        near(m @ m.T, torch.eye(64), 1e-5)


@pytest.mark.parametrize("kind", R.KINDS)
def test_registered_and_drawn_from_the_global_seed(kind):
    torch.manual_seed(5)
    a = SquareMatrix(6, kind)
    torch.manual_seed(5)
    assert torch.equal(a.matrix(), SquareMatrix(6, kind).matrix())
    assert sum(p.numel() for p in a.parameters()) == 36 and a.matrix().shape == (6, 6)
    near(a.power(0)(draw(3, 6).float()), draw(3, 6).float(), 1e-5)


# ---- the quality of a ring

def turn(angle): return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], **F64)


def polygon(n, turns=1, radius=1.):
    angle = 2 * math.pi * turns * torch.arange(n, **F64) / n
    return radius * torch.stack([angle.cos(), angle.sin()], -1)


def by(matrix): return lambda z: z @ matrix.T


def fields(q): return {k: torch.tensor(v, **F64) for k, v in q.to_dict().items()}


def same(a, b, tol=1e-9, winding=True):
    "Equal qualities; the sign of the winding only where a plane has sides."
    for k, x in fields(a).items():
        y = fields(b)[k]
        near(*((x, y) if winding or k != "winding" else (x.abs(), y.abs())), tol)


@pytest.mark.parametrize("n", [3, 4, 7, 16, 60])
@pytest.mark.parametrize("turns", [1, -1])
def test_a_regular_polygon_is_locked(n, turns):
    z, step = polygon(n, turns, 2.5) + torch.tensor([3., -1], **F64), turn(2 * math.pi * turns / n)
    centre = z.mean(0)
    q = ring_quality(z, lambda x: (x - centre) @ step.T + centre)
    assert bool(q.locked) and q.step_error < 1e-9 and q.orbit_error < 1e-9
    assert q.distance.item() == pytest.approx(1) and q.radius.item() == pytest.approx(1)
    assert q.winding == turns                                       # in two dimensions the sign means something


@pytest.mark.parametrize("n", [5, 7, 12, 16])
def test_twice_round(n):
    q = ring_quality(polygon(n, 2), by(turn(4 * math.pi / n)))
    assert q.winding.abs() == 2 and not q.locked and q.step_error < 1e-9
    assert q.distance.item() == pytest.approx(1 if n % 2 else 0, abs=1e-7)


def test_a_pair_that_fell_together():
    z = polygon(8)
    z[1] = z[0]
    q = ring_quality(z, lambda x: x.roll(-1, -2))
    assert q.distance.item() == pytest.approx(0, abs=1e-7) and q.step_error < 1e-9 and not q.locked


@pytest.mark.parametrize("aspect, locked", [(.99, True), (.3, False), (.05, False)])
def test_an_ellipse_with_its_own_operator(aspect, locked):
    squeeze = torch.diag(torch.tensor([1, aspect], **F64))
    z, t = polygon(16) @ squeeze, squeeze @ turn(math.pi / 8) @ squeeze.inverse()
    q = ring_quality(z, by(t))
    assert q.step_error < 1e-9 and q.orbit_error < 1e-9 and q.winding.abs() == 1
    assert bool(q.locked) == locked and (q.distance < .9).item() != locked


@pytest.mark.parametrize("size", [.001, .01, .1])
def test_an_operator_that_drifts(size):
    n, drift = 10, torch.tensor([.6, .8], **F64) * size
    q = ring_quality(polygon(n, radius=3.), lambda x: x.roll(-1, -2) + drift)
    assert q.step_error.item() == pytest.approx(size / (6 * math.sin(math.pi / n)))
    assert q.orbit_error.item() == pytest.approx(n * size / 3)
    assert bool(q.locked) == (size < .015)


def test_an_operator_that_shrinks_or_turns_too_little():
    z = polygon(12)
    shrinks = ring_quality(z, by(.9 * turn(math.pi / 6)))
    assert shrinks.radius.item() == pytest.approx(.9 ** 12) and not shrinks.locked
    assert shrinks.orbit_error.item() == pytest.approx(1 - .9 ** 12)
    lazy = ring_quality(z, lambda x: x)
    assert lazy.step_error.item() == pytest.approx(1) and lazy.orbit_error.item() == pytest.approx(2)
    slow = ring_quality(z, by(turn(math.pi / 6 - .02)))
    assert slow.step_error.item() == pytest.approx(math.sin(.01) / math.sin(math.pi / 12))
    assert slow.orbit_error.item() == pytest.approx(2 * math.sin(.12)) and not slow.locked


@given(seeds, st.integers(3, 20))
def test_a_ring_in_64_dimensions(seed, n):
    plane = torch.linalg.qr(draw(64, 2, seed=seed))[0]
    t = torch.eye(64, **F64) + plane @ (turn(2 * math.pi / n) - torch.eye(2, **F64)) @ plane.T
    q = ring_quality(polygon(n) @ plane.T, by(t))
    assert bool(q.locked) and q.step_error < 1e-9
    same(q, ring_quality(polygon(n), by(turn(2 * math.pi / n))), winding=False)


def rough(seed, n=9, dim=4):
    "A ring with noise, and an operator that nearly fits."
    pad = torch.nn.functional.pad(polygon(n), (0, dim - 2))
    step = torch.block_diag(turn(2 * math.pi / n), torch.eye(dim - 2, **F64)) + .02 * draw(dim, dim, seed=seed + 1)
    return pad + .1 * draw(n, dim, seed=seed), step


@given(seeds, st.floats(.01, 100), st.integers(1, 8), st.sampled_from([2, 4]))
def test_rotation_scaling_and_relabelling_change_nothing(seed, scale, shift, dim):
    z, t = rough(seed, dim=dim)
    q, free = ring_quality(z, by(t)), torch.linalg.qr(draw(dim, dim, seed=seed + 2))[0]
    if torch.linalg.det(free) < 0: free[0] *= -1
    same(ring_quality(z @ free.T, by(free @ t @ free.T)), q, winding=dim == 2)
    same(ring_quality(scale * z, by(t)), q, winding=dim == 2)
    same(ring_quality(z.roll(shift, -2), by(t)), q, winding=dim == 2)


@given(seeds)
def test_a_mirror_image_goes_round_the_other_way(seed):
    z, t = rough(seed, dim=2)
    mirror = torch.diag(torch.tensor([1., -1], **F64))
    q, m = ring_quality(z, by(t)), ring_quality(z @ mirror, by(mirror @ t @ mirror))
    assert q.winding == 1 and m.winding == -1 and q.locked == m.locked
    same(q, m, winding=False)


@pytest.mark.parametrize("batch", [(5,), (2, 3), (1, 1, 2), (0,)])
@pytest.mark.parametrize("dim", [2, 4])
def test_leading_axes_are_further_rings(batch, dim):
    count = math.prod(batch)
    rings, operators = zip(*(rough(s, dim=dim) for s in range(max(count, 1))))
    z, t = (torch.stack(x)[:count].reshape(*batch, *x[0].shape) for x in (rings, operators))
    q = ring_quality(z, lambda x: x @ t.mT)
    assert q.locked.shape == q.winding.shape == q.step_error.shape == q.radius.shape == batch
    columns = q.to_dict()
    assert set(columns) == {"step_error", "distance", "winding", "orbit_error", "radius", "locked"}
    for i in range(count):
        alone = ring_quality(rings[i], by(operators[i])).to_dict()
        for k in columns:
            flip = abs if k == "winding" and dim > 2 else float
            assert flip(columns[k][i]) == pytest.approx(flip(alone[k][0]))


def test_a_ring_fallen_to_a_point_is_not_locked():
    assert not ring_quality(torch.zeros(6, 2), lambda x: x).locked
    assert not ring_quality(torch.ones(6, 64), lambda x: x).locked


# ---- the loss

@pytest.mark.parametrize("n, dim", [(3, 2), (16, 2), (12, 64)])
def test_loss_is_nought_at_the_perfect_ring(n, dim):
    z = torch.nn.functional.pad(polygon(n), (0, dim - 2))
    near(ring_loss(z, z.roll(-1, 0)), torch.tensor(0., **F64), 1e-20)
    near(ring_loss(z + 5, z.roll(-1, 0) + 5, .6), torch.tensor(0., **F64), 1e-20)
    step = (2 * math.sin(math.pi / n)) ** 2
    for progress in (0, .15, .3, .6, .9):
        loss = ring_loss(z, z.roll(-1, 0), progress).item()
        assert loss == pytest.approx(step * max(0, 1 - progress / .6), abs=1e-12)


def test_each_weight_turns_its_term_off():
    z = polygon(8) * torch.tensor([2., 1], **F64)
    moved = z.roll(-1, 0) + .1
    a, b = 2., .5                                                   # variances along the axes
    terms = {"size": (a + b - 1) ** 2, "adjacency": (z.roll(-1, 0) - z).pow(2).sum(-1).mean().item(),
             "roundness": ((a * a + b * b) / (a + b) ** 2 - .5) ** 2}
    none = dict.fromkeys(terms, 0.)
    assert ring_loss(z, moved, 0., **none).item() == pytest.approx(.02)
    full = ring_loss(z, moved, 0.).item()
    for name, term in terms.items():
        assert full - ring_loss(z, moved, 0., **{name: 0.}).item() == pytest.approx(term)
        assert ring_loss(z, moved, 0., **none | {name: 3.}).item() == pytest.approx(.02 + 3 * term)
    assert full == pytest.approx(.02 + sum(terms.values()))


@given(seeds, st.floats(0, 1))
def test_loss_does_not_mind_rotations_shifts_and_relabelling(seed, progress):
    z, t = rough(seed)
    free, moved = torch.linalg.qr(draw(4, 4, seed=seed + 3))[0], z @ t.T
    loss = ring_loss(z, moved, progress)
    near(ring_loss(z @ free, moved @ free, progress), loss)
    near(ring_loss(z + 2, moved + 2, progress), loss)
    near(ring_loss(z.roll(2, 0), moved.roll(2, 0), progress), loss)


def test_gradcheck_of_the_loss():
    z, t = rough(1)
    assert gradcheck(lambda z, m: ring_loss(z, m, .2), (z.requires_grad_(), (z @ t.T).detach().requires_grad_()))


# ---- learning rings

OPERATORS = {"rotation": None, "film": FiLMR, "matrix": SquareMatrix, "mirror": lambda d: SquareMatrix(d, "reflection"),
             "network": R.encoder}
each_operator = pytest.mark.parametrize("name", OPERATORS)


@functools.cache
def short(): return stargate(8, steps=20, seeds=range(3))


@pytest.mark.parametrize("n, dim, seeds, steps", [(3, 2, 0, 2), (5, 2, [4], 1), (4, 3, range(3), 10), (12, 64, (1, 2), 5)])
def test_shapes(n, dim, seeds, steps):
    run = stargate(n, dim, seeds=seeds, steps=steps)
    count = len(run.seeds)
    assert run.seeds == ((seeds,) if isinstance(seeds, int) else tuple(seeds))
    assert run.steps[0] == 0 and run.steps[-1] == steps and run.steps == sorted(set(run.steps))
    assert run.history.shape == run.targets.shape == (len(run.steps), count, n, dim)
    assert run.z.shape == (count, n, dim) and len(run.operators) == len(run.encoders) == count
    for field in (run.locked, run.winding, run.orbit_error): assert field.shape == (count,)
    assert not run.history.requires_grad and not run.targets.requires_grad and torch.isfinite(run.history).all()
    columns = run.to_dict()
    assert columns["seed"] == list(run.seeds) and all(len(v) == count for v in columns.values())
    assert f"of {count} rings" in repr(run) and f"{steps} steps" in repr(run)


@each_operator
def test_many_seeds_at_once_are_the_same_as_one_at_a_time(name):
    make = functools.partial(stargate, 6, 2, OPERATORS[name], steps=30)
    many = make(seeds=(3, 0, 11))
    for i, seed in enumerate((3, 0, 11)):
        one = make(seeds=seed)
        near(one.history[0, 0], many.history[0, i], 1e-5)
        near(one.history[:, 0], many.history[:, i], 1e-3)
        near(one.targets[:, 0], many.targets[:, i], 1e-3)


@each_operator
def test_what_comes_back_is_what_was_learned(name):
    y = R.line(6, 2)
    run = stargate(6, 2, OPERATORS[name], seeds=(1, 2), steps=15)
    for i in range(2):
        with torch.no_grad(): z = run.encoders[i](y)
        near(z, run.z[i], 1e-5)
        with torch.no_grad(): near(run.operators[i](z), run.targets[-1, i], 1e-5)
        alone = ring_quality(run.z[i], lambda x: run.operators[i](x).detach())
        assert run.quality.step_error[i].item() == pytest.approx(alone.step_error.item(), rel=1e-3)


def test_the_seed_decides_all():
    a, b = stargate(8, steps=20, seeds=7), stargate(8, steps=20, seeds=7)
    assert torch.equal(a.history, b.history) and torch.equal(a.targets, b.targets)
    z = short().history
    for i in range(3):
        for j in range(i): assert not torch.allclose(z[0, i], z[0, j]) and not torch.allclose(z[-1, i], z[-1, j])
    assert not torch.allclose(z[0], z[-1])


def test_random_state_stays_as_it_was():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = stargate(4, steps=2, seeds=(0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(321)
    assert torch.equal(stargate(4, steps=2, seeds=(0, 1)).history, first.history)


def test_locks_in_two_dimensions():
    run = stargate(16, 2, seeds=0, steps=1000)
    assert bool(run.locked) and run.winding.abs() == 1
    assert run.orbit_error < .05
    assert run.operators[0].angles().item() == pytest.approx(2 * math.pi / 16, abs=.002)
    z = run.z[0]
    with torch.no_grad(): near(run.operators[0].power(16)(z), z, .02)


def test_the_loss_is_called_with_the_progress():
    seen = []

    def loss(z, moved, progress):
        seen.append(progress)
        return ring_loss(z, moved, progress)
    stargate(4, steps=5, loss=loss)
    assert seen == pytest.approx([0, .2, .4, .6, .8])


def test_a_run_that_diverges_is_not_locked():
    run = stargate(5, steps=3, seeds=(0, 1), loss=lambda z, moved, progress: z.sum() * math.nan)
    assert not run.locked.any()


def test_plot_and_animate():
    from IPython.display import HTML
    from matplotlib.figure import Figure
    for run in (0, 2):
        result = short()
        fig = result.plot(run)
        last = fig.axes[-1]
        assert isinstance(fig, Figure) and last.get_title().endswith("not locked") != bool(result.locked[run])
        assert np.allclose(last.lines[1].get_xydata(), result.z[run]), "the points as they ended"
        assert np.allclose(last.lines[2].get_xydata(), result.targets[-1, run]), "and where T takes them"
        page = result.animate(run)
        assert isinstance(page, HTML) and page.data.count("<circle") >= 2 * result.z.shape[1]
    assert stargate(4, 5, steps=3).plot().get_suptitle().startswith("4 points")
    assert isinstance(stargate(3, 3, steps=1).animate(), HTML)


@pytest.mark.parametrize("run", [-1, 3, 1.5, True, None])
def test_a_run_that_is_not_there(run):
    for draw_it in (short().plot, short().animate):
        with pytest.raises(ValueError, match="run must be a whole number from 0 to 2"): draw_it(run)


# ---- many small modules as one

def test_a_stack_is_its_members_side_by_side():
    x = draw(3, 5, 6, dtype=torch.float32)
    stack = Stack(lambda: FiLMR(6), (4, 0, 7))
    near(stack(x), torch.stack([m(one) for m, one in zip(stack.unstack(), x)]), 1e-6)
    torch.manual_seed(0)
    near(stack.members[1].u, FiLMR(6).u, 0)
    assert sum(p.numel() for p in stack.parameters()) == 3 * sum(p.numel() for p in FiLMR(6).parameters())


def test_a_stack_leaves_the_random_state_alone_and_gives_back_what_it_learned():
    before = torch.get_rng_state()
    stack, x = Stack(lambda: SquareMatrix(4, "rotation"), range(3)), draw(3, 8, 4, dtype=torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    first, loss = stack.members[0].weight.clone(), lambda progress: (stack(x) - x.flip(-1)).pow(2).mean((1, 2)).sum()
    started = loss(0).item()
    anneal(stack.parameters(), loss, 30, lr=.05)
    assert loss(1).item() < started and not torch.equal(stack.unstack()[0].weight, first)
    near(torch.stack([m(one) for m, one in zip(stack.members, x)]), stack(x), 1e-5)


def test_annealing_tells_step_and_progress_and_ends_at_rest():
    w, progress, steps = torch.ones(2, requires_grad=True), [], []

    def loss(share):
        progress.append(share)
        return (w ** 2).sum()
    anneal([w], loss, 4, .1, steps.append)
    assert progress == [0, .25, .5, .75] and steps == [0, 1, 2, 3] and (w < 1).all()


# ---- the ring of notes

def test_going_round_the_tones_never_gets_far():
    spectra = [np.abs(np.fft.rfft(shepard_tone(k))) for k in range(12)]
    shares = np.array([[s[2 ** np.arange(3) * round(440 * 2 ** ((48 + k - 69) / 12) * 13_000 / 22_050)].sum() / s.sum()
                        for k in range(12)] for s in spectra])
    assert (shares.argmax(1) == np.arange(12)).all() and all(shepard_tone(k).shape == (13_000,) for k in (0, 11))


def test_the_dial_of_notes_lands_where_powers_of_the_operator_lead():
    page = note_dial(1001).data
    for k in (1, 7, 4, -1): assert str([(i + k) % 12 for i in range(12)]) in page.replace("&quot;", '"')
    assert all(name in page for name in NOTE_NAMES) and page.count("data-sound") >= 12


# ---- bad input

GOOD, OTHER, NAN = torch.tensor([1., 2, 3]), torch.tensor([0., 1, -1]), torch.tensor([1., math.nan, 0])
INF, ZERO, WHOLE = torch.tensor([1., math.inf, 0]), torch.zeros(3), torch.tensor([1, 2, 3])
TWO = {"rotate_plane": lambda u, v: rotate_plane(torch.ones(4, 3), u, v), "rotation_matrix": rotation_matrix,
       "rotate_toward": lambda u, v: rotate_toward(torch.ones(4, 3), u, v, .5)}


@pytest.mark.parametrize("f", TWO.values(), ids=TWO)
@pytest.mark.parametrize("bad", [NAN, INF, ZERO, WHOLE, torch.tensor(1.), [1., 2, 3], None, torch.ones(3, dtype=torch.bool)],
                         ids=["nan", "inf", "zero", "integers", "number", "list", "none", "bool"])
def test_bad_vectors(f, bad):
    with pytest.raises(ValueError, match=r"\bu\b"): f(bad, GOOD)
    with pytest.raises(ValueError, match=r"\bv\b"): f(GOOD, bad)


@pytest.mark.parametrize("f", TWO.values(), ids=TWO)
def test_vectors_of_different_size(f):
    with pytest.raises(ValueError, match=r"(?s)\bu\b.*\bv\b"): f(GOOD, torch.ones(4))
    with pytest.raises(ValueError, match=r"(?s)\bu\b.*\bv\b"): f(torch.ones(1), GOOD)


def test_one_zero_vector_of_many():
    u = torch.stack([GOOD, ZERO])
    for f in (lambda u, v: rotate_plane(torch.ones(2, 3), u, v), lambda u, v: rotate_toward(torch.ones(2, 3), u, v, 1.)):
        with pytest.raises(ValueError, match=r"\bu\b"): f(u, OTHER)
        with pytest.raises(ValueError, match=r"\bv\b"): f(OTHER, u)


def test_a_matrix_has_one_plane():
    with pytest.raises(ValueError, match=r"\bu\b"): rotation_matrix(torch.randn(3, 3), GOOD)
    with pytest.raises(ValueError, match=r"\bv\b"): rotation_matrix(GOOD, torch.randn(2, 3))


@pytest.mark.parametrize("x", [torch.ones(4, 2), torch.ones(3, 4), torch.ones(4, 1), torch.tensor(1.), torch.ones(4, 3, dtype=torch.long),
                               [[1., 2, 3]], None], ids=["size 2", "turned", "size 1", "number", "integers", "list", "none"])
@pytest.mark.parametrize("f", [rotate_plane, lambda x, u, v: rotate_toward(x, u, v, .5)], ids=["rotate_plane", "rotate_toward"])
def test_bad_x(f, x):
    with pytest.raises(ValueError, match=r"\bx\b"): f(x, GOOD, OTHER)


@pytest.mark.parametrize("factor", [1., -2.])
def test_parallel_vectors_span_no_plane(factor):
    with pytest.raises(ValueError, match="parallel"): rotate_toward(GOOD, GOOD, factor * GOOD, .5)
    with pytest.raises(ValueError, match="parallel"):
        rotate_toward(GOOD, torch.stack([OTHER, GOOD]), factor * GOOD, .5)


@pytest.mark.parametrize("angle", [math.nan, math.inf, torch.tensor([0., math.nan])])
def test_bad_angle(angle):
    with pytest.raises(ValueError, match="angle"): rotate_toward(torch.ones(2, 3), GOOD, OTHER, angle)


@pytest.mark.parametrize("dim", [1, 0, -3, 2.5, "4", None, True])
def test_bad_dim(dim):
    for build in (FiLM, FiLMR, SquareMatrix, lambda d: stargate(4, d, steps=1)):
        with pytest.raises(ValueError, match="dim"): build(dim)


@pytest.mark.parametrize("n, planes", [(4, 3), (2, 2), (5, 3), (4, 0), (4, -1), (4, 1.5), (4, None), (4, True)])
def test_bad_planes(n, planes):
    with pytest.raises(ValueError, match="planes"): FiLMR(n, planes)


@pytest.mark.parametrize("context", [0, -1, 1.5, "3", True])
def test_bad_context_size(context):
    for build in (FiLM, FiLMR):
        with pytest.raises(ValueError, match="context"): build(4, context=context)


@pytest.mark.parametrize("kind", ["orthogonal", "", None, 1])
def test_bad_kind(kind):
    with pytest.raises(ValueError, match="kind.*free.*rotation.*reflection.*exp"): SquareMatrix(4, kind)


@each_build
@pytest.mark.parametrize("k", [1.5, 2., "2", None, True])
def test_bad_power(name, k):
    with pytest.raises(ValueError, match=r"\bk\b"): BUILDS[name]().power(k)


@pytest.mark.parametrize("z", [torch.ones(2, 2), torch.ones(5, 1), torch.ones(5), [[0., 1]] * 4, None, torch.full((4, 2), math.nan),
                               torch.full((4, 2), math.inf), torch.ones(5, 2, dtype=torch.long)],
                         ids=["two points", "a line", "no axes", "list", "none", "nan", "inf", "integers"])
def test_bad_rings(z):
    with pytest.raises(ValueError, match=r"\bz\b"): ring_quality(z, lambda x: x)


@pytest.mark.parametrize("name, values", {"n_points": [2, 0, -1, 3.5, None, True], "steps": [0, -1, 1.5, None, True],
                                          "seeds": [(), [], range(0), 1.5, None, "a", [1.5], True, [True]],
                                          "operator": [3, "FiLMR"], "progress": ["yes", 2],
                                          "lr": [0, -.1, math.nan, math.inf, "a"]}.items())
def test_bad_stargates(name, values):
    for value in values:
        with pytest.raises(ValueError, match=name): stargate(**{"n_points": 4, "steps": 1} | {name: value})


def test_a_bar_shows_how_far_the_rings_are_and_changes_nothing(capsys, monkeypatch):
    shown, quiet = (stargate(4, steps=3, progress=progress).z for progress in (True, False))
    assert "/3 [" in capsys.readouterr().err and torch.equal(shown, quiet)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    stargate(4, steps=3)
    assert "step" not in capsys.readouterr().err


@pytest.mark.parametrize("layer", [FiLM(4), FiLMR(4), FiLMR(4, affine=False), SquareMatrix(4)], ids=["FiLM", "FiLMR", "rotation", "matrix"])
@pytest.mark.parametrize("x", [torch.ones(3, 1), torch.ones(3, 5), torch.ones(()), [1., 2, 3, 4]], ids=["1", "5", "none", "list"])
def test_a_layer_refuses_vectors_of_another_size(layer, x):
    for f in (layer, layer.inverse(), layer.power(2), layer.power(-1)):
        with pytest.raises(ValueError, match=r"x must be a tensor of shape \(\.\.\., 4\)"): f(x)


@pytest.mark.parametrize("make", [lambda: R.line(2, 2), lambda: R.line(3, 1), lambda: R.encoder(1), lambda: R.encoder(2, 0)])
def test_starts_of_a_ring_have_sizes(make):
    with pytest.raises(ValueError, match="n_points|dim|width"): make()
