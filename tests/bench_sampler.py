"Time to draw one note's picture, to find its sound, and to make many at once. Published (Caillon et al. 2019): .8 s for a picture, .7 s for a second of sound."
import sys
import time

import torch

from oplas.sampler import Sampler

torch.set_num_threads(1)
sampler = Sampler().eval()
sampler.logmel.top.fill_(6.)                                       # speed does not depend on what was learned


def median(f, times):
    f(); spent = []
    for _ in range(times):
        start = time.perf_counter(); f(); spent.append(time.perf_counter() - start)
    return sorted(spent)[times // 2]


z, midi = torch.randn(36, 4), torch.arange(48, 84)
with torch.no_grad():
    one = median(lambda: sampler.decode(z[0], 60), 40)
    together, single = median(lambda: sampler.decode(z, midi), 8), median(lambda: [sampler.decode(a, b) for a, b in zip(z, midi)], 8)
    note = median(lambda: sampler.note(z[0], 60), 5) / (34_560 / 22_050)
lines = [("picture of a note, ms, one thread", 1000 * one, 5., "at most"),
         ("36 pictures one by one over together", single / together, 1., "at least"),
         ("a second of sound from a code, 100 rounds, s", note, .3, "at most")]
missed = 0
for what, value, limit, how in lines:
    ok = value <= limit if how == "at most" else value >= limit
    missed += not ok
    print(f"{what:48} {value:8.3f}   {how} {limit}{'' if ok else '   MISSED'}")
sys.exit(missed > 0)
