"oplas.stems on small files in the real formats: what is a song, what is refused, and what a chunk promises."
import importlib.metadata, os, shutil, subprocess, sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("librosa")

from conftest import need
from oplas import stems as page
from oplas.stems import Chunks, Multitracks, chunks, stems, tune_stems

NAMES = ("drums", "bass", "other", "vocals")
RATE = 44_100


def sine(f0, seconds=1., amplitude=.3, rate=RATE):
    return (amplitude * np.sin(2 * np.pi * f0 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)

def five(seconds=1.):
    "A mix and four stems, each of its own pitch."
    parts = [sine(f0, seconds, .15) for f0 in (110, 220, 440, 880)]
    return [sum(parts), *parts]

def mp4(path, sounds, rate=RATE):
    "An MP4 file of several stereo sounds in AAC, as MUSDB18 has them."
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as file:
        streams = [file.add_stream("aac", rate=rate, layout="stereo") for _ in sounds]
        for stream, x in zip(streams, sounds):
            for at in range(0, len(x), 1024):
                frame = av.AudioFrame.from_ndarray(np.stack([x[at:at + 1024]] * 2), format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate, at
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))

def wavs(folder, sounds, rate=RATE, ending=".wav"):
    "A file for each stem of a song."
    folder.mkdir(parents=True, exist_ok=True)
    for name, x in sounds.items(): soundfile.write(folder / f"{name}{ending}", x, rate)

def pitch(x, rate):
    "Where the spectrum is largest, in Hz."
    return np.abs(np.fft.rfft(np.asarray(x) * np.hanning(len(x)), 1 << 18)).argmax() * rate / (1 << 18)

def songs(n=3, k=2, seconds=1., rate=1000, titles=None, seed=0):
    "Noise in the shape of multitracks."
    g = torch.Generator().manual_seed(seed)
    sounds = [torch.randn(k, round(seconds * rate), generator=g) for _ in range(n)]
    return Multitracks(sounds, tuple(titles or map(str, range(n))), tuple("abcdef"[:k]), rate)


# the song in the wheel

def test_the_real_song_is_cut_where_it_rings():
    real = stems()
    assert real.names == NAMES and real.titles == ("The Easton Ellises - Falcon 69",) and len(real) == 1
    sound = real.sounds[0]
    assert sound.shape == (4, 94_400) and sound.dtype == torch.float32 and torch.isfinite(sound).all()
    loud = sound.abs()
    assert loud.max() < .7 and loud[:, :800].max() < .6 and loud[:, -800:].max() < .6      # the ring reaches .9
    assert all(-25 < real.to_dict()[f"{name} (dB)"][0] < -18 for name in NAMES)

def test_the_real_song_needs_neither_ffmpeg_nor_its_readers():
    code = ("import sys; from oplas.stems import stems; stems(); "
            "print(*(m for m in ('stempeg', 'musdb', 'ffmpeg') if m in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PATH": ""}, capture_output=True, text=True, check=True)
    assert not done.stdout.strip()

def test_the_stems_of_another_rate_are_the_same_sound():
    high, low = stems(sample_rate=32_000).sounds[0], stems(sample_rate=8000).sounds[0]
    assert high.shape[1] == 4 * low.shape[1]
    spectrum = [torch.fft.rfft(x)[:, :17_000] / x.shape[1] for x in (high, low)]                # up to 2.9 kHz
    assert (spectrum[0] - spectrum[1]).norm() / spectrum[0].norm() < .01

def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'needs av: pip install "oplas\[audio\]"'): stems()
    monkeypatch.undo()
    def none(name): raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(importlib.metadata, "distribution", none)
    with pytest.raises(ImportError, match="needs stempeg"): stems()


# folders

def test_musdb_as_mp4(tmp_path):
    mp4(tmp_path / "train" / "Band - One.stem.mp4", five())
    mp4(tmp_path / "test" / "Band - Two.stem.mp4", five(1.5))
    found = stems(tmp_path, sample_rate=22_050)
    assert found.titles == ("Band - Two", "Band - One") and found.names == NAMES
    for x, f0 in zip(found.sounds[1], (110, 220, 440, 880)): assert abs(pitch(x, 22_050) - f0) < 2
    assert np.allclose([x.square().mean() ** .5 for x in found.sounds[0]], .15 / 2**.5, rtol=.05)
    assert len(stems(tmp_path / "test")) == 1                                                  # the published split

def test_musdb_as_mp4_reads_what_musdb_reads(tmp_path):
    need(shutil.which("ffmpeg"), "ffmpeg")
    musdb = pytest.importorskip("musdb")
    mp4(tmp_path / "train" / "Band - One.stem.mp4", five(7.))
    track = musdb.DB(root=str(tmp_path), subsets="train")[0]
    sound = stems(tmp_path, sample_rate=RATE).sounds[0]
    for name, x in zip(NAMES, sound):
        theirs = torch.from_numpy(track.sources[name].audio.mean(1).astype(np.float32))
        n = min(len(theirs), len(x))
        assert abs(len(theirs) - len(x)) <= 2048 and (x[:n] - theirs[:n]).abs().max() < 1e-4, name

def test_musdb_as_wav_reads_what_musdb_reads(tmp_path):
    rng = np.random.default_rng(0)
    sounds = {name: rng.uniform(-.5, .5, (RATE // 2, 2)) for name in (*NAMES, "mixture")}
    wavs(tmp_path / "train" / "Song", sounds)
    found = stems(tmp_path, sample_rate=RATE)
    assert found.names == NAMES and found.titles == ("Song",)
    for name, x in zip(NAMES, found.sounds[0]): assert np.abs(x.numpy() - sounds[name].mean(1)).max() < 1e-4  # 16 bits
    need(shutil.which("ffmpeg"), "ffmpeg")
    musdb = pytest.importorskip("musdb")
    track = musdb.DB(root=str(tmp_path), subsets="train", is_wav=True)[0]
    for name, x in zip(NAMES, found.sounds[0]): assert np.abs(x.numpy() - track.sources[name].audio.mean(1)).max() < 1e-4

def test_previews_give_chunks(tmp_path):
    for k in range(3): mp4(tmp_path / "train" / f"{k}.stem.mp4", five(7.))
    found = stems(tmp_path)
    assert all(abs(s.shape[1] / 16_000 - 7) < .1 for s in found.sounds)
    assert chunks(found, 5).mix.shape == (5, 48_000)

def test_a_folder_for_each_song(tmp_path):
    "Formats, rates and channels may differ from file to file; hidden files and mixes are no stems."
    wavs(tmp_path / "One", {"Lead": sine(330), "mix": sine(50)})
    wavs(tmp_path / "One", {"drums": np.stack([sine(100, rate=8000)] * 2, 1)}, 8000, ".flac")
    wavs(tmp_path / "deep" / "Two", {"lead": sine(500, rate=48_000), "drums": sine(70, rate=48_000)}, 48_000, ".ogg")
    (tmp_path / "One" / "._lead.wav").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "One" / "cover.jpg").write_bytes(b"no sound")
    found = stems(tmp_path, sample_rate=8000)
    assert found.names == ("drums", "lead") and found.titles == ("One", "Two")
    assert [[round(pitch(x, 8000) / 10) for x in s] for s in found.sounds] == [[10, 33], [7, 50]]
    assert stems(tmp_path / "One", sample_rate=8000).titles == ("One",)

def test_a_stretch_comes_from_the_middle(tmp_path):
    ramp = np.linspace(0, .9, 8000, dtype=np.float32)
    wavs(tmp_path / "Song", {"a": ramp, "b": -ramp}, 8000)
    short = stems(tmp_path, sample_rate=8000, seconds=.25).sounds[0]
    assert short.shape == (2, 2000) and abs(short[0].mean() - .45) < 1e-3
    assert stems(tmp_path, sample_rate=8000, seconds=9.).sounds[0].shape == (2, 8000)

def test_lengths_that_differ_a_little_are_cut(tmp_path):
    wavs(tmp_path / "Song", {"a": sine(100, 1.), "b": sine(100, 1.05)})
    assert stems(tmp_path, sample_rate=RATE).sounds[0].shape == (2, RATE)

def test_a_silent_stem_is_a_stem(tmp_path):
    wavs(tmp_path / "Song", {"a": sine(100), "b": 0 * sine(100)})
    assert not stems(tmp_path).sounds[0][1].any()


# what is refused

def test_no_songs(tmp_path):
    with pytest.raises(FileNotFoundError, match="root: there is no folder"): stems(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither a .stem.mp4 nor a folder"): stems(tmp_path)
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(FileNotFoundError, match=r"\.wav, \.flac"): stems(tmp_path)

def test_a_missing_stem(tmp_path):
    wavs(tmp_path / "One", {"drums": sine(100), "bass": sine(50)})
    wavs(tmp_path / "Two", {"drums": sine(100), "base": sine(50)})
    with pytest.raises(ValueError, match="One has no base, which another song has; it has bass, drums"): stems(tmp_path)

def test_lengths_that_differ(tmp_path):
    wavs(tmp_path / "Song", {"a": sine(100, 1.), "b": sine(100, .5)})
    with pytest.raises(ValueError, match="Song differ in length: a 1.00 s, b 0.50 s"): stems(tmp_path)

def test_lengths_that_differ_in_mp4(tmp_path):
    "musdb 0.4.3 fails on this with an AttributeError of its own."
    sounds = five()
    sounds[2] = sounds[2][:RATE // 2]
    mp4(tmp_path / "Song.stem.mp4", sounds)
    with pytest.raises(ValueError, match="Song.stem.mp4 differ in length: drums 1.0.*bass 0.5"): stems(tmp_path)

def test_an_mp4_of_other_sounds(tmp_path):
    mp4(tmp_path / "Song.stem.mp4", five()[:3])
    with pytest.raises(ValueError, match="must hold 5 sounds .the mix, drums, bass, other, vocals., it has 3"): stems(tmp_path)

@pytest.mark.parametrize("name", ["Song.stem.mp4", "Song/a.wav"])
@pytest.mark.parametrize("content", [b"", b"no sound at all, but long enough to be looked at" * 40])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}"): stems(tmp_path)

def test_a_file_that_breaks_off(tmp_path):
    mp4(tmp_path / "Song.stem.mp4", five())
    whole = (tmp_path / "Song.stem.mp4").read_bytes()
    (tmp_path / "Song.stem.mp4").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match="Song.stem.mp4 cannot be read"): stems(tmp_path)

def test_a_file_without_samples(tmp_path):
    wavs(tmp_path / "Song", {"a": sine(100), "b": np.zeros(0)})
    with pytest.raises(ValueError, match="b.wav (holds no sound|cannot be read)"): stems(tmp_path)

def test_not_a_number(tmp_path):
    bad = sine(100)
    bad[7] = np.nan
    wavs(tmp_path / "Song", {"a": sine(100)})
    soundfile.write(tmp_path / "Song" / "b.wav", bad, RATE, "FLOAT")
    with pytest.raises(ValueError, match="b of .*Song holds NaN or Inf"): stems(tmp_path)

def test_two_files_for_a_stem(tmp_path):
    wavs(tmp_path / "Song", {"a": sine(100)})
    wavs(tmp_path / "Song", {"a": sine(100)}, ending=".flac")
    with pytest.raises(ValueError, match="Song has two files for a"): stems(tmp_path)

@pytest.mark.parametrize("wrong", [dict(sample_rate=0), dict(sample_rate=16e3), dict(seconds=0), dict(seconds=float("nan"))])
def test_bad_settings_of_stems(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): stems(**wrong)


# songs from tunes

@pytest.fixture(scope="module")
def played():
    pytest.importorskip("music21")
    return tune_stems(12)

def test_rendered_songs_keep_their_promises(played):
    assert len(played) == 12 and len(set(played.titles)) == 12 and played.names == ("melody", "bass", "chords", "percussion")
    for s in played.sounds:
        assert 3 * 16_000 < s.shape[1] <= 4 * 16_000 and torch.isfinite(s).all()
        level = s.square().mean(1).sqrt()
        assert (level / .025 - 1).abs().max() < .01
        assert s.mean(1).abs().max() < .02 * .025
        assert 1.5 * s.abs().amax(1).sum() < 1
        assert s[:, [0, -1]].abs().max() < 1e-3

def test_a_song_does_not_depend_on_how_many(played):
    few = tune_stems(3)
    assert few.titles == played.titles[:3] and all(map(torch.equal, few.sounds, played.sounds))
    assert tune_stems(3, seed=1).titles != few.titles

def test_songs_are_read_from_the_cache(played, monkeypatch):
    def again(*_, **__): raise AssertionError("played again")
    from oplas import cache
    monkeypatch.setattr(cache, "_trained", again)
    assert all(map(torch.equal, tune_stems(12).sounds, played.sounds))

def test_more_songs_than_tunes(played):
    with pytest.raises(ValueError, match="n must be at most 9"): tune_stems(5000)

@pytest.mark.parametrize("wrong", [dict(n=0), dict(n=2.), dict(seed=-1), dict(sample_rate=8000)])
def test_bad_settings_of_tune_stems(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): tune_stems(**wrong)

def test_the_notes_are_where_the_tune_has_them():
    "A fifth up moves melody, chords and bass; the melody's pitch is the tune's."
    tokens = torch.tensor([60] + 23 * [128] + [67] + 23 * [128])
    strings = page._strings(0, 16_000)
    sound = page._song(tokens, strings, np.random.default_rng(0), 16_000)
    half = sound.shape[1] // 2
    for piece, midi in ((sound[0][:half], 60), (sound[0][half:], 67)):
        f0 = 440 * 2 ** ((midi - 69) / 12)
        partial = pitch(piece, 16_000) / f0
        assert abs(partial - round(partial)) < .02 * round(partial)

@given(st.lists(st.integers(48, 83), min_size=8, max_size=8), st.integers(0, 11))
def test_chords_move_with_the_tune(pitches, up):
    onset, pitches = np.arange(8.), np.array(pitches)
    score = lambda chords, notes: [page._TRIADS[c][notes % 12].sum() for c in chords]
    low, high = (page._chords(onset, onset + 1, p) for p in (pitches, pitches + up))
    assert np.allclose(score((low + 2 * up) % 24, pitches + up), score(low, pitches))
    heard = np.eye(12)[(pitches + up) % 12].reshape(4, 2, 12).sum(1)
    heard = heard + heard.sum(0) / 4
    assert np.allclose((heard * page._TRIADS[high]).sum(1), (heard @ page._TRIADS.T).max(1))


# parts

@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=12).filter(lambda t: len(set(t)) >= 3), st.integers(0, 5))
def test_equal_titles_stay_together(titles, seed):
    parts = songs(len(titles), titles=titles).split((.5, .25, .25), seed)
    assert sum(map(len, parts)) == len(titles) and all(len(p) for p in parts)
    kinds = [set(p.titles) for p in parts]
    assert sum(map(len, kinds)) == len(set(titles))

@given(st.floats(0, .2), st.sampled_from([(.5, .5), (.7, .1, .2), (.25,) * 4]))
def test_one_song_is_cut_in_time(gap, shares):
    one = songs(1)
    one.sounds[0] = torch.arange(1000.).expand(2, -1)
    parts = one.split(shares, gap=gap)
    ends = [(p.sounds[0][0, 0].item(), p.sounds[0][0, -1].item()) for p in parts]
    assert ends[0][0] == 0 and abs(ends[-1][1] - 999) <= 1
    for (_, last), (first, _) in zip(ends, ends[1:]): assert first - last - 1 == round(gap * 1000)
    kept = sum(p.sounds[0].shape[1] for p in parts)
    assert np.allclose([p.sounds[0].shape[1] / kept for p in parts], shares, atol=.005)

def test_splits_that_cannot_be():
    with pytest.raises(ValueError, match="3 parts need as many groups, got 2"): songs(2).split()
    with pytest.raises(ValueError, match="gap = 0.5 s leaves no room for 3 parts of a song of 1.00 s"): songs(1).split()
    with pytest.raises(ValueError, match="shares"): songs(1).split((.5, .6))
    with pytest.raises(ValueError, match="gap"): songs(1).split(gap=-1)

def test_fields_that_do_not_fit():
    with pytest.raises(ValueError, match="titles must be 1"): Multitracks([torch.zeros(2, 5)], (), ("a", "b"), 1000)
    with pytest.raises(ValueError, match=r"sounds\[0\]"): Multitracks([torch.zeros(3, 5)], ("x",), ("a", "b"), 1000)
    with pytest.raises(ValueError, match=r"sounds\[0\]"): Multitracks([torch.zeros(2, 5).double()], ("x",), ("a", "b"), 1000)
    with pytest.raises(ValueError, match="sample_rate"): Multitracks([], (), (), 0)
    good = chunks(songs(), 2, .5)
    fields = [good.stems, good.gains, good.present, good.song, good.start, good.names, good.sample_rate]
    for i, name in enumerate(["stems", "gains", "present", "song", "start"]):
        with pytest.raises(ValueError, match=name): Chunks(*fields[:i], fields[i][..., None], *fields[i + 1:])

def test_some_of_the_songs():
    s = songs(5)
    assert s[1].titles == ("1",) and s[-2:].titles == ("3", "4") and s[[4, 0]].titles == ("4", "0")
    assert s[np.arange(5) > 2].titles == ("3", "4") and torch.equal(s[2].sounds[0], s.sounds[2])
    with pytest.raises(IndexError): s[5]


# chunks

@settings(max_examples=30)
@given(n=st.integers(1, 5), seed=st.integers(0, 9), leave_out=st.sampled_from([0., .3, .99]),
       gains=st.sampled_from([(.5, 1.5), (1., 1.), (.1, 3.)]))
def test_what_a_chunk_promises(n, seed, leave_out, gains):
    tracks = songs(3, 4)
    cut = chunks(tracks, n, .25, seed, gains, leave_out)
    assert torch.equal(cut.mix, cut.stems.sum(1)) and cut.stems.shape == (n, 4, 250)
    kept = cut.gains > 0
    assert torch.equal(kept, cut.present) and kept.any(1).all()
    assert cut.gains[kept].min() >= np.float32(gains[0]) and cut.gains[kept].max() <= np.float32(gains[1])
    assert leave_out or kept.all()
    for stems_, gain, song, start in zip(cut.stems, cut.gains, cut.song, cut.start):
        assert torch.equal(stems_, tracks.sounds[song][:, start:start + 250] * gain[:, None])
    assert torch.equal(chunks(tracks, n + 2, .25, seed, gains, leave_out)[:n].stems, cut.stems)

def test_chance_reaches_everywhere():
    cut = chunks(songs(3, 2), 500, .25, leave_out=.5)
    assert set(cut.song.tolist()) == {0, 1, 2} and cut.start.min() < 20 and cut.start.max() > 730
    assert abs(cut.gains[cut.present].mean() - 1) < .05
    only = [(cut.present == torch.tensor(kind)).all(1).float().mean() for kind in ((True, False), (False, True), (True, True))]
    assert np.allclose(only, [.375, .375, .25], atol=.07)               # of the four cases, one is dealt out again

def test_a_chunk_as_long_as_the_song():
    assert chunks(songs(), 3, 1.).start.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="seconds must be at most 1.00, which '0' lasts"): chunks(songs(), 3, 1.01)

def test_silence():
    quiet = songs(1)
    quiet.sounds[0][:, :700] = 0
    assert chunks(quiet, 20, .1).start.min() > 600                       # silence is drawn again
    quiet.sounds[0][0] = 0
    cut = chunks(quiet, 20, .1)
    assert not cut.present[:, 0].any() and cut.present[:, 1].all()       # a silent stem is not present
    quiet.sounds[0][:] = 0
    with pytest.raises(ValueError, match="tracks must not be silent: in 50 draws, all stems were"): chunks(quiet, 1, .1)

@pytest.mark.parametrize("wrong", [dict(n=0), dict(seconds=0), dict(seconds=1e-9), dict(seed=-1), dict(gains=1.), dict(gains=(0, 1)),
                                   dict(gains=(2, 1)), dict(gains=(-1, 1)), dict(leave_out=1), dict(leave_out=-.1)])
def test_bad_settings_of_chunks(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): chunks(songs(), **{"n": 1, "seconds": .5, **wrong})

def test_no_song():
    with pytest.raises(ValueError, match="tracks must hold a song"): chunks(songs(3)[:0], 1)

def test_columns_and_pictures():
    plt = pytest.importorskip("matplotlib.pyplot")
    tracks = songs(3)
    cut = chunks(tracks, 4, .5)
    assert {len(c) for c in tracks.to_dict().values()} == {3} and {len(c) for c in cut.to_dict().values()} == {4}
    for result in (tracks, cut):
        fig = result.plot(1)
        assert [ax.get_ylabel() for ax in fig.axes] == ["a", "b", "mix"] and fig.axes[-1].get_xlabel()
        plt.close(fig)
        with pytest.raises(ValueError): result.plot(9)
    assert songs(2)[:0].to_dict()["title"] == []
