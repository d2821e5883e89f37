"oplas.cache: code that changed, files that are damaged, processes that are killed."
import functools, importlib, json, linecache, math, multiprocessing, os, pathlib, random, subprocess, sys, textwrap, threading, time, types, warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from oplas import cache as module, checks
from oplas.cache import code_key, load_or_train, read, write
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


# ---- which code is it?

def program(text, **given):
    "The functions of a little notebook, whose text Python remembers as it does that of a cell."
    text, name = textwrap.dedent(text), f"<cell {len(linecache.cache)}>"
    linecache.cache[name] = len(text), None, text.splitlines(True), name
    namespace = {"__name__": "__main__", "functools": functools, "torch": torch, "nn": nn, "np": np, "math": math, **given}
    exec(compile(text, name, "exec"), namespace)
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
def test_a_change_in_what_train_reaches_changes_the_key(old, new):
    assert BASE.count(old) == 1 and code_key(program(BASE.replace(old, new))["train"]) != code_key(program(BASE)["train"])

@pytest.mark.parametrize("old, new", [("x + 140", "x + 141"), ("size = 3", "size = 3  # three"), ("size = 3", "\n\n    size = (3)"), ('"Train it."', '"Train it well."'), ("return deep(x) * y", "return (deep(x)\n        * y)"),
                                      ("def helper", "# what helps\n    def helper"), ("import contextlib", "import collections")])
def test_a_change_elsewhere_does_not(old, new):
    assert old in BASE and code_key(program(BASE.replace(old, new, 1))["train"]) == code_key(program(BASE)["train"])

@pytest.fixture
def library(monkeypatch):
    "A module oplas.invented whose function can be changed."
    import oplas
    module = types.ModuleType("oplas.invented")
    module.__package__ = "oplas"
    def write(text):
        vars(module).update({k: v for k, v in program(text, __name__="oplas.invented").items() if k not in ("__name__", "__package__")})
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
        hashes.append(code_key(program(text)["train"]))
    library("base = 2\ndef mmd(x): return x + base")
    hashes.append(code_key(program(text)["train"]))
    assert hashes[0] == hashes[2] and len({hashes[0], hashes[1], hashes[3]}) == 3

def test_relative_import_inside_a_function_of_the_package(library):
    library("def mmd(x): return 1")
    namespace = program("def train():\n    from .invented import mmd\n    return mmd(1)", __package__="oplas")
    before = code_key(namespace["train"])
    library("def mmd(x): return 2")
    assert code_key(namespace["train"]) != before

def test_the_real_package_counts(monkeypatch):
    from oplas import training
    train = program("from oplas.training import fit\ndef train(): return fit(1, 2, 3)")["train"]
    before = code_key(train)
    monkeypatch.setattr(training, "_batches", lambda *numbers: 3)
    assert code_key(train) != before
    monkeypatch.undo()
    assert code_key(train) == before
    monkeypatch.setattr(checks, "whole", lambda *a: a[1])  # a helper in another of our modules; `training` has the old one
    assert code_key(train) == before
    monkeypatch.setattr(training, "whole", checks.whole)
    assert code_key(train) != before

def test_methods_partials_and_callable_objects():
    ns = program("class A:\n    def __init__(self, k): self.k = k\n    def go(self): return 1\n    def __call__(self): return 2\ndef f(a, b): return a")
    of = lambda o: code_key(o)
    assert of(ns["A"](1).go) == of(ns["A"](1).go) != of(ns["A"](2).go)
    assert of(ns["A"](1)) == of(ns["A"](1)) != of(ns["A"](2))
    assert of(functools.partial(ns["f"], 1)) == of(functools.partial(ns["f"], 1)) != of(functools.partial(ns["f"], 2))
    assert of(functools.partialmethod(ns["f"], 1)) != of(functools.partialmethod(ns["f"], 2))

def test_a_model_from_outside_counts_with_its_weights_and_settings():
    def of(change=lambda m: None):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(.2), nn.Linear(16, 1))
        change(model)
        return code_key(program("def train(): return model(1)", model=model)["train"])
    assert of() == of() and len({of(), of(lambda m: nn.init.zeros_(m[0].bias)), of(lambda m: setattr(m[3], "p", .3)), of(lambda m: m.eval())}) == 4

def test_the_walk_survives_recursion_cycles_odd_objects_and_names_that_do_not_exist():
    loop = []
    loop.append(loop)
    class Odd:
        __slots__ = ("x",)
        def __getattr__(self, name): raise AttributeError(name)
    for o in (loop, Odd(), threading.Lock(), np.array([1, "a", None], dtype=object), torch.eye(3).to_sparse(), torch.Generator(), (i for i in range(3)), torch.nn.functional.gelu, np.add, sys, Ellipsis, 1e400):
        assert len(code_key(program("def train(): return thing, nothing", thing=o)["train"])) == 64

def test_the_key_is_the_same_in_another_process(tmp_path):
    head = "import sys\nif sys.argv[1] == '2': import matplotlib.pyplot\nimport functools, torch, math, numpy as np\nfrom torch import nn\nfrom oplas.cache import code_key\nfrom oplas.training import fit\n"
    script = tmp_path / "script.py"  # neither the order of sets nor what is loaded already may count
    script.write_text(head + textwrap.dedent(BASE) + "\nprint(code_key(train), code_key(fit))")
    out = {subprocess.run([sys.executable, script, n], env={**os.environ, "PYTHONHASHSEED": n}, capture_output=True, text=True, check=True).stdout for n in ("1", "2")}
    assert len(out) == 1

def test_a_module_of_your_own_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hashes = set()
    for body in ("1", "2"):
        for text in ("import my_helpers\ndef train(): return my_helpers.f()", "def train():\n    from my_helpers import f\n    return f()"):
            sys.modules.pop("my_helpers", None)
            (tmp_path / "my_helpers.py").write_text(f"def f(): return {body}  # {'x' * int(body)}")
            importlib.invalidate_caches()
            module._ours.cache_clear()
            hashes.add(code_key(program(text)["train"]))
    assert len(hashes) == 4
    sys.modules.pop("my_helpers", None)


NOTEBOOK = """
    import joblib, linecache, torch
    import torch.nn.functional as F
    from sklearn.linear_model import LogisticRegression
    from torch import nn
    from tqdm.auto import tqdm, trange
    from oplas import autoencoders
    from oplas.cache import code_key
    from oplas.training import fit

    class Net(nn.Linear):
        def forward(self, x): return F.gelu(super().forward(x))

    def train(width):
        for _ in tqdm(trange(3)): fit(Net(width, width), lambda m, x: m(x).mean(), torch.ones(3, width))
        return LogisticRegression().fit([[0], [1]], [0, 1]).coef_

    work = joblib.Parallel(n_jobs=2)
    ours = code_key(autoencoders._trained)
    print("bar:", tqdm.__module__, "key:", code_key(train), ours, work([joblib.delayed(code_key)(autoencoders._trained)])[0] == ours)
    try: work([joblib.delayed(code_key)(train)])
    except ValueError as error: print("error:", error)

    def there(cells):
        linecache.cache.update(cells)
        return code_key(train)

    print("there:", work([joblib.delayed(there)({k: v for k, v in linecache.cache.items() if len(v) == 4 and v[1] is None})])[0] == code_key(train))
"""

def test_a_notebook_its_tests_and_its_workers_have_one_key():
    "In a kernel, tqdm.auto is another class than in nbdev_test. What is sent to a worker has no source there, and that is said, unless it is sent along."
    import nbformat
    from execnb.shell import CaptureShell
    from nbclient import NotebookClient
    source = textwrap.dedent(NOTEBOOK)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(nb, timeout=120).execute()
    kernel, in_process = ("".join(text for o in outputs if o["output_type"] == "stream" for text in o["text"])
                          for outputs in (nb.cells[0].outputs, CaptureShell().run(source)))
    bars, keys = zip(*((out.split("bar: ")[1].split()[0], out.split("key: ")[1].split()[:3]) for out in (kernel, in_process)))
    assert keys[0] == keys[1] and keys[0][2] == "True", (bars, keys)
    assert bars[0] != bars[1], "the test shows nothing: both have the same bar"
    for out in (kernel, in_process): assert "error: code_key: train is not what stands in" in out and "there: True" in out

def test_a_cell_at_a_time_and_a_whole_module_are_one_program():
    text = textwrap.dedent("import contextlib, functools, math, torch\nimport numpy as np\nfrom torch import nn\n" + textwrap.dedent(BASE))
    page = {"__name__": "__main__"}
    x = k = "names of the page that are arguments in the functions"
    page.update(x=x, k=k, n=7, width=9)
    for node in importlib.import_module("ast").parse(text).body:
        cell = "\n" * 3 + importlib.import_module("ast").get_source_segment(text, node, padded=True)
        if getattr(node, "decorator_list", ()): cell = "".join(text.splitlines(True)[node.decorator_list[0].lineno - 1:node.end_lineno])
        name = f"<cell {len(linecache.cache)}>"
        linecache.cache[name] = len(cell), None, cell.splitlines(True), name
        exec(compile(cell, name, "exec"), page)
    assert code_key(page["train"]) == code_key(program(text, __name__="oplas.invented", __package__="oplas")["train"])

PAGES = [("02_autoencoders", "_trained"), ("03_sampler", "_trained"), ("05_attributes", "_trained"), ("29_tunes", "_parse")]

def test_the_chapters_pages_and_the_package_have_one_key():
    "What a page trains must be found by another page that imports it. Only exported cells are run, so nothing is trained."
    import nbformat
    from nbclient import NotebookClient
    nbs, cells = pathlib.Path(__file__).parents[1] / "nbs", []
    for page, name in PAGES:
        sources = [c.source for c in nbformat.read(nbs / f"{page}.ipynb", 4).cells if c.source.startswith("#| export")]
        ask = f"import oplas.{page[3:]} as module\nfrom oplas.cache import code_key\nprint('key:', {name}.__module__, code_key({name}), code_key(module.{name}))"
        cells += ["%reset -f", *sources, ask]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=120).execute()
    hashes = [text.split()[1:] for c in nb.cells for o in c.outputs if o.output_type == "stream" for text in o.text.splitlines() if text.startswith("key:")]
    assert len(hashes) == len(PAGES) and all(where == "__main__" and page == package for where, page, package in hashes), hashes

@pytest.mark.parametrize("body", ["return sklearn.base.clone(1)", "return Ridge(2)", "from sklearn.linear_model import Ridge as R; return R(2)"])
def test_the_version_of_a_library_counts_and_that_of_a_bar_does_not(monkeypatch, body):
    import sklearn, tqdm
    def now():
        module._version.cache_clear()
        return code_key(program(f"import sklearn.base\nfrom sklearn.linear_model import Ridge\nfrom tqdm.auto import tqdm\ndef train():\n    tqdm(3); {body}")["train"])
    try:
        before = now()
        monkeypatch.setattr(module.importlib.metadata, "version", lambda top: {"tqdm": "9"}[top] if top == "tqdm" else real(top))
        assert now() == before
        monkeypatch.setattr(sklearn, "__version__", "9")
        assert now() != before
    finally: module._version.cache_clear()

real = importlib.metadata.version

def test_a_file_that_was_edited_after_it_was_loaded_is_an_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "my_edited.py"
    file.write_text("def f(x): return x + 1\n")
    import my_edited
    module._ours.cache_clear()
    before = code_key(my_edited.f)
    file.write_text("def f(x): return x - 1.\n")
    with pytest.raises(ValueError, match="code_key: f is not what stands in .*my_edited.py, line 1. If the file was edited"): code_key(my_edited.f)
    importlib.reload(my_edited)
    assert code_key(my_edited.f) != before
    file.write_text("'A docstring.'\n\n# and a comment\ndef f(x):\n    'Less.'\n    return x - 1.  # less\n")
    after = code_key(importlib.reload(my_edited).f)
    file.write_text("def f(x): return x - 1.\n")
    assert code_key(importlib.reload(my_edited).f) == after
    sys.modules.pop("my_edited")

def test_what_exec_makes_is_an_error():
    namespace = {"__name__": "__main__"}
    exec("def f(): return 1", namespace)
    with pytest.raises(ValueError, match="if exec made the function"): code_key(namespace["f"])

def test_annotations_and_defaults_and_dataclasses():
    text = """
        import dataclasses
        @dataclasses.dataclass
        class Settings:
            "Some."
            width: int = 3
            names: list = dataclasses.field(default_factory=list)
            def double(self) -> int: return 2 * self.width
        def train(n: int = 4) -> "Settings": return Settings().double() + n
    """
    of = lambda old="", new="": code_key(program(text.replace(old, new))["train"])
    assert of() == of("n: int", "n: float") == of('-> "Settings"', "-> int") == of('"Some."', '"None."')
    assert len({of(), of("= 3", "= 5"), of("n: int = 4", "n: int = 5"), of("=list", "=tuple"), of("2 *", "3 *"), of("width", "wide"), of("dataclasses.dataclass\n", "dataclasses.dataclass(frozen=True)\n")}) == 7

def test_it_is_quick():
    from oplas import sampler
    module._definitions.cache_clear()
    start = time.process_time()
    code_key(sampler._trained)
    assert time.process_time() - start < .5  # .2 s on a quiet machine

def test_the_cache_itself_does_not_count():
    assert code_key(load_or_train) == code_key(write) != code_key(checks.whole)


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
