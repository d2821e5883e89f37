"oplas.effects: pictures from a stream, what a vector does to a code and how it is taken back, training, files, and bad input."
import dataclasses, functools

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from oplas import effects
from oplas.audio import LogMel
from oplas.effects import (CODES, OPERATIONS, SKETCH, SOUND, Affine, Bent, EffectModel, Pairs, Translation, amount_of, as_map,
                           chapter_logmel, chapter_models, chapter_pairs, effect_loss, learn_vector, load_effects, operation_loss,
                           pictured, streams, train_effects, undo)
from oplas.fx import EFFECTS, EffectStream, Hits, hits
from oplas.models import fresh

torch.set_num_threads(1)

NAMES = "lowpass 500 Hz", "highpass 800 Hz", "ring 230 Hz", "sine fold × 18", "resonator 4 ms", "tremolo 6 Hz"
STRAIGHT = [name for name in OPERATIONS if name != "rotation"]     # they leave codes alone with the vector 0
OF_CODES = {"decode": lambda m, z: m.decode(z), "sounds": lambda m, z: m.sounds(z, 1),
            "apply_effect": lambda m, z: m.apply_effect(z, "b"), "undo": lambda m, z: undo(m, z, "b"),
            "learn_vector": lambda m, z: learn_vector(m, z, z), "amount_of": lambda m, z: amount_of(m, z, z, "b")}


def randn(*shape, seed=0): return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def few(n=12, passes=4):
    "A stream of a few hits, whose labels also name two effects that are held out."
    known = {name: EFFECTS[name] for name in NAMES[1:5]} | {NAMES[0]: EFFECTS[NAMES[0]]}
    return EffectStream(hits(n, seed=5), known, passes=passes, seed=1, labels=("held out", *NAMES))

@functools.cache
def scale(): return LogMel(**SOUND).fit(few().hits.audio)

@functools.cache
def pairs(passes=6): return pictured(few(passes=passes), scale(), progress=False)

@functools.cache
def trained(operation="affine", codes="pca", seed=0):
    return train_effects(pairs(), operation, codes, epochs=1, seed=seed, progress=False)

@functools.cache
def planted(operation="affine", noise=1e-3, dim=12, seed=3):
    "A model that was not trained, with an operation, vectors and a calibration from chance."
    m = fresh(seed, EffectModel, ["a", "b", "c"], operation, dim, dim, 4096, dict(n_fft=512, hop_length=128, n_mels=16))
    for p in m.operation.parameters(): p.data += .1 * randn(*p.shape, seed=seed)
    m.vectors.data = .7 * randn(3, dim, seed=seed + 1)
    m.logmel.fit(randn(4096))
    m.spread.fill_(1.)
    m.basis.copy_(torch.linalg.qr(randn(m.basis.shape[1], SKETCH))[0].T)
    mix = randn(dim, dim, seed=seed + 2) / dim ** .5
    m.centre.copy_(randn(dim, seed=seed + 3))
    m.covariance.copy_(mix @ mix.T + .1 * torch.eye(dim))
    m.variety.copy_(torch.eye(dim))
    m.usual.copy_(.1 * randn(dim, seed=seed + 4))
    m.noise.fill_(noise)
    return m.eval().requires_grad_(True)

def drawn(m, n, seed=0):
    "Codes as a model takes them to be spread."
    return m.centre + randn(n, len(m.centre), seed=seed) @ torch.linalg.cholesky(m.covariance).T

def part(x, n): return dataclasses.replace(x, dry=x.dry[:n], wet=x.wet[:n], effect=x.effect[:n], amount=x.amount[:n])

def parts(x): return x.dry, x.wet, x.effect, x.amount

def same_bits(a, b): return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

def weights(m): return list(m.state_dict().values())


# pictures

@pytest.mark.parametrize("threads", [1, 2])
def test_pictures_are_the_same_for_any_number_of_workers(threads):
    torch.set_num_threads(threads)
    try: assert same_bits(*(parts(pictured(few(passes=1), scale(), workers)) for workers in (0, 2)))
    finally: torch.set_num_threads(1)

def test_pictures_are_those_of_each_item_alone():
    stream, found = few(passes=6), pairs()
    assert len(found.dry) == len(stream) and found.dry.shape[1:] == (64, 44) and found.wet.dtype == torch.float16
    for i in range(0, len(stream), 17):
        dry, wet, effect, amount = stream[i]
        assert same_bits((scale()(dry).half(), scale()(wet).half()), (found.dry[i], found.wet[i]))
        assert found.effect[i] == effect and found.amount[i] == amount.float()

def test_picturing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    pictured(few(passes=1), scale())
    assert torch.equal(torch.get_rng_state(), before)

def test_other_rates_and_lengths():
    short = Hits(hits(12, seed=5).audio[:, :8000].contiguous(), 16_000)
    stream = EffectStream(short, {name: EFFECTS[name] for name in NAMES[:4]}, passes=6)
    logmel = LogMel(sample_rate=16_000, n_fft=1024, hop_length=256, n_mels=40).fit(short.audio)
    found = pictured(stream, logmel)
    m = train_effects(found, "translation", "pca", epochs=1)
    assert found.wet.shape[1:] == (40, 32) == m.decode(m.encode(found.wet[:3])).shape[1:]
    assert m.sounds(m.encode(found.wet[:2]), 2).shape == (2, 8000) and m.logmel.sample_rate == 16_000


# operations

@pytest.mark.parametrize("name", STRAIGHT)
def test_the_vector_0_leaves_codes_alone(name):
    m, z = planted(name), randn(5, 12)
    assert torch.equal(m.operation(z, torch.zeros(5, 12)), z)
    assert torch.equal(m.apply_effect(z, "a", 0), z)

@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_with_a_fixed_vector_is_a_matrix_and_a_shift(name):
    m, z = planted(name), drawn(planted(name), 40)
    for amount in (0, .5, -1, 1.2):
        v = amount * m.vectors[1]
        M, c = as_map(m.operation, v, 12)
        assert torch.allclose(z @ M.T + c, m.operation(z, v.expand(40, -1)), atol=2e-5)

@pytest.mark.parametrize("name", OPERATIONS)
def test_each_code_has_its_own_amount(name):
    m, z, amounts = planted(name), randn(4, 12), torch.tensor([0, .3, 1, -.5])
    together = m.apply_effect(z, "c", amounts)
    assert torch.allclose(together, torch.cat([m.apply_effect(z[i:i + 1], "c", float(a)) for i, a in enumerate(amounts)]), atol=1e-6)
    assert torch.equal(together, m.apply_effect(z, m.vectors[2], amounts.tolist()))

def test_translations_commute_and_affine_maps_need_not():
    z = randn(6, 12)
    def apart(m):
        one, two = (m.apply_effect(m.apply_effect(z, a), b) for a, b in ("ab", "ba"))
        return (one - two).abs().max().item()
    assert apart(planted("translation")) < 1e-5 and apart(planted("affine")) > .01

@pytest.mark.parametrize("rank", [1, 3])
def test_learned_matrices_have_the_rank_that_was_asked_for(rank):
    operation = fresh(0, Affine, 8, 5, rank=rank)
    for v in torch.eye(5): assert torch.linalg.matrix_rank(as_map(operation, v, 8)[0] - torch.eye(8), atol=1e-5) == rank

def test_as_many_numbers_as_dimensions_are_not_needed():
    m = fresh(0, EffectModel, ["a"], "affine", dim=8, numbers=3)
    assert m.apply_effect(randn(2, 8), randn(3)).shape == (2, 8)

def test_a_bent_map_starts_straight():
    x = randn(3, 8)
    assert torch.equal(fresh(0, Bent, 8, 5)(x), x[:, :5])
    assert torch.equal(fresh(0, Bent, 5, 8)(x[:, :5]), torch.cat([x[:, :5], torch.zeros(3, 3)], 1))


# backwards

@pytest.mark.parametrize("name", STRAIGHT)
@pytest.mark.parametrize("amount", [1., .5])
def test_undo_recovers_codes(name, amount):
    for noise, limit in ((1e-7, 1e-3), (1e-4, .03)):
        m, z = planted(name, noise), drawn(planted(name), 60)
        M, _ = as_map(m.operation, amount * m.vector("a"), 12)
        weakest = torch.linalg.svdvals(M)[-1].item()
        wet = m.apply_effect(z, "a", amount) + noise ** .5 * randn(60, 12, seed=9)
        off = (undo(m, wet, "a", amount) - z).square().mean().sqrt()
        assert off < max(limit, 2 * noise ** .5 / weakest)

@pytest.mark.parametrize("name", OPERATIONS)
def test_undo_is_the_posterior_mean(name):
    m, wet, d = planted(name, .05), randn(7, 12), 12
    M, c = (x.detach().double() for x in as_map(m.operation, .8 * m.vector("b"), d))
    mean, C, s = m.centre.double(), m.covariance.double(), float(m.noise)
    # the joint Gaussian of dry and wet, conditioned through its precision matrix
    joint = torch.cat([torch.cat([C, C @ M.T], 1), torch.cat([M @ C, M @ C @ M.T + s * torch.eye(d)], 1)])
    P = torch.linalg.inv(joint)
    expected = mean - (wet.double() - M @ mean - c) @ torch.linalg.solve(P[:d, :d], P[:d, d:]).T
    assert torch.allclose(undo(m, wet, "b", .8).double(), expected, atol=1e-3)

def test_undo_beats_the_inverse_and_doing_nothing():
    m = planted("affine", .05)
    z = drawn(m, 400)
    M, c = as_map(m.operation, m.vector("a"), 12)
    wet = (z @ M.T + c + .05 ** .5 * randn(400, 12, seed=9)).detach()
    def off(found): return (found - z).square().mean().item()
    assert off(undo(m, wet, "a")) < off((wet - c) @ torch.linalg.inv(M).T) and off(undo(m, wet, "a")) < off(wet)

def test_where_an_effect_left_nothing_undo_falls_back_on_the_usual():
    m = planted("affine", .01)
    class Gone(torch.nn.Module):
        def forward(self, z, v): return 0 * z + v
    m_gone = planted("translation", .01, seed=4)
    m_gone.operation = Gone()
    assert torch.allclose(undo(m_gone, randn(3, 12), "a"), m_gone.centre.expand(3, -1), atol=1e-4)
    assert torch.allclose(undo(m, m.apply_effect(m.centre[None], "a"), "a"), m.centre[None], atol=1e-3)


# an effect that was not met

def most_probable(m, dry, wet):
    "The vector that maximises the posterior, where the operation is linear in it: least squares."
    with torch.no_grad(): base = m.operation(dry, torch.zeros_like(dry))
    columns = torch.stack([m.operation(dry, e.expand(len(dry), -1)) - base for e in torch.eye(12)], -1).reshape(-1, 12).double()
    P = torch.linalg.inv(m.variety.double())
    right = columns.T @ (wet - base).flatten().double() / m.noise + P @ m.usual.double()
    return torch.linalg.solve(columns.T @ columns / m.noise + P, right)

@pytest.mark.parametrize("name", OPERATIONS)
def test_many_exact_pairs_give_the_map(name):
    m, dry = planted(name), drawn(planted(name), 80)
    true = m.usual + (.2 if name == "rotation" else 1) * randn(12, seed=11)
    v = learn_vector(m, dry, m.operation(dry, true.expand(80, -1)).detach())
    (M, c), (N, d) = as_map(m.operation, true, 12), as_map(m.operation, v, 12)
    assert (M - N).abs().max() < .02 and (c - d).abs().max() < .02 and not v.requires_grad

@pytest.mark.parametrize("name", STRAIGHT)
@pytest.mark.parametrize("n", [1, 2, 30])
def test_the_vector_is_the_most_probable(name, n):
    m, dry = planted(name, .05), drawn(planted(name), n)
    wet = m.operation(dry, randn(12, seed=11).expand(n, -1)).detach() + .2 * randn(n, 12, seed=12)
    assert torch.allclose(learn_vector(m, dry, wet).double(), most_probable(m, dry, wet).detach(), atol=5e-3)

@pytest.mark.parametrize("name", OPERATIONS)
def test_one_pair_is_better_than_none(name):
    m, dry = planted(name, .01), drawn(planted(name), 30)
    wet = m.operation(dry, (m.usual + .5 * randn(12, seed=11)).expand(30, -1)).detach()
    v = learn_vector(m, dry[:1], wet[:1])
    def off(vector): return (m.apply_effect(dry, vector) - wet).square().mean().item()
    assert v.isfinite().all() and off(v) < off(m.usual)

def test_learning_a_vector_changes_nothing_else():
    m = planted()
    before, dry = [x.clone() for x in weights(m)], drawn(m, 5).requires_grad_()
    learn_vector(m, dry, dry + 1)
    assert same_bits(before, weights(m)) and dry.grad is None and all(p.grad is None for p in m.parameters())

def test_a_vector_can_be_learned_where_no_gradients_are_wanted():
    m, dry = planted(), drawn(planted(), 5)
    expected = learn_vector(m, dry, dry + .1)
    with torch.no_grad(): assert torch.allclose(learn_vector(m, dry, dry + .1), expected)

@pytest.mark.parametrize("name", STRAIGHT)
def test_amounts_are_found(name):
    m, dry = planted(name), drawn(planted(name), 7)
    amounts = torch.tensor([0, .1, .34, .5, .9, 1, 1.2])
    wet = m.apply_effect(dry, "b", amounts)
    assert torch.allclose(amount_of(m, dry, wet, "b"), amounts, atol=1e-3)
    assert torch.equal(amount_of(m, dry, wet, m.vectors[1]), amount_of(m, dry, wet, "b"))
    assert ((amount_of(m, dry, wet + .01 * randn(7, 12), "b") - amounts).abs() < .05).all()


# models

@pytest.mark.parametrize("codes", ["pca", "taught"])
def test_effects_are_those_of_the_pairs(codes):
    assert trained(codes=codes).config["effects"] == list(NAMES[:5]), "not the stream's other labels, in their order"
    with pytest.raises(ValueError, match="held out"): trained(codes=codes).vector("held out")

def test_before_training_codes_are_principal_components():
    x = pairs().wet
    flat, m = x.flatten(1).float().numpy(), trained("translation")
    ours = m.decode(m.encode(x)).detach().flatten(1).numpy()
    pca = PCA(32, svd_solver="full").fit(flat)
    best = pca.inverse_transform(pca.transform(flat))
    assert np.square(ours - flat).mean() < 1.01 * np.square(best - flat).mean()
    assert np.square(ours - best).mean() < .05 * np.square(best - flat).mean()

def test_components_are_of_all_effects_however_many_there_are():
    # a stream goes through its effects in turn: every second, third … of many pairs may be of the same few
    g, n, logmel = torch.Generator().manual_seed(0), 8000, LogMel(n_fft=512, hop_length=128, n_mels=16).fit(randn(9000))
    effect = torch.arange(n) % 2
    wet = .1 * torch.randn(n, 16, 16, generator=g)
    wet[:, :2] *= torch.where(effect == 0, 8, 1)[:, None, None]       # what varies with one effect, 32 numbers of 256,
    wet[:, 2:4] *= torch.where(effect == 1, 8, 1)[:, None, None]      # and with the other
    x = Pairs(wet.half(), wet.half(), effect, torch.ones(n), ("one", "other"), logmel, 2000)
    m = train_effects(x, "translation", "pca", epochs=1, progress=False)
    held = m.basis[:64].view(64, 16, 16).square().sum((0, 2))[:4]     # 16 columns a row, each held wholly: 16
    assert (held > 12).all()

def test_codes_of_what_was_learned_from_are_white():
    sketch = trained().sketch(pairs().wet)
    assert torch.allclose(sketch.mean(0)[:32], torch.zeros(32), atol=.01)
    assert torch.allclose(torch.cov(sketch[:, :32].T), torch.eye(32), atol=.05)

@pytest.mark.parametrize("codes", ["pca", "plain"])
def test_an_operation_is_learned_on_codes_that_stay(codes):
    one, other = trained("affine", codes), trained("translation", codes)
    for part in ("encoder", "decoder"): assert same_bits(weights(getattr(one, part)), weights(getattr(other, part)))
    assert all(p.requires_grad for p in one.parameters()), "and can be trained further"

def test_training_helps():
    x, m = pairs(), train_effects(pairs(), "affine", "pca", epochs=20, progress=False)
    with torch.no_grad():
        before, after = m.encode(x.dry), m.encode(x.wet)
        vectors = m.vectors[x.effect - 1]     # the first label is held out
        moved = m.operation(before, x.amount[:, None] * vectors)
    assert (moved - after).square().mean() < .5 * (before - after).square().mean()
    assert torch.allclose(m.noise, (moved - after).square().mean(), rtol=1e-3)
    assert torch.allclose(m.centre, before.mean(0), atol=1e-4) and torch.allclose(m.usual, m.vectors.mean(0))

def test_calibration_can_be_inverted():
    for m in (trained("affine"), trained("translation"), trained("affine", "taught")):
        for name in ("covariance", "variety"): torch.linalg.cholesky(getattr(m, name))
        assert not m.training and m.noise > 0

def test_the_same_seed_gives_the_same_weights():
    before = torch.get_rng_state()
    again = [train_effects(pairs(), "affine", "taught", epochs=1, seed=seed, progress=False) for seed in (0, 1)]
    assert same_bits(weights(again[0]), weights(trained("affine", "taught")))
    assert not torch.equal(again[1].vectors, again[0].vectors)
    assert torch.equal(torch.get_rng_state(), before)

def test_few_pairs_are_enough_for_sounds_that_were_not_among_them():
    x = pairs()
    m = train_effects(part(x, SKETCH), "translation", "taught", epochs=1, progress=False)
    new = x.wet[SKETCH:].float()
    with torch.no_grad(): lost = (m.decode(m.encode(new)) - new).square().mean() / (new - m.middle.view(64, 44)).square().mean()
    assert lost < 1, "a component that no pair shows must not be blown up"

def test_training_on_a_device_comes_back_before_it_is_calibrated(monkeypatch):
    # stands in for an accelerator: while "there", weights are of 64 bits, and mixing the two is an error just the same
    fit = effects.fit
    def elsewhere(model, *args, **settings):
        fit(model.float(), *args, **settings)
        model.double()
    monkeypatch.setattr(effects, "fit", elsewhere)
    monkeypatch.setattr(EffectModel, "cpu", EffectModel.float)
    m = train_effects(pairs(), "translation", "pca", epochs=1)
    assert m.noise > 0

def test_a_file_keeps_a_model(tmp_path):
    m = trained("affine", "taught")
    m.save(tmp_path / "m")
    other = EffectModel.load(tmp_path / "m")
    assert same_bits(weights(other), weights(m)) and other.config == m.config and not other.training
    z = randn(3, 32)
    assert torch.equal(other.apply_effect(z, NAMES[2], .5), m.apply_effect(z, NAMES[2], .5))
    assert torch.equal(other.sounds(z, 2), m.sounds(z, 2)) and torch.equal(undo(other, z, NAMES[2]), undo(m, z, NAMES[2]))
    with pytest.raises(FileNotFoundError): EffectModel.load(tmp_path / "none")

@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_flow(operation):
    m = fresh(0, EffectModel, ["a", "b"], operation, 12, 12)
    m.spread.fill_(1)
    m.basis.copy_(trained().basis)
    for p in m.operation.parameters(): p.data += .1 * randn(*p.shape)     # a rotation starts as one that heeds no vector
    x = randn(2, 64, 44).requires_grad_()
    amount = torch.tensor([.5, 1.]).requires_grad_()
    m.decode(m.apply_effect(m.encode(x), "b", amount)).square().sum().backward()
    for part in (x, amount, m.vectors, m.encoder.straight.weight, m.decoder.straight.weight): assert part.grad.abs().sum() > 0
    assert m.vectors.grad[0].abs().sum() == 0

def test_losses_are_made_of_what_they_say():
    m, x = trained("affine", "taught"), pairs()
    with torch.no_grad(): dry, wet = m.sketch(x.dry[:64]), m.sketch(x.wet[:64])
    effect, amount = torch.zeros(64, dtype=torch.int64), x.amount[:64]
    taught = effect_loss(m, dry, wet, effect, amount, weight=.3)
    assert torch.isclose(taught["loss"], taught["lost"] + .3 * (taught["step"] + taught["prior"]))
    codes, z = m.encoder(torch.cat([dry, wet])), m.apply_effect(m.encoder(dry), NAMES[0], amount)
    assert torch.isclose(taught["step"], (z - m.encoder(wet)).square().mean() / codes.var(0).mean())
    back = m.picture(m.decoder(torch.cat([codes, z]))) - m.picture(torch.cat([dry, wet, wet]))
    assert torch.isclose(taught["lost"], back.square().flatten(1).sum(1).mean() / m.spread.square().sum(), rtol=1e-3)
    plain = effect_loss(m, dry, wet, effect, amount, taught=False)
    assert plain.keys() == {"loss", "lost", "prior"} and torch.isclose(plain["prior"], taught["prior"])
    z = randn(4, 32)
    assert operation_loss(m, z, m.apply_effect(z, NAMES[0], .5), torch.zeros(4, dtype=torch.int64), torch.full((4,), .5)) < 1e-10

def test_a_code_tells_its_size(): assert planted().dim == 12 and trained().dim == 32


# bad input

def test_pictured_refuses():
    for bad, word in ((LogMel(**SOUND), "logmel.*fit"), (LogMel(sample_rate=16_000, **SOUND).fit(randn(9000)), "logmel.*22050 Hz.*16000")):
        with pytest.raises(ValueError, match=word): pictured(few(), bad)
    for workers in (-1, 1.5, "2"):
        with pytest.raises(ValueError, match="workers"): pictured(few(), scale(), workers)
    with pytest.raises(ValueError, match="progress"): pictured(few(), scale(), 0, "yes")

@pytest.mark.parametrize("bad", [
    dict(effects=[]), dict(effects=["a", "b", "a"]), dict(effects="abc"), dict(effects=[1, 2]), dict(effects=None),
    dict(operation="scale"), dict(operation="Affine"), dict(operation=None), dict(dim=0), dict(dim=257), dict(dim=2.5), dict(dim="8"),
    dict(numbers=0), dict(numbers=-1), dict(numbers=1.5), dict(dim=16, operation="translation"), pytest.param(dict(dim=6, operation="rotation")),
    pytest.param(dict(dim=3, operation="low rank")), dict(samples=0), dict(samples=-5), dict(samples="x"), dict(samples=22_050.)], ids=str)
def test_a_model_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))): EffectModel(**dict(effects=["a", "b"]) | bad)

@pytest.mark.parametrize("make, word", [
    (lambda: Affine(4, 4, 5), "rank.*5"), (lambda: Affine(4, 4, 1.5), "rank"), (lambda: Translation(4, 5), "numbers.*5"),
    pytest.param(lambda: Affine(4, 4, 0), "rank.*0"), pytest.param(lambda: Affine(0, 4), "dim"), pytest.param(lambda: Affine(2.5, 4), "dim"),
    pytest.param(lambda: Affine(4, 0), "numbers"), pytest.param(lambda: Translation(0, 0), "dim")])
def test_operations_refuse(make, word):
    with pytest.raises(ValueError, match=word): make()

@pytest.fixture
def no_work(monkeypatch):
    "Fail where something is trained."
    for name in ("PCA", "load_or_train"): monkeypatch.setattr(effects, name, lambda *_, **__: pytest.fail("work has begun"))

@pytest.mark.parametrize("bad, word", [
    (dict(operation="scale"), "operation.*affine.*'scale'"), (dict(operation="Affine"), "operation"), (dict(codes="Plain"), "codes.*plain.*'Plain'"),
    (dict(seed=-1), "seed.*-1"), (dict(seed=1.5), "seed"), pytest.param(dict(seed=2**40), "seed"), (dict(epochs=0), "epochs.*got 0"), (dict(epochs=1.5), "epochs.*1.5")], ids=str)
def test_train_effects_refuses_settings_before_any_work(bad, word, no_work):
    with pytest.raises(ValueError, match=word): train_effects(pairs(), **dict(epochs=1) | bad)

@pytest.mark.parametrize("change, word", [
    pytest.param(lambda x: part(x, 255), "pairs.*256.*255", id="few"),
    pytest.param(lambda x: dict(effect=x.effect[:-300]), "pairs", id="few effects"),
    pytest.param(lambda x: dict(wet=x.wet * torch.nan), "pairs.wet.*NaN", id="nan wet"),
    pytest.param(lambda x: dict(dry=x.dry * torch.inf), "pairs.dry.*Inf", id="inf dry"),
    pytest.param(lambda x: dict(amount=x.amount * torch.nan), "pairs.amount.*NaN", id="nan amount"),
    pytest.param(lambda x: dict(dry=x.dry[:-1]), "pairs.dry", id="fewer dry"),
    pytest.param(lambda x: dict(effect=x.effect[:-1]), "pairs", id="fewer effects"),
    pytest.param(lambda x: dict(dry=x.dry.int(), wet=x.wet.int()), "pairs.*float.*int32", id="integer pictures"),
    pytest.param(lambda x: dict(wet=x.wet[:, :32]), "pairs.wet.*64, 44", id="other rows"),
    pytest.param(lambda x: dict(effect=x.effect.float()), "pairs.effect.*int.*float32", id="float effect"),
    pytest.param(lambda x: dict(effect=x.effect + 3), "pairs.effect.*labels", id="label above"),
    pytest.param(lambda x: dict(effect=x.effect - 4), "pairs.effect.*labels", id="label below"),
    pytest.param(lambda x: dict(labels=x.labels[:3]), "pairs.effect.*labels", id="few labels"),
    pytest.param(lambda x: dict(effect=torch.ones_like(x.effect)), "pairs.* 2 effects", id="one effect"),
    pytest.param(lambda x: dict(logmel=LogMel(**SOUND)), "logmel.*fit", id="unfitted"),
    pytest.param(lambda x: dict(logmel=LogMel(n_fft=2048, hop_length=512, n_mels=32).fit(randn(9000))), "pairs.*32, 44", id="other mels"),
    pytest.param(lambda x: dict(samples=9000), "pairs.*64, 18", id="other samples")])
def test_train_effects_refuses_pairs_before_any_work(change, word, no_work):
    made = change(pairs())
    bad = made if isinstance(made, Pairs) else dataclasses.replace(pairs(), **made)
    with pytest.raises(ValueError, match=word): train_effects(bad, epochs=1)

def test_train_effects_refuses_pictures_of_too_few_numbers(no_work):
    coarse = pictured(few(passes=6), LogMel(n_fft=16_384, hop_length=4096, n_mels=32).fit(few().hits.audio))
    with pytest.raises(ValueError, match="logmel.*256.*192"): train_effects(coarse)

def test_pairs_of_64_bits_are_as_good():
    x = pairs()
    wide = dataclasses.replace(x, dry=x.dry.double(), wet=x.wet.double(), amount=x.amount.double())
    found = train_effects(wide, "affine", "pca", epochs=1, progress=False)
    assert torch.allclose(found.noise, trained().noise, rtol=.05) and found.vectors.dtype == torch.float32

@pytest.mark.parametrize("change", [
    lambda x: dict(labels=x.labels[::-1]), lambda x: dict(labels=x.labels[:-1]), lambda x: dict(logmel=LogMel(**SOUND).fit(3 * few().hits.audio)),
    lambda x: dict(samples=22_000)], ids="order labels scale samples".split())
def test_only_pairs_of_the_same_kind_can_be_added(change):
    x = part(pairs(), 4)
    assert len(x + x) == 8 and (x + x).labels == x.labels
    with pytest.raises(ValueError, match="labels|logmel|samples"): x + dataclasses.replace(x, **change(x))

@pytest.mark.parametrize("bad", [lambda x: x.int(), lambda x: x[0], lambda x: x[:, :32], lambda x: x[..., :40], lambda x: x.numpy()],
                         ids="int one rows columns numpy".split())
def test_encode_refuses(bad):
    with pytest.raises(ValueError, match=r"x must be a float tensor of shape \(n, 64, 44\), got"): trained().encode(bad(pairs().wet[:3]))

def test_encode_takes_floats_of_any_size():
    codes = trained().encode(pairs().wet[:3])
    for dtype in (torch.float32, torch.float64): assert torch.equal(trained().encode(pairs().wet[:3].to(dtype)), codes)
    assert trained().encode(pairs().wet[:0]).shape == (0, 32)

@pytest.mark.parametrize("name", OF_CODES)
@pytest.mark.parametrize("bad", [lambda z: z.int(), lambda z: z[0], lambda z: z[:, :5], lambda z: z[:, :1], lambda z: z.numpy(), lambda z: z[None]],
                         ids="int one narrow column numpy deep".split())
def test_what_takes_codes_refuses(name, bad):
    with pytest.raises(ValueError, match=r"(z|dry) must be a float tensor of shape"): OF_CODES[name](planted(), bad(randn(3, 12)))

@pytest.mark.parametrize("name", OF_CODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_what_takes_codes_takes_floats_of_any_size(name, dtype):
    z = drawn(planted(), 3).half()
    assert torch.allclose(OF_CODES[name](planted(), z.to(dtype)).float(), OF_CODES[name](planted(), z.float()), atol=1e-2)

@pytest.mark.parametrize("name", OF_CODES)
def test_codes_must_be_finite(name):
    z = randn(3, 12)
    z[1, 4] = torch.nan
    with pytest.raises(ValueError, match="(z|dry) holds NaN"): OF_CODES[name](planted(), z)

@pytest.mark.parametrize("which", ["dry", "wet"])
def test_guesses_refuse_nan(which):
    good, bad = drawn(planted(), 3), drawn(planted(), 3) * torch.nan
    both = (bad, good) if which == "dry" else (good, bad)
    for ask in (learn_vector, lambda *a: amount_of(*a, "a")):
        with pytest.raises(ValueError, match=f"{which} holds NaN"): ask(planted(), *both)

@pytest.mark.parametrize("dry, wet", [(3, 2), (3, 1), (1, 3), (2, 3)])
def test_dry_and_wet_must_be_pairs(dry, wet):
    for ask in (learn_vector, lambda *a: amount_of(*a, "a")):
        with pytest.raises(ValueError, match=f"wet.*{wet}.*{dry}"): ask(planted(), randn(dry, 12), randn(wet, 12))

def test_no_pair_teaches_no_vector():
    with pytest.raises(ValueError, match="dry, one at least"): learn_vector(planted(), randn(0, 12), randn(0, 12))

def test_none_of_the_codes_is_fine_elsewhere():
    for name in ("decode", "apply_effect", "undo", "amount_of"): assert len(OF_CODES[name](planted(), randn(0, 12))) == 0

@pytest.mark.parametrize("effect", ["d", "A", 0, None, ["a"], np.zeros(12), torch.zeros(11), torch.zeros(1, 12), torch.zeros(12, dtype=torch.int64)], ids=str)
def test_an_effect_is_a_name_or_a_vector(effect):
    m, z = planted(), randn(3, 12)
    for ask in (m.vector, lambda e: m.apply_effect(z, e), lambda e: undo(m, z, e), lambda e: amount_of(m, z, z, e)):
        with pytest.raises(ValueError, match="effect must be"): ask(effect)

def test_a_vector_may_be_of_64_bits():
    m, z = planted(), randn(3, 12)
    for ask in (lambda e: m.apply_effect(z, e), lambda e: undo(m, z, e), lambda e: amount_of(m, z, z, e)):
        assert torch.equal(ask(m.vector("b").detach().double()), ask("b"))

def test_a_vector_of_nan_is_refused():
    for ask in (lambda e: undo(planted(), randn(3, 12), e), lambda e: amount_of(planted(), randn(3, 12), randn(3, 12), e)):
        with pytest.raises(ValueError, match="effect.*NaN"): ask(torch.full((12,), torch.nan))

@pytest.mark.parametrize("amount", [torch.ones(2), torch.ones(4), [1, 1], torch.ones(3, 2), pytest.param("all"), pytest.param(None), torch.nan, torch.inf], ids=str)
def test_an_amount_is_one_number_or_one_for_each_code(amount):
    for ask in (planted().apply_effect, functools.partial(undo, planted())):
        with pytest.raises(ValueError, match="amount"): ask(randn(3, 12), "a", amount)

def test_undo_takes_one_amount_for_all():
    with pytest.raises(ValueError, match="amount"): undo(planted(), randn(3, 12), "a", torch.ones(3))

@pytest.mark.parametrize("n_iter", [-1, 1.5, "many"])
def test_sounds_refuse(n_iter):
    with pytest.raises(ValueError, match="n_iter"): planted().sounds(randn(1, 12), n_iter)

def test_a_model_that_has_not_learned_says_so():
    m, z = fresh(0, EffectModel, ["a", "b"], "affine"), randn(3, 32)
    for ask in (lambda: undo(m, z, "a"), lambda: learn_vector(m, z, z), lambda: m.encode(randn(2, 64, 44)), lambda: m.sounds(z)):
        with pytest.raises(ValueError, match="train|scale"): ask()

def test_as_map_refuses():
    m = planted()
    for v in (m.vectors, "a", None):
        with pytest.raises(ValueError, match="v must be"): as_map(m.operation, v, 12)
    for dim in (0, 1.5):
        with pytest.raises(ValueError, match="dim"): as_map(m.operation, m.vectors[0], dim)

@pytest.mark.parametrize("ask, word", [
    (lambda: chapter_models(0), "epochs"), (lambda: chapter_models(seed=-1), "seed"), (lambda: chapter_models(split=1.5), "split"),
    pytest.param(lambda: chapter_models(jobs=0), "jobs.*0"), pytest.param(lambda: chapter_models(jobs=1.5), "jobs"), pytest.param(lambda: chapter_models(jobs="all"), "jobs"),
    (lambda: load_effects(seed=-1), "seed"), pytest.param(lambda: load_effects("scale"), "operation.*affine.*'scale'"), (lambda: load_effects(split=-1), "split"),
    pytest.param(lambda: streams(-1), "split"), pytest.param(lambda: chapter_logmel(1.5), "split"), pytest.param(lambda: chapter_pairs(-1), "split")])
def test_what_the_chapter_trains_refuses_before_any_work(ask, word, no_work):
    with pytest.raises(ValueError, match=word): ask()

def test_pairs_refuse_workers_before_any_work(monkeypatch):
    monkeypatch.setattr(effects, "hits", lambda *_, **__: pytest.fail("work has begun"))
    streams.cache_clear()
    with pytest.raises(ValueError, match="workers"): chapter_pairs(workers=-1)
