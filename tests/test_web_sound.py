"The sound half of `oplas.web`: `sound.js`, run in V8, gives the numbers of `oplas.audio`."
import json
from importlib.resources import files

import numpy as np, pytest, torch
from py_mini_racer import JSEvalException, MiniRacer

from oplas.audio import GriffinLimStream, LogMel, mel_to_linear

#: what the tests call: arguments as JSON, and numbers back as JSON
CALLS = """
const answer = (numbers) => JSON.stringify(Array.from(numbers));
const magnitudes = (picture, ...range) => answer(sound.magnitudes(Float32Array.from(picture), ...range));
const picture = (samples, frames) => answer(sound.picture(Float32Array.from(samples), frames));
const pushed = (voice, size, each) => {
  const all = Float32Array.from(size), parts = [];
  for (let at = 0; at < all.length; at += each * sound.bins) {
    parts.push(...voice.push(all.subarray(at, at + each * sound.bins)));
  }
  return parts.concat(...voice.flush());
};
const streamed = (size, settings, each) => answer(pushed(sound.stream(settings), size, each));
const twice = (size, settings, each) => {
  const voice = sound.stream(settings), first = answer(pushed(voice, size, each));
  return first == answer(pushed(voice, size, each));
};
const played = (picture, frames, length, settings) => {
  const parts = [];
  sound.play(Float32Array.from(picture), frames, length, settings, (samples, last) => parts.push([[...samples], last]));
  return JSON.stringify(parts);
};
"""

def settings_of(logmel):
    "What `oplasSound` is told of a LogMel."
    rows = []
    for row in logmel.filters:
        at = row.nonzero()[:, 0]
        rows.append(dict(start=int(at[0]), weights=row[at[0]:at[-1] + 1].tolist()))
    return dict(nFft=logmel.n_fft, hop=logmel.hop_length, floor=logmel.floor, top=float(logmel.top), rows=rows)

def engine(settings):
    "V8 with `sound.js` of these settings, as a function of a name and arguments."
    js = MiniRacer()
    for name in ("fft.js", "sound.js"): js.eval((files("oplas") / "static" / name).read_text(encoding="utf-8"))
    js.eval(f"const sound = oplasSound({json.dumps(settings)});" + CALLS)
    plain = lambda x: x.tolist() if isinstance(x, torch.Tensor) else x
    return lambda name, *args: js.eval(f"{name}({', '.join(json.dumps(plain(a)) for a in args)})")

def tensor(text): return torch.tensor(json.loads(text))

def db(got, wanted): return float(10 * torch.log10((got - wanted).square().sum() / wanted.square().sum()))

def in_python(size, n_fft, hop, pieces=1, **settings):
    stream = GriffinLimStream(n_fft, hop, **settings)
    return torch.cat([stream.push(s) for s in size.split(pieces, 1)] + [stream.flush()])


@pytest.fixture(scope="module")
def small():
    "Noise that swells and fades, its LogMel, and the engine."
    t = torch.linspace(0, 1, 6400)
    x = torch.randn(6400, generator=torch.Generator().manual_seed(0)) * torch.sin(torch.pi * t) * .2
    logmel = LogMel(n_fft=512, hop_length=128, n_mels=40).fit(x)
    return x, logmel, engine(settings_of(logmel))

@pytest.fixture(scope="module")
def notes():
    "The sampler's LogMel, three of its pictures, and the engine."
    from oplas.sampler import load_sampler
    sampler = load_sampler(seed=20)
    z = torch.randn(3, sampler.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): return sampler.logmel, sampler.decode(z, [48, 65, 83]), engine(settings_of(sampler.logmel))


def test_pictures_and_magnitudes_of_noise(small):
    x, logmel, js = small
    wanted = logmel(x)
    assert torch.allclose(tensor(js("picture", x, 51)).view(40, 51), wanted, atol=1e-5)
    assert torch.allclose(tensor(js("picture", x[:3000], 51)).view(40, 51)[:, 26:], torch.tensor(-1.), atol=1e-6)
    size = mel_to_linear(logmel.inverse(wanted), logmel)
    got = tensor(js("magnitudes", wanted.flatten(), 51, 3, 20)).view(17, 257).T
    assert (got - size[:, 3:20]).abs().max() < 1e-5 * size.max()
    assert tensor(js("magnitudes", wanted.flatten(), 51, 3, 3)).numel() == 0

@pytest.mark.parametrize("block, ahead, rounds, momentum, pieces",
                         [(4, 2, 0, .99, 51), (1, 1, 2, .99, 3), (7, 4, 3, 0., 1), (16, 4, 4, .5, 51), (60, 9, 2, .99, 51)])
def test_a_stream_of_noise(small, block, ahead, rounds, momentum, pieces):
    "Blocks of any size, pushed in any pieces, an odd number of frames; noise amplifies rounding from block to block."
    x, logmel, js = small
    size = logmel.magnitude(x)
    wanted = in_python(size, 512, 128, pieces, block=block, look_ahead=ahead, n_iter=rounds, momentum=momentum)
    settings = dict(block=block, lookAhead=ahead, rounds=rounds, momentum=momentum)
    got = tensor(js("streamed", size.T.flatten(), settings, pieces))
    assert got.shape == wanted.shape == (50 * 128,)
    assert db(got[:500], wanted[:500]) < -80 and db(got, wanted) < -40
    assert js("twice", size.T.flatten(), settings, pieces)

def test_silence(small):
    x, logmel, js = small
    assert not tensor(js("streamed", torch.zeros(9 * 257), dict(block=4, lookAhead=2, rounds=3), 2)).any()
    assert not tensor(js("magnitudes", [-1.] * 80, 2, 0, 2)).any()

def test_real_notes(notes):
    logmel, x, js = notes
    for picture in x:
        size = mel_to_linear(logmel.inverse(picture), logmel)
        got = tensor(js("magnitudes", picture.flatten(), 136, 0, 136)).view(136, 1025).T
        assert (got - size).abs().max() < 1e-5 * size.max()
        wanted = in_python(size, 2048, 256, block=16, look_ahead=4, n_iter=10)
        sound = tensor(js("streamed", size.T.flatten(), dict(block=16, lookAhead=4, rounds=10), 136))
        assert sound.shape == wanted.shape == (34_560,)
        assert db(sound[:4096], wanted[:4096]) < -80, "the first block"
        assert db(sound, wanted) < -40, "each block starts from the phases of the one before, which amplifies rounding"
        assert (logmel(sound) - logmel(wanted)).abs().mean() < 1e-3
        assert (tensor(js("picture", sound, 136)).view(256, 136) - logmel(sound)).abs().max() < 1e-4

@pytest.mark.parametrize("length", [500, 5000, 6400, 9000])
def test_a_note_is_played_in_blocks(small, length):
    x, logmel, js = small
    size = mel_to_linear(logmel.inverse(logmel(x)), logmel)
    wanted = in_python(size, 512, 128, block=8, look_ahead=4, n_iter=2)
    parts = json.loads(js("played", logmel(x).flatten(), 51, length, dict(block=8, rounds=2)))
    sound, last = torch.tensor(sum((p for p, _ in parts), [])), [is_last for _, is_last in parts]
    assert last == [False] * (len(parts) - 1) + [True] and len(sound) == length
    assert len(parts[0][0]) == min(length, 8 * 128 - 256), "the first block, from time 0"
    assert db(sound[:6400], wanted[:length]) < -60 and not sound[6400:].any()

def test_bad_input_is_named(small):
    _, logmel, js = small
    for call, message in [
        (("magnitudes", [0.] * 9, 51, 0, 1), "picture must be 40 × 51"), (("magnitudes", [0.] * 80, 2, 0, 3), "to must be 2 at most"),
        (("magnitudes", [float("nan")] * 80, 2, 0, 1), "picture must be finite, got NaN"),
        (("picture", [0.], 0), "frames must be a whole number from 1 on, got 0"),
        (("streamed", [0.] * 9, dict(block=1, lookAhead=1, rounds=1), 1), "magnitudes must be 257 numbers for each frame, got 9"),
        (("streamed", [-1.] * 257, dict(block=1, lookAhead=1, rounds=1), 1), "magnitudes must be finite, 0 or more"),
        (("streamed", [], dict(block=0, lookAhead=1, rounds=1), 1), "block must be"),
        (("streamed", [], dict(block=1, lookAhead=1), 1), "rounds must be a whole number from 0 on, got undefined"),
        (("streamed", [], dict(block=1, lookAhead=1, rounds=1, momentum=2), 1), "momentum must be"),
        (("played", [0.] * 80, 2, .5, {}), "length must be")]:
        with pytest.raises(JSEvalException, match=message): js(*call)
    good = settings_of(logmel)
    for change, message in [(dict(nFft=500), "nFft must be a power of two"), (dict(hop=96), "hop must be"), (dict(hop=256), "hop must be"),
                            (dict(top=0), "floor and top must be"), (dict(rows=[good["rows"][9]] * 3), "in 257 bins, two rows to a bin"),
                            (dict(rows=[good["rows"][9]] * 2), "independent filters"),
                            (dict(rows=[dict(start=256, weights=[1, 1])]), "bin 257")]:
        with pytest.raises(JSEvalException, match=message): engine(good | change)
