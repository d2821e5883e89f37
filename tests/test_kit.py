"The chapter kit: what it refuses, and what crosses to other processes."
import inspect, os, subprocess, sys

import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from scipy import stats

from oplas import book, kit
from conftest import ROOT


# opening a page

def test_a_chapter_opens_the_same_each_time():
    claim, check = kit.chapter("99_test")
    first = torch.randn(3)
    assert isinstance(claim, book.Claims) and isinstance(check, book.Exercises) and claim.chapter == "99_test"
    kit.chapter("99_test")
    assert torch.equal(torch.randn(3), first)


# settings times seeds

def times(seed, factor): return seed * factor


def test_a_sweep_calls_each_setting_with_each_seed_in_order():
    found = kit.sweep(times, {"one": dict(factor=1), ("a", 2): dict(factor=10)}, seeds=(3, 4))
    assert list(found.items()) == [(("one", 3), 3), (("one", 4), 4), ((("a", 2), 3), 30), ((("a", 2), 4), 40)]


@pytest.mark.parametrize("settings, seeds", [({}, [1]), ({"one": {}}, [])])
def test_a_sweep_over_nothing_is_an_error(settings, seeds):
    with pytest.raises(ValueError, match="nothing to do"): kit.sweep(times, settings, seeds)


def test_an_error_in_a_worker_comes_back():
    with pytest.raises(TypeError, match="factor"): kit.sweep(times, {"one": {}}, [1])


def test_a_sweep_goes_where_joblib_says():
    import joblib, threading
    here = os.getpid()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert set(kit.sweep(process, {"a": {}}, range(3)).values()) == {here}


def process(seed): return os.getpid()


@pytest.mark.parametrize("progress, shown", [(True, True), (False, False), (None, False)])
def test_progress_is_shown_on_request(capfd, progress, shown):
    kit.sweep(times, {"one": dict(factor=1)}, [1], progress=progress)
    assert ("/1 [" in capfd.readouterr().err) == shown


CELLS = ["factor = 2\ndef double(seed):\n    import os\n    from oplas.cache import code_key\n    return code_key(double), os.getpid()",
         "import os\nfrom oplas.kit import sweep\nfound = sweep(double, {'a': {}}, [1, 2])\nassert all(p != os.getpid() for _, p in found.values())",
         "print({key for key, _ in found.values()} == {double(0)[0]})"]


def test_a_function_of_the_page_has_its_key_in_a_worker(monkeypatch):
    "In a real kernel: the key of what is trained hashes the source, in the worker as on the page."
    monkeypatch.setenv("TQDM_DISABLE", "1")
    import nbformat
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook
    nb = new_notebook(cells=[new_code_cell(c) for c in CELLS])
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    assert nb.cells[2].outputs[0]["text"].strip() == "True"


CACHED = ['import os\nfrom functools import lru_cache\n@lru_cache(1)\ndef token(length): return os.urandom(length)\ndef made(seed): return os.getpid(), token(8)',
          'from oplas.kit import sweep\nfound = set(sweep(made, {"a": {}}, range(6)).values())\nprint(len(found) == len({p for p, _ in found}))']


def test_what_a_function_of_the_page_caches_is_made_once_in_each_worker(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CACHED])
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    assert nb.cells[1].outputs[0]["text"].strip() == "True"


def test_in_threads_keeps_the_order_and_wants_equal_lengths():
    assert kit.in_threads(pow, range(6), [2] * 6) == [k ** 2 for k in range(6)]
    with pytest.raises(ValueError, match="shorter|longer"): kit.in_threads(pow, range(6), [2])


# intervals

@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_an_interval_is_that_of_a_t_test(values):
    i = kit.interval(values)
    assert i.n == len(values) and i.low <= i.mean <= i.high
    expected = stats.ttest_1samp(values, 0).confidence_interval(.95) if np.std(values) > 1e-9 else None
    if expected: assert (i.low, i.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_an_interval_without_spread_has_no_width():
    assert kit.interval([2, 2, 2]) == kit.Interval(2., 0., 3) and str(kit.interval([2, 2, 2])) == "2 ± 0"


@pytest.mark.parametrize("values, message", [([], "at least two, got 0"), ([1.], "at least two, got 1"), ([1., float("nan")], "finite")])
def test_an_interval_names_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message): kit.interval(values)


@pytest.mark.parametrize("mean, half, text", [(.99612, .00083, "0.9961 ± 0.0008"), (117.4, 23.2, "117 ± 23"), (1.5, .12, "1.50 ± 0.12"), (-2e-5, 3.4e-6, "-0.0000200 ± 0.0000034")])
def test_an_interval_shows_the_digits_it_can_stand_for(mean, half, text): assert str(kit.Interval(mean, half, 5)) == text


@pytest.mark.parametrize("limit, holds", [(dict(at_least=.9), True), (dict(at_least=.95), False), (dict(at_most=1.1), True), (dict(at_most=1.), False),
                                          (dict(within=(1., .1)), True), (dict(within=(1., .05)), False)])
def test_an_interval_keeps_to_a_limit_if_all_of_it_does(limit, holds):
    claim = book.Claims("t")
    claim("s", "what is said", kit.Interval(1.001, .06, 5), reason="too wide", **limit)
    c, = claim.all
    assert c.holds == holds and c.measured == 1. and c.tolerance.endswith("; 95 % interval ± 0.06") and c.reason == (None if holds else "Too wide.")


# tables

@pytest.fixture
def shown(monkeypatch):
    "Show a table and take its Markdown apart."
    def cells_of(*args, **options):
        said = []
        monkeypatch.setattr("IPython.display.display", lambda data, raw: said.append(data["text/markdown"]))
        kit.table(*args, **options)
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in said[0].splitlines()]
    return cells_of


def test_a_table_of_rows_and_one_of_columns_are_the_same(shown):
    rows = [{"name": "a", "value": .12345, "n": 3}, {"name": "b", "value": 1., "n": 4}]
    table = shown(rows, digits=2)
    assert table == shown({"name": ["a", "b"], "value": [.12345, 1.], "n": [3, 4]}, digits=2)
    assert table[0] == ["name", "value", "n"] and table[2:] == [["a", "0.12", "3"], ["b", "1.00", "4"]]
    assert table[1][0].startswith(":") and table[1][1].endswith("-:")


def test_a_table_keeps_the_digits_of_intervals(shown):
    assert shown([{"x": kit.Interval(.99612, .00083, 5)}], digits=1)[2] == ["0.9961 ± 0.0008"]


@pytest.mark.parametrize("nothing", [[], {}])
def test_a_table_of_nothing_is_an_error(nothing):
    with pytest.raises(ValueError, match="rows must not be empty"): kit.table(nothing)
