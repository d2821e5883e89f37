"Time and memory of `mmd2`, side by side with its peers: `python tests/bench_divergences.py`. Exits 1 if a target is missed."
import statistics, subprocess, sys, time

import torch
from geomloss import SamplesLoss
from oplas.divergences import mmd2, mmd2_normal, rbf

REPEATS, BANDWIDTH = 15, 4.
PEAK = """
import re, resource, sys, torch
from oplas.divergences import mmd2, rbf
own = resource.getrusage                                    # on Linux its peak is inherited from the parent process, so /proc is asked there
def peak():
    if sys.platform != "linux": return own(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10
x, y = torch.randn(2, 20_000, 16, generator=torch.Generator().manual_seed(0))
mmd2(x[:64], y[:64], rbf(3.)); before = peak()
if "{mode}" == "backward": x.requires_grad_()
import time; start = time.perf_counter()
value = mmd2(x, y, rbf(3.))
if "{mode}" == "backward": value.backward()
print(peak(), peak() - before, time.perf_counter() - start)
"""


def broadcast(x, y):
    k = lambda a, b: torch.exp(-((a[:, None] - b[None])**2).sum(-1) / (2 * BANDWIDTH**2)).mean()
    return k(x, x) + k(y, y) - 2 * k(x, y)


geomloss = SamplesLoss("gaussian", blur=BANDWIDTH, backend="tensorized")      # half of the biased MMD²


def seconds(f, *args):
    start = time.perf_counter()
    f(*args)
    return time.perf_counter() - start


def side_by_side(contenders, x, y, repeats):
    "Median seconds of each, taking turns, so that whatever else the machine does slows all alike."
    for f in contenders.values(): f(x, y)
    times = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, f in contenders.items(): times[name].append(seconds(f, x, y))
    return {name: statistics.median(t) for name, t in times.items()}


def with_gradient(f):
    def run(x, y):
        x = x.clone().requires_grad_()
        f(x, y).backward()
    return run


def table(title, medians, ours):
    print(f"\n{title}\n{'':44s}{'median':>10s}{'times ours':>13s}")
    for name, t in medians.items(): print(f"{name:44s}{1000 * t:8.1f} ms{t / medians[ours]:13.1f}")


def main():
    torch.manual_seed(0)
    x, y = torch.randn(2, 2000, 32)
    a, b, c = mmd2(x, y, rbf(BANDWIDTH), "biased").item(), 2 * geomloss(x, y).item(), broadcast(x, y).item()
    assert abs(a - b) < 1e-5 and abs(a - c) < 1e-5, "the contenders do not compute the same number"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; all three give MMD² = {a:.6f}")
    ours = "oplas mmd2"
    contenders = {"broadcast ((x[:,None]-y[None])**2).sum(-1)": broadcast, "geomloss, tensorised": geomloss, ours: lambda x, y: mmd2(x, y, rbf(BANDWIDTH), "biased")}
    forward = side_by_side({k: v for k, v in contenders.items() if v is not broadcast}, x, y, REPEATS)
    slow = side_by_side({k: v for k, v in contenders.items() if v is not geomloss}, x, y, 5)
    table("2,000 x 2,000 points, 32 dimensions, forward, against geomloss", forward, ours)
    table("the same, against the broadcast version", slow, ours)
    both = side_by_side({k: with_gradient(v) for k, v in contenders.items() if v is not broadcast}, x, y, REPEATS)
    table("the same, forward and backward", both, ours)
    batch = torch.randn(2, 128, 8)
    table("a training step's batch: 128 points, 8 dimensions, forward and backward",
          side_by_side({"geomloss, tensorised": with_gradient(geomloss), "oplas mmd2_normal (seven bandwidths)": with_gradient(lambda x, y: mmd2_normal(x)), ours: with_gradient(contenders[ours])}, *batch, 100), ours)
    peaks = {}
    print(f"\n20,000 x 20,000 points, 16 dimensions{'peak':>18s}{'of which work':>16s}{'seconds':>10s}")
    for mode in ("forward", "backward"):
        out = subprocess.run([sys.executable, "-c", PEAK.replace("{mode}", mode)], capture_output=True, text=True, check=True).stdout
        peaks[mode], grown, took = map(float, out.split())
        print(f"{mode:37s}{peaks[mode]:15.0f} MB{grown:13.0f} MB{took:10.1f}")
    targets = {"at least 5 times faster than broadcast": slow["broadcast ((x[:,None]-y[None])**2).sum(-1)"] / slow[ours] >= 5,
               "at least as fast as geomloss": forward["geomloss, tensorised"] >= forward[ours], "peak under 1 GB, forward and backward": max(peaks.values()) < 1000}
    print()
    for name, met in targets.items(): print(f"{'met   ' if met else 'MISSED'} {name}")
    return 0 if all(targets.values()) else 1


if __name__ == "__main__": sys.exit(main())
