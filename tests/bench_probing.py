"""A probe of two-bar melodies, side by side with the published procedure, which writes each sample into a MIDI file, reads it back and
measures it note by note: `python tests/bench_probing.py`. Exits 1 if a target is missed."""
import os, sys, tempfile, time

import numpy as np
import pretty_midi
import torch
from scipy import stats
from oplas.machine import one_thread
from oplas.music import WEIGHTS, to_events
from oplas.probing import MELODY, latin_hypercube, load_two_bars, probe, silent

CELLS, SAMPLES, EACH = 100, 64, 640       # samples that the loops measure; their time is scaled up to all
W = WEIGHTS["toussaint"][16].tolist()
TARGETS = {"probe, seconds": (30, 10), "attributes, µs a sample": (20, 5), "times as fast as the published procedure": (50, 500)}


def write(bars, path):
    e, song = to_events(bars, 16), pretty_midi.PrettyMIDI(initial_tempo=120)
    song.instruments.append(pretty_midi.Instrument(0))
    song.instruments[0].notes = [pretty_midi.Note(90, int(p), float(a) / 2, float(a + d) / 2) for p, a, d in zip(e.pitch, e.onset, e.duration)]
    song.write(path)


def measured(path):
    "The four attributes of a MIDI file, note by note."
    notes = sorted(pretty_midi.PrettyMIDI(path).instruments[0].notes, key=lambda n: n.start)
    weight, way, high, low = 0., 0, -1, 128
    for n in notes: weight += W[round(n.start * 8) % 16]
    for a, b in zip(notes, notes[1:]): way += abs(b.pitch - a.pitch)
    for n in notes: high, low = max(high, n.pitch), min(low, n.pitch)
    return weight / (2 * sum(W)), (high - low) / 26, len(notes) / 32, way / 88


def published(tokens):
    "Attributes of bars by way of files."
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{k}.mid") for k in range(len(tokens))]
        for bars, path in zip(tokens, paths): write(bars, path)
        return np.array([measured(path) for path in paths])


def by_loops(z, a):
    "Pearson's ρ of each dimension and attribute, one pair after another."
    return np.array([[stats.pearsonr(z[:, i], a[:, k]).statistic for k in range(a.shape[1])] for i in range(z.shape[1])])


def seconds(f):
    start = time.perf_counter()
    out = f()
    return time.perf_counter() - start, out


def main():
    model, points = load_two_bars(), latin_hypercube(CELLS, 32, spread=.8)
    with one_thread():
        took, found = min((seconds(lambda: probe(model.decode, MELODY, points, SAMPLES, .6, silent)) for _ in range(5)), key=lambda t: t[0])
        bars = model.decode(found.z.flatten(0, 1))
        ours = min(seconds(lambda: [f(bars) for f in MELODY.values()])[0] for _ in range(5))
        ours_rho, rho = min((seconds(found.correlations) for _ in range(5)), key=lambda t: t[0])
        loops, theirs = seconds(lambda: published(bars[:EACH]))
        loops_rho, their_rho = seconds(lambda: by_loops(found.z.flatten(0, 1).numpy(), found.values.reshape(-1, 4)))
    assert np.allclose(theirs, found.values.reshape(-1, 4)[:EACH], atol=1e-6) and np.allclose(rho, their_rho, atol=1e-6)
    every, loops = CELLS * SAMPLES, loops * CELLS * SAMPLES / EACH
    reached = dict(zip(TARGETS, (took, 1e6 * ours / every, (loops + loops_rho) / (ours + ours_rho))))
    print(f"{every:,} samples, one thread: the whole probe {took:.2f} s; four attributes {1000 * ours:.1f} ms, published procedure {loops:.1f} s; "
          f"correlations {1000 * ours_rho:.1f} and {1000 * loops_rho:.0f} ms; attributes and correlations with decoding in both: "
          f"{(loops + loops_rho + took - ours) / (took + ours_rho):.0f} times")
    met = {name: (v >= must) if "times" in name else (v <= must) for (name, (must, _)), v in zip(TARGETS.items(), reached.values())}
    for name, ok in met.items(): print(f"{'met   ' if ok else 'MISSED'} {name}: {reached[name]:.3g} (must {TARGETS[name][0]}, aim {TARGETS[name][1]})")
    return 0 if all(met.values()) else 1


if __name__ == "__main__": sys.exit(main())
