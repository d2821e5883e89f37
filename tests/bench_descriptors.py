"""Speed of `oplas.descriptors` beside librosa, and agreement with what others have published: `python tests/bench_descriptors.py`.

Exits 1 if a target is missed. What the published models say of the 120 sounds is kept in `descriptors_published.json`, since they
want libraries of another time. `python tests/bench_descriptors.py store` asks them again, in an environment of its own that has oplas and

    pip install --no-deps timbral_models==0.4.0 mosqito==1.2.1 pyloudnorm==0.2.0 librosa==0.9.2 resampy==0.4.3 numpy==1.26.4 pyuff six
"""
import json, math, os, statistics, sys, time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"): os.environ[name] = "1"
import librosa, numpy as np, scipy.signal, torch
from scipy.stats import rankdata, spearmanr
from oplas.descriptors import DESCRIPTORS, describe
from oplas.strings import plucks

RATE, REPEATS, TARGET = 22_050, 5, 200
SEED, AGREE = 77, .8
KEPT = Path(__file__).with_name("descriptors_published.json")
CLASSES = ("plucks", "tones", "noise")


# agreement

def tone(rng, t):
    "Harmonics, their loudness modulated, and noise: a sound and what it is."
    hz, fall, noise = rng.uniform(60, 900), rng.uniform(.3, 2.5), rng.uniform(0, .6)
    x = sum(torch.sin(2 * math.pi * hz * k * t + rng.uniform(0, 6)) / k ** fall for k in range(1, int(10_000 / hz)))
    beat, depth = rng.uniform(1, 150), rng.uniform(0, 1)
    x = x * (1 + depth * torch.sin(2 * math.pi * beat * t))
    x = x / x.std() + noise * torch.from_numpy(rng.normal(size=RATE)).float()
    return .2 * x / x.abs().max(), f"{hz:.0f} Hz, partials k^-{fall:.1f}, {depth:.0%} modulated at {beat:.0f} Hz, noise {noise:.2f}"


def band(rng):
    "Noise within limits, its power falling by 0 to 6 dB an octave: a sound and what it is."
    bins, hz = torch.fft.rfft(torch.from_numpy(rng.normal(size=RATE)).float()), torch.fft.rfftfreq(RATE, 1 / RATE)
    low = rng.uniform(30, 3000)
    high = low * rng.uniform(1.3, 8)
    x = torch.fft.irfft(bins * ((hz > low) & (hz < high)) * hz.clamp(min=20) ** -rng.uniform(0, 1), RATE)
    return .3 * x / x.abs().max(), f"noise from {low:.0f} to {high:.0f} Hz"


def varied(seed=SEED):
    "120 sounds of a second, 40 of each class (120, samples), and what each is."
    rng, t, notes = np.random.default_rng(seed), torch.arange(RATE) / RATE, plucks()
    chosen = rng.choice(len(notes.audio), 40, replace=False)
    sounds = [(notes.audio[i, 1400:1400 + RATE], f"string {i}, MIDI note {notes.midi[i]:.0f}") for i in chosen]
    sounds += [tone(rng, t) for _ in range(40)]
    sounds += [band(rng) for _ in range(40)]
    audio, words = zip(*sounds)
    return torch.stack(audio).contiguous(), words


def published(audio):
    "What the published models say of sounds: {\"descriptor, model\": values}. Slow."
    import mosqito.sq_metrics, pyloudnorm, timbral_models
    models = {f"{ours}, timbral_models": lambda x, f=getattr(timbral_models, f"timbral_{theirs}"): f(x, fs=RATE)
              for ours, theirs in (("brightness", "brightness"), ("sharpness", "sharpness"), ("boominess", "booming"),
                                   ("warmth", "warmth"), ("roughness", "roughness"))}
    models["loudness, pyloudnorm"] = pyloudnorm.Meter(RATE).integrated_loudness
    pascal = lambda x: scipy.signal.resample(x / x.std(), 48_000) * 2e-5 * 10 ** (60 / 20)  # heard at 60 dB, at 48 kHz
    models["sharpness, mosqito"] = lambda x: mosqito.sq_metrics.sharpness_din_st(pascal(x), 48_000, weighting="din")
    models["roughness, mosqito"] = lambda x: mosqito.sq_metrics.roughness_dw(pascal(x), 48_000, overlap=0)[0].mean()
    return {name: [float(f"{float(model(x)):.6g}") for x in audio.double().numpy()] for name, model in models.items()}


def store():
    audio, _ = varied()
    kept = {"seed": SEED, "rms": [float(f"{v:.6g}") for v in audio.square().mean(1).sqrt()], "published": published(audio)}
    KEPT.write_text(json.dumps(kept) + "\n")


def ranks(a, b):
    "Rank correlations: of all sounds, then of each class."
    return [spearmanr(a, b)[0]] + [spearmanr(a[i:i + 40], b[i:i + 40])[0] for i in (0, 40, 80)]


def compare():
    "{\"descriptor, model\": (theirs, ours, rank correlations)}, and what the sounds are."
    kept = json.loads(KEPT.read_text())
    audio, words = varied(kept["seed"])
    if not np.allclose(audio.square().mean(1).sqrt(), kept["rms"], rtol=1e-3):
        raise SystemExit(f"the sounds are not those of {KEPT.name}: store them again, as the head of this file says")
    ours = describe(audio, progress=False)
    pairs = {name: (np.array(v), ours[name.split(",")[0]].numpy()) for name, v in kept["published"].items()}
    return {name: (theirs, mine, ranks(theirs, mine)) for name, (theirs, mine) in pairs.items()}, words


def agreement():
    "Print rank correlations, and the sounds on which the models of roughness disagree most. Whether the target is met."
    found, words = compare()
    print(f"rank correlation with published models, 120 sounds, seed {SEED}\n{'':28s}{'all':>7s}" + "".join(f"{c:>8s}" for c in CLASSES))
    for name, (_, _, r) in found.items(): print(f"{name:28s}{r[0]:7.2f}" + "".join(f"{v:8.2f}" for v in r[1:]))
    first, second = (found[f"roughness, {model}"][0] for model in ("timbral_models", "mosqito"))
    r = ranks(first, second)
    print(f"{'these two with each other':28s}{r[0]:7.2f}" + "".join(f"{v:8.2f}" for v in r[1:]))
    for model in ("timbral_models", "mosqito"):
        theirs, mine, _ = found[f"roughness, {model}"]
        print(f"roughness, ranks among the 40 of a class by {model} and by oplas, where they differ most")
        for c, i in zip(CLASSES, (0, 40, 80)):
            a, b = rankdata(theirs[i:i + 40]), rankdata(mine[i:i + 40])
            for k in abs(a - b).argsort()[:-4:-1]: print(f"    {c:8s}{a[k]:4.0f}{b[k]:4.0f}   {words[i + k]}")
    held = {name: found[name][2][0] for name in ("brightness, timbral_models", "sharpness, timbral_models", "roughness, mosqito")}
    met = min(held.values()) >= AGREE  # of roughness there are two models, and no number has .8 with both: see the page
    print(f"{'met   ' if met else 'MISSED'} rank correlation of {AGREE}: " + "; ".join(f"{n} {v:.2f}" for n, v in held.items()))
    return met


# speed

def by_librosa(x):
    "What librosa has of the eleven, one sound after another: level, pitch, brightness, noisiness."
    out = []
    for a in x:
        size = np.abs(librosa.stft(a, n_fft=4096, hop_length=2048)) ** 2
        out.append([librosa.feature.rms(y=a).mean(), np.median(librosa.yin(a, fmin=50, fmax=2000, sr=RATE)),
                    librosa.feature.spectral_centroid(S=size, sr=RATE).mean(), librosa.feature.spectral_flatness(S=size).mean()])
    return np.array(out)


def per_second(f, count):
    "Sounds described in a second, the median of some rounds."
    f()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return count / statistics.median(times)


def speed():
    "Print sounds described in a second. Whether the target is met."
    x = plucks().audio[:256, 1400:1400 + RATE].contiguous()
    noise = varied()[0][80:]
    ours = per_second(lambda: describe(x, progress=False), len(x))
    hissing = per_second(lambda: describe(noise, progress=False), len(noise))
    theirs = per_second(lambda: by_librosa(x[:16].numpy()), 16)
    print(f"torch {torch.__version__}, librosa {librosa.__version__}, one thread; sounds of a second at {RATE:,} Hz, described per second")
    print(f"{'oplas.describe, all eleven':46s}{ours:9,.0f}\n{'the same, of noise':46s}{hissing:9,.0f}")
    print(f"{'librosa, four of them, one after another':46s}{theirs:9,.0f}")
    for name, f in DESCRIPTORS.items(): print(f"{'oplas ' + name + ', alone':46s}{per_second(lambda: f(x), len(x)):9,.0f}")
    met = min(ours, hissing) >= TARGET
    print(f"{'met   ' if met else 'MISSED'} {TARGET} sounds of a second per second and thread, all eleven\n")
    return met


def main():
    torch.set_num_threads(1)
    met = [speed(), agreement()]
    return 0 if all(met) else 1


if __name__ == "__main__": sys.exit(store() if sys.argv[1:] == ["store"] else main())
