"oplas.training: bad input, numbers that go wrong, processes that are killed, files that are damaged, code that changed."
import ast, functools, json, math, multiprocessing, os, pathlib, random, subprocess, sys, textwrap, threading, time, types, warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from oplas import training
from oplas.training import History, NonFiniteLoss, code_hash, device, fit, load_or_train, seed_everything


# ---- what the runs below have in common (the functions that processes of their own import hold no assert: pytest rewrites those)

def make():
    seed_everything(1)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(.2), nn.Linear(16, 1))

def rows(n=200):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=g)
    return x, x.sum(1, keepdim=True).sin()

def loss(model, x, y):
    error = model(x + .01 * torch.randn_like(x)) - y + .01 * np.random.rand() + .01 * random.random()  # noise of all three kinds
    return {"loss": (error**2).mean(), "largest": error.abs().max()}

def same(a, b):
    a, b = a.state_dict() if isinstance(a, nn.Module) else a, b.state_dict() if isinstance(b, nn.Module) else b
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)

fit_quietly = functools.partial(fit, batch_size=32, progress=False)

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"

@pytest.fixture(autouse=True, scope="module")
def one_thread():  # for tensors this small, threads only wait for each other
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

@pytest.fixture(autouse=True)
def no_unexpected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- device and seed

def test_device_is_chosen_once(monkeypatch):
    assert isinstance(device(), torch.device) and device() is device()
    monkeypatch.setenv("OPLAS_DEVICE", "meta")
    device.cache_clear()
    try: assert device().type == "meta"
    finally: device.cache_clear()

def test_training_uses_one_thread_unless_asked_for_more(monkeypatch):
    seen = []
    def watching(model, x, y):
        seen.append(torch.get_num_threads())
        return loss(model, x, y)
    torch.set_num_threads(2)
    fit_quietly(make(), watching, rows(), epochs=1)
    monkeypatch.setenv("OPLAS_THREADS", "3")
    fit_quietly(make(), watching, rows(), epochs=1)
    assert set(seen) == {1, 3} and torch.get_num_threads() == 2
    training.limit_threads()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)

@pytest.mark.parametrize("asked", ["0", "-1", "many", "1.5", ""])
def test_a_number_of_threads_that_is_none(monkeypatch, asked):
    monkeypatch.setenv("OPLAS_THREADS", asked)
    with pytest.raises(ValueError, match="OPLAS_THREADS must be a whole number"): fit_quietly(make(), loss, rows(), epochs=1)

@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1, np.int64(3)])
def test_seed_everything(seed):
    draw = lambda g: (random.random(), np.random.rand(), torch.rand(1).item(), torch.rand(1, generator=g).item())
    assert draw(seed_everything(seed)) == draw(seed_everything(seed))
    assert seed_everything(seed).device.type == "cpu"

@pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True, 2**64, float("nan")])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed"): seed_everything(seed)
    with pytest.raises(ValueError, match="seed"): fit_quietly(make(), loss, rows(), seed=seed)


# ---- fit

def test_fit_learns_and_records():
    model, (x, y) = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1)), rows()
    history = fit(model, lambda m, x, y: ((m(x) - y)**2).mean(), (x, y), epochs=100, batch_size=50, lr=.02, progress=False)
    assert len(history) == 400 == len(history.losses["loss"]) and list(history.losses) == ["loss"]
    assert np.mean(history.losses["loss"][-20:]) < .3 * np.mean(history.losses["loss"][:20])
    assert max(history.lr) == pytest.approx(.02) and history.lr[-1] < 1e-4 and history.seconds > 0
    assert not model.training

def test_every_row_once_an_epoch_in_whole_batches():
    seen = []
    def count(model, i):
        seen.append(i.long().flatten().tolist())
        return model(i.float()[:, None]).mean()
    history = fit(nn.Linear(1, 1), count, torch.arange(100), epochs=3, batch_size=32, progress=False)
    assert [len(s) for s in seen] == [32] * 9 and len(history) == 9
    epochs = [sum(seen[i:i + 3], []) for i in (0, 3, 6)]
    assert all(len(set(e)) == 96 for e in epochs) and epochs[0] != epochs[1]

def test_one_tensor_fewer_rows_than_a_batch():
    shapes = []
    def count(model, x):
        shapes.append(tuple(x.shape))
        return model(x).mean()
    assert len(fit(nn.Linear(2, 1), count, torch.ones(5, 2), epochs=2, progress=False)) == 2 and shapes == [(5, 2)] * 2

def test_a_seed_gives_the_same_numbers_and_leaves_the_generators_alone():
    runs = []
    for noise in range(2):
        model = make()
        seed_everything(noise)
        history = fit_quietly(model, loss, rows(), epochs=3)
        runs.append((model, history.losses))
        after = random.random(), np.random.rand(), torch.rand(1)
        seed_everything(noise)
        assert after == (random.random(), np.random.rand(), torch.rand(1))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert fit_quietly(make(), loss, rows(), epochs=3, seed=1).losses != runs[0][1]

def test_clip_limits_the_gradient():
    norms = []
    class Watch(training._OneDevice):
        def clip_gradients(self, module, optimizer, max_norm, error_if_nonfinite):
            out = super().clip_gradients(module, optimizer, max_norm, error_if_nonfinite)
            norms.append(torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item())
            return out
    steep = lambda model, x, y: 1e4 * loss(model, x, y)["loss"]
    for clip, wanted in ((.5, lambda n: n <= .5001), (None, lambda n: n > 100)):
        norms.clear()
        fit_quietly(make(), steep, rows(), epochs=1, clip=clip, fabric=Watch())
        assert len(norms) == 6 and all(map(wanted, norms))

def test_frozen_weights_stay():
    model = make()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit_quietly(model, loss, rows(), epochs=1)
    assert torch.equal(model[0].weight, before)

X, Y = rows(8)
@pytest.mark.parametrize("change, named", [
    (dict(data=torch.empty(0, 4)), "data is empty"), (dict(data=()), "data is empty"), (dict(data=(X, Y[:5])), r"equally many rows.*\[8, 5\]"),
    (dict(data=(X, Y * math.nan)), r"data\[1\] holds NaN or Inf in 8 places"), (dict(data=X / 0), r"data\[0\] holds NaN or Inf"),
    (dict(data=X.numpy()), r"data\[0\] must be a tensor.*ndarray"), (dict(data=torch.tensor(1.)), r"data\[0\]"), (dict(data=(X, 3)), r"data\[1\].*int"),
    *[(dict(epochs=v), "epochs") for v in (0, -1, 1.5, "3", True, None)], *[(dict(batch_size=v), "batch_size") for v in (0, -4, 2.)],
    *[(dict(lr=v), "lr") for v in (0, -1e-3, math.nan, math.inf, "fast", None)], *[(dict(weight_decay=v), "weight_decay") for v in (-.1, math.nan, None)],
    *[(dict(clip=v), "clip") for v in (0, -1, math.nan, "x")],
    (dict(model=lambda x: x), "model must be a torch.nn.Module.*function"), (dict(model=nn.GELU()), "model.*weights to train.*GELU"),
])
def test_bad_input(change, named):
    called = []
    given = dict(model=make(), loss=lambda *a: called.append(a), data=(X, Y), **{}) | change
    with pytest.raises(ValueError, match=named): fit(given.pop("model"), given.pop("loss"), given.pop("data"), progress=False, **given)
    assert not called  # before any work

@pytest.mark.parametrize("wrong, named", [
    (lambda m, x: None, "loss: NoneType"), (lambda m, x: 1., "loss: float"), (lambda m, x: m(x), r"loss: tensor \(8, 1\)"), (lambda m, x: {"mse": m(x).mean()}, r"mse: tensor \(\)"),
    (lambda m, x: {"loss": m(x).mean(), "all": m(x)}, r"all: tensor \(8, 1\)"), (lambda m, x: m(x).mean().detach(), r"loss: tensor \(\)"), (lambda m, x: {"loss": m(x).mean(), "name": "a"}, "name: str"),
])
def test_bad_loss(wrong, named):
    with pytest.raises(ValueError, match="loss must return.*" + named): fit(nn.Linear(4, 1), wrong, X, progress=False)

def test_loss_must_keep_its_names():
    steps = iter(range(9))
    with pytest.raises(ValueError, match="same names"):
        fit(nn.Linear(4, 1), lambda m, x: {"loss": m(x).mean(), str(next(steps)): 1.}, X, progress=False)

def test_history():
    import matplotlib.pyplot as plt
    for history in (fit_quietly(make(), loss, rows(), epochs=4), History({"loss": [1., -2., 3.]}, [.1, .2, .3], 1.), History({"loss": [1.]}, [.1])):
        columns = history.to_dict()
        assert {"loss", "lr", "seconds"} <= set(columns) and all(len(v) == len(history) for k, v in columns.items() if k != "seconds") and json.dumps(columns)
        for smooth in (None, 1, 100):
            fig = history.plot(smooth=smooth)
            assert all(ax.get_title() and ax.get_ylabel() for ax in fig.axes) and fig.axes[-1].get_xlabel()
            plt.close(fig)
    assert "3 steps" in repr(History({"loss": [1., -2., 3.]}, [.1, .2, .3], 1.)) and repr(History())

def test_bar_can_be_silenced(capfd, monkeypatch):
    monkeypatch.setattr(training, "tqdm", functools.partial(training.tqdm, mininterval=0))
    slow = lambda m, x, y: (time.sleep(.4), loss(m, x, y))[1]
    fit(make(), slow, rows(96), epochs=1, batch_size=32, progress=False)
    assert capfd.readouterr() == ("", "")
    fit(make(), slow, rows(128), epochs=1, batch_size=32, progress=True)
    assert "step" in capfd.readouterr().err


# ---- numbers that go wrong

class Watched(nn.Module):
    "A model that writes down its state at every forward pass (after BatchNorm has seen the batch)."
    def __init__(self):
        super().__init__()
        self.inner, self.states = make(), []
    def forward(self, x):
        out = self.inner(x)
        self.states.append({k: v.clone() for k, v in self.inner.state_dict().items()})
        return out

@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 1, 9, 20])
def test_loss_that_is_no_number(step, value):
    model, count = Watched(), iter(range(99))
    start = {k: v.clone() for k, v in model.inner.state_dict().items()}
    def bad(model, x, y): return ((model(x) - y)**2).mean() + (value if next(count) == step else 0.)
    with pytest.raises(NonFiniteLoss, match=f"loss is {value} at step {step} ") as e: fit_quietly(model, bad, rows(), epochs=5)
    assert isinstance(e.value, ArithmeticError) and e.value.step == step == len(e.value.history) and len(model.states) == step + 1
    assert same(model.inner, model.states[step - 1] if step else start)
    assert all(t.isfinite().all() for t in model.inner.state_dict().values()) and not model.training

def test_nan_in_the_forward_pass_does_not_stay_in_the_buffers():
    model, count = make(), iter(range(99))
    def bad(model, x, y): return ((model(x * (math.nan if next(count) == 8 else 1.)) - y)**2).mean()
    with pytest.raises(NonFiniteLoss, match="at step 8"): fit_quietly(model, bad, rows(), epochs=5)
    assert model[1].running_mean.isfinite().all() and model[1].num_batches_tracked == 8

def test_gradient_that_is_infinite_at_a_finite_loss():
    model, count = Watched(), iter(range(99))
    def bad(model, x, y):
        error = ((model(x) - y)**2).mean()
        return error + (torch.sqrt(error - error) if next(count) == 7 else 0.)  # value 0, slope infinite
    with pytest.raises(NonFiniteLoss, match="gradient's norm is (nan|inf) at step 7") as e: fit_quietly(model, bad, rows(), epochs=5)
    assert e.value.step == 7 == len(e.value.history)
    assert same(model.inner, model.states[7])  # the loss of step 7 was finite

def test_diverging_weights():
    model = nn.Linear(4, 1)
    with pytest.raises(NonFiniteLoss): fit(model, lambda m, x: (m(x)**4).exp().mean(), X, epochs=500, lr=1e3, progress=False)
    assert all(p.isfinite().all() for p in model.parameters())

def test_buffers_that_are_replaced_or_grow_are_kept_too():
    class Growing(nn.Linear):
        def __init__(self):
            super().__init__(4, 1)
            self.register_buffer("seen", torch.zeros(0), persistent=False)
            self.register_buffer("mean", torch.zeros(()))
        def forward(self, x):
            self.seen, self.mean = torch.cat([self.seen, x.new_zeros(1)]), .9 * self.mean + x.mean()
            return super().forward(x)
    model, count = Growing(), iter(range(99))
    with pytest.raises(NonFiniteLoss): fit(model, lambda m, x: m(x * (math.nan if next(count) == 5 else 1)).mean(), X, epochs=9, progress=False)
    assert model.seen.shape == (5,) and model.mean.isfinite()


# ---- stopped and resumed

class Stop(Exception): pass

def stops(model, x, y):
    if next(patience, None) is None: raise Stop
    return loss(model, x, y)

patience = iter(range(0))

def run_in_parts(model, parts, path, epochs=5, between=lambda model: model, **more):
    global patience
    for steps in parts:
        patience = iter(range(steps))
        try: return model, fit_quietly(model, stops, rows(), epochs=epochs, checkpoint=path, **more)
        except Stop: model = between(model)
    patience = iter(range(10**6))
    return model, fit_quietly(model, stops, rows(), epochs=epochs, checkpoint=path, **more)

@pytest.mark.parametrize("between", [lambda m: m, lambda m: make()], ids=["same model", "new process"])
@pytest.mark.parametrize("parts", [[6], [0, 3, 7], [11, 12, 5], [29], [1, 30, 1]])
def test_resume_is_bit_identical(tmp_path, parts, between):
    whole = make()
    undisturbed = fit_quietly(whole, loss, rows(), epochs=5)
    seed_everything(99)
    model, history = run_in_parts(make(), parts, tmp_path / "run.safetensors", between=between)
    assert same(model, whole) and history.losses == undisturbed.losses and history.lr == undisturbed.lr
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"] and not model.training

def test_steps_are_not_repeated(tmp_path):
    global patience
    run_in_parts(make(), [], tmp_path / "run")
    patience = iter(range(0))  # a finished run makes no step
    model = make()
    history = fit_quietly(model, stops, rows(), epochs=5, checkpoint=str(tmp_path / "run"))
    assert len(history) == 30 and not same(model, make())

@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=4), st.integers(0, 3), st.floats(1e-4, .1), st.sampled_from([None, .1, 1.]))
def test_resume_property(tmp_path_factory, parts, seed, lr, clip):
    whole = make()
    undisturbed = fit_quietly(whole, loss, rows(), epochs=3, seed=seed, lr=lr, clip=clip)
    model, history = run_in_parts(make(), parts, tmp_path_factory.mktemp("p") / "run", epochs=3, seed=seed, lr=lr, clip=clip)
    assert same(model, whole) and history.losses == undisturbed.losses

def other_loss(model, x, y): return loss(model, x, y)["loss"] * 2

class Wider(nn.Sequential):
    factor = 2

@pytest.mark.parametrize("change", ["epochs", "lr", "seed", "batch_size", "weight_decay", "clip", "data", "loss", "first weights", "layers", "class"])
def test_foreign_checkpoint_is_set_aside(tmp_path, change):
    global patience
    path = tmp_path / "run.safetensors"
    patience = iter(range(10))
    with pytest.raises(Stop): fit_quietly(make(), stops, rows(), epochs=5, checkpoint=path)
    patience = iter(range(1000))
    model, function, data, numbers = make(), stops, rows(), dict(epochs=5, batch_size=32)
    if change == "data": data = (data[0], data[1] + 1e-6)
    elif change == "loss": function = other_loss
    elif change == "first weights": nn.init.zeros_(model[4].bias)
    elif change == "layers": model[2] = nn.ReLU()
    elif change == "class": model = Wider(*model)
    else: numbers[change] = {"epochs": 6, "lr": 2e-3, "seed": 1, "batch_size": 31, "weight_decay": .02, "clip": 2.}[change]
    clone = type(model)(*make()) if change in ("class",) else make()
    clone.load_state_dict(model.state_dict())
    if change == "layers": clone[2] = nn.ReLU()
    with pytest.warns(UserWarning, match="run.safetensors is not used, because it belongs to another run.*damaged"):
        history = fit(model, function, data, checkpoint=path, progress=False, **numbers)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.safetensors", "run.safetensors.damaged"]
    patience = iter(range(1000))
    assert fit(clone, function, data, progress=False, **numbers).losses == history.losses and same(clone, model)

@pytest.mark.parametrize("damage", ["empty", "half", "bit in the numbers", "bit in the header", "text", "pickle"])
def test_damaged_checkpoint_is_set_aside(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    _, undisturbed = run_in_parts(make(), [20], path)
    raw = bytearray(path.read_bytes())
    if damage == "empty": raw = b""
    if damage == "half": raw = raw[:len(raw) // 2]
    if damage == "bit in the numbers": raw[-9] ^= 1
    if damage == "bit in the header": raw[raw.index(b"BatchNorm") if b"BatchNorm" in raw else raw.index(b"model/0.weight") + 7] ^= 1
    if damage == "text": raw = b"hello"
    path.write_bytes(raw)
    if damage == "pickle": torch.save(make().state_dict(), path)
    with pytest.warns(UserWarning, match="cannot be read"): model, history = run_in_parts(make(), [], path)
    assert history.losses == undisturbed.losses and (tmp_path / "run.safetensors.damaged").exists()

def test_checkpoint_that_cannot_be_written_does_not_stop_training(tmp_path, monkeypatch):
    def full(fd): raise OSError(28, "No space left on device")
    monkeypatch.setattr(training.os, "fsync", full)
    with pytest.warns(UserWarning, match="could not be written.*No space left"): history = fit_quietly(make(), loss, rows(), epochs=2, checkpoint=tmp_path / "run")
    assert len(history) == 12 and not list(tmp_path.iterdir())

def test_checkpoint_that_is_a_folder(tmp_path):
    with pytest.raises(ValueError, match="checkpoint must be a file"): fit_quietly(make(), loss, rows(), checkpoint=tmp_path)

def test_checkpoint_in_a_new_folder_with_frozen_and_half_precision_weights(tmp_path):
    def model():
        m = make()
        m[0].requires_grad_(False)
        m.append(nn.Linear(1, 1).to(torch.bfloat16))
        m[-1].weight.requires_grad_(False)
        return m
    def small(m, x, y): return (next(patience), ((m[:5](x) - y)**2).mean() + m[5].bias.float().pow(2).sum())[1]
    global patience
    patience = iter(range(99))
    whole = model()
    undisturbed = fit_quietly(whole, small, rows(), epochs=3)
    patience, part = iter(range(8)), model()
    with pytest.raises(StopIteration): fit_quietly(part, small, rows(), epochs=3, checkpoint=tmp_path / "a/b/run")
    patience = iter(range(99))
    assert fit_quietly(part, small, rows(), epochs=3, checkpoint=tmp_path / "a/b/run").losses == undisturbed.losses and same(part, whole)


# ---- which code is it?

def program(text, **given):
    "The functions of a little notebook."
    namespace = {"__name__": "__main__", "functools": functools, "torch": torch, "nn": nn, "np": np, "math": math, **given}
    exec(textwrap.dedent(text), namespace)
    return namespace

BASE = """
    import contextlib
    size = 3
    sizes = (1, 2, [3, {"a": {"b"}}])
    table = torch.arange(3.)
    weights = np.arange(3.)
    class Base:
        rate = 2
        def go(self): return 1
    class Model(Base, nn.Module):
        "A model."
        def __init__(self, width=4):
            super().__init__()
            self.width = width
        @property
        def area(self): return 10
        @staticmethod
        def fixed(): return 20
        @classmethod
        def built(cls): return 30
        @functools.cached_property
        def kept(self): return 40
    kernel = Model(5)
    def deep(x): return x + 50
    def helper(x, y=60, *, z=70): return deep(x) * y * z
    @functools.lru_cache
    def cached(x): return x + 80
    @torch.no_grad()
    def wrapped(x): return x + 90
    def closed(k):
        def inside(x): return x + k
        return inside
    inner = closed(100)
    part = functools.partial(helper, 110, z=120)
    short = lambda x: x + 130
    sine = math.sin
    def unrelated(x): return x + 140
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)
    def train(width):
        "Train it."
        def local(x):
            try: return helper(x) + 150
            except ValueError: return 160
        used = Model(), cached, wrapped, inner, part, short, sizes, table, weights, kernel, sine, even, {"p", "q", "r"}
        return [local(x) for x in range(size)], lambda: used
"""

CHANGES = [("size = 3", "size = 4"), ('{"b"}', '{"c"}'), ("torch.arange(3.)", "torch.arange(4.)"), ("np.arange(3.)", "np.arange(3)"), ("rate = 2", "rate = 3"),
           ("return 1\n", "return 2\n"), ("width=4", "width=5"), ("math.sin", "math.cos"), ("Model(5)", "Model(6)"), ("n == 0 or", "n <= 0 or"),
           ("except ValueError", "except KeyError"), ('"p", "q"', '"p", "s"'), ("try: return helper(x) +", "try: return deep(x) +"), ("@functools.lru_cache", "@functools.wraps(deep)"),
           ("@torch.no_grad()", "@torch.enable_grad()"), ("class Model(Base, nn", "class Model(nn"), ("x: x + 130", "x: x - 130"),
           *[(n, n.replace("0", "1")) for n in ("return 10\n", "return 20\n", "return 30\n", "return 40\n", "x + 50\n", "y=60", "z=70", "x + 80\n", "x + 90\n", "closed(100)",
                                               "helper, 110", "z=120", "x + 130", "+ 150\n", "return 160\n")]]

@pytest.mark.parametrize("old, new", CHANGES)
def test_a_change_in_what_train_reaches_changes_the_hash(old, new):
    assert BASE.count(old) == 1 and code_hash(program(BASE.replace(old, new))["train"]) != code_hash(program(BASE)["train"])

@pytest.mark.parametrize("old, new", [("x + 140", "x + 141"), ("size = 3", "size = 3  # three"), ("size = 3", "\n\n    size = (3)"), ('"Train it."', '"Train it well."'), ("return deep(x) * y", "return (deep(x)\n        * y)"),
                                      ("def helper", "# what helps\n    def helper"), ("import contextlib", "import collections")])
def test_a_change_elsewhere_does_not(old, new):
    assert old in BASE and code_hash(program(BASE.replace(old, new, 1))["train"]) == code_hash(program(BASE)["train"])

@pytest.fixture
def library(monkeypatch):
    "A module oplas.invented whose function can be changed."
    import oplas
    module = types.ModuleType("oplas.invented")
    module.__package__ = "oplas"
    def write(text):
        exec(textwrap.dedent(text), vars(module))
        return module
    monkeypatch.setitem(sys.modules, "oplas.invented", module)
    monkeypatch.setattr(oplas, "invented", module, raising=False)
    return write

@pytest.mark.parametrize("text", ["import oplas\ndef train(): return oplas.invented.mmd(1)", "import oplas.invented as d\ndef train(): return d.mmd(1)", "from oplas.invented import mmd\ndef train(): return mmd(1)",
                                  "def train():\n    from oplas.invented import mmd\n    return mmd(1)", "def train():\n    import oplas.invented\n    return oplas.invented.mmd(1)",
                                  "def train():\n    from oplas import invented\n    return [invented.mmd(i) for i in range(3)]", "import oplas.invented\nclass T:\n    def __call__(self): return oplas.invented.mmd(1)\ntrain = T()"])
def test_code_in_the_package_counts_however_it_is_reached(library, text):
    hashes = []
    for body in ("x + base", "x - base", "x + base"):
        library(f"base = 1\ndef mmd(x): return {body}\ndef other(x): return 7 + {len(hashes)}")
        hashes.append(code_hash(program(text)["train"]))
    library("base = 2\ndef mmd(x): return x + base")
    hashes.append(code_hash(program(text)["train"]))
    assert hashes[0] == hashes[2] and len({hashes[0], hashes[1], hashes[3]}) == 3

def test_relative_import_inside_a_function_of_the_package(library):
    module = library("def mmd(x): return 1")
    namespace = program("def train():\n    from .invented import mmd\n    return mmd(1)", __package__="oplas")
    before = code_hash(namespace["train"])
    exec("def mmd(x): return 2", vars(module))
    assert code_hash(namespace["train"]) != before

def test_the_real_package_counts(monkeypatch):
    train = program("from oplas.training import fit\ndef train(): return fit(1, 2, 3)")["train"]
    before = code_hash(train)
    monkeypatch.setattr(training, "_mix", lambda *numbers: 3)
    assert code_hash(train) != before

def test_methods_partials_and_callable_objects():
    ns = program("class A:\n    def __init__(self, k): self.k = k\n    def go(self): return 1\n    def __call__(self): return 2\ndef f(a, b): return a")
    of = lambda o: code_hash(o)
    assert of(ns["A"](1).go) == of(ns["A"](1).go) != of(ns["A"](2).go)
    assert of(ns["A"](1)) == of(ns["A"](1)) != of(ns["A"](2))
    assert of(functools.partial(ns["f"], 1)) == of(functools.partial(ns["f"], 1)) != of(functools.partial(ns["f"], 2))
    assert of(functools.partialmethod(ns["f"], 1)) != of(functools.partialmethod(ns["f"], 2))

def test_a_model_from_outside_counts_with_its_weights_and_settings():
    def of(change=lambda m: None):
        model = make()
        change(model)
        return code_hash(program("def train(): return model(1)", model=model)["train"])
    assert of() == of() and len({of(), of(lambda m: nn.init.zeros_(m[0].bias)), of(lambda m: setattr(m[3], "p", .3)), of(lambda m: m.eval())}) == 4

def test_hash_survives_recursion_cycles_odd_objects_and_names_that_do_not_exist():
    loop = []
    loop.append(loop)
    class Odd:
        __slots__ = ("x",)
        def __getattr__(self, name): raise AttributeError(name)
    for o in (loop, Odd(), threading.Lock(), np.array([1, "a", None], dtype=object), torch.eye(3).to_sparse(), torch.Generator(), (i for i in range(3)), torch.nn.functional.gelu, np.add, sys, Ellipsis, 1e400):
        assert len(code_hash(program("def train(): return thing, nothing", thing=o)["train"])) == 64

def test_hash_is_the_same_in_another_process(tmp_path):
    head = "import sys\nif sys.argv[1] == '2': import matplotlib.pyplot\nimport functools, torch, math, numpy as np\nfrom torch import nn\nfrom oplas.training import code_hash, fit\n"
    script = tmp_path / "script.py"  # neither the order of sets nor what is loaded already may count
    script.write_text(head + textwrap.dedent(BASE) + "\nprint(code_hash(train), code_hash(fit))")
    out = {subprocess.run([sys.executable, script, n], env={**os.environ, "PYTHONHASHSEED": n}, capture_output=True, text=True, check=True).stdout for n in ("1", "2")}
    assert len(out) == 1

def test_a_module_of_your_own_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hashes = set()
    for body in ("1", "2"):
        for text in ("import my_helpers\ndef train(): return my_helpers.f()", "def train():\n    from my_helpers import f\n    return f()"):
            sys.modules.pop("my_helpers", None)
            (tmp_path / "my_helpers.py").write_text(f"def f(): return {body}  # {'x' * int(body)}")
            training.importlib.invalidate_caches()
            hashes.add(code_hash(program(text)["train"]))
    assert len(hashes) == 4
    sys.modules.pop("my_helpers", None)


NOTEBOOK = """
    import joblib, torch
    import torch.nn.functional as F
    from sklearn.linear_model import LogisticRegression
    from torch import nn
    from tqdm.auto import tqdm, trange
    from oplas.training import code_hash, fit

    class Net(nn.Linear):
        def forward(self, x): return F.gelu(super().forward(x))

    def train(width):
        for _ in tqdm(trange(3)): fit(Net(width, width), lambda m, x: m(x).mean(), torch.ones(3, width))
        return LogisticRegression().fit([[0], [1]], [0, 1]).coef_

    hashes = code_hash(train), *joblib.Parallel(n_jobs=2)(joblib.delayed(code_hash)(train) for _ in range(2))
    print("bar:", tqdm.__module__, "hash:", *hashes)
"""

def test_a_notebook_its_tests_and_its_workers_have_one_hash():
    "In a kernel, tqdm.auto is another class than in nbdev_test; joblib's workers get the function pickled."
    import nbformat
    from execnb.shell import CaptureShell
    from nbclient import NotebookClient
    source = textwrap.dedent(NOTEBOOK)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(nb, timeout=120).execute()
    kernel, in_process = ("".join(text for o in outputs if o["output_type"] == "stream" for text in o["text"])
                          for outputs in (nb.cells[0].outputs, CaptureShell().run(source)))
    bars, hashes = zip(*((out.split("bar: ")[1].split()[0], set(out.split("hash: ")[1].split())) for out in (kernel, in_process)))
    assert hashes[0] == hashes[1] and len(hashes[0]) == 1, (bars, hashes)
    assert bars[0] != bars[1], "the test shows nothing: both have the same bar"

@pytest.mark.parametrize("one, other", [("if a:\n  if b: f()\n  g()\n h()", "if a:\n  if b: f()\n g()\n h()"), ("return a and b or c", "return a and (b or c)"), ("while a:\n  if b: break\n  f()", "while a:\n  if b: continue\n  f()"),
                                        ("try: f(); g()\n except E: h()", "try: f()\n except E: h()\n else: g()"), ("try: f(); g()\n except E: return h()", "f()\n try: g()\n except E: return h()")])
def test_where_a_jump_leads_and_what_a_try_covers_counts(one, other):
    of = lambda body: code_hash(program(f"def train(a, b, c):\n {body}")["train"])
    assert of(one) == of(one) != of(other)

OF_A_PAGE = """
    import contextlib, functools, math, torch
    import numpy as np
    from torch import nn
""" + BASE + """
    class Own:
        def __init__(self): self.k = 3
    own = Own()
    def all_at_once(nn, x=None):
        for i in range(3):
            try: x = np.tanh(nn.relu(own.k), *[math.sin(i), np.exp(i)], out=torch.ones(3)) if i else math.cos(len([np.exp(j) for j in range(i)]))
            except ValueError: continue
            while math.isfinite(x):
                with torch.no_grad(): x = math.exp(math.exp(math.exp(math.exp(math.exp(math.exp(math.exp(math.exp(math.exp(math.exp(math.exp(x)))))))))))
        return train(x)
"""

def test_a_cell_at_a_time_and_a_whole_module_are_one_program():
    "Python compiles calls of what the same file imports in another way; here with jumps that are long in one way only, and an object of one's own."
    text = textwrap.dedent(OF_A_PAGE)
    page, module = {"__name__": "__main__"}, {"__name__": "oplas.invented", "__package__": "oplas"}
    for node in ast.parse(text).body: exec(compile(ast.Module([node], []), "cell", "exec"), page)
    exec(text, module)
    raw = [of["all_at_once"].__code__.co_code for of in (page, module)]
    assert (raw[0] == raw[1]) == (sys.version_info < (3, 11)), "the test shows nothing: both are compiled alike"
    assert code_hash(page["all_at_once"]) == code_hash(module["all_at_once"])

def test_the_chapters_pages_and_the_package_have_one_hash():
    "What a page trains must be found by another page that imports it. Only exported cells are run, so nothing is trained."
    import nbformat
    from nbclient import NotebookClient
    nbs, cells = pathlib.Path(__file__).parents[1] / "nbs", []
    for page, name in (("03_sampler", "_trained"), ("05_attributes", "_trained"), ("29_tunes", "_parse")):
        sources = [c.source for c in nbformat.read(nbs / f"{page}.ipynb", 4).cells if c.source.startswith("#| export")]
        ask = f"import oplas.{page[3:]} as module\nfrom oplas.training import code_hash\nprint('hash:', {name}.__module__, code_hash({name}), code_hash(module.{name}))"
        cells += ["%reset -f", *sources, ask]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=120).execute()
    hashes = [text.split()[1:] for c in nb.cells for o in c.outputs if o.output_type == "stream" for text in o.text.splitlines() if text.startswith("hash:")]
    assert len(hashes) == 3 and all(where == "__main__" and page == package for where, page, package in hashes), hashes

@pytest.mark.parametrize("body", ["return sklearn.base.clone(1)", "return Ridge(2)", "from sklearn.linear_model import Ridge as R; return R(2)"])
def test_the_version_of_a_library_counts_and_that_of_a_bar_does_not(monkeypatch, body):
    versions = {"scikit-learn": "1", "tqdm": "1"}
    real = training.importlib.metadata.version
    monkeypatch.setattr(training.importlib.metadata, "version", lambda name: versions.get(name) or real(name))
    def now():
        training._version.cache_clear()
        return code_hash(program(f"import sklearn.base\nfrom sklearn.linear_model import Ridge\nfrom tqdm.auto import tqdm\ndef train():\n    tqdm(3); {body}")["train"])
    try:
        before = now()
        versions["tqdm"] = "2"
        assert now() == before
        versions["scikit-learn"] = "2"
        assert now() != before
    finally: training._version.cache_clear()


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

def test_stale_code_is_trained_again(cache):
    text = "def helper(): return {}\ndef unrelated(): return {}\ndef train(): return {{'x': torch.tensor(helper())}}"
    of = lambda *numbers: load_or_train("toy", {}, program(text.format(*numbers))["train"])["x"].item()
    assert [of(1, 1), of(2, 1), of(1, 1), of(1, 2)] == [1, 2, 1, 1] and len(list(cache.iterdir())) == 2

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
    run_in_parts(make(), [], next(cache.iterdir()).with_name("fit"))  # a checkpoint of fit
    path = next(p for p in cache.iterdir() if p.name != "fit")
    (cache / "fit").replace(path)
    with pytest.warns(UserWarning, match="not used"): assert same(load_or_train("toy", {"width": 3}, train), train())

@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_disk_full(cache, monkeypatch, where):
    def full(*args): raise OSError(28, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(training.os, where, full)
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
    training._write(path, tensors, meta)
    read, found = training._read(path)
    assert found == meta and set(read) == set(tensors) and all(torch.equal(read[k], tensors[k]) and read[k].dtype == tensors[k].dtype and read[k].shape == tensors[k].shape for k in tensors)


# ---- killed processes (they start from a server that has torch loaded, so they start fast)

@pytest.fixture(scope="module")
def start():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["oplas.training", "torch._dynamo"])
    def start(target, *args):
        process = context.Process(target=target, args=args)
        process.start()
        return process
    return start

def slow_train(seed):
    torch.set_num_threads(1)
    model = make()
    fit_quietly(model, loss, rows(), epochs=20, seed=seed)
    return model.state_dict()

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

def in_process_fit(path, sign):
    torch.set_num_threads(1)
    global patience
    patience = iter(range(10**6))
    model = make()
    pathlib.Path(sign).touch()
    fit_quietly(model, stops, rows(), epochs=60, checkpoint=path)

def test_training_killed_again_and_again_ends_with_the_same_weights(tmp_path, start):
    global patience
    path, delays = tmp_path / "run.safetensors", random.Random(1)
    for n in range(6):
        sign = tmp_path / f"sign{n}"
        process = start(in_process_fit, str(path), str(sign))
        until(sign.exists)
        time.sleep(delays.uniform(.02, .4))
        process.kill()
        process.join()
    whole, model = make(), make()
    undisturbed = fit_quietly(whole, loss, rows(), epochs=60)
    assert path.exists()
    patience = iter(range(359))  # at least a step was made by those that were killed
    history = fit_quietly(model, stops, rows(), epochs=60, checkpoint=path)
    assert same(model, whole) and history.losses == undisturbed.losses and not list(tmp_path.glob("*.damaged"))


# ---- several devices

def test_fabric_on_one_device_gives_the_same_numbers(tmp_path):
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, one = make(), make()
        history = fit_quietly(plain, loss, rows(), epochs=3)
        assert fit_quietly(one, loss, rows(), epochs=3, fabric=fabric, checkpoint=tmp_path / "run").losses == history.losses and same(plain, one)
        again = make()
        assert fit_quietly(again, loss, rows(), epochs=3, fabric=fabric, checkpoint=tmp_path / "run").losses == history.losses and same(plain, again)

TWO = """
    import json, pathlib, sys
    import torch
    from torch import nn
    from lightning_fabric import Fabric
    from oplas.training import NonFiniteLoss, fit, seed_everything

    class Auto(nn.Module):
        "Has methods of its own, and no forward."
        def __init__(self):
            super().__init__()
            self.e, self.d = nn.Linear(4, 2), nn.Linear(2, 4)
        def encode(self, x): return self.e(x)
        def decode(self, z): return self.d(z)

    seen = []
    def loss(model, x, i):
        seen.extend(i.tolist())
        return ((model.decode(model.encode(x)) - x)**2).mean()

    def spoilt(model, x, i): return loss(model, x, i) * (float("nan") if fabric.global_rank == 1 and len(seen) > 70 else 1.)

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    torch.set_num_threads(1)
    out = pathlib.Path(sys.argv[1])
    seed_everything(0)
    x, i = torch.randn(100, 4), torch.arange(100)
    model = Auto()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    history = fit(model, loss, (x, i), epochs=2, batch_size=16, checkpoint=out / "run", fabric=fabric, progress=False)
    report = {"losses": history.losses["loss"], "seen": seen.copy(), "weights": model.d.weight.flatten().tolist()}
    again = Auto()
    again.load_state_dict(start)
    report["resumed"] = fit(again, loss, (x, i), epochs=2, batch_size=16, checkpoint=out / "run", fabric=fabric, progress=False).losses["loss"]
    report["resumed weights"] = again.d.weight.flatten().tolist()
    seen.clear()
    try: fit(Auto(), spoilt, (x, i), epochs=9, batch_size=16, fabric=fabric, progress=False)
    except NonFiniteLoss as e: report["nan"] = e.step
    (out / f"report{fabric.global_rank}").write_text(json.dumps(report))
"""

def test_two_processes_share_the_rows(tmp_path):
    pytest.importorskip("lightning_fabric")
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO))
    done = subprocess.run([sys.executable, tmp_path / "two.py", tmp_path], capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (json.loads((tmp_path / f"report{r}").read_text()) for r in (0, 1))
    assert a["losses"] == b["losses"] == a["resumed"] == b["resumed"] and len(a["losses"]) == 6
    assert a["weights"] == b["weights"] == a["resumed weights"] == b["resumed weights"]
    for epoch in (slice(0, 48), slice(48, 96)): assert len(set(a["seen"][epoch])) == len(set(b["seen"][epoch])) == 48 and not set(a["seen"][epoch]) & set(b["seen"][epoch])
    assert a["nan"] == b["nan"] == 4  # one device's NaN stops both


@pytest.mark.parametrize("value,asked", [("1", True), ("0", False), ("", False), (None, False)])
def test_full_sizes_are_asked_for_by_a_variable(monkeypatch, value, asked):
    from oplas.training import full
    monkeypatch.delenv("OPLAS_FULL", raising=False)
    if value is not None: monkeypatch.setenv("OPLAS_FULL", value)
    assert full() is asked
