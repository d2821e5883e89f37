"oplas.source and the cache's key: which code a result depends on."
import functools, importlib, itertools, os, pathlib, subprocess, sys, textwrap, time

import numpy as np
import pytest
import torch
from torch import nn

from oplas import source
from oplas.cache import code_key, load_or_train, write
from oplas.source import code_of, parsed, reached


def test_comments_docstrings_and_layout_do_not_count():
    assert code_of('class A:\n    "Doc."\n    def f(self): "Doc."') == code_of("class A:\n    def f(self): 'Other.'  # said")
    assert code_of("def f(): return 'a'") != code_of("def f(): return 'b'")
    with pytest.raises(SyntaxError): parsed("def f(:")


# ---- little programs in files

count = itertools.count()

@pytest.fixture
def program(tmp_path, monkeypatch):
    "A function that writes texts to files of a new folder, imports the first as a module, and returns it."
    def made(text, **others):
        folder = tmp_path / str(next(count))
        folder.mkdir()
        name = f"my_program_{folder.name}"
        for module, content in {name: text, **others}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(content))
            sys.modules.pop(module, None)
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        return importlib.import_module(name)
    yield made
    source._ours.cache_clear()

BASE = """
    import contextlib, functools, math
    import numpy as np
    import torch
    from torch import nn
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
def test_a_change_in_what_train_reaches_changes_the_key(program, old, new):
    assert BASE.count(old) == 1 and reached(program(BASE.replace(old, new)).train) != reached(program(BASE).train)

@pytest.mark.parametrize("old, new", [("x + 140", "x + 141"), ("size = 3", "size = 3  # three"), ("size = 3", "\n\n    size = (3)"), ('"Train it."', '"Train it well."'), ("return deep(x) * y", "return (deep(x)\n        * y)"),
                                      ("def helper", "# what helps\n    def helper"), ("import contextlib", "import collections")])
def test_a_change_elsewhere_does_not(program, old, new):
    assert old in BASE and reached(program(BASE.replace(old, new, 1)).train) == reached(program(BASE).train)

@pytest.mark.parametrize("text", ["import helpers\ndef train(): return helpers.f(1)", "import helpers as h\ndef train(): return h.f(1)", "from helpers import f\ndef train(): return f(1)",
                                  "from helpers import f as g\ndef train(): return g(1)", "def train():\n    from helpers import f\n    return f(1)", "def train():\n    import helpers\n    return [helpers.f(i) for i in range(3)]",
                                  "import helpers\nclass T:\n    def __call__(self): return helpers.f(1)\ndef train(): return T()"])
def test_code_of_another_module_counts_however_it_is_reached(program, text):
    keys = [reached(program(text, helpers=f"base = {base}\ndef f(x): return {body}  # said {k}").train)
            for k, (base, body) in enumerate([(1, "x + base"), (1, "x - base"), (1, "x + base"), (2, "x + base")])]
    assert keys[0] == keys[2] and keys[0] != keys[1] and keys[0] != keys[3]

def test_what_is_not_reached_in_another_module_does_not_count(program):
    text = "from helpers import f\ndef train(): return f(1)"
    one, two = (reached(program(text, helpers=f"def f(x): return x\ndef g(x): return {k}").train) for k in (1, 2))
    assert one == two

def test_relative_imports_of_a_package(tmp_path, monkeypatch):
    keys = []
    for body in (1, 2):
        folder = tmp_path / f"my_package_{body}"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "one.py").write_text("from .two import f\ndef train():\n    from . import three\n    return f(three.g())")
        (folder / "two.py").write_text("def f(x): return x")
        (folder / "three.py").write_text(f"def g(): return {body}")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        keys.append(reached(importlib.import_module(f"{folder.name}.one").train))
    assert keys[0] != keys[1] and len(keys[0]) == 3

def test_names_that_are_bound_inside_are_no_names_of_the_module(program):
    text = "x = {0}\nk = {0}\ndef train(x):\n    return [k for k in x]"
    assert reached(program(text.format(1)).train) == reached(program(text.format(2)).train)

def test_of_several_statements_the_last_counts(program):
    text = "rate = {}\nrate = {}\ndef train(): return rate"
    one, other, last = (reached(program(text.format(*rates)).train) for rates in ((1, 2), (5, 2), (1, 3)))
    assert one == other != last

def test_a_module_whose_parts_call_each_other_or_do_not_exist(program):
    assert len(reached(program("def train(): return later(nothing, print)\ndef later(*x): return train").train)) == 2


# ---- what an object holds

def test_methods_partials_closures_and_callable_objects(program):
    m = program("class A:\n    def __init__(self, k): self.k = k\n    def go(self): return 1\n    def __call__(self): return 2\n"
                "def f(a, b): return a\ndef closed(k):\n    def inside(x): return x + k\n    return inside")
    assert code_key(m.A(1).go) == code_key(m.A(1).go) != code_key(m.A(2).go)
    assert code_key(m.A(1)) == code_key(m.A(1)) != code_key(m.A(2))
    assert code_key(functools.partial(m.f, 1)) == code_key(functools.partial(m.f, 1)) != code_key(functools.partial(m.f, 2))
    assert code_key(m.closed(1)) == code_key(m.closed(1)) != code_key(m.closed(2))

def test_lambdas_count_with_what_they_reach(program):
    text = "rate = {}\nf = lambda x: x * rate\ndef go(): return lambda x: x {} rate"
    assert len({code_key(program(text.format(*given)).go()) for given in ((1, "+"), (2, "+"), (1, "-"))}) == 3
    assert code_key(program(text.format(1, "+")).f) != code_key(program(text.format(2, "+")).f)

def test_a_model_counts_with_its_weights_and_settings():
    def key(change=lambda m: None):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(.2), nn.Linear(16, 1))
        change(model)
        return code_key(model)
    assert key() == key() and len({key(), key(lambda m: nn.init.zeros_(m[0].bias)), key(lambda m: setattr(m[3], "p", .3)), key(lambda m: m.eval())}) == 4

def test_values_arrays_cycles_and_odd_objects():
    loop = []
    loop.append(loop)
    keys = [code_key(o) for o in (loop, 1, 1., "1", None, (1, 2), [1, 3], {"a": 1}, {"a": 2}, torch.ones(2), np.ones(2), np.zeros(2), torch.eye(3).to_sparse(), torch.nn.functional.gelu, np.add)]
    assert len({*keys}) == len(keys)
    assert code_key([torch.ones(2)]) == code_key([torch.ones(2)]) and code_key(loop, skip=(loop,)) != code_key(loop)


# ---- where the code stands

def test_the_key_is_the_same_in_another_process(tmp_path):
    script = tmp_path / "script.py"  # neither the order of sets nor what is loaded already may count
    script.write_text("import sys\nif sys.argv[1] == '2': import matplotlib.pyplot\nfrom oplas.cache import code_key\nfrom oplas.training import fit\n"
                      + textwrap.dedent(BASE) + "\nprint(code_key(train), code_key(fit), code_key(functools.partial(fit, {'p', 'q', 'r'})))")
    out = {subprocess.run([sys.executable, script, n], env={**os.environ, "PYTHONHASHSEED": n}, capture_output=True, text=True, check=True).stdout for n in ("1", "2")}
    assert len(out) == 1

NOTEBOOK = """
    from oplas import autoencoders
    from oplas.cache import code_key
    from oplas.studies import sweep
    factor = 2
    def train(width): return width * factor
    def keys(seed): return code_key(train), code_key(autoencoders._trained)
    here = keys(0)
    there = sweep(keys, {"": {}}, [0, 1])
    factor = 3
    print("key:", *here, {*there.values()} == {here}, code_key(train) != here[0])
"""

def test_a_notebook_its_tests_and_its_workers_have_one_key():
    import nbformat
    from execnb.shell import CaptureShell
    from nbclient import NotebookClient
    cells = textwrap.dedent(NOTEBOOK).strip().splitlines()
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=120).execute()
    shell = CaptureShell()
    outputs = nb.cells[-1].outputs, [shell.run(c) for c in cells][-1]
    kernel, in_process = ("".join(text for o in out if o["output_type"] == "stream" for text in o["text"]).split() for out in outputs)
    assert kernel == in_process and kernel[3:] == ["True", "True"], (kernel, in_process)

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

def test_the_version_of_a_library_counts_and_that_of_a_bar_does_not(program, monkeypatch):
    import sklearn, tqdm
    text = "import sklearn.base\nfrom tqdm.auto import tqdm\ndef train(): return tqdm(sklearn.base.clone(1))"
    def now():
        source._version.cache_clear()
        return reached(program(text).train)
    try:
        before = now()
        monkeypatch.setattr(tqdm, "__version__", "9")
        assert now() == before
        monkeypatch.setattr(sklearn, "__version__", "9")
        assert now() != before
    finally: source._version.cache_clear()

def test_a_file_that_was_edited_after_it_was_loaded_is_an_error(program):
    module = program("def f(x): return x + 1\n")
    file = pathlib.Path(module.__file__)
    file.write_text("def f(x): return x - 1.\n")
    with pytest.raises(ValueError, match=r"my_program_\d+.f is not what stands in its file.*restart Python"): reached(module.f)
    assert reached(importlib.reload(module).f)

def test_what_exec_makes_is_an_error(program):
    namespace = {"__name__": program("x = 1").__name__}
    exec("def f(): return 1", namespace)
    with pytest.raises(ValueError, match="f does not stand in my_program"): reached(namespace["f"])

def test_defaults_and_dataclasses(program):
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
    def key(old="", new=""): return tuple(reached(program(text.replace(old, new) if old else text).train))
    assert key() == key('"Some."', '"None."')
    assert len({key(), key("= 3", "= 5"), key("n: int = 4", "n: int = 5"), key("=list", "=tuple"), key("2 *", "3 *"), key("width", "wide"), key("dataclasses.dataclass\n", "dataclasses.dataclass(frozen=True)\n")}) == 7

def test_it_is_quick():
    from oplas import sampler
    start = time.process_time()
    code_key(sampler._trained)
    assert time.process_time() - start < 2  # .2 s on a quiet machine

def test_the_cache_itself_does_not_count():
    assert not any(part.startswith(("write", "load_or_train")) for part in reached(__import__("oplas.training").training.fit))
