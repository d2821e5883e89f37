"oplas.fx: hits from a seed, effects that mean the same in both forms, a stream that is the same everywhere, and bad input."
import pickle, sys, warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils.data import DataLoader, Subset

from conftest import need
from oplas import fx
from oplas.fx import EFFECTS, KNOBS, Effect, EffectStream, Hits, fault, held_out, hits, read_effects, read_hits, runnable

RATE = 22_050
FEW = hits(6, seed=2)
SCIPY = [name for name, effect in EFFECTS.items() if "scipy" in effect.forms]
WITH_FAUST = fx.has_faust()


@pytest.fixture
def no_faust(monkeypatch):
    "A machine without DawDreamer."
    monkeypatch.setitem(sys.modules, "dawdreamer", None)
    fx.has_faust.cache_clear()
    yield
    fx.has_faust.cache_clear()

@pytest.fixture
def faust(): need(WITH_FAUST, "DawDreamer")

def own(text, **parameters): return Effect("own", "own", 'import("stdfaust.lib");\n' + text, parameters)

def equal_items(a, b): return all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True))


# hits

def test_a_hit_depends_on_seed_and_number_alone():
    assert torch.equal(hits(2, seed=2).audio, FEW.audio[:2])
    assert not torch.equal(hits(2, seed=3).audio, FEW.audio[:2])

def test_hits_are_played_alike_in_any_batch(monkeypatch):
    monkeypatch.setattr(fx, "_AT_ONCE", 4)
    assert torch.equal(hits(6, seed=2).audio, FEW.audio)

def test_hits_start_and_end_in_silence_with_room_above():
    x = hits(60).audio
    assert x.isfinite().all() and torch.allclose(x.abs().amax(1), torch.tensor(.5))
    assert x[:, 0].abs().max() < .05 and x[:, -1].abs().max() < 1e-6
    assert (x.mean(1).abs() < .02).all()

def test_knobs_do_what_they_say():
    def ends(knob):
        "The voice with a knob at its lowest and its highest, the others in the middle, without noise."
        u = np.full((2, len(KNOBS)), .5)
        u[:, list(KNOBS).index("noise")] = 0
        u[:, list(KNOBS).index(knob)] = 0, 1
        return fx._voice(fx._knobs(u), np.zeros((2, RATE), np.float32))
    for knob in ("pitch", "fold", "cutoff"):
        power = np.abs(np.fft.rfft(ends(knob))) ** 2
        dull, bright = power @ np.arange(RATE // 2 + 1) / power.sum(1)
        assert bright > 1.2 * dull, knob
    short, long = np.abs(ends("decay"))[:, 8000:].max(1)
    assert long > 5 * short

def test_split_keeps_equal_sounds_together():
    twice = Hits(torch.cat([FEW.audio, FEW.audio]))
    parts = twice.split((.5, .5))
    rows = [{row.numpy().tobytes() for row in part.audio} for part in parts]
    assert sum(map(len, parts)) == 12 and not rows[0] & rows[1]

def test_a_hit_collection_tells_itself():
    assert "6 of 1 s" in repr(FEW) and len(FEW[2]) == 1 and set(FEW.to_dict()) == {"peak", *KNOBS}
    with pytest.raises(IndexError): FEW[6]

@pytest.mark.parametrize("bad", [dict(n=0), dict(n=2.5), dict(seed=-1), dict(form="csound")])
def test_hits_refuse(bad):
    with pytest.raises(ValueError, match=next(iter(bad))): hits(**bad)

def test_hits_refuse_sounds_that_are_none():
    for audio in (torch.zeros(3), torch.zeros(2, 0), torch.zeros(2, 3, dtype=torch.int64), np.zeros((2, 3))):
        with pytest.raises(ValueError, match="audio"): Hits(audio)
    with pytest.raises(ValueError, match="pitch"): Hits(torch.zeros(2, 3), RATE, {"pitch": torch.zeros(3)})

def test_the_voice_in_faust_is_the_voice_in_numpy(faust):
    a, b = FEW.audio, hits(6, seed=2, form="faust").audio
    assert ((a - b).norm(dim=1) < .01 * a.norm(dim=1)).all()


# effects

def test_there_are_72_and_65_of_them_need_no_faust():
    assert len(EFFECTS) == 72 and len(SCIPY) == 65
    assert all(name == effect.name and name.startswith(effect.family) for name, effect in EFFECTS.items())

@pytest.mark.parametrize("name", SCIPY)
def test_both_forms_of_an_effect_agree(name, faust):
    a, b = (EFFECTS[name](FEW.audio, form=form) for form in ("faust", "scipy"))
    assert ((a - b).norm(dim=1) < .002 * a.norm(dim=1)).all()

@pytest.mark.parametrize("name", runnable())
def test_an_effect_is_fit_for_use(name):
    wet = EFFECTS[name](FEW.audio)
    assert not fault(wet) and wet.dtype == torch.float32
    assert wet[:, 0].abs().max() < .1
    assert wet.mean(1).abs().max() < .02
    assert (wet - FEW.audio).norm() > .05 * FEW.audio.norm()
    assert torch.equal(EFFECTS[name](FEW.audio[3]), wet[3])

@pytest.mark.parametrize("name", runnable())
def test_silence_stays_silent(name): assert EFFECTS[name](torch.zeros(2000)).abs().max() < 1e-6

@settings(max_examples=40)
@given(st.sampled_from(list(runnable())), st.floats(0, 1), st.floats(0, 1))
def test_the_distance_from_dry_is_in_proportion_to_the_amount(name, a, b):
    x = FEW.audio[1]
    one, other = ((EFFECTS[name](x, amount) - x).norm() for amount in (a, b))
    assert abs(one * b - other * a) < 1e-4

def test_the_ends_of_the_amount_are_exact():
    for name in SCIPY[::9]:
        wet = EFFECTS[name](FEW.audio)
        assert torch.equal(EFFECTS[name](FEW.audio, 0), FEW.audio)
        assert torch.equal(EFFECTS[name](FEW.audio, torch.tensor([0, 1, 0, 1, 1, 0.]))[1], wet[1])

def test_a_filter_filters_at_any_rate():
    for rate in (22_050, 48_000, 96_000):
        t = torch.arange(rate) / rate
        low, high = (EFFECTS["lowpass 1000 Hz"](torch.sin(2 * torch.pi * f * t) / 2, sample_rate=rate).square().mean().sqrt() for f in (100, 8000))
        assert low > .34 and high < .02, rate

def test_a_program_forgets_the_last_sound(faust):
    echo = own("process = + ~ (de.delay(4096, 3000) * .9);")
    first = echo(FEW.audio[0])
    echo(FEW.audio[1])
    assert torch.equal(echo(FEW.audio[0]), first)
    assert torch.equal(echo(FEW.audio[0, :5000]), first[:5000])

@pytest.mark.parametrize("audio", [torch.zeros(0), torch.zeros(2, 2, 2), torch.zeros(5, dtype=torch.int64)])
def test_an_effect_refuses_what_is_no_sound(audio):
    with pytest.raises(ValueError, match="audio must be float"): EFFECTS["bits 3"](audio)

def test_an_effect_refuses_nan():
    with pytest.raises(ValueError, match="audio holds NaN"): EFFECTS["bits 3"](torch.tensor([0, float("nan")]))

@pytest.mark.parametrize("amount", [-.1, 1.1, float("nan"), torch.ones(3)])
def test_an_effect_refuses_an_amount(amount):
    with pytest.raises(ValueError, match="amount must lie"): EFFECTS["bits 3"](FEW.audio, amount)

def test_an_effect_refuses_a_form():
    with pytest.raises(ValueError, match="form must be one of"): EFFECTS["bits 3"](FEW.audio, form="csound")
    with pytest.raises(ValueError, match="ladder"): EFFECTS["ladder 420 Hz"](FEW.audio, form="scipy")


# no DawDreamer

def test_without_dawdreamer_scipy_does_what_it_can(no_faust):
    assert list(runnable()) == SCIPY and EFFECTS["bits 3"](FEW.audio).shape == FEW.audio.shape
    assert len(EffectStream(FEW)) == 6 * 65
    for what in (lambda: EFFECTS["ladder 420 Hz"](FEW.audio), lambda: EFFECTS["bits 3"](FEW.audio, form="faust"),
                 lambda: hits(1, form="faust")):
        with pytest.raises(ImportError, match=r'needs DawDreamer: pip install "oplas\[effects\]"'): what()

def test_without_dawdreamer_a_faust_file_says_what_it_needs(no_faust, tmp_path):
    (tmp_path / "a.dsp").write_text("process = _;")
    with pytest.raises(ImportError, match="DawDreamer"): read_effects(tmp_path)


# the stream

def test_a_pass_meets_every_pair_once():
    stream = EffectStream(FEW[:3], {name: EFFECTS[name] for name in SCIPY[:4]}, passes=2)
    pairs = [stream.draw(i)[:2] for i in range(len(stream))]
    assert len(stream) == 24 and len(set(pairs[:12])) == 12 and pairs[12:] == pairs[:12]
    assert len({stream.draw(i)[2] for i in range(24)}) == 24
    with pytest.raises(IndexError): stream[24]
    assert len(list(stream)) == 24

def test_an_item_is_what_it_says():
    stream = EffectStream(FEW, seed=4)
    for i in range(0, len(stream), 37):
        dry, wet, label, amount = stream[i]
        hit, name, drawn = stream.draw(i)
        assert torch.equal(dry, FEW.audio[hit]) and stream.labels[label] == name and amount == torch.tensor(drawn)
        assert torch.allclose(wet, EFFECTS[name](dry, drawn), atol=1e-6)

def test_workers_and_restarts_change_nothing():
    stream = EffectStream(FEW)
    some = Subset(stream, range(0, len(stream), 5))
    def made(data, workers): return [t for batch in DataLoader(data, batch_size=8, num_workers=workers) for t in batch]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = made(some, 0)
        for workers in (1, 4): assert equal_items(made(some, workers), alone)
    assert equal_items(made(Subset(EffectStream(hits(6, seed=2)), some.indices), 0), alone)
    assert equal_items(pickle.loads(pickle.dumps(stream))[17], stream[17])

def test_seeds_change_amounts():
    one, other = (EffectStream(FEW, seed=seed) for seed in (0, 1))
    assert one.draw(5)[:2] == other.draw(5)[:2] and one.draw(5)[2] != other.draw(5)[2]

def test_amounts_come_evenly_from_their_ranges():
    stream = EffectStream(FEW, {"bits 3": EFFECTS["bits 3"]}, amounts=((0, .1), (.7, 1)), passes=500)
    amounts = np.array([stream.draw(i)[2] for i in range(len(stream))])
    low = amounts <= .1
    assert ((amounts >= .7) | low).all() and abs(low.mean() - .25) < .03
    assert abs(amounts[~low].mean() - .85) < .01

def test_what_is_held_out_is_new():
    stream = EffectStream(hits(30, seed=8))
    parts = held_out(stream, hits=.3, effects=12, amounts=(.2, .5), seed=1)
    rows = {name: {row.numpy().tobytes() for row in part.hits.audio} for name, part in parts.items()}
    assert len(parts["hits"].hits) == 9 and not rows["train"] & rows["hits"] and rows["hits"] == rows["amounts"] == rows["effects"]
    assert len(parts["effects"].effects) == 12 and not set(parts["effects"].effects) & set(parts["train"].effects)
    assert {e.family for e in parts["effects"].effects.values()} <= {e.family for e in parts["train"].effects.values()}
    assert all(part.labels == stream.labels for part in parts.values())
    for name, inside in {"train": False, "hits": False, "effects": False, "amounts": True}.items():
        assert all((.2 < parts[name].draw(i)[2] < .5) == inside for i in range(0, 100))
    assert parts["train"].draw(3) == held_out(stream, hits=.3, effects=12, amounts=(.2, .5), seed=1)["train"].draw(3)

@pytest.mark.parametrize("bad", [dict(effects=0), dict(effects=999), dict(hits=0), dict(hits=1), dict(amounts=(0, .5)), dict(amounts=(.5, .4))])
def test_held_out_refuses(bad):
    with pytest.raises(ValueError): held_out(EffectStream(FEW), **bad)

@pytest.mark.parametrize("bad", [dict(amounts=((.4, .2),)), dict(amounts=((0, 2),)), dict(passes=0), dict(seed=-1), dict(effects={}), dict(labels=("bits 3",))])
def test_a_stream_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))): EffectStream(FEW, **bad)
    with pytest.raises(ValueError, match="empty"): EffectStream(FEW[:0])

def test_unfit_effects_are_named_and_left_out(faust):
    odd = {"mute": own("process = *(0);"), "fine": own("process = *(.9);"), "explodes": own("process = + ~ *(1.1);"),
           "loud": own("process = *(30);"), "roots": own("process = -(2) : sqrt;")}
    with pytest.warns(UserWarning, match="4 of 5 effects left out: mute: silent; explodes: NaN or Inf; loud: louder than full scale, 15; roots: NaN or Inf"):
        stream = EffectStream(FEW, odd)
    assert list(stream.effects) == ["fine"] and len(stream) == 6 and stream.labels == tuple(odd) and stream[0][2] == 1
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of them is fit"): EffectStream(FEW, {"mute": odd["mute"]})

def test_a_hit_on_which_an_effect_fails_is_replaced():
    audio = FEW.audio.repeat(3, 1).clone()
    audio[1] = 0                               # the screening of 8 of the 18 does not meet it
    stream = EffectStream(Hits(audio), {"bits 3": EFFECTS["bits 3"]})
    dry, wet, *_ = stream[1]
    assert dry.abs().max() > .4 and not fault(wet) and equal_items(stream[1], stream[1])

def test_fault_names_what_is_wrong():
    x = FEW.audio
    assert fault(x) == "" and fault(x * 0) == "silent" and "full scale, 5" in fault(10 * x)
    assert fault(x / 0) == "NaN or Inf"


# one's own

def test_a_folder_of_hits(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    t = np.arange(44_100) / 44_100
    soundfile.write(tmp_path / "long.wav", np.sin(880 * np.pi * t) * .2, 44_100)
    soundfile.write(tmp_path / "short.flac", np.sin(880 * np.pi * t[:4000]) * .8, 44_100)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), 44_100)
    with pytest.warns(UserWarning, match="2 of 4 files left out: .*broken.wav.*silent.wav"): found = read_hits(tmp_path, .5)
    assert found.audio.shape == (2, 11_025) and torch.allclose(found.audio.abs().amax(1), torch.tensor(.5))
    assert (found.audio[1, 2100:] == 0).all()
    assert len(EffectStream(found)) == 2 * len(runnable())

def test_no_hits_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"): read_hits(tmp_path / "none")
    with pytest.raises(ValueError, match="none of the 0 sound files"): read_hits(tmp_path)
    with pytest.raises(ValueError, match="seconds"): read_hits(tmp_path, 0)

def test_faust_files_become_effects(tmp_path, faust):
    (tmp_path / "half.lib").write_text("half = *(.5);")
    (tmp_path / "quiet.dsp").write_text('h = library("half.lib");\nprocess = h.half : *(hslider("rest", .5, 0, 1, .01));')
    (tmp_path / "pass.dsp").write_text("process = _;")
    found = read_effects(tmp_path)
    assert list(found) == ["pass", "quiet"] and found["quiet"].parameters == {"rest": .5}
    assert torch.allclose(found["quiet"](FEW.audio), FEW.audio / 4)
    assert list(read_effects(tmp_path / "pass.dsp")) == ["pass"]

@pytest.mark.parametrize("text, told", [("process = foo(_);", "line 1: ERROR : undefined symbol : foo"), ("\n\nprocess = _ :;\n", "line 3: ERROR : syntax error"),
                                        ("a = 1;", "process"), ("process = _ <: _, _;", "has 1 and 2"), ('import("no.lib");\nprocess = _;', "no.lib")])
def test_a_faust_file_that_is_none_is_named_in_fausts_words(text, told, tmp_path, faust):
    (tmp_path / "wrong.dsp").write_text(text)
    with pytest.raises(ValueError, match="wrong.dsp") as e: read_effects(tmp_path)
    assert told in str(e.value) and "dawdreamer" not in str(e.value).replace(str(tmp_path), "")

def test_no_faust_files_are_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "none.dsp"):
        with pytest.raises(FileNotFoundError, match="no Faust file"): read_effects(path)
