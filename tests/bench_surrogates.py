"""How long a surrogate takes to answer a question, on one thread, by the median of 200: `python tests/bench_surrogates.py`.
Exits 1 if a target is missed."""
import functools, sys, time, warnings

import numpy as np
import torch

from oplas.machine import one_thread
from oplas.probing import latin_hypercube
from oplas.surrogates import CONTROLS, Surrogate, Synth, invert, navigate

MUST, AIM, TIMES = 5, 1, 200      # milliseconds
warnings.filterwarnings("ignore", message="out of reach")


def milliseconds(ask, z):
    "Of each question, after some that do not count."
    for code in z[:20]: ask(code)
    spent = []
    for code in z[:TIMES]:
        start = time.thread_time()
        ask(code)
        spent.append(1000 * (time.thread_time() - start))
    return np.array(spent)


def main():
    with one_thread():
        surrogate = Surrogate(Synth(), functools.partial(latin_hypercube, dim=len(CONTROLS))).fit(500, progress=False)
        z, missed = latin_hypercube(TIMES, len(CONTROLS), seed=5), 0
        wishes = {tuple(code.tolist()): dict(zip(surrogate.names, values)) for code, values in zip(z, surrogate.predict(z))}
        bright = {key: {"brightness": values["brightness"]} for key, values in wishes.items()}
        questions = {"predict": lambda code: surrogate.predict(code[None]),
                     "navigate, one descriptor, all others held": lambda code: navigate(surrogate, code, {"brightness": .5}),
                     "navigate, one descriptor, others free": lambda code: navigate(surrogate, code, {"brightness": .5}, hold=[]),
                     "invert, one descriptor": lambda code: invert(surrogate, bright[tuple(code.tolist())]),
                     "invert, all descriptors": lambda code: invert(surrogate, wishes[tuple(code.tolist())])}
        for what, ask in questions.items():
            spent = milliseconds(ask, z)
            usual = np.median(spent)
            missed += usual > MUST
            print(f"{what:44}{usual:6.2f} ms, at worst {spent.max():6.2f}   at most {MUST}, aim {AIM}"
                  + ("   MISSED" if usual > MUST else ""))
    return missed


if __name__ == "__main__": sys.exit(bool(main()))
