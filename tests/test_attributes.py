"What the chapter on attributes does not carry: the losses against plain loops, expectations against samples, controls whose answer is known, bad input."
import math, weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy.stats import norm, spearmanr
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oplas import attributes as A
from oplas.attributes import (BarVAE, attribute_loss, attributes_of, bar_loss, bar_pad, expected_attributes, from_index,
                              geodesic_loss, load_bars, normal_ceiling, to_index, train_bars, transposed, turn_control,
                              turn_loss)
from oplas.tunes import Melodies
from oplas.web import InV8
from oplas.latents import sample, traverse, turned
from oplas.music import HOLD, REST
from oplas.training import History

torch.set_num_threads(1)
settings.register_profile("oplas", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("oplas")

PAPER, CODE, DISTANCE = (A.RULES[k] for k in ("paper", "code", "distance"))
ALL_RULES = pytest.mark.parametrize("rule", [PAPER, CODE, DISTANCE], ids=["paper", "code", "distance"])
WORDS = A.HIGH - A.LOW + 3
numbers = st.floats(-3, 3, width=32)
pairs = st.lists(st.tuples(numbers, st.sampled_from([-1., 0., .25, .5, 2.])), min_size=1, max_size=12)  # codes; attributes with ties


def generator(seed=0): return torch.Generator().manual_seed(seed)


def draw(n, *shape, seed=0, dtype=torch.float64):
    "Codes, and attributes in 9 steps, so that there are ties."
    g = generator(seed)
    return torch.randn(*shape, n, generator=g, dtype=dtype), torch.randint(9, (*shape, n), generator=g).to(dtype) / 3


def bars(n=200, ticks=24, seed=0):
    "Melodies of another density and width in each bar; some begin with rests, some go on with holds, the first is silent."
    g = generator(seed)
    dense, wide = torch.rand(2, n, 1, generator=g)
    begins = torch.rand(n, ticks, generator=g) < .1 + .8 * dense
    pitch = 70 + (12 * (wide + .1) * (2 * torch.rand(n, ticks, generator=g) - 1)).round().long()
    rest = torch.where(torch.rand(n, ticks, generator=g) < .2, REST, HOLD)
    tokens = torch.where(begins, pitch, torch.where(begins.cumsum(1) > 0, rest, REST))
    tokens[0] = REST
    return tokens


# ---- attribute_loss

def plain(z, a, slope=1., power=2, target=None):
    "The loss as the paper writes it, pair by pair."
    total = 0
    for zi, ai in zip(z, a):
        for zj, aj in zip(z, a):
            wanted = math.tanh(target * (ai - aj)) if target else (ai > aj) - (ai < aj)
            total += abs(math.tanh(slope * (zi - zj)) - wanted) ** power
    return total / len(z) ** 2


@ALL_RULES
@given(pairs)
def test_attribute_loss_is_the_double_loop(rule, items):
    z, a = zip(*items)
    assert float(attribute_loss(torch.tensor(z).double(), torch.tensor(a).double(), **rule)) == pytest.approx(plain(z, a, **rule), abs=1e-12)


@ALL_RULES
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(rule, items, random):
    z, a = torch.tensor(items).double().T
    random.shuffle(items)
    y, b = torch.tensor(items).double().T
    assert torch.allclose(attribute_loss(z, a, **rule), attribute_loss(y, b, **rule), atol=1e-12)


@ALL_RULES
def test_only_differences_count(rule):
    z, a = draw(20)
    loss = attribute_loss(z, a, **rule)
    assert torch.allclose(loss, attribute_loss(z + 3, a - 2, **rule)) and torch.allclose(loss, attribute_loss(-z, -a, **rule))


@pytest.mark.parametrize("rule", [PAPER, CODE], ids=["paper", "code"])
def test_order_rules_see_the_order_only(rule):
    z, a = draw(20)
    assert torch.equal(attribute_loss(z, a, **rule), attribute_loss(z, a.exp() * 5, **rule))
    assert not torch.allclose(attribute_loss(z, a, **DISTANCE), attribute_loss(z, a.exp() * 5, **DISTANCE))


@pytest.mark.parametrize("rule, worst", [(PAPER, 4), (CODE, 2)], ids=["paper", "code"])
def test_perfect_and_reversed_order(rule, worst):
    a = torch.randperm(40, generator=generator()).double()
    assert attribute_loss(50 * a, a, **rule) == 0
    assert float(attribute_loss(-50 * a, a, **rule)) == pytest.approx(worst * 39 / 40)


@pytest.mark.parametrize("rule", [PAPER, CODE], ids=["paper", "code"])
def test_ties_want_equal_codes(rule):
    a = torch.tensor([0., 0., 1.])
    assert attribute_loss(torch.tensor([0., 0., 50.]), a, **rule) == 0
    assert float(attribute_loss(torch.tensor([0., 30., 60.]), a, **rule)) == pytest.approx(2 / 9)   # the pair of equals, twice
    z = torch.tensor([-1., 1., 0.], requires_grad=True)
    attribute_loss(z, torch.zeros(3), **rule).backward()
    if rule is PAPER: assert z.grad[0] < 0 < z.grad[1]


def test_one_item_has_no_order(): assert attribute_loss(torch.tensor([3.]), torch.tensor([1.])) == 0


@given(st.floats(.1, 1.5), st.floats(.1, 1.5), numbers, st.integers(0, 4), st.floats(.1, 2))
def test_a_target_is_met_by_equal_differences_only(slope, target, shift, which, off):
    a = torch.tensor([0., .3, .3, 1., 2.], dtype=torch.float64)
    z = target / slope * a + shift
    assert float(attribute_loss(z, a, slope, 2, target)) < 1e-20
    z[which] += off
    assert float(attribute_loss(z, a, slope, 2, target)) > 1e-8


@ALL_RULES
def test_batch_dimensions_are_averaged(rule):
    z, a = draw(11, 3, 2)
    one_by_one = [attribute_loss(z[i, j], a[i, j], **rule) for i in range(3) for j in range(2)]
    assert torch.allclose(attribute_loss(z, a, **rule), torch.stack(one_by_one).mean())


@pytest.mark.parametrize("rule", [PAPER, DISTANCE], ids=["paper", "distance"])
def test_gradient(rule):
    z, a = draw(9)
    assert torch.autograd.gradcheck(lambda z: attribute_loss(z, a, **rule), z.requires_grad_())


def value_and_gradient(z, a, rule):
    z = z.clone().requires_grad_()
    loss = attribute_loss(z, a, **rule)
    return loss.detach(), *torch.autograd.grad(loss, z)


@ALL_RULES
@pytest.mark.parametrize("shape", [(), (2,)])
def test_blocks_are_the_whole(rule, shape, monkeypatch):
    z, a = draw(A.BLOCK + 137, *shape)
    in_blocks = value_and_gradient(z, a, rule)
    monkeypatch.setattr(A, "BLOCK", 10_000)
    for x, y in zip(in_blocks, value_and_gradient(z, a, rule)): assert torch.allclose(x, y, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("n", [13, 14, 15, 29])
def test_small_blocks(n, monkeypatch):
    monkeypatch.setattr(A, "BLOCK", 7)
    z, a = draw(n)
    assert float(attribute_loss(z, a)) == pytest.approx(plain(z.tolist(), a.tolist()))


class Live(TorchDispatchMode):
    "Follows how many bytes of tensors live at once."
    def __init__(self): super().__init__(); self.now = self.peak = 0; self.known = set()

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and (s := t.untyped_storage())._cdata not in self.known: self.add(s)
        return out

    def add(self, storage):
        size, key = storage.nbytes(), storage._cdata
        self.known.add(key); self.now += size; self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size): self.known.discard(key); self.now -= size


def peak(n):
    z, a = draw(n, dtype=torch.float32)
    z.requires_grad_()
    with Live() as live: attribute_loss(z, a).backward()
    return live.peak


def test_memory_is_linear_in_the_batch(monkeypatch):
    "Value and gradient: four times the batch takes four times the bytes, where a matrix of all pairs takes sixteen times."
    blocks = [peak(n) for n in (1024, 2048, 4096)]
    assert blocks[1] < 2.2 * blocks[0] and blocks[2] < 2.2 * blocks[1]
    monkeypatch.setattr(A, "BLOCK", 10_000)
    whole = [peak(n) for n in (1024, 2048)]
    assert whole[1] > 3.5 * whole[0] and whole[1] > 2 * blocks[1]     # the meter sees what it should


@pytest.mark.parametrize("z, a", [(torch.zeros(3), torch.zeros(4)), (torch.zeros(2, 3), torch.zeros(3)), (torch.zeros(3, 1), torch.zeros(3)),
                                  (torch.tensor(1.), torch.tensor(1.))])
def test_lengths_must_agree(z, a):
    with pytest.raises(ValueError, match="z and a must have one value"): attribute_loss(z, a)


@pytest.mark.parametrize("change", [{"power": 3}, {"power": 0}, {"power": 1.5}, {"slope": 0}, {"slope": -1}, {"slope": math.inf}, {"slope": math.nan},
                                    {"target": 0}, {"target": -2}, {"target": math.nan}, {"target": math.inf}])
def test_settings_of_the_loss(change):
    name, value = *change, *change.values()
    with pytest.raises(ValueError, match=f"^{name} must be .*got {value}"): attribute_loss(torch.zeros(3), torch.zeros(3), **change)


# ---- the vocabulary

@given(st.lists(st.sampled_from([*range(A.LOW, A.HIGH + 1), HOLD, REST]), max_size=40))
def test_every_token_comes_back(tokens):
    index = to_index(np.array(tokens, dtype=np.uint8))
    assert from_index(index).tolist() == tokens and all(0 <= i < WORDS for i in index.tolist())


@given(st.integers(0, 126), st.data())
def test_every_vocabulary(low, data):
    high = data.draw(st.integers(low + 1, 127))
    index = torch.arange(high - low + 3)
    tokens = from_index(index, low, high)
    assert tokens.tolist() == [*range(low, high + 1), HOLD, REST] and torch.equal(to_index(tokens, low, high), index)


def test_any_shape_and_kind_of_integer():
    tokens = torch.tensor([[[A.LOW, HOLD], [REST, A.HIGH]]])
    wanted = [[[0, WORDS - 2], [WORDS - 1, WORDS - 3]]]
    for t in (tokens, tokens.int(), tokens.to(torch.uint8), tokens.to(torch.int16), tokens.numpy(), tokens.tolist()):
        assert to_index(t).tolist() == wanted and to_index(t).dtype == torch.int64


@pytest.mark.parametrize("token", [-1, 130, 1000, -128])
def test_an_unknown_token(token):
    with pytest.raises(ValueError, match=f"tokens: {token} is unknown"): to_index([60, token])


@pytest.mark.parametrize("pitch", [0, A.LOW - 1, A.HIGH + 1, 127])
def test_a_pitch_outside_the_vocabulary(pitch):
    with pytest.raises(ValueError, match=f"pitch {pitch} is outside the vocabulary, {A.LOW} … {A.HIGH}"): to_index([60, pitch, HOLD])
    assert to_index([60, pitch], 0, 127).tolist() == [60, pitch]


@pytest.mark.parametrize("tokens", [torch.tensor([60.]), np.array([60.5]), torch.tensor([True]), torch.tensor([1j]), [math.nan]])
def test_tokens_are_integers(tokens):
    with pytest.raises(ValueError, match="tokens must be integers"): to_index(tokens)


# ---- attributes, exact and expected

def test_attributes_by_hand():
    bar = torch.full((24,), HOLD)
    bar[[0, 6, 12, 18]] = torch.tensor([60, 73, 64, 67])
    found = dict(zip(A.ATTRIBUTES, attributes_of(bar, [*A.ATTRIBUTES]).tolist()))
    weights = [.2, .67, .25, .67]           # of the four beats, in the published code
    assert found == pytest.approx({"complexity": sum(weights) / (sum(weights) + 4 * 6.5), "range": .5, "density": 4 / 24, "contour": 7 / 26})


def test_attributes_stand_side_by_side():
    x = bars(12)
    both = attributes_of(x.reshape(3, 4, 24), ["range", "density"])
    assert both.shape == (3, 4, 2)
    assert torch.equal(both.flatten(0, 1), torch.stack([attributes_of(x, [n])[:, 0] for n in ("range", "density")], 1))
    with pytest.raises(ValueError, match="complexity, range.*got 'swing'"): attributes_of(x, ["range", "swing"])


def highest(bars): return bars.where(bars < HOLD, 0).amax(-1)


def test_an_attribute_may_be_a_function():
    x = bars(40)
    a = attributes_of(x, ["density", highest])
    assert a.dtype == torch.float32 and torch.equal(a[:, 0], attributes_of(x, ["density"])[:, 0]) and torch.equal(a[:, 1], highest(x).float())
    for odd in (lambda bars: bars, lambda bars: bars.float().mean()):
        with pytest.raises(ValueError, match="attributes: <lambda> must be .*40"): attributes_of(x, [odd])
    m = train_bars(x, {highest: 1}, turn=0., **QUICK)
    assert turn_control(m.decode, torch.zeros(2, 32), {highest: 1, "density": 0}).shape == (2, 2, 2)
    for settings in (dict(), dict(turn=0., geodesic=1.)):
        with pytest.raises(ValueError, match="dims: highest has no expectation"): train_bars(x, {highest: 1}, **settings, **QUICK)


def onehot(tokens, sure=60.): return sure * F.one_hot(to_index(tokens), WORDS).double()


@pytest.mark.parametrize("ticks", [24, 16, 48, 32])
def test_expectation_of_certain_bars_is_exact(ticks):
    x = bars(300, ticks)
    x[1] = HOLD; x[2, 1:] = REST; x[2, 0] = A.HIGH; x[3, :] = REST; x[3, -1] = A.LOW
    x[4, 0], x[4, 1:-1], x[4, -1] = A.LOW, HOLD, A.HIGH
    found = expected_attributes(onehot(x))
    assert [*found] == [*A.ATTRIBUTES]
    for name, values in found.items():
        assert values.shape == (300,)
        assert torch.allclose(values.float(), attributes_of(x, [name])[:, 0], atol=1e-4), name
        assert values[0] == pytest.approx(0, abs=1e-4) == values[1]


@pytest.mark.parametrize("ticks", [24, 32])
@pytest.mark.parametrize("sharp", [.5, 2., 5.])
def test_expectation_is_the_mean_of_samples(ticks, sharp):
    logits = sharp * torch.randn(6, ticks, WORDS, generator=generator(1), dtype=torch.float64)
    logits[:3, :, -2:] += 2 * sharp                     # also bars with few notes
    n = 20_000
    index = torch.multinomial(logits.softmax(-1).flatten(0, 1), n, replacement=True, generator=generator(2))
    samples = attributes_of(from_index(index).reshape(6, ticks, n).permute(0, 2, 1).contiguous(), [*A.ATTRIBUTES]).double()
    for k, (name, values) in enumerate(expected_attributes(logits).items()):
        error = (values - samples[..., k].mean(1)).abs()
        assert (error < 4.5 * samples[..., k].std(1) / n ** .5 + 1e-4).all(), name


def test_expectation_keeps_leading_dimensions():
    logits = torch.randn(2, 3, 24, WORDS)
    for name, values in expected_attributes(logits).items():
        assert values.shape == (2, 3) and torch.allclose(values[1, 2], expected_attributes(logits[1, 2])[name], atol=1e-6)


@pytest.mark.parametrize("sure", [0., 1., 30., 1000.])
def test_gradients_of_expectations_are_finite(sure):
    logits = onehot(bars(20), sure).float().requires_grad_()
    for name, values in expected_attributes(logits).items():
        grad, = torch.autograd.grad(values.sum(), logits, retain_graph=True)
        assert grad.isfinite().all() and values.isfinite().all(), name
        if sure < 30: assert grad.abs().max() > 1e-6


def test_gradients_of_expectations_are_right():
    logits = torch.randn(1, 16, 8, dtype=torch.float64, generator=generator()).requires_grad_()
    for name in A.ATTRIBUTES: assert torch.autograd.gradcheck(lambda x: expected_attributes(x)[name], logits)


# ---- turning

@pytest.fixture(scope="module", params=[(k, t) for k in A.NETWORKS for t in (24, 16)], ids=lambda p: f"{p[0]}-{p[1]}")
def model(request):
    torch.manual_seed(0)
    return BarVAE(request.param[0], dim=6, ticks=request.param[1]).eval()


def test_shapes(model):
    x = bars(7, model.ticks)
    mu, logvar = model.posterior(x)
    assert mu.shape == logvar.shape == (7, 6) and (logvar >= -12).all() and (logvar <= 4).all()
    assert torch.equal(model.encode(x), mu) and model.encode(x).requires_grad
    assert model.logits(mu).shape == (7, model.ticks, WORDS)
    assert model.decode(mu.detach()).shape == (7, model.ticks)


def test_each_bar_by_itself(model):
    x = bars(7, model.ticks)
    z = model.encode(x)
    assert torch.allclose(z[3:4], model.encode(x[3:4]), atol=1e-5) and torch.allclose(model.encode(x.numpy()), z)
    assert torch.allclose(model.logits(z)[3:4], model.logits(z[3:4]), atol=1e-5)
    assert (z[1:] - z[0]).abs().amax(1).min() > 1e-3


def test_the_variance_has_bounds():
    m = BarVAE(dim=6)
    with torch.no_grad(): m.encoder.head[-1].weight *= 1000
    mu, logvar = m.posterior(bars(50))
    assert logvar.min() == -12 and logvar.max() == 4 and mu.abs().max() > 12


def test_all_weights_learn(model):
    model.zero_grad()
    mu, logvar = model.posterior(bars(64, model.ticks))
    model.logits(mu + logvar).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_decoded_tokens_are_known(model):
    x = model.decode(10 * torch.randn(200, 6, generator=generator()))
    assert x.dtype == torch.int64 and torch.equal(from_index(to_index(x)), x)      # refuses what is outside


def test_samples_and_traversals(model):
    assert torch.equal(sample(model.decode, 3, 6, seed=4), model.decode(torch.randn(3, 6, generator=generator(4))))
    z = torch.randn(4, 6, generator=generator())
    out = traverse(model.decode, z, 5, (-30., 0., 30.))
    assert out.shape == (4, 3, model.ticks) and traverse(model.decode, z, 0).shape == (4, 5, model.ticks)
    for k, v in enumerate((-30., 0., 30.)):
        y = z.clone()
        y[:, 5] = v
        assert torch.equal(out[:, k], model.decode(y))


def test_another_vocabulary():
    m = BarVAE(dim=3, low=60, high=63)
    x = m.decode(5 * torch.randn(100, 3))
    assert set(x.unique().tolist()) <= {60, 61, 62, 63, HOLD, REST} and m.encode(x).shape == (100, 3)
    with pytest.raises(ValueError, match="pitch 64 is outside the vocabulary, 60 … 63"): m.encode(torch.full((1, 24), 64))


@pytest.mark.parametrize("change, named", [({"kind": "convolutional"}, "kind must be one of parallel, recurrent, got 'convolutional'"),
                                           ({"kind": None}, "kind must"), ({"ticks": 12}, "ticks must be one of 16, 24, 32, 48, got 12"),
                                           ({"ticks": 64}, "ticks must"), ({"low": 70, "high": 60}, "low and high must be MIDI pitches"),
                                           ({"low": 60, "high": 60}, "low and high"), ({"low": -1}, "low and high"), ({"high": 128}, "low and high")])
def test_settings_of_the_model(change, named):
    with pytest.raises(ValueError, match=named): BarVAE(**change)


def test_bad_bars_and_codes(model):
    t = model.ticks
    for shape in ((2, t + 1), (t,), (1, 2, t), (2, 40 - t)):
        with pytest.raises(ValueError, match=rf"tokens must be .*\(n, {t}\)"): model.encode(torch.full(shape, 60))
    for f in (model.logits, model.decode):
        for shape in ((2, 5), (6,), (1, 2, 6)):
            with pytest.raises(ValueError, match=r"z must be .*\(n, 6\)"): f(torch.zeros(shape))
    for token, named in ((130, "unknown"), (-1, "unknown"), (30, "outside")):
        with pytest.raises(ValueError, match=named): model.encode(torch.full((1, t), token))
    with pytest.raises(ValueError, match="integers"): model.encode(torch.full((1, t), 60.))


# ---- transposition

@given(st.integers(0, 10_000), st.integers(0, 80), st.sampled_from([16, 24]))
def test_transposed(seed, most, ticks):
    torch.manual_seed(seed)
    x = bars(30, ticks, seed)
    y = transposed(x, most)
    note = x < HOLD
    assert torch.equal(y[~note], x[~note]) and (y[note] >= A.LOW).all() and (y[note] <= A.HIGH).all()
    for before, after in zip(x, y):
        steps = (after - before)[before < HOLD].unique()
        assert len(steps) < 2 and (steps.abs() <= most).all()
    assert torch.allclose(attributes_of(x, [*A.ATTRIBUTES]), attributes_of(y, [*A.ATTRIBUTES]), atol=1e-6)


def test_every_transposition_comes_alike_often():
    torch.manual_seed(0)
    steps = (transposed(torch.full((7000, 16), 70), 3) - 70)[:, 0]
    assert torch.bincount(steps + 3).tolist() == pytest.approx([1000] * 7, rel=.12)
    edge = transposed(torch.full((500, 16), A.HIGH), 3)
    assert edge.max() == A.HIGH and edge.min() == A.HIGH - 3


# ---- turn and geodesic losses, with decoders whose answer is known

class HandMade(torch.nn.Module):
    "Each tick is an onset with chance .5 + `by`(z) deviations; one pitch only."
    scale = .05
    def __init__(self, by): super().__init__(); self.by = by

    def logits(self, z):
        p = (.5 + self.scale * self.by(z)).clamp(1e-4, 1 - 1e-4)[:, None].expand(-1, 24)
        never = torch.full_like(p, 1e-12)
        return torch.stack([p, never, 1 - p, never], -1).log()


def mean_turn(by, dims={"density": 1}, scale=(HandMade.scale,)):
    torch.manual_seed(0)
    return float(turn_loss(HandMade(by), torch.randn(200, 4), dims, scale))


def test_turn_loss_of_a_decoder_that_obeys():
    "One slope, in deviations to the unit, is right; the loss grows with the distance from it."
    slopes = np.arange(-3, 3.01, .25)
    losses = np.array([mean_turn(lambda z: k * z[:, 1]) for k in slopes])
    best = losses.argmin()
    assert 1 <= slopes[best] <= 2.5 and losses[best] < .02
    assert (np.diff(losses)[:best] < 0).all() and (np.diff(losses)[best:] > 0).all()
    assert mean_turn(lambda z: 2 * z[:, 0]) == pytest.approx(losses[slopes == 0].item())    # listens to another dimension


def test_turn_loss_wants_the_others_to_stay():
    dims, scale = {"density": 1, "contour": 2}, (HandMade.scale, 1.)
    alone, leaks = (mean_turn(by, dims, scale) for by in (lambda z: 2 * z[:, 1], lambda z: 2 * (z[:, 1] + z[:, 2])))
    assert alone < leaks - .05


def test_each_code_is_turned_in_one_dimension():
    "The other designated ones are drawn anew, but once for each code; the rest of the code stays."
    seen, z = [], torch.randn(300, 5)
    turn_loss(HandMade(lambda z: seen.append(z) or z[:, 0]), z, {"density": 3, "contour": 1, "range": 0}, [1., 1., 1.], turns=6)
    asked = seen[0].unflatten(0, (300, 6))
    moves = (asked != asked[:, :1]).any(1)
    assert (moves.sum(1) == 1).all() and moves.sum(0)[[0, 1, 3]].min() > 60
    assert torch.equal(asked[..., [2, 4]], z[:, None, [2, 4]].expand(-1, 6, -1))
    assert asked[:, 0, [0, 1, 3]].std(0).tolist() == pytest.approx([1, 1, 1], abs=.2) and (asked[:, 0, [0, 1, 3]] != z[:, [0, 1, 3]]).all()


def test_turn_loss_reaches_the_decoder_only():
    m, z = BarVAE(dim=4), torch.randn(16, 4)
    before = z.clone()
    turn_loss(m, z, {"density": 1}, [.1]).backward()
    assert torch.equal(z, before)
    assert all(p.grad is None for p in m.encoder.parameters()) and all(p.grad.isfinite().all() for p in m.decoder.parameters())


@pytest.mark.parametrize("slope, loss", [(1, 0), (0, 1), (-1, 4), (3, 4)])
def test_geodesic_loss(slope, loss):
    m, z = HandMade(lambda z: slope * z[:, 2]), .5 * torch.randn(50, 4, dtype=torch.float64)
    assert float(geodesic_loss(m, z, {"density": 2}, [m.scale])) == pytest.approx(loss, abs=1e-6)
    assert float(geodesic_loss(m, z, {"density": 2}, [m.scale / 2])) == pytest.approx((2 * slope - 1) ** 2, abs=1e-6)
    assert float(geodesic_loss(m, z, {"density": 2, "range": 0}, [m.scale, 1.])) == pytest.approx(loss + 1, abs=1e-3)   # one pitch: no range


# ---- turn_control

def written(z, density=lambda z: z[:, 0], width=lambda z: z[:, 1]):
    "Bars of 6 + 2 `density` onsets and of 6 + 2 `width` semitones."
    onsets, wide = ((6 + 2 * f(z)).round().long().clamp(2, 12) for f in (density, width))
    bar = torch.where(torch.arange(24) < onsets[:, None], 60, HOLD)
    bar[:, 1] = 60 + wide
    return bar


BOTH = {"density": 0, "range": 1}


@pytest.mark.parametrize("kind, wanted", [
    ("obeys", [[1, 0], [0, 1]]), ("ignores", [[0, 0], [0, 0]]), ("reverses", [[-1, 0], [0, -1]]), ("swaps", [[0, 1], [1, 0]]),
    ("leaks", [[1, 1], [0, 0]])])
def test_turn_control_of_known_decoders(kind, wanted):
    decode = {"obeys": written, "ignores": lambda z: written(torch.zeros_like(z)), "reverses": lambda z: written(-z),
              "swaps": lambda z: written(z.flip(1)), "leaks": lambda z: written(z[:, :1].expand(-1, 2))}[kind]
    found = turn_control(decode, torch.randn(5, 2), BOTH, torch.linspace(-2, 2, 9))
    assert found.shape == (5, 2, 2)
    assert found == pytest.approx(np.broadcast_to(wanted, found.shape), abs=1e-12)


@pytest.mark.parametrize("values", [[-2, -1, 0, 1, 2], [2, -1, .5, -3, 0, 1.7], [0, 1, 1, -1, 2, 2]])
def test_turn_control_is_spearmans(values):
    "With ties in what is read and in where it is turned; 0 where Spearman's is not defined."
    values, z = torch.tensor(values, dtype=torch.float32), torch.randn(20, 3, generator=generator())
    crooked = lambda z: written(z, lambda z: (2 * z[:, 0] + z[:, 2]).sin(), lambda z: z[:, 1] * z[:, 2] + .4 * z[:, 0])
    found = turn_control(crooked, z, BOTH, values)
    assert .05 < abs(found).mean() < .99
    for i in range(20):
        for j, dim in enumerate(BOTH.values()):
            read = attributes_of(crooked(turned(z[i:i + 1], dim, values)[0]), [*BOTH]).numpy()
            for k in range(2):
                wanted = 0 if np.ptp(read[:, k]) == 0 else spearmanr(values, read[:, k])[0]
                assert found[i, j, k] == pytest.approx(wanted, abs=1e-9)


def test_turn_control_refuses():
    with pytest.raises(ValueError, match="dim must be"): turn_control(written, torch.zeros(2, 2), {"density": 2})
    with pytest.raises(ValueError, match="got 'swing'"): turn_control(written, torch.zeros(2, 2), {"swing": 0})


# ---- normal_ceiling

def test_ceiling_of_uniform_values():
    assert normal_ceiling(np.arange(100_000)) == pytest.approx(3 / np.pi, abs=1e-4)


@pytest.mark.parametrize("p", [.5, .2, .03])
def test_ceiling_of_two_values(p):
    a = np.arange(200_000) < 200_000 * p
    assert normal_ceiling(a) == pytest.approx(norm.pdf(norm.ppf(p)) ** 2 / (p * (1 - p)), abs=2e-3)


def test_ceiling_of_normal_values_is_one():
    a = norm.ppf((np.arange(1000) + .5) / 1000)
    assert normal_ceiling(a) == pytest.approx(1) == normal_ceiling(torch.tensor(a)) and normal_ceiling(3 - 2 * a) == pytest.approx(1)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=30).filter(lambda a: min(a) < max(a)), st.floats(.1, 9), numbers)
def test_ceiling_sees_shape_not_order_or_unit(a, unit, shift):
    c = normal_ceiling(a)
    assert 0 < c <= 1 + 1e-12 and c == pytest.approx(normal_ceiling(a[::-1])) == pytest.approx(normal_ceiling(unit * np.array(a) + shift))


def test_ceiling_changes_with_a_bent_scale():
    a = np.random.default_rng(0).normal(size=2000)
    assert normal_ceiling(np.exp(2 * a)) < .6 < .99 < normal_ceiling(a)


@pytest.mark.parametrize("seed", range(3))
def test_no_normal_dimension_in_the_same_order_does_better(seed):
    "Of all orders of the normal quantiles the sorted one correlates most."
    rng = np.random.default_rng(seed)
    a, z = rng.integers(0, 5, 300), norm.ppf((np.arange(300) + .5) / 300)
    assert all(np.corrcoef(rng.permutation(z), a)[0, 1] ** 2 < normal_ceiling(a) for _ in range(50))


@pytest.mark.parametrize("a", [[2., 2., 2.], [1.], [], np.zeros((3, 2)), [1., 2., np.nan]])
def test_ceiling_of_a_constant(a):
    with pytest.raises(ValueError, match="a must be numbers, two of them different"): normal_ceiling(a)


# ---- training

QUICK = dict(epochs=2, batch_size=64, progress=False)


def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("kind", A.NETWORKS)
def test_the_seed_decides(kind):
    x = bars()
    a, b, c = (train_bars(x, kind=kind, seed=s, **QUICK) for s in (0, 0, 1))
    assert same(a, b) and not same(a, c) and not a.training
    assert all(p.isfinite().all() and p.device.type == "cpu" for p in a.parameters())


def test_the_seed_decides_where_training_starts(monkeypatch):
    monkeypatch.setattr(A, "fit", lambda *_, **__: History())
    a, b, c = (train_bars(bars(), seed=s, **QUICK) for s in (3, 3, 4))
    assert same(a, b) and not torch.equal(a.decoder[0].weight, c.decoder[0].weight)
    other = train_bars(bars(), {}, seed=3, **QUICK)
    assert same(a, other)                             # Base and the regularised start alike


def test_the_callers_random_numbers_and_bars_stay():
    x = bars()
    before = x.clone()
    torch.manual_seed(5); np.random.seed(5); expected = torch.rand(3), np.random.rand()
    torch.manual_seed(5); np.random.seed(5); a = train_bars(x, **QUICK)
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1] and torch.equal(x, before)
    torch.manual_seed(77)
    assert same(a, train_bars(x, **QUICK))            # nor do they matter


@pytest.mark.parametrize("ticks", [24, 16, 32])
@pytest.mark.parametrize("settings", [dict(dims={}), dict(dims={"density": 31}), dict(dims={n: i for i, n in enumerate(A.ATTRIBUTES)}),
                                      dict(rule="paper"), dict(rule="code", turn=0.), dict(geodesic=1., turn=0., weight=0.)], ids=str)
def test_every_model_trains(ticks, settings):
    m = train_bars(bars(80, ticks).numpy(), **settings, **QUICK)
    assert m.ticks == ticks and m.encode(bars(3, ticks)).shape == (3, 32) and sample(m.decode, 2, 32).shape == (2, ticks)


def test_terms_of_the_loss():
    torch.manual_seed(0)
    m, x = BarVAE(dim=4), bars(40)
    a, dims = attributes_of(x), {"complexity": 0, "range": 2}
    def loss(**settings):
        torch.manual_seed(1)
        return {k: v.item() for k, v in bar_loss(m, x, a, scale=[.1, .2], **{"dims": dims, **settings}).items()}
    full = loss(geodesic=.5, weight=7., turn=3., beta=.2)
    assert full["loss"] == pytest.approx(full["nll"] + .2 * full["kl"] + 7 * full["attribute"] + 3 * full["turn"] + .5 * full["geodesic"], rel=1e-5)
    assert [*loss(dims={})] == ["loss", "nll", "kl"] and [*loss(turn=0)] == ["loss", "nll", "kl", "attribute"]
    base = loss(dims={}, beta=1.)
    assert base["loss"] == pytest.approx(base["nll"] + base["kl"]) and base["kl"] >= 0
    assert base["nll"] == pytest.approx(full["nll"]) and 24 * 2 < base["nll"] < 24 * 6    # nats; about log 46 a tick untrained
    rules = [loss(rule=r)["attribute"] for r in A.RULES]
    assert len(set(rules)) == 3


class Fixed(BarVAE):
    "The same posterior for all bars; remembers the codes that it is to decode."
    def posterior(self, tokens):
        self.mu = torch.full((len(tokens), self.dim), .5, requires_grad=True)
        return self.mu, torch.full((len(tokens), self.dim), math.log(4.))

    def logits(self, z): self.z = z; return super().logits(z)


def test_codes_and_divergence_of_a_known_posterior():
    "N(1/2, 4) in five dimensions."
    torch.manual_seed(0)
    m, x = Fixed(dim=5), bars(2000)
    found = bar_loss(m, x, torch.zeros(2000, 0), {}, [])
    assert found["kl"].item() == pytest.approx(5 * (.25 + 4 - 1 - math.log(4)) / 2)
    assert m.z.mean().item() == pytest.approx(.5, abs=.1) and m.z.std().item() == pytest.approx(2, abs=.1)
    wanted = F.cross_entropy(torch.log_softmax(m.logits(m.z), -1).flatten(0, 1), to_index(x).flatten()).item() * 24
    assert found["nll"].item() == pytest.approx(wanted, rel=.02)      # but for the transpositions


def test_as_many_attributes_as_dimensions():
    x = bars(40)
    for a in (attributes_of(x)[:, :1], attributes_of(x)[:20], attributes_of(x)[:, 0]):
        with pytest.raises(ValueError, match=r"a must be .*\(40, 2\)"): bar_loss(BarVAE(dim=4), x, a, A.JOINT, [1., 1.])


def test_the_loss_measures_attributes_in_deviations():
    m, x = Fixed(dim=5), bars(100)
    def attribute(a, scale): torch.manual_seed(1); return bar_loss(m, x, a, {"density": 2}, scale)["attribute"].item()
    a = attributes_of(x, ["density"])
    assert attribute(a, [.25]) == pytest.approx(attribute(4 * a, [1.])) != pytest.approx(attribute(a, [1.]))


def test_turning_teaches_the_decoder_and_order_the_encoder():
    m, x = Fixed(dim=5), bars(100)
    terms = bar_loss(m, x, attributes_of(x), A.JOINT, [.1, .2], geodesic=1.)
    for name, decoder in (("turn", True), ("geodesic", True), ("attribute", False)):
        mu, *rest = torch.autograd.grad(terms[name], [m.mu, *m.decoder.parameters()], retain_graph=True, allow_unused=True)
        assert (mu is None) == decoder and all((g is None) != decoder for g in rest), name


def constant_range():
    x = bars(40)
    return torch.where(x < HOLD, 70, x)


def with_token(token):
    x = bars(40)
    x[33, 7] = token                # not in the first bar
    return x


@pytest.mark.parametrize("change, named", [
    (dict(dims={"density": 32}), "density must be a whole number from 0 to 31, got 32"), (dict(dims={"density": -1}), "got -1"),
    (dict(dims={"density": 1.}), "got 1.0"), (dict(dims={"density": None}), "got None"),
    (dict(dims={"density": 3, "range": 3}), "a dimension twice"), (dict(dims={"swing": 0}), "complexity, range.*got 'swing'"),
    (dict(tokens=constant_range(), dims={"range": 0}), "range is the same in all bars, 0.000"),
    (dict(tokens=torch.full((40, 24), 60), dims={"density": 1}), "density is the same in all bars, 1.000"),
    (dict(tokens=with_token(130)), "130 is unknown"), (dict(tokens=with_token(-1)), "-1 is unknown"),
    (dict(tokens=with_token(30)), "pitch 30 is outside the vocabulary, 52 … 95"), (dict(tokens=with_token(127)), "pitch 127 is outside"),
    (dict(tokens=with_token(30), dims={}), "pitch 30 is outside"), (dict(tokens=bars(40).float()), "tokens must be integers"),
    (dict(tokens=bars(31)), "at least 32 bars, got 31"), (dict(tokens=bars(40)[:0]), "at least 32 bars, got 0"),
    (dict(tokens=bars(40)[0]), "tokens"), (dict(tokens=bars(40)[:, :20]), "ticks must be one of"), (dict(tokens=bars(80).reshape(40, 2, 24)), "tokens must be a tensor of shape"),
    (dict(rule="order"), "rule must be one of paper, code, distance, got 'order'"), (dict(rule=None), "rule must"),
    (dict(kind="transformer"), "kind must be one of parallel, recurrent, got 'transformer'"),
    (dict(epochs=0), "epochs"), (dict(batch_size=0), "batch_size"), (dict(seed=-1), "seed")])
def test_bad_input(change, named):
    with pytest.raises(ValueError, match=named): train_bars(**{"tokens": bars(40), **QUICK, **change})


def test_a_base_model_may_have_constant_attributes():
    assert train_bars(constant_range(), {}, **QUICK).encode(bars(2)).shape == (2, 32)


def r2(model, x, name, dim): return float(np.corrcoef(model.encode(x).detach()[:, dim], attributes_of(x, [name])[:, 0])[0, 1] ** 2)


@pytest.fixture(scope="module")
def learnt():
    "Base, and a model with density on dimension 3, after 60 steps."
    x = bars(1500, seed=3)
    return [train_bars(x, dims, epochs=20, batch_size=256, progress=False) for dims in ({}, {"density": 3})]


def test_one_dimension_learns_density(learnt):
    base, regular = learnt
    unseen = bars(500, seed=4)[1:]
    assert r2(regular, unseen, "density", 3) > .9 > .4 > r2(base, unseen, "density", 3)
    assert max(r2(regular, unseen, "density", d) for d in range(32) if d != 3) < r2(regular, unseen, "density", 3)


def test_the_decoder_follows_density(learnt):
    z = learnt[1].encode(bars(100, seed=4)[1:])
    base, regular = (np.median(turn_control(m.decode, z, {"density": 3})) for m in learnt)
    assert regular > .9 and abs(base) < regular - .1


# ---- the cache

def tiny(seed):
    x = bars(64, seed=seed)
    part = Melodies(x, torch.arange(64), torch.ones(64, dtype=torch.int64), tuple(map(str, range(64))), 24)
    return part, part, part


def test_load_bars_keeps_models(monkeypatch, tmp_path):
    monkeypatch.setattr(A, "bars_split", tiny)
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    files = lambda: {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    model = load_bars(split=5, epochs=1, dims={"density": 2})
    kept = files()
    again = load_bars(split=5, epochs=1, dims={"density": 2})
    assert same(model, again) and model.seconds == again.seconds > 0 and len(kept) == 1 and files() == kept and not again.training
    assert same(model, train_bars(tiny(5)[0].tokens, {"density": 2}, epochs=1, progress=False))
    others = [load_bars(**{"split": 5, "epochs": 1, **c}) for c in (dict(seed=1, dims={"density": 2}), dict(split=1, dims={"density": 2}), dict(dims={}))]
    assert len(files()) == 4 and not any(same(model, m) for m in others)
    assert isinstance(load_bars(split=5, epochs=1, kind="recurrent").encoder, A.RecurrentEncoder)
    with pytest.raises(ValueError, match="dimension twice"): load_bars(split=5, epochs=1, dims={"density": 2, "range": 2})
    assert len(files()) == 5


# ---- the control

def test_the_pad_turns_the_first_and_the_third_dimension_of_the_most_ordinary_bar(monkeypatch):
    model = BarVAE().eval()
    monkeypatch.setattr(A, "load_bars", lambda seed: model)
    monkeypatch.setattr(A, "bars_split", lambda: tiny(5))
    pad = bar_pad(seed=3)
    x = tiny(5)[2].tokens
    away = (attributes_of(x) - attributes_of(x).mean(0)) / attributes_of(x).std(0)
    z = model.encode(x[away.abs().sum(1).argmin()][None]).detach()
    z[0, 0], z[0, 2] = -1.5, .5
    scores = InV8(pad.decode.text).decode([-1.5, .5]).view(24, -1)
    assert (scores - model.logits(z)[0]).abs().max() < .02
    assert pad.options["names"] == ["dimension 1", "dimension 3"] and pad.faces.count("<audio ") == pad.faces.count("<img ") == 9


def test_a_bar_is_shown_and_heard():
    x = torch.full((24,), HOLD)
    x[0], x[12] = 60, 67
    assert all(words in A.show_bars(x) for words in ("Piano roll: a bar with 2 notes from MIDI 60 to 67", "<audio ", "<img "))
    assert "Piano roll: silence" in A.show_bars(torch.full((24,), REST))
