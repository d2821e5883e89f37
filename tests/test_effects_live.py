"What chapter 4 puts on a page: a map of effects, an amount and a hit, decoded there. The model is small and untrained."
import numpy as np
import pytest
import torch

import oplas.effects as E
from oplas.effects import SKETCH, EffectModel, OnEffects, effects_pad, pad_of
from oplas.fx import Hits
from oplas.models import fresh
from oplas.sampler import resynthesise
from oplas.web import InV8, Unsupported

SMALL = dict(dim=8, numbers=8, samples=2048, sound=dict(n_fft=512, hop_length=128, n_mels=40))
NAMES = [f"effect {k}" for k in range(7)]


def tiny(operation="affine", names=NAMES):
    "Its pictures are quiet, and differ by a few components, of which the first moves sound to higher rows."
    model, draw = fresh(0, EffectModel, names, operation, **SMALL).eval(), torch.Generator().manual_seed(1)
    rows, frames = model.shape
    basis = torch.randn(SKETCH, rows, frames, generator=draw)
    basis[0] = torch.linspace(-1, 1, rows)[:, None]
    model.basis.copy_(torch.nn.functional.normalize(basis.flatten(1)))
    model.middle.fill_(-.3)
    model.spread.copy_(3. / torch.arange(1, SKETCH + 1))
    model.logmel.top.fill_(5.)
    with torch.no_grad(): model.vectors.mul_(8)
    return model

def noises(n, rate=22_050, samples=2048):
    "They fall more and more quickly."
    x = torch.randn(n, samples, generator=torch.Generator().manual_seed(2))
    return Hits(.2 * x * torch.exp(-torch.arange(n)[:, None] * torch.arange(samples) / 400), rate)

@pytest.fixture(scope="module")
def model(): return tiny()

@pytest.fixture(scope="module")
def pad(model): return pad_of(model, noises(3))

@pytest.fixture(scope="module")
def page(pad): return InV8(pad.decode.text)

@pytest.fixture(scope="module")
def codes(model):
    with torch.no_grad(): return model.encode(model.logmel(noises(3).audio))

def wanted(model, z, effect, amount):
    with torch.no_grad(): return model.decode(model.apply_effect(z[None], effect, amount)).clamp(max=1).flatten()

def close(a, b): return float((a - b).abs().max()) < .05


# what the page computes

@pytest.mark.parametrize("amount", [0, .3, 1])
def test_the_page_puts_the_effect_of_a_mark_on_a_hit(model, pad, page, codes, amount):
    for (x, y, _, words), name in zip(pad.options["marks"], NAMES):
        assert words.startswith(name)
        for hit, up in enumerate((-2 / 3, 0, 2 / 3)):
            assert close(page.decode([x, y, 2 * amount - 1, up]), wanted(model, codes[hit], name, amount))

def test_without_an_amount_all_effects_leave_the_hit_dry(model, pad, page, codes):
    with torch.no_grad(): dry = model.decode(codes[1:2]).clamp(max=1).flatten()
    sounds = [page.decode([x, y, -1, 0]) for x, y, *_ in pad.options["marks"]]
    assert all(torch.equal(sound, sounds[0]) for sound in sounds) and close(sounds[0], dry)

def test_the_tests_can_tell_effects_and_hits_apart(model, codes):
    all_of_it = torch.stack([wanted(model, z, name, 1) for z in codes for name in [*NAMES, torch.zeros(8)]])
    assert float(torch.cdist(all_of_it, all_of_it, p=torch.inf).fill_diagonal_(9).min()) > .1

@pytest.mark.parametrize("operation", ["translation", "low rank"])
def test_other_operations_run_in_a_page(operation, codes):
    model = tiny(operation)
    x, y, *_ = (made := pad_of(model, noises(3))).options["marks"][4]
    assert close(InV8(made.decode.text).decode([x, y, 0, -2 / 3]), wanted(model, codes[0], NAMES[4], .5))

def test_an_operation_that_turns_codes_is_refused():
    model, draw = tiny("rotation"), torch.Generator().manual_seed(5)
    for p in model.operation.parameters(): torch.nn.init.normal_(p, generator=draw)  # at first it turns nothing
    with pytest.raises(Unsupported, match="linalg_qr"): pad_of(model, noises(3))

def test_the_page_sounds_as_python_does(model, pad, page):
    x, y, *_ = pad.options["marks"][2]
    sound, picture = page.note([x, y, 1, 0]), page.decode([x, y, 1, 0]).view(1, *model.shape)
    assert (model.logmel(sound) - model.logmel(resynthesise(model.logmel, picture, 2048))).abs().mean() < .05


# how a touch is read

def places(n): return torch.rand(n, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1

def test_a_touch_near_a_mark_gives_its_effect(model, codes):
    at = torch.tensor([[-.5, -.5], [.5, -.5], [-.5, .5], [.5, .5]])
    vectors = model.vectors.detach()[:4]
    on_effects = OnEffects(model, at, vectors, codes)
    for touch in places(30):
        nearest = int((at - touch).norm(dim=1).argmin())
        with torch.no_grad(): got = on_effects(torch.tensor([[*touch, 1, 0]])).flatten()
        assert torch.equal(got, wanted(model, codes[1], vectors[nearest], 1))

def test_hits_lie_in_bands_of_one_height(model, codes):
    on_effects = OnEffects(model, places(7), model.vectors.detach(), codes)
    for up, hit in ((-1, 0), (-.34, 0), (-.33, 1), (0, 1), (.33, 1), (.34, 2), (1, 2)):
        with torch.no_grad(): got = on_effects(torch.tensor([[0, 0, -1, up]])).flatten()
        assert torch.allclose(got, wanted(model, codes[hit], NAMES[0], 0), atol=1e-6)

def test_nothing_is_louder_than_what_was_learned_from(model, codes):
    on_effects = OnEffects(model, places(7), 50 * model.vectors.detach(), codes)
    rows = torch.cat([places(7), torch.ones(7, 2)], 1)
    with torch.no_grad(): pictures = torch.cat([on_effects(row[None]) for row in rows])
    assert pictures.max() == 1


# the map

def test_marks_lie_apart_and_the_same_each_time(model, pad):
    at = torch.tensor([mark[:2] for mark in pad.options["marks"]])
    assert len(at) == 7 and at.abs().max() <= .95 and torch.pdist(at).min() > .3
    assert pad_of(model, noises(3)).options["marks"] == pad.options["marks"]

def test_effects_that_sound_alike_are_neighbours():
    centres = 3 * torch.eye(8)[1:4]
    effects = {f"{k} {j}": centres[k] + .05 * j for k in range(3) for j in range(6)}
    at = torch.tensor([mark[:2] for mark in pad_of(tiny("translation"), noises(2), effects).options["marks"]])
    nearest = torch.cdist(at, at).fill_diagonal_(9).argmin(1)
    assert (nearest // 6 == torch.arange(18) // 6).float().mean() > .8

def test_the_colour_says_how_much_brighter_an_effect_is():
    up = torch.eye(8)[0]
    marks = pad_of(tiny("translation"), noises(2), {"up": 2 * up, "bit": up, "none": 0 * up, "down": -up}).options["marks"]
    values = {words: value for _, _, value, words in marks}
    assert [*values] == [f"{name}; octaves brighter" for name in ("up", "bit", "none", "down")]
    far, some, none, down = values.values()
    assert far > some > none == 0 > down

def test_five_sounds_are_there_before_the_decoder(pad):
    assert pad.faces.count("<audio") == 5 and pad.faces.count("the middle hit, dry</figcaption>") == 1
    *place, amount, hit = pad.options["start"]
    assert place in [mark[:2] for mark in pad.options["marks"]] and (amount, hit) == (1, 0) and pad.options["limit"] == 1

@pytest.mark.parametrize("n", [3, 4])
def test_a_few_effects_and_one_hit_are_enough(n):
    made = pad_of(tiny(names=NAMES[:n]), noises(1))
    assert len(made.options["marks"]) == n and 4 <= made.faces.count("<audio") <= 5

def test_the_chapters_pad_takes_what_rings_longest_of_each_fifth(model, monkeypatch):
    knobs = {"pitch": torch.arange(20.).flip(0), "decay": torch.rand(20, generator=torch.Generator().manual_seed(4))}
    found = Hits(noises(20).audio, 22_050, knobs)
    monkeypatch.setattr(E, "streams", lambda: {"hits": type("Stream", (), {"hits": found})})
    monkeypatch.setattr(E, "load_effects", lambda: model)
    asked = []
    monkeypatch.setattr(E, "pad_of", lambda model, hits: asked.append(hits))
    effects_pad()
    fifths = np.arange(19, -1, -1).reshape(5, 4)
    assert asked[0].knobs["decay"].tolist() == [float(knobs["decay"][fifth].max()) for fifth in fifths]
    assert asked[0].knobs["pitch"].diff().min() > 0


# bad input

@pytest.mark.parametrize("hits, effects, told", [
    (noises(2, samples=2000), None, "hits.audio must be a tensor of shape"), (noises(2, rate=44_100), None, "hits must have the rate"),
    (noises(2), {"one": torch.zeros(8), "two": torch.ones(8)}, "effects must be 3 or more"), (noises(2), {}, "effects must be 3 or more"),
    (noises(2), dict.fromkeys("abc", torch.ones(8)), "effects must differ"),
    (noises(2), dict.fromkeys("abc", torch.zeros(5)), "effect must be a float tensor of shape"), (noises(2)[:0], None, "hits.audio must be a tensor of shape")])
def test_pad_of_refuses(model, hits, effects, told):
    with pytest.raises(ValueError, match=told): pad_of(model, hits, effects)

def test_a_model_without_a_scale_is_named():
    with pytest.raises(ValueError, match="LogMel has no scale"): pad_of(fresh(0, EffectModel, NAMES, **SMALL), noises(2))
