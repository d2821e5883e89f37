"Speed of `oplas.descriptors`, one thread, side by side with librosa's loop: `python tests/bench_descriptors.py`. Exits 1 if the target is missed."
import os, statistics, sys, time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"): os.environ[name] = "1"
import librosa, numpy as np, torch
from oplas.descriptors import DESCRIPTORS, describe
from oplas.strings import plucks

RATE, REPEATS, TARGET = 22_050, 5, 200


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


def main():
    torch.set_num_threads(1)
    x = plucks().audio[:256, 1400:1400 + RATE].contiguous()
    ours = per_second(lambda: describe(x, progress=False), len(x))
    theirs = per_second(lambda: by_librosa(x[:16].numpy()), 16)
    print(f"torch {torch.__version__}, librosa {librosa.__version__}, one thread; sounds of a second at {RATE:,} Hz, described per second")
    print(f"{'oplas.describe, all eleven':46s}{ours:9,.0f}\n{'librosa, four of them, one after another':46s}{theirs:9,.0f}")
    for name, f in DESCRIPTORS.items(): print(f"{'oplas ' + name + ', alone':46s}{per_second(lambda: f(x), len(x)):9,.0f}")
    print(f"{'met   ' if ours >= TARGET else 'MISSED'} {TARGET} sounds of a second per second and thread, all eleven")
    return 0 if ours >= TARGET else 1


if __name__ == "__main__": sys.exit(main())
