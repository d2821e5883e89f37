"oplas.strings: plucked notes, what they are made of, and how notes are split."
import dataclasses, time

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.signal import fftconvolve, zoom_fft

from oplas import strings
from oplas.strings import FACTORS, Notes, pluck, plucks

RATE, LEAD, FADE = 22_050, 1536, 441
hertz = lambda midi: 440 * 2 ** ((midi - 69) / 12)

@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("OPLAS_CACHE", str(folder))
        yield folder

@pytest.fixture(scope="module")
def notes(cache): return plucks()


def test_what_plucks_are(notes):
    assert len(notes) == 504 and notes.audio.shape == (504, 34_560) and notes.sample_rate == RATE
    assert notes.instruments == ("small box", "large box") and list(notes.factors) == list(FACTORS)
    keys = torch.stack([notes.instrument, notes.midi, notes.take], 1)
    assert keys.unique(dim=0).tolist() == [[i, m, k] for i in range(2) for m in range(48, 84) for k in range(7)]

def test_sounds_are_clean(notes):
    x = notes.audio
    assert torch.isfinite(x).all()
    assert not x[:, :LEAD].any() and (x[:, LEAD:LEAD + 64].abs().amax(1) > 1e-3).all()   # exact silence, then at once the pluck
    assert not x[:, -1].any() and (x[:, -20:].abs() < .005).all()                        # ends without a click
    torch.testing.assert_close(x.abs().amax(1), torch.full((504,), .9), atol=2e-5, rtol=0)
    assert x.mean(1).abs().max() < 2e-4                                                  # no DC
    assert x[:, LEAD:].unfold(1, 4410, 4410).mean(2).abs().max() < 5e-3                  # not for a fifth of a second either

def test_in_tune_within_three_cents(notes):
    size, off = 1 << 20, []
    for sound, midi in zip(notes.audio[:, LEAD:-FADE].double().numpy(), notes.midi.tolist()):
        near = np.arange(int(hertz(midi - 1) * size / RATE), int(hertz(midi + 1) * size / RATE))
        spectrum = np.abs(zoom_fft(sound * np.hanning(len(sound)), [near[0], near[-1] + 1], len(near), fs=size))
        off.append(1200 * np.log2(near[spectrum.argmax()] * RATE / size / hertz(midi)))
    assert np.abs(off).max() < 3 and np.median(np.abs(off)) < .2

def test_partials_are_in_tune():  # the all-pass is exact for the fundamental alone
    size = 1 << 20
    for midi in range(48, 84):
        sound = pluck(midi, decay=1.5, brightness=2.5, position=.11)[LEAD:-FADE].double().numpy()
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size))
        for n in (2, 3, 4):
            near = np.arange(int(n * hertz(midi - .5) * size / RATE), int(n * hertz(midi + .5) * size / RATE))
            assert abs(1200 * np.log2(near[spectrum[near].argmax()] * RATE / size / (n * hertz(midi)))) < 10

def test_decay_is_as_asked(notes):
    ratio = []
    for sound, midi, decay in zip(notes.audio[:, LEAD:-FADE].double().numpy(), notes.midi.tolist(), notes.factors["decay"].tolist()):
        wave = np.exp(-2j * np.pi * hertz(midi) / RATE * np.arange(len(sound)))
        start, length = int(.12 * RATE), int(.7 * 2 ** decay * RATE)                     # after the knock, for 42 dB
        piece = (sound * wave)[start:start + length + 1102]
        level = 20 * np.log10(abs(fftconvolve(piece, np.hanning(1103), "valid")))
        ratio.append(-60 / np.polyfit(np.arange(len(level)), level, 1)[0] / RATE / 2 ** decay)
    assert .97 < min(ratio) and max(ratio) < 1.03

@pytest.mark.parametrize("decay", [-1.5, 0, 1.58])
def test_every_loop_is_stable(decay):
    for midi in np.arange(48, 83.01, .25):
        b, a = strings._string(hertz(midi), decay)
        gain = abs(np.fft.rfft(a - np.r_[b, np.zeros(len(a) - 2)], 8192)) / abs(np.fft.rfft(b, 8192))
        assert gain.max() < 1

def test_determinism(cache, notes, monkeypatch, tmp_path):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path))
    again = plucks(takes=1)                                                              # made anew, in another order
    first = notes[notes.take == 0]
    assert torch.equal(again.audio, first.audio)
    for name in FACTORS: assert torch.equal(again.factors[name], first.factors[name])
    other = plucks(takes=1, seed=1)
    assert (other.audio != again.audio).any(1).all() and (other.factors["decay"] != again.factors["decay"]).all()

def test_a_note_follows_from_its_factors(notes):
    for i in range(0, 504, 41):
        sound = pluck(notes.midi[i].item(), **{k: v[i].item() for k, v in notes.factors.items()})
        torch.testing.assert_close(sound, notes.audio[i], atol=2e-5, rtol=0)

def test_all_notes_differ(notes):
    assert len(np.unique(strings._twins(notes))) == 504

def test_factors_fill_their_ranges_independently(notes):
    for name, (low, high, _) in FACTORS.items():
        v = notes.factors[name]
        assert low <= v.min() < low + .02 * (high - low) and high - .02 * (high - low) < v.max() <= high
        assert 60 <= torch.histc(v if name != "body" else v + .05 * notes.instrument, 4).min()   # evenly; body has a gap between its boxes
    large, small = notes.factors["body"][notes.instrument == 1], notes.factors["body"][notes.instrument == 0]
    assert -.45 <= large.min() and large.max() <= .45 and .55 <= small.min() and small.max() <= 1.45
    own = notes.factors["body"] - (1 - notes.instrument)
    table = torch.stack([notes.midi, notes.instrument, notes.take, *[notes.factors[k] for k in ("decay", "brightness", "position")], own])
    assert (torch.corrcoef(table) - torch.eye(7)).abs().max() < .2

def test_each_factor_is_heard_at_every_pitch():
    def picture(x):
        return torch.log1p(torch.stft(x, 2048, 256, window=torch.hann_window(2048), return_complex=True).abs() / 512 / 1e-3)
    far = lambda midi, name, ends: (picture(pluck(midi, **{name: ends[0]})) - picture(pluck(midi, **{name: ends[1]}))).square().mean().sqrt()
    for midi in range(48, 84, 5):
        brightness = far(midi, "brightness", FACTORS["brightness"])
        assert far(midi, "body", (0, 1)) > .7 * brightness
        assert far(midi, "position", FACTORS["position"]) > .7 * brightness and far(midi, "decay", FACTORS["decay"]) > brightness

def test_second_call_reads_the_cache(cache, notes, monkeypatch):
    files = {p: p.stat().st_mtime_ns for p in cache.rglob("*.safetensors")}
    assert files and sum(p.stat().st_size for p in files) < 80e6                         # 16 bits a sample
    def twice(*args, **kwargs): raise AssertionError("made a second time")
    monkeypatch.setattr(strings.np.random, "default_rng", twice)
    again = plucks()
    assert torch.equal(again.audio, notes.audio) and {p: p.stat().st_mtime_ns for p in cache.rglob("*.safetensors")} == files

@pytest.mark.parametrize("bad", [{"takes": 0}, {"takes": -1}, {"takes": 1.5}, {"takes": True}, {"takes": "7"}, {"seed": -1}, {"seed": .5}, {"seed": None}])
def test_bad_plucks(bad):
    (name, value), = bad.items()
    with pytest.raises(ValueError, match=rf"{name} must be a whole number.*{value!r}"): plucks(**bad)

@pytest.mark.parametrize("bad", [{"midi": 47}, {"midi": 84}, {"midi": float("nan")}, {"decay": 2}, {"brightness": -1}, {"position": 0}, {"position": .6}, {"body": 2}, {"body": float("inf")}])
def test_bad_pluck(bad):
    (name, value), = bad.items()
    with pytest.raises(ValueError, match=rf"{name} must be a finite number from .*{value!r}"): pluck(**{"midi": 60, **bad})


# ---- notes and their split

def few(n=12, samples=8, **changes):
    g = torch.Generator().manual_seed(0)
    fields = dict(audio=torch.rand(n, samples, generator=g) * 2 - 1, midi=torch.arange(n) % 3 + 60, instrument=torch.arange(n) // 3 % 2, take=torch.arange(n) // 6,
                  instruments=("a", "b"), sample_rate=RATE, factors={"size": torch.arange(n).float()})
    return Notes(**{**fields, **changes})

@pytest.mark.parametrize("index", [slice(2, 5), slice(None), [1, 3], torch.tensor([4, 4]), torch.arange(12) % 2 == 0, np.array([0, 2]), np.arange(12) > 5])
def test_index(index):
    whole = few()
    part, rows = whole[index], torch.arange(12)[index]
    assert len(part) == len(rows) and torch.equal(part.audio, whole.audio[rows]) and torch.equal(part.midi, whole.midi[rows])
    assert torch.equal(part.factors["size"], rows.float()) and part.instruments == whole.instruments and part.sample_rate == RATE

def test_single_index_and_loop():
    whole = few()
    assert len(whole[3]) == len(whole[np.int64(3)]) == 1 and torch.equal(whole[-1].audio, whole.audio[11:])
    assert [len(n) for n in whole] == [1] * 12
    with pytest.raises(IndexError): whole[12]
    assert len(whole[:0]) == 0 and len(whole[:0].split()) == 3

@pytest.mark.parametrize("field, value", [("audio", torch.zeros(12)), ("audio", torch.zeros(12, 8).double()), ("midi", torch.zeros(11, dtype=torch.int64)), ("midi", torch.zeros(12)),
                                          ("take", torch.zeros(12, 1, dtype=torch.int64)), ("instrument", torch.full((12,), 2)), ("instrument", torch.full((12,), -1)), ("sample_rate", 0),
                                          ("factors", {"size": torch.zeros(11)}), ("factors", {"size": torch.zeros(12).long()})])
def test_bad_notes(field, value):
    with pytest.raises(ValueError, match=f"^{field}.* must"): few(**{field: value})

@pytest.mark.parametrize("shares", [(), (.5,), (.5, .6), (1.2, -.2), (1., 0.), (float("nan"), 1.), ((.5, .5),), .5])
def test_bad_shares(shares):
    with pytest.raises(ValueError, match="shares must be"): few().split(shares)

def test_bad_split_seed():
    with pytest.raises(ValueError, match="seed must be"): few().split(seed=-1)

def check_split(whole, parts, shares):
    kind = lambda notes: list(zip(notes.instrument.tolist(), notes.midi.tolist()))
    rows = [p.factors["row"].long().tolist() for p in parts]
    assert sorted(sum(rows, [])) == list(range(len(whole)))                              # every note in one part
    assert all(r == sorted(r) for r in rows)
    for notes, r in zip(parts, rows): assert torch.equal(notes.audio, whole.audio[r])
    assert set(kind(parts[0])) == set(kind(whole))                                       # every pitch of every instrument can be learnt
    takes = [set(zip(kind(p), p.take.tolist())) for p in parts]
    sounds = [{a.numpy().tobytes() for a in p.audio + 0.} for p in parts]
    for sets in (takes, sounds): assert len(set.union(*sets)) == sum(map(len, sets))     # no take, no sound in two parts

@settings(max_examples=60, deadline=None)
@given(st.data())
def test_split_of_any_notes(draw):
    n = draw.draw(st.integers(1, 40))
    column = lambda top: torch.from_numpy(draw.draw(hnp.arrays(np.int64, n, elements=st.integers(0, top))))
    weights = np.array(draw.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)), float)
    audio = draw.draw(hnp.arrays(np.float32, (n, 2), elements=st.sampled_from([-1., -.5, -0., 0., .5, 1.])))   # many are equal
    whole = Notes(torch.from_numpy(audio), column(2), column(1), column(4), ("a", "b"), RATE, {"row": torch.arange(n).float()})
    shares = tuple(weights / weights.sum())
    check_split(whole, whole.split(shares, draw.draw(st.integers(0, 2**32))), shares)

@settings(max_examples=60, deadline=None)
@given(pitches=st.integers(1, 30), takes=st.integers(1, 12), weights=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_split_keeps_the_shares(pitches, takes, weights, seed):
    n = pitches * takes
    audio = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    whole = Notes(audio, torch.arange(n) // takes, torch.zeros(n, dtype=torch.int64), torch.arange(n) % takes, ("a",), RATE, {"row": torch.arange(n).float()})
    shares = np.array(sorted(weights, reverse=True)) / sum(weights)
    parts = whole.split(tuple(shares), seed)
    check_split(whole, parts, shares)
    if takes * shares[0] >= 1:                                                           # or else part 0 must take more than its share
        assert np.abs(np.array(list(map(len, parts))) - n * shares).max() < len(shares)
        for m in range(pitches):
            counts = np.array([(p.midi == m).sum() for p in parts])
            assert (counts >= np.floor(takes * shares - 1e-6)).all()

def test_split_of_seven_takes(notes):
    parts = notes.split((.7, .1, .2), seed=0)
    assert [len(p) for p in parts] == [353, 50, 101]
    test = torch.stack([parts[2].instrument, parts[2].midi], 1).unique(dim=0)
    assert len(test) == 72 and set(parts[1].instrument.tolist()) == {0, 1}               # every pitch is tested
    again, other = notes.split((.7, .1, .2), seed=0), notes.split((.7, .1, .2), seed=1)
    assert torch.equal(again[2].audio, parts[2].audio) and not torch.equal(other[2].audio[:101], parts[2].audio)

def test_a_copied_recording_stays_with_its_original(notes):
    copied = notes[notes.midi < 52][list(range(56)) + [0, 30]]
    copied.take[-2:] = 7
    copied.midi[-1] = 50                                                                 # and one under a wrong pitch
    copied = dataclasses.replace(copied, factors={"row": torch.arange(58).float()})
    for seed in range(20): check_split(copied, copied.split(seed=seed), (.7, .1, .2))

def test_split_of_many_is_quick(notes):
    start = time.perf_counter()
    notes.split()
    assert time.perf_counter() - start < 5


def test_notes_plot(notes):
    import matplotlib.pyplot as plt
    fig = notes.plot(3)
    assert fig.get_suptitle() and [ax.get_title() for ax in fig.axes] == ["small box, MIDI 48", "large box, MIDI 48", "large box, MIDI 83", ""]
    plt.close(fig)
    plt.close(few(samples=100).plot(1))
    with pytest.raises(ValueError, match="count must be a whole number from 1 to 12, got 13"): few().plot(13)
