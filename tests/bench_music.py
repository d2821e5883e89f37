"""Speed of the attributes in `oplas.music`, side by side with plain loops, and of MusicVAE's decoder: `python tests/bench_music.py`.
Exits 1 if a target is missed."""
import sys, time

import numpy as np, torch
from oplas.machine import one_thread
from oplas.music import HOLD, REST, WEIGHTS, contour, note_density, pitch_range, rhythmic_complexity
from oplas.pretrained import MusicVAE

BARS, REPEATS, TARGET = 20_000, 5, 200
CODES, SECONDS = 1000, 3
W = (WEIGHTS["pati"][24] / 100).tolist()
ALL = sum(W)


# The loops: the notes of a bar, one after another, then a sum over them. They refuse what is no token, as ours do.

def notes(bar):
    found = []
    for tick, token in enumerate(bar):
        if not 0 <= token <= REST: raise ValueError(f"{token} is no token")
        if token < HOLD: found.append((tick, token))
    return found

def complexity_loop(bar): return sum(W[tick] for tick, _ in notes(bar)) / ALL

def range_loop(bar):
    pitches = [pitch for _, pitch in notes(bar)]
    return (max(pitches) - min(pitches)) / 26 if pitches else 0

def density_loop(bar): return len(notes(bar)) / len(bar)

def net_loop(bar):
    pitches = [pitch for _, pitch in notes(bar)]
    return sum(b - a for a, b in zip(pitches, pitches[1:])) / 26

def absolute_loop(bar):
    pitches = [pitch for _, pitch in notes(bar)]
    return sum(abs(b - a) for a, b in zip(pitches, pitches[1:])) / 88


PAIRS = {"rhythmic_complexity": (rhythmic_complexity, complexity_loop), "pitch_range": (pitch_range, range_loop),
         "note_density": (note_density, density_loop), "contour, net": (contour, net_loop),
         "contour, absolute": (lambda bars: contour(bars, "absolute"), absolute_loop)}


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def main():
    rng = np.random.default_rng(0)
    shape = BARS, 24  # about as many notes as a folk tune has, and rests
    bars = np.where(rng.random(shape) < .33, rng.integers(55, 82, shape), np.where(rng.random(shape) < .05, REST, HOLD))
    tensor, lists = torch.from_numpy(bars), bars.tolist()
    print(f"{BARS:,} bars of 24 ticks, {(bars < HOLD).sum():,} notes; Python {sys.version.split()[0]}, numpy {np.__version__}, fastest of {REPEATS} turns (ours 20 times a turn)")
    print(f"{'':22s}{'oplas':>10s}{'loop over the array':>22s}{'over the tensor':>20s}{'over ready lists':>20s}")
    met = {}
    for name, (ours, loop) in PAIRS.items():
        assert np.allclose(ours(bars), [loop(bar) for bar in lists], atol=1e-6), name
        took = {k: [] for k in ("ours", "array", "lists")}
        for _ in range(REPEATS):  # in turns, so that whatever else the machine does slows all alike
            took["ours"] += [seconds(lambda: ours(tensor)) for _ in range(20)]
            took["array"].append(seconds(lambda: [loop(bar) for bar in bars]))
            took["lists"].append(seconds(lambda: [loop(bar) for bar in lists]))
        t = {k: min(v) for k, v in took.items()}  # what is slower was slowed by something else
        t["tensor"] = seconds(lambda: [loop(bar) for bar in tensor[:BARS // 20]]) * 20
        cells = "".join(f"{1000 * t[k]:8.1f} ms{t[k] / t['ours']:6.0f}x".rjust(w) for k, w in (("array", 22), ("tensor", 20), ("lists", 20)))
        print(f"{name:22s}{1000 * t['ours']:7.2f} ms{cells}")
        met[f"{name}: {TARGET} times as fast as the loop over the array"] = t["array"] >= TARGET * t["ours"]
    model, z = MusicVAE().eval(), torch.from_numpy(rng.standard_normal((CODES, 256), np.float32))
    with one_thread(): took = min(seconds(lambda: model.decode(z)) for _ in range(REPEATS))
    print(f"\nMusicVAE of the smallest published size, one thread: {CODES:,} codes to two bars each in {took:.2f} s")
    met[f"MusicVAE: {CODES:,} decodes in at most {SECONDS} s"] = took <= SECONDS
    print()
    for name, ok in met.items(): print(f"{'met   ' if ok else 'MISSED'} {name}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__": sys.exit(main())
