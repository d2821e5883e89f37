"oplas.music: tokens to notes, MIDI files, sound and back; attributes against bars worked out by hand and against plain loops; bad input."
import os, shutil, stat, sys

import hypothesis.strategies as st
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings

from oplas import music
from oplas.audio import f0_autocorrelation
from oplas.music import (GRIDS, HOLD, REST, WEIGHTS, Events, contour, note_density, on_grid, pitch_range, plot_roll, plot_staff, read_midi, render,
                         rhythmic_complexity, to_events, to_tokens, write_midi)

matplotlib.use("Agg")
H, R = HOLD, REST
ATTRIBUTES = {"complexity": rhythmic_complexity, "toussaint": lambda x, **k: rhythmic_complexity(x, "toussaint", **k), "range": lambda x, **_: pitch_range(x),
              "density": lambda x, **_: note_density(x), "net": lambda x, **_: contour(x), "absolute": lambda x, **_: contour(x, "absolute")}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# what the tests draw: any tokens; and tokens in the one form that to_tokens writes

@st.composite
def tokens(draw, low=0, high=127, most=6):
    "(tokens, ticks_per_bar) with holds after nothing and rests after rests, as they may come from a model."
    ticks_per_bar, bars = draw(st.sampled_from(sorted(GRIDS))), draw(st.sampled_from([1, 2]))
    n = draw(st.integers(1, most))
    token = st.one_of(st.integers(low, high), st.sampled_from([H, H, H, R]))
    rows = draw(st.lists(st.lists(token, min_size=ticks_per_bar * bars, max_size=ticks_per_bar * bars), min_size=n, max_size=n))
    return np.array(rows), ticks_per_bar

def written(x):
    "The same music with REST on every silent tick, by a plain loop."
    x = np.array(x)
    for row in x:
        sounds = False
        for t, token in enumerate(row):
            sounds = token < H or sounds and token == H
            if not sounds: row[t] = R
    return x

def notes(row, ticks_per_bar):
    "(onset, duration, pitch) of a window, by a plain loop."
    per, grid, out, since = ticks_per_bar // 4, GRIDS[ticks_per_bar], [], None
    at = lambda t: t // per + (grid[t % per] if t < len(row) else 0)
    for t in range(len(row) + 1):
        token = row[t] if t < len(row) else R
        if token != H:
            if since is not None: out.append((at(since), at(t) - at(since), int(row[since])))
            since = t if token < H else None
    return out


# tokens and events

@settings(deadline=None)
@given(tokens())
def test_events_are_those_of_a_plain_loop(drawn):
    x, ticks_per_bar = drawn
    e = to_events(x, ticks_per_bar)
    expected = [(i, *n) for i, row in enumerate(x) for n in notes(row, ticks_per_bar)]
    assert len(e) == len(expected)
    if expected:
        bar, onset, duration, pitch = zip(*expected)
        assert (e.bar == bar).all() and np.allclose(e.onset, onset) and np.allclose(e.duration, duration) and (e.pitch == pitch).all()
    assert e.bar.dtype == e.pitch.dtype == np.int64 and e.onset.dtype == e.duration.dtype == np.float64

@settings(deadline=None)
@given(tokens())
def test_there_and_back(drawn):
    x, ticks_per_bar = drawn
    back = to_tokens(to_events(x, ticks_per_bar), len(x), ticks_per_bar, x.shape[1] // ticks_per_bar)
    assert back.dtype == np.int64 and np.array_equal(back, written(x))

@settings(deadline=None)
@given(tokens(), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(drawn, random):
    x, ticks_per_bar = drawn
    e = to_events(x, ticks_per_bar)
    order = random.sample(range(len(e)), len(e))
    shuffled = Events(*(getattr(e, k)[order] for k in ("bar", "onset", "duration", "pitch")))
    assert np.array_equal(to_tokens(shuffled, len(x), ticks_per_bar, x.shape[1] // ticks_per_bar), written(x))

def test_events_of_other_shapes():
    x = np.full((2, 3, 24), R)
    x[1, 2, 6:9] = 60, H, H
    for own in (x, torch.from_numpy(x), x.tolist(), torch.from_numpy(x).to(torch.uint8), x.astype(">i4"), x.astype(np.int16)[:, :, ::1]):
        e = to_events(own)
        assert (e.bar.tolist(), e.onset.tolist(), e.duration.tolist(), e.pitch.tolist()) == ([5], [1.], [.5], [60])
    assert to_events(x[1, 2]).bar.tolist() == [0]
    assert len(to_events(x[:0])) == len(to_events(np.full(24, H))) == 0
    assert to_tokens(to_events(x[:0]), 0).shape == (0, 24) and (to_tokens(Events([], [], [], []), 2, 16) == R).all()

@settings(deadline=None)
@given(st.floats(0, 8), st.sampled_from(sorted(GRIDS)))
@example(1/3, 24)
@example(8 - 1/3, 24)
@example(2/3 + 5e-7, 24)
@example(2/3 + 2e-6, 24)
def test_on_grid(time, ticks_per_bar):
    places = [b + g for b in range(9) for g in GRIDS[ticks_per_bar]]
    distance = min(abs(time - p) for p in places)
    assume(not .9e-6 < distance < 1.1e-6)
    assert on_grid(time, ticks_per_bar) == (distance < 1e-6)

def test_on_grid_of_what_is_no_time():
    assert on_grid([[0, -1, np.nan], [np.inf, -np.inf, -1e-12]]).tolist() == [[True, False, False], [False, False, True]]
    assert on_grid([1e9 + 1/3, 1e9 + .3]).tolist() == [True, False]

@pytest.mark.parametrize("event, n, message", [
    (([0], [.2], [1], [60]), 1, "grid of 24"), (([0], [0], [.2], [60]), 1, "grid of 24"), (([0], [-1], [2], [60]), 1, "grid"),
    (([0], [np.nan], [1], [60]), 1, "grid"), (([0], [0], [np.inf], [60]), 1, "grid"),
    (([0], [0], [0], [60]), 1, "duration must be above 0"), (([0], [2], [-1], [60]), 1, "duration must be above 0"),
    (([0], [3], [2], [60]), 1, "within the window's 4 beats"), (([0], [4], [1], [60]), 1, "within"),
    (([0], [0], [1], [128]), 1, "pitch must lie in 0 … 127"), (([0], [0], [1], [-1]), 1, "pitch"),
    (([1], [0], [1], [60]), 1, "bar must lie in 0 … 0"), (([-1], [0], [1], [60]), 1, "bar"),
    (([0, 0], [0, 1], [1.5, 1], [60, 62]), 1, "bar 0: onset 1, duration 1, pitch 62"), (([0, 0], [1, 1], [1, 1], [60, 62]), 1, "begin before"),
    (([0, 0], [0, 1], [1], [60, 62]), 1, "one length"), (([[0]], [[0]], [[1]], [[60]]), 1, "one length")])
def test_events_that_do_not_fit(event, n, message):
    with pytest.raises(ValueError, match=message): to_tokens(Events(*map(np.array, event)), n)

def test_triplets_are_off_the_grid_of_sixteen():
    triplet = Events([0], [1/3], [1/3], [60])
    assert to_tokens(triplet, 1).tolist()[0][:5] == [R, R, 60, H, R]
    with pytest.raises(ValueError, match="grid of 16"): to_tokens(triplet, 1, 16)


# attributes

Q = [H] * 5
HAND = {  # tokens: complexity in both weights, range, density, net and absolute contour, worked out on paper
    "quarters": ([60, *Q, 62, *Q, 64, *Q, 65, *Q], 1.79 / 27.79, 5 / 81, 5 / 26, 4 / 24, 5 / 26, 5 / 88),
    "syncopation": ([60, H, H, 67, H, H, H, H, H, 65, *Q, 64, *Q, 62, H, H], 2.2 / 27.79, 12 / 81, 7 / 26, 5 / 24, 2 / 26, 12 / 88),
    "triplets": ([67, H, 69, H, 67, H] * 4, (1.79 + 16) / 27.79, (5 + 32) / 81, 2 / 26, 12 / 24, 0, 16 / 88),
    "sixteenths": ([60, 61, H, 62, H, 61] * 4, (1.79 + 8 + 2) / 27.79, (5 + 44) / 81, 2 / 26, 16 / 24, 1 / 26, (4 * 3 + 3) / 88),
    "rests": ([60, *Q, *[R] * 6, 72, *Q, *[R] * 6], .45 / 27.79, 1 / 81, 12 / 26, 2 / 24, 12 / 26, 12 / 88),
    "held into": ([*Q, H, 72, *Q, R, H, H, 60, H, H, *[H] * 6], (.67 + .5) / 27.79, 5 / 81, 12 / 26, 2 / 24, -12 / 26, 12 / 88),
    "single": ([67] + [H] * 23, .2 / 27.79, 0, 0, 1 / 24, 0, 0),
    "single, late": ([R] * 23 + [0], 1 / 27.79, 4 / 81, 0, 1 / 24, 0, 0),
    "rest": ([R] * 24, 0, 0, 0, 0, 0, 0), "held": ([H] * 24, 0, 0, 0, 0, 0, 0),
    "all": ([127, 0] * 12, 1, 1, 127 / 26, 1, -127 / 26, 23 * 127 / 88)}

@pytest.mark.parametrize("name", HAND)
def test_bars_worked_out_by_hand(name):
    bar, *expected = HAND[name]
    for x in (np.array(bar), torch.tensor(bar)):
        assert [float(f(x)) for f in ATTRIBUTES.values()] == pytest.approx(expected, rel=1e-6)

def test_sixteen_ticks_by_hand():
    bar = np.array([60, H, H, H, 62, H, H, 64, H, H, 65, H, 60, H, R, R])  # on 0, 4, 7, 10, 12
    assert rhythmic_complexity(bar, ticks_per_bar=16) == pytest.approx((.2 + .67 + 1 + .5 + .67) / (1.79 + 4 * 2.5))
    assert rhythmic_complexity(bar, "toussaint", 16) == pytest.approx((0 + 2 + 4 + 3 + 2) / 49)
    assert (16 * note_density(bar), 26 * pitch_range(bar)) == pytest.approx((5, 5))

def test_the_weights_are_the_published_ones():
    assert (WEIGHTS["pati"][24] / 100).tolist() == [.20, 1, 2, .5, 2, 1, .67, 1, 2, .5, 2, 1, .25, 1, 2, .5, 2, 1, .67, 1, 2, .5, 2, 1]
    assert (5 - WEIGHTS["toussaint"][16]).tolist() == [5, 1, 2, 1, 3, 1, 2, 1, 4, 1, 2, 1, 3, 1, 2, 1]
    for w in WEIGHTS.values():  # the grid of 16 is that of 24 without the thirds
        assert w[24].reshape(4, 6)[:, [0, 1, 3, 5]].flatten().tolist() == w[16].tolist()
    assert (WEIGHTS["toussaint"][24].reshape(4, 6)[:, [2, 4]] == 4).all()

def test_two_bars_are_tiled():
    bar = np.array(HAND["syncopation"][0])
    for w in WEIGHTS: assert rhythmic_complexity(np.tile(bar, 2), w) == pytest.approx(float(rhythmic_complexity(bar, w)))
    second = np.concatenate([np.full(24, R), bar])
    assert rhythmic_complexity(second) == pytest.approx(float(rhythmic_complexity(bar)) / 2)

def plain(row, ticks_per_bar):
    "All six by plain loops."
    on = [t for t, token in enumerate(row) if token < H]
    p, out = [int(row[t]) for t in on], []
    for w in WEIGHTS.values(): out.append(sum(w[ticks_per_bar][t % ticks_per_bar] for t in on) / (sum(w[ticks_per_bar]) * (len(row) / ticks_per_bar)))
    steps = [b - a for a, b in zip(p, p[1:])]
    return out + [(max(p) - min(p)) / 26 if p else 0, len(on) / len(row), sum(steps) / 26, sum(map(abs, steps)) / 88]

@settings(deadline=None)
@given(tokens())
def test_attributes_are_those_of_plain_loops(drawn):
    x, ticks_per_bar = drawn
    expected = np.array([plain(row, ticks_per_bar) for row in x]).T
    for f, values in zip(ATTRIBUTES.values(), expected):
        got = f(x, ticks_per_bar=ticks_per_bar)
        assert got.dtype == np.float32 and np.allclose(got, values, rtol=1e-6, atol=1e-7)
        as_tensor = f(torch.from_numpy(x), ticks_per_bar=ticks_per_bar)
        assert as_tensor.dtype == torch.float32 and np.array_equal(as_tensor.numpy(), got)
        assert np.array_equal(f(written(x), ticks_per_bar=ticks_per_bar), got)  # silence may be written either way

@settings(deadline=None)
@given(tokens())
def test_net_contour_telescopes_and_is_bounded_by_the_range(drawn):
    x, _ = drawn
    net, absolute, wide = 26 * contour(x), 88 * contour(x, "absolute"), 26 * pitch_range(x)
    for row, value in zip(x, net):
        p = row[row < H]
        assert round(float(value)) == (p[-1] - p[0] if len(p) else 0)
    assert (abs(net) <= wide + 1e-3).all() and (absolute >= wide - 1e-3).all()

@settings(deadline=None)
@given(tokens(low=30, high=90), st.integers(-30, 30))
def test_transposing_changes_nothing(drawn, by):
    x, ticks_per_bar = drawn
    for f in ATTRIBUTES.values():
        assert np.array_equal(f(np.where(x < H, x + by, x), ticks_per_bar=ticks_per_bar), f(x, ticks_per_bar=ticks_per_bar))

def test_equal_complexity_is_exactly_equal():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((5000, 24)) < .3, 60, H)
    exact = [sum(WEIGHTS["pati"][24][row < H].tolist()) for row in x]
    got = rhythmic_complexity(x)
    assert len(np.unique(got)) == len(set(exact)) and (np.argsort(np.argsort(exact, kind="stable")) == np.argsort(np.argsort(got, kind="stable"))).all()

@pytest.mark.parametrize("f", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_leading_axes_and_views(f):
    x = np.random.default_rng(0).integers(0, 130, (2, 3, 5, 48))
    flat = f(x.reshape(-1, 48))
    assert np.array_equal(f(x), flat.reshape(2, 3, 5)) and f(x[0, 0, 0]).shape == () and f(x[:0]).shape == (0, 3, 5)
    back = torch.from_numpy(x).transpose(0, 2)
    assert torch.equal(f(back), f(torch.from_numpy(x)).transpose(0, 2)) and f(back).device == back.device
    assert np.array_equal(f(np.asfortranarray(x)), f(x)) and np.array_equal(f(x[..., ::-1][..., ::-1]), f(x))
    for dtype in (np.uint8, np.int16, np.int32, ">i8"): assert np.array_equal(f(x.astype(dtype)), f(x))
    before = x.copy()
    f(x)
    assert np.array_equal(x, before)  # the input is left alone

@pytest.mark.parametrize("f", [to_events, render, plot_roll, plot_staff, *ATTRIBUTES.values()])
@pytest.mark.parametrize("bad, message", [
    (np.full(24, 130), "found 130"), (np.full((2, 24), -1), "found -1"), (np.full(24, 2**40), "found 1099511627776"), (np.zeros(24), "integers, got float64"),
    (torch.zeros(24), "integers, got float32"), (np.zeros(24, bool), "integers, got bool"), (np.zeros(20, int), r"got shape \(20,\)"), (np.int64(60), r"got shape \(\)"),
    (np.zeros(72, int), "got shape"), (np.zeros((2, 0), int), "got shape"), ("abc", "integers"), (np.full(24, -128, np.int8), "found -128")])
def test_what_is_no_token(f, bad, message):
    with pytest.raises(ValueError, match=message): f(bad)

@pytest.mark.parametrize("call, name", [
    (lambda x: rhythmic_complexity(x, "even"), "weights"), (lambda x: rhythmic_complexity(x, ticks_per_bar=16), "ticks"), (lambda x: rhythmic_complexity(x, ticks_per_bar=12), "ticks_per_bar"),
    (lambda x: pitch_range(x, 0), "span"), (lambda x: pitch_range(x, float("nan")), "span"), (lambda x: contour(x, "up"), "kind"), (lambda x: to_events(x, 7), "ticks_per_bar"),
    (lambda x: on_grid([0], 7), "ticks_per_bar"), (lambda x: to_tokens(to_events(x), 1, 7), "ticks_per_bar"), (lambda x: to_tokens(to_events(x), 1, n_bars=3), "n_bars"),
    (lambda x: render(x, tempo=0), "tempo"), (lambda x: render(x, tempo=float("nan")), "tempo"), (lambda x: render(x, tempo="fast"), "tempo"), (lambda x: render(x, sample_rate=100), "sample_rate"),
    (lambda x: write_midi("/nowhere/a.mid", x, tempo=-1), "tempo"), (lambda x: plot_staff(x, labels=["a", "b"]), "labels"), (lambda x: plot_staff(x, per_line=0), "per_line"),
    (lambda x: plot_staff(x[:0].reshape(0, 24)), "window")])
def test_bad_settings(call, name):
    with pytest.raises(ValueError, match=name): call(np.array(HAND["quarters"][0]))


# MIDI files

@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens(most=4), st.sampled_from([60, 97.5, 200]))
def test_there_and_back_through_midi(tmp_path, drawn, tempo):
    x, ticks_per_bar = drawn
    x = written(x)
    assume((x < H).any())
    write_midi(tmp_path / "a.mid", x, tempo, ticks_per_bar)
    back = read_midi(tmp_path / "a.mid", ticks_per_bar)
    whole = x.reshape(-1, ticks_per_bar)
    assert np.array_equal(back, whole[:len(back)]) and (whole[len(back):] == R).all()  # empty bars at the end are not in the file

def test_midi_of_a_two_bar_window_goes_on_over_the_bar_line(tmp_path):
    x = np.array([[60] + [H] * 47])
    write_midi(tmp_path / "a.mid", torch.from_numpy(x))
    assert np.array_equal(read_midi(tmp_path / "a.mid").reshape(1, 48), x)

def score_of(path, *notes, metre="4/4"):
    from music21 import meter, note, stream
    part = stream.Part([meter.TimeSignature(metre)])
    for onset, length, pitch in notes: part.insert(onset, note.Note(pitch, quarterLength=length))
    part.write("midi", fp=str(path))
    return path

def test_midi_played_by_hand_is_moved_to_the_grid(tmp_path):
    path = score_of(tmp_path / "a.mid", (.02, .9, 60), (1.31, .3, 62), (1.7, .05, 64), (1.98, .96, 65), (3.03, .97, 67))
    assert read_midi(path)[0].tolist() == [60, *Q, R, R, 62, H, 64, R, 65, *Q, 67, *Q]

def test_notes_that_overlap_a_little_are_cut(tmp_path):
    assert read_midi(score_of(tmp_path / "a.mid", (0, 1.25, 60), (1, 1, 62)))[0].tolist() == [60, *Q, 62, *Q, *[R] * 12]

def test_midi_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"): read_midi(tmp_path / "none.mid")
    (tmp_path / "text.mid").write_text("not a tune")
    with pytest.raises(ValueError, match="no MIDI file"): read_midi(tmp_path / "text.mid")
    with pytest.raises(ValueError, match="3/4"): read_midi(score_of(tmp_path / "waltz.mid", (0, 1, 60), metre="3/4"))
    with pytest.raises(ValueError, match="two notes at once, in bar 2 on beat 3"): read_midi(score_of(tmp_path / "chord.mid", (0, 1, 60), (6, 1, 60), (6, 1, 64)))
    with pytest.raises(ValueError, match="no note"): read_midi(score_of(tmp_path / "empty.mid"))
    with pytest.raises(ValueError, match="ticks_per_bar"): read_midi(tmp_path / "none.mid", 12)


# sound

def bar_of(*pitches): return np.array([t for p in pitches for t in (p, *[H] * (24 // len(pitches) - 1))])

@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 16_000])
def test_the_pitch_is_right(sample_rate):
    pitches = np.arange(36, 96)
    sound = render(np.stack([bar_of(p) for p in pitches]), sample_rate=sample_rate)[:, :sample_rate]
    hz = f0_autocorrelation(sound, sample_rate, fmin=50, fmax=2200, refine=True).numpy()
    cents = 100 * (69 + 12 * np.log2(hz / 440) - pitches)
    assert abs(cents).max() < 10, dict(zip(pitches, cents.round(1)))

def test_every_pitch_sounds_below_full_scale():
    sound = render(np.stack([bar_of(p) for p in range(128)]), tempo=240)
    assert sound.shape == (128, 22_050) and sound.dtype == torch.float32 and torch.isfinite(sound).all()
    level = sound.abs().amax(1)
    assert level.max() < 1 and level[21:109].min() > .4  # of the keys of a piano

@pytest.mark.parametrize("shape", [(24,), (1, 24), (2, 3, 48)])
def test_shapes_of_sound(shape):
    x = np.full(shape, R)
    assert render(x).shape == (*shape[:-1], 44_100 * shape[-1] // 24) and not render(x).any()
    assert render(torch.from_numpy(x), tempo=97, sample_rate=48_000).shape[-1] == round(shape[-1] / 6 * 60 / 97 * 48_000)

def test_rests_are_silent_and_notes_end_without_a_click():
    x = np.array([60, *Q, *[R] * 6, 79, R, R, R, R, R, 48, *[H] * 4, R])
    sound, beat = render(x).numpy(), 11_025
    for start, end in ((beat, 2 * beat), (2 * beat + beat // 4 + 1, 3 * beat), (3 * beat + beat * 3 // 4 + 1, 4 * beat)): assert not sound[start:end].any()
    for end in (beat, 2 * beat + round(beat / 4), 3 * beat + round(beat * 3 / 4)):  # no jump where a note stops
        assert abs(np.diff(sound[end - 5:end + 5])).max() < .002
    assert abs(sound[:200]).max() > .05

def test_a_damped_note_has_no_click_in_its_spectrum():
    "A cut puts energy where a plucked string of this pitch has none left."
    from scipy.signal import butter, sosfilt
    x, end = np.array([45, *Q, *[R] * 18]), 11_025
    sound = render(x).numpy()
    cut = np.concatenate([music._strings([45], 22_050)[45][:end], np.zeros(len(sound) - end)])
    high = lambda y: abs(sosfilt(butter(6, 8000, "highpass", fs=22_050, output="sos"), y)[end - 400:end + 400]).max()
    assert high(sound) < high(cut) / 20

def test_windows_sound_alike_wherever_they_stand():
    x = np.stack([bar_of(60, 64, 67, 72), bar_of(55), np.full(24, R)])
    sound = render(x)
    for row, bar in zip(sound, x): assert torch.equal(row, render(bar))
    assert torch.equal(render(torch.from_numpy(x)), sound)

def test_each_pitch_is_plucked_once(monkeypatch):
    plucked, pluck = [], music.pluck
    monkeypatch.setattr(music, "pluck", lambda midi: plucked.append(midi) or pluck(midi))
    render(np.stack([bar_of(60, 64, 60, 64)] * 10))
    assert sorted(plucked) == [60, 64]

def test_soundfonts_that_are_none(tmp_path, monkeypatch):
    x = bar_of(60)
    with pytest.raises(FileNotFoundError, match="no file"): render(x, soundfont=tmp_path / "none.sf2")
    (tmp_path / "a.sf2").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="no soundfont"): render(x, soundfont=tmp_path / "a.sf2")
    (tmp_path / "b.sf2").write_bytes(b"RIFF\0\0\0\0sfbk")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match="fluidsynth"): render(x, soundfont=tmp_path / "b.sf2")

@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
def test_a_soundfont_through_a_stand_in_for_fluidsynth(tmp_path, monkeypatch):
    (tmp_path / "a.sf2").write_bytes(b"RIFF\0\0\0\0sfbk")
    program = tmp_path / "fluidsynth"
    program.write_text(f"#!{sys.executable}\nimport sys\nimport numpy as np\nassert open(sys.argv[-1], 'rb').read(4) == b'MThd'\n"
                       "np.full((30_000, 2), .25, '<f4').tofile(sys.argv[sys.argv.index('-F') + 1])\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    sound = render(np.stack([bar_of(60), np.full(24, R)]), soundfont=tmp_path / "a.sf2")
    assert sound.shape == (2, 44_100) and sound[0, 10_000] == pytest.approx(.9) and not sound[0, 30_000:].any() and not sound[1].any()
    program.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    with pytest.raises(ValueError, match="out of order"): render(bar_of(60), soundfont=tmp_path / "a.sf2")

def test_a_real_soundfont():
    "Only where the program and a soundfont are: the package does without, and so does CI."
    font = next((p for p in ("/usr/share/sounds/sf2/TimGM6mb.sf2", "/usr/share/sounds/sf2/FluidR3_GM.sf2") if os.path.exists(p)), None)
    if not (shutil.which("fluidsynth") and font): pytest.skip("fluidsynth and a soundfont are not on this machine")
    x = np.stack([bar_of(60, 64, 67, 72), bar_of(57)])
    sound = render(x, soundfont=font)
    assert sound.shape == (2, 44_100) and sound.abs().max() == pytest.approx(.9) and sound[:, -1].abs().max() < 1e-3
    for part, pitch in zip([*sound[0].reshape(4, -1), sound[1, :11_025]], [60, 64, 67, 72, 57]):
        assert fundamental(part, 440 * 2 ** ((pitch - 69) / 12)) == pytest.approx(0, abs=10)

def fundamental(sound, hz, sample_rate=22_050):
    """How many cents the lowest partial lies above hz. A piano's strings are stiff and their upper partials sharp, so a meter that looks
    for one period in all of them, as the autocorrelation does, reads up to 30 cents too high."""
    power = np.abs(np.fft.rfft(sound.numpy() * np.hanning(len(sound)), 2**18))
    frequency = np.fft.rfftfreq(2**18, 1 / sample_rate)
    near = (frequency > .97 * hz) & (frequency < 1.03 * hz)
    return 1200 * np.log2(frequency[near][power[near].argmax()] / hz)


# pictures

@settings(deadline=None, max_examples=8)
@given(tokens(most=3))
def test_any_music_can_be_drawn(drawn):
    x, ticks_per_bar = drawn
    for fig in (plot_staff(x, ticks_per_bar=ticks_per_bar, per_line=2), plot_roll(x, ticks_per_bar)):
        fig.draw_without_rendering()
        plt.close(fig)

@settings(deadline=None)
@given(tokens())
def test_signs_fill_the_window_and_keep_the_notes(drawn):
    x, ticks_per_bar = drawn
    for row in written(x):
        signs = music._signs(row, ticks_per_bar)
        assert [s[0] for s in signs] == [0, *np.cumsum([s[1] for s in signs])[:-1]] and sum(s[1] for s in signs) == 48 * len(row) // ticks_per_bar
        assert all(s[1] in music._LENGTHS and s[0] // 48 == (s[0] + s[1] - 1) // 48 for s in signs)
        joined = []
        for i, (start, length, pitch, tied) in enumerate(signs):
            if pitch is None: continue
            if i and signs[i - 1][3]: joined[-1][1] += length
            else: joined.append([start, length, pitch])
        assert joined == [[round(12 * a), round(12 * b), p] for a, b, p in notes(row, ticks_per_bar)]

@pytest.mark.parametrize("pitch, height, sign", [(64, 0, 0), (77, 4, 0), (60, -1, 0), (61, -1, 1), (70, 2, -1), (71, 2, 0), (81, 5, 0), (57, -2, 0)])
def test_places_on_the_staff(pitch, height, sign):
    assert music._height(pitch)[0] == height and music._height(pitch)[2] == sign

def test_accidentals_hold_to_the_end_of_the_bar():
    bar = np.concatenate([bar_of(66, 66, 65, 66), bar_of(66, 65, 65, 70)])
    assert [music._accidentals(b) for b in music._bars(music._signs(bar, 24))] == [[1, None, 0, 1], [1, 0, None, -1]]

def test_drawing_on_given_axes_and_what_the_page_needs():
    from oplas.plots import svg, _complain
    _, axes = plt.subplots(2)
    x = np.stack([bar_of(60, 64, 67, 72)] * 5)
    assert plot_staff(x, ax=axes[0]) is plot_roll(x, ax=axes[1]) is axes[0].figure and not axes[0].get_title()
    fig = plot_staff(x, labels=[f"z = {i}" for i in range(5)])
    assert not _complain(fig) and not _complain(plot_roll(x)) and len(svg(fig, "five bars")) < 200_000
