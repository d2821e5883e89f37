"Speed of `oplas.fx`: `python tests/bench_fx.py`. Effects a second in both forms, and one pass over 2,000 hits × 72 effects by two workers, with the memory it takes. Exits 1 if a target is missed."
import os, resource, sys, time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = "1"
import torch
from torch.utils.data import DataLoader
from oplas.fx import EFFECTS, EffectStream, hits, runnable

WORKERS, MINUTES, GIGABYTES = 2, 5, 1


def milliseconds(f, count):
    "For each of so many sounds, the best of three rounds."
    f()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1000 * min(times) / count


def main():
    torch.set_num_threads(1)
    start = time.perf_counter()
    dry = hits(2000)
    print(f"2,000 hits of a second: {time.perf_counter() - start:.1f} s")
    x = dry.audio[:64]
    print(f"\nms for a sound of a second, one thread\n{'':28s}{'Faust':>8s}{'scipy':>8s}")
    for name, effect in EFFECTS.items():
        found = {form: f"{milliseconds(lambda: effect(x, form=form), len(x)):8.3f}" for form in effect.forms}
        print(f"{name:28s}{found.get('faust', '       –')}{found.get('scipy', '       –')}")
    stream = EffectStream(dry)
    loader = DataLoader(stream, batch_size=256, num_workers=WORKERS)
    start, read, items, worst = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_oublock, 0, 0
    for _, wet, *_ in loader:
        items += len(wet)
        worst = max(worst, wet.abs().max().item())
    minutes = (time.perf_counter() - start) / 60
    main_process, worker = (resource.getrusage(who).ru_maxrss / 2 ** 20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"\n{stream}, {items:,} items, {WORKERS} workers: {minutes:.2f} min, {60_000 * minutes / items:.2f} ms an item, loudest sample {worst:.2f}")
    print(f"memory: {main_process:.2f} GB in the process that trains, {worker:.2f} GB in the largest worker (of both, the hits are shared)")
    blocks = resource.getrusage(resource.RUSAGE_SELF).ru_oublock - read
    print(f"blocks written to disk: {blocks}")
    targets = {f"one pass in {MINUTES} min (aim 2)": minutes <= MINUTES * items / (2000 * len(runnable())),
               f"{GIGABYTES} GB in any process": max(main_process, worker) <= GIGABYTES}
    for name, met in targets.items(): print(f"{'met   ' if met else 'MISSED'} {name}")
    return 0 if all(targets.values()) else 1


if __name__ == "__main__": sys.exit(main())
