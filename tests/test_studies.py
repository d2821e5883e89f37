"Studies: grids on all cores, intervals, rows that are kept, what a build says of them, and what happens to bad files, bad functions and two at once."
import json, math, os, subprocess, sys, textwrap

import numpy as np, pytest
from hypothesis import given, strategies as st
from scipy import stats

from oplas import book, studies
from conftest import ROOT


# settings times seeds

def times(seed, factor): return seed * factor


def test_a_sweep_calls_each_setting_with_each_seed_in_order():
    found = studies.sweep(times, {"one": dict(factor=1), ("a", 2): dict(factor=10)}, seeds=(3, 4))
    assert list(found.items()) == [(("one", 3), 3), (("one", 4), 4), ((("a", 2), 3), 30), ((("a", 2), 4), 40)]


@pytest.mark.parametrize("settings, seeds", [({}, [1]), ({"one": {}}, [])])
def test_a_sweep_over_nothing_is_an_error(settings, seeds):
    with pytest.raises(ValueError, match="nothing to do"): studies.sweep(times, settings, seeds)


def test_an_error_in_a_worker_comes_back():
    with pytest.raises(TypeError, match="factor"): studies.sweep(times, {"one": {}}, [1, 2])


def test_a_single_call_is_made_here():
    assert studies.sweep(process, {"a": {}}, [1]) == {("a", 1): os.getpid()}


def test_a_sweep_goes_where_joblib_says():
    import joblib, threading
    here = os.getpid()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert set(studies.sweep(process, {"a": {}}, range(3)).values()) == {here}


def process(seed): return os.getpid()


@pytest.mark.parametrize("progress, shown", [(True, True), (False, False), (None, False)])
def test_progress_is_shown_on_request(capfd, progress, shown):
    studies.sweep(times, {"one": dict(factor=1)}, [1], progress=progress)
    assert ("/1 [" in capfd.readouterr().err) == shown


CELLS = ["factor = 2\ndef double(seed):\n    import os\n    from oplas.cache import code_key\n    return code_key(double), os.getpid()",
         "import os\nfrom oplas.studies import sweep\nfound = sweep(double, {'a': {}}, [1, 2])\nassert all(p != os.getpid() for _, p in found.values())",
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
          'from oplas.studies import sweep\nfound = set(sweep(made, {"a": {}}, range(6)).values())\nprint(len(found) == len({p for p, _ in found}))']


def test_what_a_function_of_the_page_caches_is_made_once_in_each_worker(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CACHED])
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    assert nb.cells[1].outputs[0]["text"].strip() == "True"


# intervals

@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_an_interval_is_that_of_a_t_test(values):
    i = studies.interval(values)
    assert i.n == len(values) and i.low <= i.mean <= i.high
    expected = stats.ttest_1samp(values, 0).confidence_interval(.95) if np.std(values) > 1e-9 else None
    if expected: assert (i.low, i.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_one_value_has_no_interval():
    one = studies.interval([.25])
    assert (one.mean, one.half, one.n, str(one)) == (.25, math.inf, 1, "0.25") and one.low == -math.inf


def test_an_interval_without_spread_has_no_width():
    assert studies.interval([2, 2, 2]) == studies.Interval(2., 0., 3) and str(studies.interval([2, 2, 2])) == "2 ± 0"


@pytest.mark.parametrize("values, message", [([], "at least one, got none"), ([1., float("nan")], "finite"), ([float("inf")], "finite")])
def test_an_interval_names_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message): studies.interval(values)


@pytest.mark.parametrize("mean, half, text", [(.99612, .00083, "0.9961 ± 0.0008"), (117.4, 23.2, "117 ± 23"), (1.5, .12, "1.50 ± 0.12"), (-2e-5, 3.4e-6, "-0.0000200 ± 0.0000034")])
def test_an_interval_shows_the_digits_it_can_stand_for(mean, half, text): assert str(studies.Interval(mean, half, 5)) == text


@pytest.mark.parametrize("limit, holds", [(dict(at_least=.9), True), (dict(at_least=.95), False), (dict(at_most=1.1), True), (dict(at_most=1.), False),
                                          (dict(within=(1., .1)), True), (dict(within=(1., .05)), False)])
def test_an_interval_keeps_to_a_limit_if_all_of_it_does(limit, holds):
    claim = book.Claims("t")
    claim("s", "what is said", studies.Interval(1.001, .06, 5), reason="too wide", **limit)
    c, = claim.all
    assert c.holds == holds and c.measured == 1. and c.tolerance.endswith("; 95 % interval ± 0.06") and c.reason == (None if holds else "Too wide.")


# studies

def steps(seed, slope=1.): return {"x": slope * seed + np.random.rand() / 10, "seconds": os.getpid() / 1e6}


@pytest.fixture
def page(tmp_path, monkeypatch, capsys):
    "A page that declares a study, in this process; `asked` is what `make evidence` or OPLAS_FULL asks for."
    import joblib
    def declare(run=steps, seeds=range(3, 8), asked="", only="", **options):
        monkeypatch.setenv("OPLAS_FULL", "1" if asked == "full" else "")
        monkeypatch.setenv("OPLAS_EVIDENCE", "store" if asked == "store" else "")
        monkeypatch.setenv("OPLAS_STUDY", only)
        with joblib.parallel_config(backend="sequential"): study = studies.Studies("99_test", tmp_path)("lines", run, seeds, **options)
        study.__dict__["said"] = capsys.readouterr().out
        return study
    declare.file = tmp_path / "99_test" / "lines.json"
    return declare


TWO = {"flat": dict(slope=0.), "steep": dict(slope=2.)}


def test_rows_are_stored_once_and_one_seed_is_run_again(page):
    page(settings=TWO, asked="store")
    before = page.file.read_bytes()
    study = page(settings=TWO)
    assert study.replicated == "yes" and study.seeds == [3, 4, 5, 6, 7] and study.text == "3–7" and [*study.again] == [("flat", 3), ("steep", 3)]
    assert (study["steep", "x"] - study["flat", "x"]) == pytest.approx(2 * np.arange(3, 8))  # paired: the same draws for the same seed
    assert "5 seeds (3–7)" in study.said and "ran seed 3 again: of 2 numbers, all are the same" in study.said
    page(settings=TWO, asked="store")
    assert page.file.read_bytes() == before  # nothing was missing


def test_all_seeds_run_again_on_request(page):
    page(asked="store")
    study = page(asked="full")
    assert [seed for _, seed in study.again] == [3, 4, 5, 6, 7] and study.replicated == "yes"
    untouched = page(asked="full", only="another")
    assert not untouched.again and untouched.replicated == "stored" and "None was run again" in untouched.said


def test_more_seeds_are_added_to_those_that_are_there(page):
    page(seeds=[3, 4], asked="store")
    first = page.file.read_text().splitlines()[1].rstrip(",")
    page(seeds=[3, 4, 9], asked="store")
    study = page(seeds=[3, 4, 9])
    assert study.text == "3–4, 9" and first in page.file.read_text() and page(seeds=[4]).text == "4"


def test_without_rows_the_page_has_the_seed_of_this_build(page):
    study = page()
    assert study.replicated == "missing" and study.seeds == [3] and str(studies.interval(study["x"])) and "make evidence" in study.said and not page.file.exists()


def edited(file, change):
    content = json.loads(file.read_text())
    change(content["rows"])
    file.write_text(json.dumps(content))


def resigned(rows, **values):
    "Change all rows, hash included, as if they had been measured so."
    for row in rows:
        row.update(values)
        row["hash"] = studies._hash("99_test/lines", row)


def test_code_that_changed_makes_rows_stale_and_evidence_makes_them_anew(page):
    page(asked="store")
    edited(page.file, lambda rows: resigned(rows, key="another program"))
    study = page()
    assert study.replicated == "stale" and len(study.seeds) == 5 and "The code has changed" in study.said
    page(asked="store")
    assert page().replicated == "yes" and "Not used" not in page().said


def other(seed, slope=1.): return {"x": 40. * seed, "seconds": 0.}


@pytest.mark.parametrize("move, elsewhere, replicated", [(0., False, "yes"), (1e-9, False, "no"), (1e-9, True, "yes"), (3.9, True, "yes"), (9., True, "no")])
def test_a_number_comes_out_again_to_the_digit_at_home_and_within_the_spread_elsewhere(page, move, elsewhere, replicated):
    page(asked="store")
    def change(rows):
        for row in rows: row["numbers"]["x"] += move
        resigned(rows, **({"versions": {"machine": "another"}} if elsewhere else {}))
    edited(page.file, change)
    study = page()
    assert study.replicated == replicated and bool(study.differences) == (replicated == "no") and ("another machine" in study.said) == (elsewhere and replicated == "yes")
    if replicated == "no": assert "differ" in study.said and "seed 3, x: " in study.differences[0]


@pytest.mark.parametrize("damage, says", [
    (lambda f: f.write_text(f.read_text()[:-40]), "lines.json cannot be read"), (lambda f: f.write_text("[]"), "cannot be read"), (lambda f: f.write_bytes(b"\xff"), "cannot be read"),
    (lambda f: edited(f, lambda rows: rows[1]["numbers"].update(x=1.)), "lines.json, row 2, does not match its hash"),
    (lambda f: edited(f, lambda rows: rows.append(3)), "row 6, does not match"),
    (lambda f: edited(f, lambda rows: [row.update(hash=studies._hash("99_test/others", row)) for row in rows]), "row 1, does not match"),
    (lambda f: edited(f, lambda rows: rows.pop()), "1 of 5 rows are missing")])
def test_what_is_wrong_with_a_file_is_named_its_rows_are_not_used_and_the_page_goes_on(page, damage, says):
    page(asked="store")
    damage(page.file)
    study = page()
    assert study.replicated == ("yes" if "row 6" in says else "missing") and says in study.said and study.seeds
    page(asked="store")
    assert page().replicated == "yes" and "Not used" not in page().said


def breaks(seed):
    if seed == 5: raise ZeroDivisionError("at five")
    return {"x": seed}


def test_a_seed_that_fails_is_shown_and_the_others_are_kept(page):
    page(breaks, asked="store")
    study = page(breaks)
    assert study.seeds == [3, 4, 6, 7] and study.replicated == "missing" and "failed: ZeroDivisionError: at five" in study.said
    alone = page(breaks, seeds=[5])
    assert not alone.seeds and "ZeroDivisionError" in alone.said
    with pytest.raises(ValueError, match="no rows.*at five"): alone["x"]


@pytest.mark.parametrize("value, message", [(None, "dict of numbers, got NoneType"), ({}, "dict of numbers"), ({"x": float("nan")}, "'x': nan"), ({"x": "1"}, "'x': '1'"), ({1: 1.}, "1: 1.0")])
def test_a_function_must_return_finite_numbers_by_name(page, value, message):
    study = page(lambda seed: value, seeds=[1])
    assert message in study.differences[0] and "failed: ValueError" in study.differences[0]


@pytest.mark.parametrize("options, message", [(dict(seeds=[]), "must be some"), (dict(seeds=[1, 1]), "each once"), (dict(seeds=[1.5]), "seeds must be"), (dict(settings={}), "must be some")])
def test_seeds_and_settings_must_be_some(page, options, message):
    with pytest.raises(ValueError, match=message): page(**options)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b"])
def test_a_study_has_a_plain_name(tmp_path, name):
    with pytest.raises(ValueError, match="name must be letters"): studies.Studies("99_test", tmp_path)(name, steps, [1])


def test_an_unknown_number_is_named(page):
    page(settings=TWO, asked="store")
    study = page(settings=TWO)
    with pytest.raises(KeyError, match="flat.*steep.*'x'"): study["flat", "y"]
    with pytest.raises(KeyError, match="flat"): study["x"]


def test_a_claim_takes_seeds_date_and_verdict_of_its_study(page):
    page(asked="store")
    study, claim = page(), book.Claims("99_test")
    claim(None, "x grows", studies.interval(study["x"]), at_least=0, study=study)
    c, = claim.all
    assert (c.seed, c.seeds, c.date, c.replicated) == ("3–7", 5, study.date, "yes") and c.interval[0] < c.measured < c.interval[1]
    assert book.claims_of(book._verdict_html(c)) == [c] and "5 seeds" in book._cells(c)["Evidence"] and "replicated: yes" in book._cells(c)["Evidence"]


def test_a_claim_without_its_evidence_does_not_stop_the_page(page):
    study, claim = page(), book.Claims("99_test")
    claim(None, "x is large", studies.interval(study["x"]), at_least=100, study=[study])
    c, = claim.all
    assert not c.holds and c.replicated == "missing" and "make evidence" in c.reason and c.interval is None and "one seed" in c.tolerance


SCRIPT = """
import sys, time, pathlib
from oplas.studies import Studies
def slow(seed):
    time.sleep(.3)
    return {"x": seed, "process": 1}
if __name__ == "__main__": Studies("99_test", sys.argv[1])("lines", slow, range(int(sys.argv[2])))
"""


@pytest.fixture
def store(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OPLAS_EVIDENCE": "store", "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    return lambda seeds: subprocess.Popen([sys.executable, script, tmp_path, str(seeds)], env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def kept(tmp_path): return studies._read(tmp_path / "99_test" / "lines.json", "99_test/lines")


def test_two_at_once_do_no_harm(store, tmp_path):
    first, second = store(6), store(6)
    assert first.wait(120) == second.wait(120) == 0
    rows, problems = kept(tmp_path)
    assert len(rows) == 6 and not problems and [f.name for f in (tmp_path / "99_test").iterdir()] == ["lines.json"]


def test_what_is_killed_goes_on_where_it_was(store, tmp_path):
    import signal, time
    process = store(40)
    while len(kept(tmp_path)[0]) < 2 and process.poll() is None: time.sleep(.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before, problems = kept(tmp_path)
    assert 2 <= len(before) < 40 and not problems
    assert store(len(before) + 3).wait(120) == 0
    rows, problems = kept(tmp_path)
    assert len(rows) >= len(before) + 3 and not problems and all(rows[job] == before[job] for job in before)


PAGE = [["#| hide\nfrom oplas.studies import Studies\nstudy = Studies('99_test', FOLDER)"], ["#| slow\n1 / 0"], ["def half(seed): return {'x': seed / 2}"],
        ["print('on the page')\nhalves = study('halves', half, range(4))"], ["assert False, 'what comes after the last study does not run'"]]


def test_the_evidence_of_pages_is_computed_by_their_cells(tmp_path, monkeypatch, capfd):
    "Each page in a process of its own, as in `make evidence`: cells up to the last study; the exit code counts the pages that fail."
    import nbformat
    (tmp_path / "nbs").mkdir()
    sources = [s[0].replace("FOLDER", repr(str(tmp_path))) for s in PAGE]
    broken = [*sources[:2], sources[2] + "\nraise RuntimeError('broken')", *sources[3:]]
    for name, texts in {"98_broken": broken, "99_test": sources}.items():
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in texts]), tmp_path / f"nbs/{name}.ipynb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPLAS_EVIDENCE", "store")
    assert studies.main(["98_broken", "99_test"]) == 1
    out, err = capfd.readouterr()
    assert "a cell of 98_broken.ipynb fails" in err and "broken" in err
    assert "on the page" not in out and "4 seeds (0–3)" in out
    monkeypatch.setenv("OPLAS_EVIDENCE", "")
    monkeypatch.setenv("OPLAS_FULL", "1")
    assert studies.main(["99_test"]) == 0
    assert "ran seed 0, 1, 2, 3 again: of 4 numbers, all are the same" in capfd.readouterr().out


def test_the_evidence_of_the_package_is_whole():
    "Every row in the repository matches its hash, and lies where its study's name says."
    files = sorted((ROOT / "oplas" / "evidence").glob("*/*.json"))
    wrong = [p for f in files for p in studies._read(f, f"{f.parent.name}/{f.stem}")[1]]
    assert files and not wrong
