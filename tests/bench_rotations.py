"Speed of `oplas.rotations`, side by side with the ways it replaces: `python tests/bench_rotations.py`. Exits 1 if a target is missed."
import ctypes, functools, statistics, sys, time

import torch
from oplas.rotations import FiLM, FiLMR, rotate_plane, rotation_matrix, stargate


def axis_turn(n, c, angle):
    "Rotation by an angle in the plane of axes c and c + 1, as a whole (n, n) matrix."
    turn = torch.eye(n, dtype=angle.dtype)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows, columns = torch.tensor([[c, c, c + 1, c + 1], [c, c + 1, c, c + 1]])
    return turn.index_put((rows, columns), torch.stack([cos, -sin, sin, cos]))


def aguilera_perez(u, v):
    "The paper's construction of a rotation's matrix, as the chapter has it, in any precision."
    n, to_axes, pair = len(u), torch.eye(len(u), dtype=u.dtype), torch.stack([u, v])
    for row in range(2):
        for c in range(n - 2, row - 1, -1):
            turn = axis_turn(n, c, torch.atan2(pair[row, c + 1], pair[row, c]))
            pair, to_axes = pair @ turn, to_axes @ turn
    return to_axes @ axis_turn(n, 0, 2 * torch.atan2(pair[1, 1], pair[1, 0])) @ to_axes.mT


def keep_memory():
    "Have glibc keep freed memory: otherwise which layer pays for fresh pages is chance, and it costs more than the layer."
    if sys.platform == "linux":
        for setting in (-1, -3): ctypes.CDLL(None).mallopt(setting, 2 ** 31 - 1)


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def side_by_side(contenders, repeats, warm=3):
    "Median seconds of each, taking turns, so that whatever else the machine does slows all alike."
    for f in contenders.values():
        for _ in range(warm): f()
    times = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, f in contenders.items(): times[name].append(seconds(f))
    return {name: statistics.median(t) for name, t in times.items()}


def table(title, medians, ours):
    print(f"\n{title}\n{'':58s}{'median':>12s}{'times ours':>12s}")
    for name, t in medians.items(): print(f"{name:58s}{1000 * t:9.3f} ms{t / medians[ours]:12.2f}")


def there_and_back(f, *leaves, grad):
    "Forward and backward, gradients of all leaves."
    def run():
        for p in leaves: p.grad = None
        f().backward(grad)
    return run


def planes(targets, n, must, aim):
    x, u, v = (torch.randn(*s, requires_grad=True) for s in ((64, n), (n,), (n,)))
    both = functools.partial(there_and_back, grad=torch.randn(64, n))
    slow, ours = "x @ aguilera_perez(u, v).T", "oplas rotate_plane"
    step = both(lambda: rotate_plane(x, u, v), x, u, v)
    t = side_by_side({slow: both(lambda: x @ aguilera_perez(u, v).mT, x, u, v), ours: lambda: [step() for _ in range(50)]}, 15)
    t[ours] /= 50
    table(f"64 vectors of {n}, forward and backward, one thread", t, ours)
    targets[f"rotate_plane at n = {n}: {must} times as fast as the paper's matrix (aim {aim}); {t[slow] / t[ours]:.0f}"] = t[slow] >= must * t[ours]


def layers(targets, n=512, batch=4096):
    for inside in (True, False):
        x, grad = torch.randn(batch, n, requires_grad=inside), torch.randn(batch, n)
        run = {}
        for name, layer in {"oplas FiLM": FiLM(n), "oplas FiLMR": FiLMR(n), "oplas FiLMR, 4 planes": FiLMR(n, 4),
                            "oplas FiLMR, no γ and β": FiLMR(n, affine=False)}.items():
            run[name] = there_and_back(functools.partial(layer, x), x, *layer.parameters(), grad=grad)
        t = side_by_side(run, 31, 10)
        table(f"{batch} vectors of {n}, forward and backward, one thread, gradient of x {'too' if inside else 'not wanted'}", t, "oplas FiLM")
        ratio = t["oplas FiLMR"] / t["oplas FiLM"]
        targets[f"FiLMR: 3 times plain FiLM at most (aim 2), gradient of x {'too' if inside else 'not wanted'}; {ratio:.2f}"] = ratio <= 3


def rings(targets, count=100, alone=3):
    for n, dim in ((16, 2), (12, 64)):
        took = seconds(lambda: stargate(n, dim, seeds=range(count)))
        one = statistics.median(seconds(functools.partial(stargate, n, dim, seeds=s)) for s in range(alone))
        print(f"\n{count} seeds of {n} points in {dim}-D, 2,000 steps, {torch.get_num_threads()} threads: {took:.1f} s at once; "
              f"one after the other {count * one:.0f} s (from {alone}), {count * one / took:.1f} times ours")
        targets[f"{count} rings in {dim}-D in 60 s (aim 15); {took:.1f}"] = took <= 60


def matrices():
    for n in (16, 64, 128):
        u, v = torch.randn(2, n)
        a, b = torch.linalg.qr(torch.stack([u, v], 1))[0].T
        a, b = a * (a @ u).sign(), b * (b @ v).sign()
        generator = 2 * torch.atan2(b @ v, a @ v) * (torch.outer(b, a) - torch.outer(a, b))
        ways = {"aguilera_perez": lambda: aguilera_perez(u, v), "torch.linalg.matrix_exp": lambda: torch.linalg.matrix_exp(generator),
                "oplas rotation_matrix": lambda: rotation_matrix(u, v)}
        with torch.no_grad():
            table(f"an {n} × {n} matrix, forward, one thread", side_by_side(ways, 9), "oplas rotation_matrix")
            exact = torch.linalg.matrix_exp(generator.double())
            for name, f in ways.items(): print(f"{name:58s}{(f() - exact).abs().max():10.1e} largest error")


def main():
    keep_memory()
    torch.manual_seed(0)
    threads, targets = torch.get_num_threads(), {}
    print(f"torch {torch.__version__}, {threads} threads")
    torch.set_num_threads(1)
    planes(targets, 64, 100, 200)
    planes(targets, 128, 500, 1000)
    layers(targets)
    matrices()
    torch.set_num_threads(threads)
    rings(targets)
    print()
    for name, met in targets.items(): print(f"{'met   ' if met else 'MISSED'} {name}")
    return 0 if all(targets.values()) else 1


if __name__ == "__main__": sys.exit(main())
