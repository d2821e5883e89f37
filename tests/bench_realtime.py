"""What a block of 2,048 samples at 48 kHz costs on one thread, played by its code and asked by name, as shares of the time that the block lasts:
`python tests/bench_realtime.py`. Exits 1 if a target is missed. Time is that of the thread, so that other work on the machine counts less."""
import pathlib, sys, tempfile, time, warnings

import numpy as np
import torch
from torch import nn

from oplas.models import fresh
from oplas.realtime import Host, export_nn_tilde
from oplas.sampler import Sampler

BLOCK, RATE, BLOCKS, NAMES = 2048, 48_000, 340, ("brightness", "noisiness", "attack_time")
TARGETS = {"the usual block": (.5, .1), "the mean of all blocks": (.5, .1), "the worst block": (.5, .1)}
torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=DeprecationWarning)


class Partials(nn.Module):
    "A generator that costs next to nothing, so that what is round it shows."
    def __init__(self):
        super().__init__()
        self.waves = torch.sin(2 * torch.pi * torch.arange(1, 9)[:, None] * torch.arange(2048) / 128)

    def forward(self, z): return torch.sigmoid(z) @ self.waves


def asked(dim): return fresh(0, lambda: nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, dim))).eval()


def shares(path, voices=0):
    "Of each block, while all controls move all the time, and so many voices sound."
    host, spent = Host(path, RATE, BLOCK), []
    if voices: host.set("voices", voices)
    for k in range(BLOCKS):
        controls = torch.sin(torch.arange(k * BLOCK, (k + 1) * BLOCK) / 9000 + torch.arange(host.channels)[:, None])
        if voices: controls[-2:] = torch.tensor([[48. + 7 * k % 36], [.5 * (k % (34 // voices) == 0)]])
        start = time.thread_time()
        host(controls)
        spent.append(time.thread_time() - start)
    return np.array(spent[40:]) * RATE / BLOCK   # TorchScript has compiled itself by then


def main():
    sampler, missed = fresh(0, Sampler).eval(), 0
    sampler.logmel.top.fill_(6.)                # speed does not depend on what was learned
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = {"by its code": (export_nn_tilde(Partials(), folder / "a.ts", 8), export_nn_tilde(sampler, folder / "b.ts")),
                 "by name": (export_nn_tilde(Partials(), folder / "c.ts", 8, steer=asked(8), names=NAMES),
                             export_nn_tilde(sampler, folder / "d.ts", steer=asked(4), names=NAMES))}
        for what, voices in (("generator", 0), ("sampler, one voice", 1), ("sampler, four voices", 4)):
            for way, (generator, notes) in files.items():
                spent = shares(notes if voices else generator, voices)
                values = dict(zip(TARGETS, (np.median(spent), spent.mean(), spent.max())))
                words = [f"{k} {value:6.1%}{'' if value <= aim else ' over the aim' if value <= must else ' MISSED'}"
                         for (k, value), (must, aim) in zip(values.items(), TARGETS.values())]
                print(f"{what + ', ' + way:34}" + ", ".join(words))
                missed += any(value > must for value, (must, _) in zip(values.values(), TARGETS.values()))
    return missed


if __name__ == "__main__": sys.exit(bool(main()))
