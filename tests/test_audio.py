"`oplas.audio`: exact inverses, phases, streams, pitch, real files, and bad input by name."
import re, warnings

import librosa, numpy as np, pytest, soundfile, torch
from hypothesis import given, settings, strategies as st

from oplas import audio as A
from oplas.strings import Notes

RATE = 22_050


def tone(midi=69, rate=RATE, seconds=1., lead=0, seed=0, decay=3.):
    "A decaying harmonic tone with silence before it, (samples,)."
    rng = np.random.default_rng(seed)
    f, t = 440 * 2 ** ((midi - 69) / 12), np.arange(int(seconds * rate) - lead) / rate
    k = np.arange(1, int(min(10, 9000 // f)) + 1)[:, None]
    x = (np.sin(2 * np.pi * f * k * t + 6.28 * rng.random(k.shape)) / k * np.exp(-decay * k**.5 * t)).sum(0)
    return torch.from_numpy(np.concatenate([np.zeros(lead), .8 * x / np.abs(x).max()]).astype(np.float32))


@pytest.fixture(scope="module")
def logmel(): return A.LogMel().fit(torch.stack([tone(m, lead=1500) for m in (48, 60, 72, 83)]))


@pytest.fixture(scope="module")
def size(logmel): return A.mel_to_linear(logmel.mel(tone(60, lead=1500)), logmel)


def cents(f, g): return float(np.abs(1200 * np.log2(np.asarray(f) / np.asarray(g))).max())


# LogMel

@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.just(0.), st.floats(1e-6, 2)), min_size=2, max_size=40), st.floats(1e-5, 1), st.floats(.5, 15))
def test_scale_and_log_are_undone(values, floor, top):
    m = A.LogMel(n_fft=256, hop_length=64, n_mels=2, floor=floor)
    m.top.fill_(top)
    mel = torch.tensor(values)[None].repeat(2, 1)
    m.mel = lambda audio, sample_rate=None: mel
    back = m.inverse(m(None))
    assert ((back - mel).abs() <= 1e-6 * (1 + top) * (mel + floor)).all() and (back[mel == 0] == 0).all()


def test_picture(logmel):
    x = torch.stack([tone(m, lead=1500) for m in (48, 60, 72, 83)])
    y = logmel(x)
    assert y.shape == (4, 256, 1 + RATE // 256) and y.min() == -1 and y.max() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(logmel(x[2]), y[2], atol=1e-5) and torch.allclose(logmel(x[None])[0], y, atol=1e-5)
    assert torch.allclose(logmel.inverse(y), logmel.mel(x), rtol=1e-3, atol=1e-6)
    assert torch.allclose(logmel(x.numpy()), y) and torch.allclose(logmel(x.double()), y)


def test_loudness_is_kept(logmel):
    x = tone(60)
    loud, soft = logmel.inverse(logmel(x)).sum(), logmel.inverse(logmel(x / 10)).sum()
    assert float(loud / soft) == pytest.approx(10, rel=1e-2)


def test_a_sine_of_amplitude_1_has_magnitude_1():
    m = A.LogMel()
    x = torch.sin(2 * torch.pi * 100 * (RATE / 2048) * torch.arange(RATE) / RATE)
    assert m.magnitude(x)[:, 40].max() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_other_rates_give_nearly_the_same_picture(logmel, rate):
    x = tone(57, rate)
    y, same = logmel(x, sample_rate=rate), logmel(tone(57))
    assert y.shape[-1] in (same.shape[-1] - 1, same.shape[-1], same.shape[-1] + 1)
    low = slice(0, 120)  # below the 4 kHz that 8,000 Hz can hold
    n = min(y.shape[-1], same.shape[-1])
    assert (y[low, 4:n - 4] - same[low, 4:n - 4]).abs().mean() < .02


def test_saved_and_rebuilt(logmel):
    again = A.LogMel(**logmel.config)
    again.load_state_dict(logmel.state_dict())
    x = tone(50)
    assert logmel.state_dict().keys() == {"top"} and torch.equal(again(x), logmel(x))


def test_gradients_pass(logmel):
    x = tone(60).requires_grad_()
    logmel(x).sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0


@pytest.mark.parametrize("bad, says", [
    (dict(sample_rate=0), "sample_rate"), (dict(sample_rate="fast"), "sample_rate"), (dict(n_fft=2048, hop_length=300), "hop_length"),
    (dict(n_fft=2048, hop_length=1024), "hop_length"), (dict(n_fft=7), "n_fft|hop_length"), (dict(n_mels=0), "n_mels"), (dict(fmin=500, fmax=400), "fmin"), (dict(fmax=20_000), "fmax"),
    (dict(floor=0), "floor"), (dict(n_fft=512, hop_length=128), "filters without a bin")])
def test_bad_settings(bad, says):
    with pytest.raises(ValueError, match=says): A.LogMel(**bad)


@pytest.mark.parametrize("bad, says", [
    (torch.zeros(2047), "2,048 samples"), (torch.zeros(4096, dtype=torch.int16), "floating point"), (torch.full((4096,), torch.nan), "NaN"),
    (torch.full((4096,), torch.inf), "NaN or Inf"), (torch.zeros(0, 4096), "audio"), (torch.tensor(1.), "audio")])
def test_bad_sound(logmel, bad, says):
    with pytest.raises(ValueError, match=says): logmel(bad)


@pytest.mark.parametrize("rate", [0, -1, True, "x", float("nan")])
def test_bad_rate(logmel, rate):
    with pytest.raises(ValueError, match="sample_rate"): logmel(tone(), sample_rate=rate)


def test_before_fit_and_on_silence():
    m = A.LogMel()
    for use in (lambda: m(tone()), lambda: m.inverse(torch.zeros(256, 3))):
        with pytest.raises(ValueError, match="fit"): use()
    with pytest.raises(ValueError, match="silent"): m.fit(torch.zeros(4096))


# mel to linear

def test_more_steps_are_nearer_and_never_negative(logmel):
    x = tone(76, lead=1500)
    mel, true = logmel.mel(x), logmel.magnitude(x)
    got = [A.mel_to_linear(mel, logmel, n) for n in (0, 5, 20)]
    errors = [((logmel.filters @ g - mel).norm() / mel.norm()).item() for g in got]
    assert errors[0] > errors[1] > errors[2] and all((g >= 0).all() for g in got)
    assert (got[2] - true).norm() <= (got[0] - true).norm()


def test_silence_and_the_lowest_bins_stay_zero(logmel):
    assert A.mel_to_linear(torch.zeros(256, 5), logmel).abs().max() == 0
    floor = A.mel_to_linear(torch.full((256, 5), 1e-3), logmel)
    assert floor[:int(60 / (RATE / 2048))].max() < 1e-7


def test_batch_is_the_same_as_single(logmel):
    mel = logmel.mel(torch.stack([tone(50), tone(70)]))
    both = A.mel_to_linear(mel, logmel)
    assert torch.allclose(both[1], A.mel_to_linear(mel[1], logmel), atol=1e-7) and both.shape == (2, 1025, mel.shape[-1])


def test_bad_mel(logmel):
    with pytest.raises(ValueError, match="256"): A.mel_to_linear(torch.zeros(128, 5), logmel)
    with pytest.raises(ValueError, match="NaN"): A.mel_to_linear(torch.full((256, 5), torch.nan), logmel)


# Griffin-Lim

def test_more_rounds_are_nearer(size):
    errors = [A.spectral_convergence(A.griffin_lim(size, n_iter=n), size).item() for n in (0, 5, 50)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < .1


def test_the_start_from_peaks_pays():
    x = tone(57, lead=1500)
    s = A.LogMel().magnitude(x)
    peaks, chance = (A.spectral_convergence(A.griffin_lim(s, n_iter=10, length=len(x), seed=seed), s).item() for seed in (None, 0))
    assert peaks < .5 * chance


@pytest.mark.parametrize("seed", [None, 3])
def test_batch_is_the_same_as_single_and_a_call_repeats(size, seed):
    both = torch.stack([size, size.flip(-1)])[None]
    y = A.griffin_lim(both, n_iter=4, seed=seed)
    assert y.shape == (1, 2, 256 * (size.shape[-1] - 1))
    assert torch.allclose(y[0, 1], A.griffin_lim(both[0, 1], n_iter=4, seed=seed), atol=1e-6)
    assert torch.equal(y, A.griffin_lim(both, n_iter=4, seed=seed))


def test_seeds_differ(size): assert not torch.allclose(A.griffin_lim(size, n_iter=2, seed=0), A.griffin_lim(size, n_iter=2, seed=1))


@pytest.mark.parametrize("seed", [None, 0])
def test_silence_stays_silent(seed):
    assert A.griffin_lim(torch.zeros(1025, 9), seed=seed).abs().max() == 0
    assert A.spectral_convergence(torch.zeros(2048), torch.zeros(1025, 9)) == 0


@pytest.mark.parametrize("n_fft, hop, samples", [(2048, 256, 9000), (1024, 256, 9000), (512, 64, 3001), (2048, 512, 2048), (256, 32, 300)])
def test_other_frames_and_lengths(n_fft, hop, samples):
    x = tone(69, seconds=samples / RATE)
    s = A.LogMel(n_fft=n_fft, hop_length=hop, n_mels=20).magnitude(x)
    y = A.griffin_lim(s, hop, n_iter=60, length=len(x))
    assert y.shape == x.shape and torch.isfinite(y).all() and A.spectral_convergence(y, s, hop) < .1


def test_extreme_levels(size):
    for scale in (1e-6, 1e4):
        y = A.griffin_lim(size * scale, n_iter=5)
        assert torch.isfinite(y).all() and torch.allclose(y / scale, A.griffin_lim(size, n_iter=5), atol=1e-2)


@pytest.mark.parametrize("bad, says", [
    (dict(magnitude=torch.zeros(1025)), "bins, frames"), (dict(magnitude=torch.zeros(1025, 0)), "bins, frames"), (dict(magnitude=-torch.ones(1025, 3)), "0 or more"),
    (dict(magnitude=torch.full((1025, 3), torch.nan)), "finite"), (dict(magnitude=torch.zeros(1025, 3, dtype=torch.int64)), "float"), (dict(magnitude=torch.zeros(1000, 3)), "hop_length"),
    (dict(hop_length=300), "hop_length"), (dict(n_iter=-1), "n_iter"), (dict(momentum=2), "momentum"), (dict(length=10**6), "length"), (dict(length=-1), "length")])
def test_bad_magnitudes(bad, says):
    with pytest.raises(ValueError, match=says): A.griffin_lim(**{"magnitude": torch.zeros(1025, 9), **bad})


def test_convergence_wants_shapes_that_fit(size):
    with pytest.raises(ValueError, match="magnitude"): A.spectral_convergence(torch.zeros(4096), size)


@pytest.mark.parametrize("midi", range(48, 84, 5))
def test_a_note_keeps_its_pitch(logmel, midi):
    x = tone(midi, seconds=1.2, lead=1500)
    y = A.griffin_lim(A.mel_to_linear(logmel.inverse(logmel(x)), logmel), n_iter=30)
    f = A.f0_autocorrelation(A.sounding(y), refine=True)
    assert cents(f, librosa.midi_to_hz(midi)) < 10


# the stream

@settings(max_examples=15, deadline=None)
@given(st.data())
def test_push_sizes_make_no_difference(size, data):
    make = lambda: A.GriffinLimStream(block=data_block, look_ahead=2, n_iter=3)
    data_block = data.draw(st.integers(1, 12))
    whole = make()
    expected = torch.cat([whole.push(size), whole.flush()])
    stream, left, out = make(), size, []
    while left.shape[1]:
        n = data.draw(st.integers(0, left.shape[1])) or 1
        out.append(stream.push(left[:, :n]))
        left = left[:, n:]
    got = torch.cat(out + [stream.flush()])
    assert torch.equal(got, expected) and len(got) == 256 * (size.shape[1] - 1)


def test_stream_is_as_good_as_the_whole(size):
    stream = A.GriffinLimStream()
    y = torch.cat([stream.push(size), stream.flush()])
    assert A.spectral_convergence(y, size) < 1.05 * A.spectral_convergence(A.griffin_lim(size), size)


def test_stream_is_smooth_where_blocks_meet():
    x = torch.sin(2 * torch.pi * 330 * torch.arange(2 * RATE) / RATE)
    s = A.LogMel().magnitude(x)
    stream = A.GriffinLimStream(n_iter=30)
    y = torch.cat([stream.push(s), stream.flush()])
    bend = y.diff().diff()[4000:-4000].abs()  # a sine has no more of it at an edge than elsewhere
    assert bend.max() < 1.5 * bend.median() * np.pi / 2


def test_stream_starts_anew_after_flush(size):
    stream = A.GriffinLimStream(n_iter=3)
    first = torch.cat([stream.push(size), stream.flush()])
    assert torch.equal(first, torch.cat([stream.push(size), stream.flush()])) and len(stream.flush()) == 0
    stream.push(size)
    stream.reset()
    assert torch.equal(first, torch.cat([stream.push(size), stream.flush()]))


@pytest.mark.parametrize("frames", [1, 2, 5, 31, 36, 37])
def test_short_notes(size, frames):
    stream = A.GriffinLimStream(n_iter=3)
    y = torch.cat([stream.push(size[:, :frames]), stream.flush()])
    assert len(y) == 256 * (frames - 1) and torch.isfinite(y).all()


def test_memory_stays_bounded(size):
    stream = A.GriffinLimStream(n_iter=1)
    held = []
    for _ in range(6):
        stream.push(size)
        held.append(stream._size.shape[1] + stream._c.shape[1] + stream._tail.shape[1] // 256)
    assert max(held) <= 36 + 36 + 8


def test_silent_stream():
    stream = A.GriffinLimStream(n_iter=3)
    assert torch.cat([stream.push(torch.zeros(1025, 50)), stream.flush()]).abs().max() == 0


@pytest.mark.parametrize("bad, says", [(dict(block=0), "block"), (dict(look_ahead=0), "look_ahead"), (dict(hop_length=300), "hop_length"), (dict(n_iter=-1), "n_iter"), (dict(momentum=5), "momentum")])
def test_bad_stream(bad, says):
    with pytest.raises(ValueError, match=says): A.GriffinLimStream(**bad)


def test_bad_push():
    stream = A.GriffinLimStream()
    for bad in (torch.zeros(513, 4), torch.zeros(2, 1025, 4), torch.full((1025, 4), torch.nan), -torch.ones(1025, 4)):
        with pytest.raises(ValueError, match="magnitude"): stream.push(bad)
    assert len(stream.push(torch.zeros(1025, 0))) == 0


# pitch

@settings(max_examples=40, deadline=None)
@given(st.floats(110, 1900), st.integers(0, 100), st.sampled_from([8000, 22_050, 44_100]))
def test_a_sine_within_a_lag(f, seed, rate):
    t, phase = torch.arange(int(.3 * rate)) / rate, seed / 16
    x = torch.sin(2 * torch.pi * f * t + phase)
    lag = rate / float(A.f0_autocorrelation(x, rate))
    periods = max(1, round(lag * f / rate))  # a later period may fall nearer to a whole lag
    assert abs(lag - periods * rate / f) <= 1
    assert cents(A.f0_autocorrelation(x, rate, refine=True), f) < 25


def test_exactly_the_five_steps():
    x = tone(50, seconds=.2).double().numpy()
    r = [(x[:len(x) - k] * x[k:]).sum() / len(x) for k in range(len(x))]
    low, high = int(np.ceil(RATE / 2000)), int(RATE // 100)
    expected = RATE / (np.argmax(r[low:high + 1]) + low)
    assert float(A.f0_autocorrelation(x, RATE)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("midi", range(48, 84))
def test_notes_within_two_cents_when_refined(midi):
    x = tone(midi, seconds=.7)
    assert cents(A.f0_autocorrelation(A.sounding(x), refine=True), librosa.midi_to_hz(midi)) < 2


def test_a_note_that_dies_at_once():
    x = torch.cat([torch.zeros(1500), tone(60, seconds=.4, decay=25), 1e-4 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))])
    part = A.sounding(x)
    assert (part != 0).sum() < .4 * RATE and (part[:1500] == 0).all()
    assert cents(A.f0_autocorrelation(part, refine=True), librosa.midi_to_hz(60)) < 10


def test_pitch_in_batches():
    x = torch.stack([tone(m) for m in (48, 55, 83)])
    f = A.f0_autocorrelation(x[None])
    assert f.shape == (1, 3) and f[0, 2] == A.f0_autocorrelation(x[2])
    assert A.f0_autocorrelation(torch.stack([x[0], 0 * x[0]])).isnan().tolist() == [False, True]
    assert A.sounding(torch.zeros(5000)).abs().max() == 0


@pytest.mark.parametrize("bad, says", [
    (dict(fmin=500, fmax=500), "fmin"), (dict(fmin=0), "fmin"), (dict(fmax=11_025), "fmax"), (dict(fmin=1010, fmax=1015), "whole lag"), (dict(sample_rate=-5), "sample_rate"),
    (dict(audio=torch.zeros(200)), "samples"), (dict(audio=torch.full((5000,), torch.nan)), "NaN"), (dict(audio=torch.zeros(5000, dtype=torch.int16)), "floating")])
def test_bad_pitch(bad, says):
    with pytest.raises(ValueError, match=says): A.f0_autocorrelation(**{"audio": torch.zeros(5000), **bad})


# files

@pytest.mark.parametrize("suffix, channels", [(s, n) for s in ("wav", "flac", "ogg") for n in (1, 2, 5)] + [("mp3", 1), ("mp3", 2)])
@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_read(tmp_path, suffix, rate, channels):
    x = tone(60, rate, .5)
    soundfile.write(tmp_path / f"a.{suffix}", np.stack([x.numpy()] * channels, 1), rate)
    y = A.read_audio(tmp_path / f"a.{suffix}")
    assert y.dtype == torch.float32 and y.ndim == 1 and abs(len(y) - RATE / 2) < 2000
    assert cents(A.f0_autocorrelation(A.sounding(y), refine=True), librosa.midi_to_hz(60)) < 10


def test_read_keeps_a_sound_at_its_own_rate(tmp_path):
    x = tone(60)
    soundfile.write(tmp_path / "a.wav", x.numpy(), RATE, subtype="FLOAT")
    assert torch.equal(A.read_audio(tmp_path / "a.wav"), x) and torch.equal(A.read_audio(str(tmp_path / "a.wav")), x)


def test_files_that_are_no_sound(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(5000), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(5000, np.nan, "float32"), RATE, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "nothing.flac").write_bytes(b"")
    soundfile.write(tmp_path / "whole.flac", tone().numpy(), RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:60])
    for name, says in (("empty", "empty"), ("silent", "silent"), ("nan", "NaN"), ("text", "cannot be read"), ("nothing", "cannot be read"), ("cut", "cannot be read|empty")):
        path = next(tmp_path.glob(f"{name}.*"))
        with pytest.raises(ValueError, match=says) as e: A.read_audio(path)
        assert str(path) in str(e.value)
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path))): A.read_audio(path)
    with pytest.raises(ValueError, match="sample_rate"): A.read_audio(tmp_path / "whole.flac", 0)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_clipped_file_warns(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", (4 * tone()).clamp(-1, 1).numpy(), RATE, subtype=subtype)
    with pytest.warns(UserWarning, match="clipped"): A.read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE), RATE, subtype=subtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        A.read_audio(tmp_path / "b.wav")  # full scale, not clipped


def test_folder(tmp_path):
    (tmp_path / "guitar" / "old").mkdir(parents=True)
    (tmp_path / "uke").mkdir()
    put = lambda name, x, rate=RATE: soundfile.write(tmp_path / name, x.numpy(), rate)
    put("guitar/take 1.wav", tone(57, lead=5000) / 5)
    put("guitar/take 2.flac", tone(57, 44_100, seed=1), 44_100)
    put("guitar/old/x.ogg", tone(60, 8000), 8000)
    put("uke/really A5.wav", tone(57, seed=2))
    put("uke/midi71.wav", tone(57, seed=3))
    put("uke/Bb2 soft.wav", tone(57, seed=4))
    put("top.mp3", tone(83, 48_000), 48_000)
    put("uke/blip.wav", tone(57)[:900])
    put("uke/low.wav", tone(36))
    put("uke/loud.wav", (4 * tone(64)).clamp(-1, 1))
    put("uke/zero.wav", torch.zeros(9000))
    (tmp_path / "uke" / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "uke" / "notes.txt").write_text("ignored")
    with pytest.warns(UserWarning) as said: n = A.folder_of_notes(tmp_path, progress=False)
    assert len(said) == 1
    text = str(said[0].message)
    assert text.startswith("4 of 12 files skipped, 1 clipped") and all(f in text for f in ("blip", "low", "zero", "broken", "loud")), text
    assert isinstance(n, Notes) and n.instruments == tuple(sorted(["guitar", "guitar/old", tmp_path.name, "uke"])) and n.factors == {}
    got = {(n.instruments[i], int(m), int(t)) for i, m, t in zip(n.instrument, n.midi, n.take)}
    assert got == {("guitar", 57, 0), ("guitar", 57, 1), ("guitar/old", 60, 0), (tmp_path.name, 83, 0), ("uke", 81, 0), ("uke", 71, 0), ("uke", 46, 0), ("uke", 64, 0)}
    assert n.audio.shape == (8, 34_560) and n.audio.dtype == torch.float32 and (n.audio.abs().amax(1) - .9).abs().max() < .05
    assert (n.audio[:, :1536 - 32] == 0).all() and (n.audio[:, 1536:1536 + 500].abs().amax(1) > .1).all()
    assert sum(map(len, n.split())) == 8


def test_folder_cuts_what_is_long(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(60, seconds=4, decay=.2).numpy(), RATE)
    n = A.folder_of_notes(tmp_path, length=8000, lead=500, progress=False)
    assert n.audio.shape == (1, 8000) and n.audio[0, -1] == 0 and n.midi.tolist() == [60]


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"): A.folder_of_notes(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="none of the 0"): A.folder_of_notes(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"x")
    with pytest.warns(UserWarning, match="a.wav"), pytest.raises(ValueError, match="none of the 1"): A.folder_of_notes(tmp_path, progress=False)
    with pytest.raises(ValueError, match="length"): A.folder_of_notes(tmp_path, length=100)
    with pytest.raises(ValueError, match="fmin"): A.folder_of_notes(tmp_path, fmin=3000)


# on the page

def decode(tag):
    import base64, io
    return soundfile.read(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", tag)[1])))


def test_sound_tag():
    x = tone(60, lead=1500) / 50
    tag, small = A.sound_html(x, RATE, 'C4 & "loud"'), A.sound_html(x, RATE, small=True)
    assert 'class="oplas-sound"' in tag and 'preload="none"' in tag and 'aria-label="C4 &amp; &quot;loud&quot;"' in tag
    y, rate = decode(tag)
    assert rate == RATE and .8 < np.abs(y).max() < 1 and len(small) < len(tag) and len(small) / len(x) * RATE < 8000
    assert cents(A.f0_autocorrelation(decode(small)[0], refine=True), librosa.midi_to_hz(60)) < 10


def test_ends_are_faded():
    y, _ = decode(A.sound_html(torch.ones(RATE) * .5))
    assert np.abs(decode(A.sound_html(torch.zeros(RATE)))[0]).max() < 1e-3
    assert np.isfinite(y).all()


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_page_takes_other_rates(rate): assert decode(A.sound_html(tone(60, rate), rate))[1] == rate


@pytest.mark.parametrize("bad, says", [
    (dict(audio=torch.zeros(2, 100)), "mono"), (dict(audio=torch.zeros(0)), "samples"), (dict(audio=torch.zeros(11 * RATE)), "10 s"), (dict(audio=torch.full((99,), torch.nan)), "NaN"),
    (dict(audio=torch.zeros(99, dtype=torch.int16)), "floating"), (dict(sample_rate=0), "sample_rate")])
def test_bad_page_sound(bad, says):
    with pytest.raises(ValueError, match=says): A.sound_html(**{"audio": tone(), **bad})


def test_play(capsys, monkeypatch):
    from IPython import display as D
    shown = []
    monkeypatch.setattr(D, "display", shown.append)
    A.play(tone(60), RATE, "A <C>")
    A.play(tone(60), RATE, "C", picture="level lines that fade")
    plain, drawn = (s.data for s in shown)
    assert "<svg" not in plain and "<figcaption>A &lt;C&gt;</figcaption>" in plain
    assert "<svg" in drawn and 'aria-label="level lines that fade"' in drawn and "<audio" in drawn and len(drawn) < 150_000
    with pytest.raises(ValueError, match="picture"): A.play(tone(60), picture=True)
