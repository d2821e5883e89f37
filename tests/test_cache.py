"oplas.cache: code that changed, files that are damaged, processes that are killed."
import importlib, math, multiprocessing, os, pathlib, random, time, warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from oplas import cache as module
from oplas.cache import load_or_train, read, write
from oplas.machine import seed_everything


def same(a, b):
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"

@pytest.fixture(autouse=True)
def no_unexpected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_what_stands_aside_is_passed_on_and_not_in_the_key(cache):
    def quiet(width, progress):
        trainings.append(progress)
        return {"x": torch.ones(width)}
    for progress in (None, True): load_or_train("toy", {"width": 3}, quiet, progress=progress)
    assert log == [None] and len(list(cache.iterdir())) == 1

# ---- load or train

trainings = []

def train(width=3, seed=0):
    trainings.append(width)
    torch.manual_seed(seed)
    return {"weight": torch.randn(width, 2), "b/count": torch.tensor(7), "empty": torch.zeros(0, 3), "half": torch.ones(2, dtype=torch.bfloat16), "a": torch.ones(3, dtype=torch.bool)}

# `trainings` would count as something that the code reads, and change: hide it behind a library's object
trainings = type("Log", (), {"__module__": "threading", "append": lambda self, v: log.append(v)})()
log = []

@pytest.fixture(autouse=True)
def empty_log(): log.clear()

def test_trains_once_and_gives_back_the_same(cache):
    a, b = (load_or_train("toy", {"width": 3}, train) for _ in range(2))
    assert log == [3] and same(a, b) and same(a, train())
    assert len(list(cache.iterdir())) == 1 and next(cache.iterdir()).name.startswith("toy-")

def test_another_configuration_name_or_torch_is_another_file(cache, monkeypatch):
    load_or_train("toy", {"width": 3}, train)
    for name, config in (("toy", {"width": 4}), ("toys", {"width": 3}), ("toy", {"width": 3, "seed": 0})): load_or_train(name, config, train)
    monkeypatch.setattr(torch, "__version__", "9.9")
    load_or_train("toy", {"width": 3}, train)
    assert len(log) == 5 == len(list(cache.iterdir()))

def test_stale_code_is_trained_again(cache, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    def now(k, *numbers):
        (tmp_path / f"my_training_{k}.py").write_text("import torch\ndef helper(): return {}\ndef unrelated(): return {}\ndef train(): return {{'x': torch.tensor(helper())}}".format(*numbers))
        importlib.invalidate_caches()
        return load_or_train("toy", {}, importlib.import_module(f"my_training_{k}").train)["x"].item()
    assert [now(*given) for given in ((1, 1, 1), (2, 2, 1), (3, 1, 1), (4, 1, 2))] == [1, 2, 1, 1] and len(list(cache.iterdir())) == 2

def test_shared_strided_sparse_and_attached_tensors(cache):
    w = nn.Parameter(torch.arange(6.).view(2, 3))
    def tied(): return {"a": w, "b": w, "t": w.T, "s": torch.eye(2).to_sparse(), "e": w[:1].expand(4, 3), "0": torch.tensor(1.)}
    a, b = (load_or_train("toy", {}, tied) for _ in range(2))
    assert same(a, b) and torch.equal(b["t"], w.detach().T) and not b["a"].requires_grad and type(a["a"]) is torch.Tensor
    b["a"].zero_()
    assert b["b"][1, 2] == 5

def test_generators_are_left_alone_whether_loaded_or_trained(cache):
    def unseeded(): return {"x": torch.rand(3) + np.random.rand() + random.random()}
    after = []
    for noise in (5, 5, 6):
        seed_everything(noise)
        after.append((load_or_train("toy", {}, unseeded)["x"].tolist(), random.random(), np.random.rand(), torch.rand(1).item()))
    assert after[0] == after[1] and after[2][0] == after[0][0] and after[2][1] != after[0][1]
    next(cache.iterdir()).unlink()
    assert load_or_train("toy", {}, unseeded)["x"].tolist() == after[0][0]

@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "../up", ".hidden", "a b", None, 3, "a\n"])
def test_bad_name(cache, name):
    with pytest.raises(ValueError, match="name"): load_or_train(name, {}, train)

@pytest.mark.parametrize("config, named", [([1], "config"), (None, "config"), ({1: 2}, "config"), ({"w": torch.ones(2)}, r"config\['w'\].*JSON"), ({"w": np.float32(1)}, r"config\['w'\]"),
                                           ({"w": {1}}, r"config\['w'\]"), ({"w": {1: 2, "a": 3}}, r"config\['w'\]"), ({"w": print}, r"config\['w'\]")])
def test_bad_config(cache, config, named):
    with pytest.raises(ValueError, match=named): load_or_train("toy", config, train)
    assert not log and not cache.exists()

@pytest.mark.parametrize("out, named", [(None, "NoneType"), (torch.ones(2), "Tensor"), ({"a": 1.}, "float under 'a'"), ({"a": torch.ones(1), 3: torch.ones(1)}, "under 3"), ([("a", torch.ones(1))], "list")])
def test_train_must_return_tensors(cache, out, named):
    with pytest.raises(ValueError, match=f"train must return a dict of tensors.*{named}"): load_or_train("toy", {}, lambda: out)
    assert not cache.exists()

def test_train_must_be_callable(cache):
    with pytest.raises(ValueError, match="train must be a function"): load_or_train("toy", {}, {"a": 1})

def test_config_of_nested_numbers_is_found_again(cache):
    def f(**config): return (trainings.append(1), {"x": torch.ones(1)})[1]
    for _ in range(2): load_or_train("toy", {"a": {10: 1, 9: (1, 2)}, "b": math.nan, "c": None}, f)
    assert log == [1]

def damaged_files(raw):
    for n in (0, 1, 7, 8, 9, 50, len(raw) // 2, len(raw) - 1): yield raw[:n]
    for n in range(0, len(raw), max(1, len(raw) // 150)): yield raw[:n] + bytes([raw[n] ^ 4]) + raw[n + 1:]
    yield from (raw + b"\0", b"\0" * len(raw), b"\xff" * 8 + raw[8:])

def test_no_damaged_file_is_trusted(cache):
    wanted = load_or_train("toy", {"width": 30}, train)
    path = next(cache.iterdir())
    raw, retrained = path.read_bytes(), 0
    for n, bad in enumerate(damaged_files(raw)):
        path.write_bytes(bad)
        log.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got = load_or_train("toy", {"width": 30}, train)
        assert same(got, wanted)
        if log:  # trained again, and said so; if not, the changed byte made no difference to any number or name (a space in the header)
            retrained += 1
            assert "not used" in str(caught[0].message) and path.with_name(path.name + ".damaged").read_bytes() == bad
            assert path.read_bytes() == raw
    assert retrained > .9 * n > 100

def test_a_good_file_under_the_wrong_name_is_not_enough(cache):
    load_or_train("toy", {"width": 3}, train)
    write(cache / "fit", {"weight": torch.ones(3)}, {"epoch": 3})  # such as a checkpoint of fit
    path = next(p for p in cache.iterdir() if p.name != "fit")
    (cache / "fit").replace(path)
    with pytest.warns(UserWarning, match="not used"): assert same(load_or_train("toy", {"width": 3}, train), train())

@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_disk_full(cache, monkeypatch, where):
    def full(*args): raise OSError(28, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(module.os, where, full)
        with pytest.warns(UserWarning, match="could not be written.*No space left.*returned"): assert same(load_or_train("toy", {}, train), train())
    assert not list(cache.iterdir())
    assert same(load_or_train("toy", {}, train), train()) and len(list(cache.iterdir())) == 1

def test_cache_folder_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning) as caught: assert same(load_or_train("toy", {}, train), train())
    assert ["cannot be read" in str(caught[0].message), "could not be written" in str(caught[1].message)] == [True, True] and len(caught) == 2

def test_old_temporary_files_are_swept_and_new_ones_left(cache):
    cache.mkdir()
    for name, age in (("old", 7200), ("new", 60)):
        (cache / f".{name}.oplas-tmp").write_text("half")
        os.utime(cache / f".{name}.oplas-tmp", (time.time() - age,) * 2)
    load_or_train("toy", {}, train)
    assert {p.name for p in cache.glob(".*")} == {".new.oplas-tmp"}

@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda s: s != "__metadata__" and s.isprintable()), st.tuples(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
       st.lists(st.integers(0, 4), max_size=3)), max_size=4), st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s), max_leaves=5))
def test_write_and_read_give_back_everything(tmp_path_factory, shapes, meta):
    tensors = {k: (torch.rand(shape) * 5).to(dtype) for k, (dtype, shape) in shapes.items()}
    path = tmp_path_factory.mktemp("f") / "x"
    write(path, tensors, meta)
    kept, found = read(path)
    assert found == meta and set(kept) == set(tensors) and all(torch.equal(kept[k], tensors[k]) and kept[k].dtype == tensors[k].dtype and kept[k].shape == tensors[k].shape for k in tensors)


# ---- killed processes (they start from a server that has torch loaded, so they start fast)

@pytest.fixture(scope="module")
def start():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["oplas.cache"])
    def start(target, *args):
        process = context.Process(target=target, args=args)
        process.start()
        return process
    return start

def slow_train(seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    w = torch.randn(200, 200)
    for _ in range(100): w = (w @ w.T / 200).tanh() + .1 * torch.randn(200, 200)
    return {"w": w}

def in_process_load(cache, freeze, sign):
    os.environ["OPLAS_CACHE"] = cache
    def wait(*args):
        pathlib.Path(sign).touch()
        time.sleep(60)
    if freeze == "fsync": os.fsync = wait
    if freeze == "replace": os.replace = wait
    if freeze == "half":
        fdopen = os.fdopen
        os.fdopen = lambda fd, mode: Half(fdopen(fd, mode), wait)
    pathlib.Path(sign + ".begun").touch()
    load_or_train("toy", {"seed": 3}, slow_train)

class Half:
    "A file that stops half-way."
    def __init__(self, f, wait): self.f, self.wait = f, wait
    def __enter__(self): return self
    def __exit__(self, *args): self.f.close()
    def write(self, blob):
        self.f.write(blob[:len(blob) // 2])
        self.f.flush()
        self.wait()

def until(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        if time.time() > end: raise TimeoutError
        time.sleep(.005)

@pytest.mark.parametrize("freeze", ["half", "fsync", "replace"])
def test_killed_while_writing(cache, tmp_path, start, freeze):
    sign = tmp_path / "sign"
    process = start(in_process_load, str(cache), freeze, str(sign))
    until(sign.exists)
    process.kill()
    process.join()
    assert [p.suffix for p in cache.iterdir()] == [".oplas-tmp"]  # half a file, which nobody reads
    assert same(load_or_train("toy", {"seed": 3}, slow_train), slow_train(3))
    assert len(list(cache.glob("toy-*.safetensors"))) == 1

def test_killed_at_any_moment(cache, tmp_path, start):
    delays = random.Random(0)
    for n in range(6):
        sign = tmp_path / f"sign{n}"
        process = start(in_process_load, str(cache), None, str(sign))
        until(pathlib.Path(f"{sign}.begun").exists)
        time.sleep(delays.uniform(0, .4))
        process.kill()
        process.join()
    assert same(load_or_train("toy", {"seed": 3}, slow_train), slow_train(3)) and not list(cache.glob("*.damaged"))

def test_several_processes_at_once(cache, tmp_path, start):
    processes = [start(in_process_load, str(cache), None, str(tmp_path / f"sign{n}")) for n in range(3)]
    for p in processes: p.join()
    assert [p.exitcode for p in processes] == [0] * 3
    assert len(list(cache.iterdir())) == 1 and same(load_or_train("toy", {"seed": 3}, slow_train), slow_train(3))


def slope():
    w = torch.ones((), requires_grad=True)
    (w * w).backward()
    return {"slope": w.grad}


def test_what_is_trained_may_be_asked_for_where_no_gradients_are_wanted(cache):
    "Whether it has been trained before must make no difference to who asks for it."
    with torch.no_grad(): assert load_or_train("slope", {}, slope)["slope"] == 2
