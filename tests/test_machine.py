"oplas.machine: the device, the threads, the random numbers, the bar."
import os, random, subprocess, sys

import numpy as np
import pytest
import torch

from oplas.machine import bar, device, full, limit_threads, one_thread, own_randomness, seed_everything, threads

@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_device_is_chosen_once(monkeypatch):
    assert isinstance(device(), torch.device) and device() is device()
    monkeypatch.setenv("OPLAS_DEVICE", "meta")
    device.cache_clear()
    try: assert device().type == "meta"
    finally: device.cache_clear()

@pytest.mark.parametrize("value,asked", [("1", True), ("0", False), ("", False), (None, False)])
def test_full_sizes_are_asked_for_by_a_variable(monkeypatch, value, asked):
    monkeypatch.delenv("OPLAS_FULL", raising=False)
    if value is not None: monkeypatch.setenv("OPLAS_FULL", value)
    assert full() is asked

def test_one_thread_unless_asked_for_more(monkeypatch):
    torch.set_num_threads(2)
    with one_thread(): assert torch.get_num_threads() == 1
    monkeypatch.setenv("OPLAS_THREADS", "3")
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == 2
    limit_threads()
    assert torch.get_num_threads() == 3

@pytest.mark.parametrize("asked", ["0", "-1", "many", "1.5", ""])
def test_a_number_of_threads_that_is_none(monkeypatch, asked):
    monkeypatch.setenv("OPLAS_THREADS", asked)
    with pytest.raises(ValueError, match="OPLAS_THREADS must be a whole number"): threads()

def draw(): return random.random(), np.random.rand(), torch.rand(1).item()

@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1, np.int64(3)])
def test_seed_everything(seed):
    one, other = ((g := seed_everything(seed)) and (*draw(), torch.rand(1, generator=g).item()) for _ in range(2))
    assert one == other and seed_everything(seed).device.type == "cpu"

@pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True, 2**64, float("nan")])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="^seed must be a whole number from 0 to"): seed_everything(seed)

def test_own_randomness_leaves_the_generators_alone():
    seed_everything(1)
    wanted = draw()
    @own_randomness()
    def noisy():
        seed_everything(2)
        return draw()
    seed_everything(1)
    assert noisy() == noisy() != wanted
    with pytest.raises(KeyError), own_randomness():
        draw()
        raise KeyError
    assert draw() == wanted


# ---- the bar


@pytest.mark.parametrize("disable, wanted", [("", {(None, .1): False, (None, 1.2): True, (True, .1): True, (False, 1.2): False}), ("1", {(None, 1.2): False, (True, .1): True})])
def test_when_a_bar_is_shown(disable, wanted):
    code = f"""if True:
        import sys, time
        from oplas.machine import bar
        for progress, seconds in {[*wanted]}:
            with bar(progress, total=2, mininterval=0, desc="waiting") as b:
                for _ in range(2):
                    time.sleep(seconds / 2)
                    b.update()
            print("END", file=sys.stderr)"""
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"} | ({"TQDM_DISABLE": disable} if disable else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)  # tqdm reads the variable once
    shown = ["waiting" in part for part in done.stderr.split("END")[:-1]]
    assert shown == [*wanted.values()] and not done.stdout

def test_a_bar_takes_what_tqdm_takes():
    assert list(bar(False, iterable="abc")) == ["a", "b", "c"] and bar(False, total=3, unit="step").total == 3

@pytest.mark.parametrize("progress", ["yes", 2, [], .5])
def test_bad_progress(progress):
    with pytest.raises(ValueError, match="progress must be None, True or False"): bar(progress)
