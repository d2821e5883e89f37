"oplas.training: bad input, numbers that go wrong, runs that are stopped and resumed, several devices."
import functools, json, math, multiprocessing, os, pathlib, random, subprocess, sys, textwrap, time, warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from oplas import cache, machine, training
from oplas.machine import seed_everything
from oplas.muon import muon
from oplas.training import History, NonFiniteLoss, adamw, fit, one_cycle


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
    torch.set_num_threads(1)

def by_hand(model, loss, data, epochs, batch_size, lr, clip, seed):
    "What `fit` does, in a row: AdamW on a one-cycle schedule, seeds from the epoch's number."
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
    steps, losses = len(data[0]) // batch_size, []
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * steps)
    for epoch in range(epochs):
        order, noise = (int(np.random.SeedSequence([seed, epoch, k]).generate_state(1, np.uint64)[0]) for k in (0, 1))
        order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(order))
        random.seed(noise)
        np.random.seed(noise % 2**32)
        torch.manual_seed(noise)
        for rows in order[:steps * batch_size].split(batch_size):
            value = loss(model, *(t[rows] for t in data))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            losses.append(value.item())
    return losses

@pytest.mark.parametrize("clip", [1., .05, None])
def test_fit_is_this_loop_bit_for_bit(clip):
    def simple(model, x, y): return loss(model, x, y)["loss"]
    model, other = make(), make()
    losses = by_hand(other, simple, rows(), 4, 32, .01, clip or math.inf, 5)
    assert fit(model, simple, rows(), epochs=4, batch_size=32, lr=.01, clip=clip, seed=5).losses["loss"] == losses and same(model, other.eval())

def test_another_optimiser_and_another_schedule():
    seen = []
    def sgd(weights, lr):
        seen.append((len(list(weights)), lr))
        return torch.optim.SGD(weights, lr=lr, momentum=.9)
    history = fit_quietly(make(), loss, rows(), epochs=4, lr=.05, optimizer=sgd, schedule=CosineAnnealingLR)
    assert seen == [(6, .05)] and history.lr[0] == .05 and history.lr == sorted(history.lr, reverse=True) and 0 < history.lr[-1] < .001

def test_a_loss_may_ask_how_much_is_done_and_watch_looks_on():
    shares, seen, model = [], [], make()
    def asks(model, x, y, done):
        shares.append(done)
        return loss(model, x, y)["loss"]
    history = fit_quietly(model, asks, rows(), epochs=2, watch=lambda step: seen.append((step, model[0].bias[0].item())))
    assert shares == [step / 12 for step in range(12)] and [step for step, _ in seen] == list(range(13)) and len({b for _, b in seen}) >= 12
    plain = make()
    assert fit_quietly(plain, loss, rows(), epochs=2).losses["loss"] == history.losses["loss"] and same(plain, model)

def test_many_small_models_side_by_side():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.linspace(-1, 1, 7).repeat(2, 1).T.contiguous())
    def each(model, y): return ((model.w - y[0])**2).sum()
    def alone(model, y): return ((model.w[3:4] - y[0])**2).sum()
    runs = [fit(Many(), f, torch.tensor([[[3., 4.]]]), epochs=50, lr=.1, clip=None, watch=None, schedule=CosineAnnealingLR) for f in (each, alone)]
    assert len(runs[0]) == 50 and runs[0].losses["loss"][-1] < runs[0].losses["loss"][0]

def test_epochs_of_one_step_cost_little():
    def lean(model, x): return (model.weight * x).sum()
    def seconds(steps, f):
        start = time.process_time()
        f(steps)
        return time.process_time() - start
    def naive(steps):
        model = nn.Linear(2, 2)
        optimizer = adamw(model.parameters(), 1e-3)
        schedule = CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            lean(model, torch.ones(2)).backward()
            optimizer.step()
            schedule.step()
    def ours(steps): fit(nn.Linear(2, 2), lean, torch.ones(1, 2), epochs=steps, clip=None, schedule=CosineAnnealingLR, progress=False)
    for f in (naive, ours): f(100)
    assert min(seconds(500, ours) for _ in range(3)) - min(seconds(500, naive) for _ in range(3)) < .5 * 500 / 1000  # half a millisecond a step, on a busy machine

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
    *[(dict(lr=v), "lr") for v in (0, -1e-3, math.nan, math.inf, "fast", None)], *[(dict(seed=v), "seed") for v in (-1, 1.5, "1", None, True, 2**64)],
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
        fig = history.plot()
        assert all(ax.get_title() and ax.get_ylabel() for ax in fig.axes) and fig.axes[-1].get_xlabel()
        plt.close(fig)
    assert "3 steps" in repr(History({"loss": [1., -2., 3.]}, [.1, .2, .3], 1.)) and repr(History())

def test_bar_can_be_silenced(capfd, monkeypatch):
    monkeypatch.setattr(machine, "tqdm", functools.partial(machine.tqdm, mininterval=0))
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

@pytest.mark.parametrize("optimizer, schedule", [(adamw, CosineAnnealingLR), (muon, one_cycle), (functools.partial(torch.optim.SGD, momentum=.9), one_cycle), (torch.optim.Adagrad, CosineAnnealingLR)])
def test_other_optimisers_and_schedules_resume_bit_for_bit(tmp_path, optimizer, schedule):
    more, whole = dict(optimizer=optimizer, schedule=schedule, lr=.01), make()
    undisturbed = fit_quietly(whole, loss, rows(), epochs=5, **more)
    model, history = run_in_parts(make(), [7, 12], tmp_path / "run", **more)
    assert same(model, whole) and history.losses == undisturbed.losses and history.lr == undisturbed.lr

def test_watch_goes_on_where_the_run_goes_on(tmp_path):
    global patience
    patience, seen = iter(range(8)), []
    with pytest.raises(Stop): fit_quietly(make(), stops, rows(), epochs=2, checkpoint=tmp_path / "run", watch=seen.append)
    patience = iter(range(99))
    fit_quietly(make(), stops, rows(), epochs=2, checkpoint=tmp_path / "run", watch=seen.append)
    assert seen == [*range(9), *range(6, 13)]

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

@pytest.mark.parametrize("change", ["epochs", "lr", "seed", "batch_size", "clip", "optimizer", "schedule", "data", "loss", "first weights", "layers", "class"])
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
    else: numbers[change] = {"epochs": 6, "lr": 2e-3, "seed": 1, "batch_size": 31, "clip": 2., "optimizer": functools.partial(torch.optim.AdamW, weight_decay=.02), "schedule": CosineAnnealingLR}[change]
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
    if damage == "bit in the header": raw[raw.index(b"BatchNorm") if b"BatchNorm" in raw else raw.index(b"model/0") + 7] ^= 1
    if damage == "text": raw = b"hello"
    path.write_bytes(raw)
    if damage == "pickle": torch.save(make().state_dict(), path)
    with pytest.warns(UserWarning, match="cannot be read"): model, history = run_in_parts(make(), [], path)
    assert history.losses == undisturbed.losses and (tmp_path / "run.safetensors.damaged").exists()

def test_checkpoint_that_cannot_be_written_does_not_stop_training(tmp_path, monkeypatch):
    def full(fd): raise OSError(28, "No space left on device")
    monkeypatch.setattr(cache.os, "fsync", full)
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

def until(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        if time.time() > end: raise TimeoutError
        time.sleep(.005)

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
        until(path.exists if n == 0 else sign.exists)  # the first one gets far enough to keep something
        time.sleep(delays.uniform(.02, .4) + (n > 2))  # the last ones know the program's key by then, and train
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
    from oplas.machine import seed_everything
    from oplas.training import NonFiniteLoss, fit

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
