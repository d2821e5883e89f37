"The book machine: reader, cache key, claims, exercises, figures, controls: what would clutter their pages."
import json, subprocess, sys

import matplotlib.pyplot as plt, nbformat, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from oplas import book, plots, widgets
from conftest import ROOT

MARKS = st.sampled_from(["export", "hide", "eval: false", "slow", "cuda", "echo: false", "solution", "default_exp demo"])


def notebook(*sources): return nbformat.writes(new_notebook(cells=[new_code_cell(s) for s in sources]))


# the reader

@given(st.lists(MARKS, max_size=4), st.sampled_from(["x = 1", "def f(a):\n    return a", "'#| not a directive'", 'x = """\n#| kept\n"""', ""]))
def test_reader_takes_directives_away_and_leaves_the_code(marks, code):
    page = book.read(notebook("\n".join([*(f"#| {m}" for m in marks), code])))
    cell = page.cells[-1]
    assert cell.source == code
    assert {t for m in marks for t in book.tags([m], "")} <= set(cell.metadata["tags"])


def test_reader_keeps_tags_and_prose_and_the_order_of_cells():
    nb = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell("#| export\ndef f(): pass", metadata={"tags": ["mine"]}), new_markdown_cell("end")])
    title, badge, code, end = book.read(nbformat.writes(nb)).cells
    assert (title.source, end.source) == ("# Title", "end")
    assert set(code.metadata["tags"]) == {"mine", "export"} and "in-library" in badge.source


def test_no_badge_for_cells_that_export_nothing_public():
    page = book.read(notebook("#| export\nimport math", "#| export\ndef _private(): pass", "#| hide\n#| export\ndef hidden(): pass"))
    assert len(page.cells) == 3


def test_names_that_differ_only_in_case_get_different_anchors():
    assert book.anchor("oplas.pictures", "Digits") != book.anchor("oplas.pictures", "digits")


def test_key_changes_with_stored_outputs_of_cells_that_do_not_run():
    nb = new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("#| slow\nlong_run()", outputs=[nbformat.v4.new_output("stream", text="1")])])
    one = book.read(nbformat.writes(nb)).cells[0].metadata["oplas"]
    nb.cells[1].outputs[0]["text"] = "2"
    assert book.read(nbformat.writes(nb)).cells[0].metadata["oplas"] != one


def package(folder, **files):
    "Hashes of pages that import modules of a package."
    for name, text in files.items(): (folder / name.replace("__", ".")).write_text(text)
    book._package.cache_clear()
    return {page: book.package_hash(f"from oplas.{page} import x", str(folder)) for page in ("a", "b", "c")}


def changed(before, after): return {k for k in before if before[k] != after[k]}


def test_a_page_is_keyed_by_the_code_that_it_reaches(tmp_path):
    first = package(tmp_path, a__py="x = 1", b__py="from .a import x", c__py="x = 3")
    for words in ("x = 1  # one", "\"Doc.\"\n\nx = (\n    1)"): assert package(tmp_path, a__py=words) == first
    for edit, pages in ((dict(a__py="x = 2"), "ab"), (dict(b__py="from .a import x\ny = 1"), "b"), (dict(c__py="x = 4"), "c"), (dict(look__css="b {}"), "abc")):
        second = package(tmp_path, **edit)
        assert changed(first, second) == set(pages), edit
        first = second
    book._package.cache_clear()


# claims

def declared(measured, **options):
    claim = book.Claims("t")
    claim(None, "what is said", measured, **options)
    return claim.all[0]


@pytest.mark.parametrize("limit, holds, text", [
    (dict(at_least=.95), True, "at least 0.95"), (dict(at_least=.97), False, "at least 0.97"), (dict(at_most=.96), True, "at most 0.96"),
    (dict(at_most=1e-5), False, "at most 1e-5"), (dict(within=(1, .05)), True, "1 ± 0.05"), (dict(within=(1, .03)), False, "1 ± 0.03"),
    (dict(holds=True), True, ""), (dict(holds=False), False, "")])
def test_a_limit_decides_and_is_put_into_words(limit, holds, text):
    c = declared(.96, reason="it is as it is", **limit)
    assert (c.holds, c.tolerance, c.reason) == (holds, text, None if holds else "It is as it is.")
    assert declared(.96, reason="it is", tolerance="mean of 5", **limit).tolerance == "; ".join(filter(None, [text, "mean of 5"]))


def test_a_claim_that_fails_needs_a_reason_and_one_that_holds_may_have_one():
    with pytest.raises(AssertionError, match="does not hold: what is said .*reason="): declared(1, at_least=2)
    assert declared(float("nan"), at_least=0, reason="not a number").holds is False
    assert declared(3, at_least=2, reason="It is less.").reason is None


@pytest.mark.parametrize("measured, expected, says", [(1, True, True), (1, False, False), (3, True, False), (3, False, True)])
def test_a_verdict_that_the_text_was_not_written_for_shows(measured, expected, says):
    c = declared(measured, at_least=2, reason="too small", expected=expected)
    assert (book.OTHER_VERDICT in book._verdict_html(c)) == (book.OTHER_VERDICT in book._cells(c)["What is claimed"]) == says
    assert c.to_dict()["expected"] == expected


@pytest.mark.parametrize("limits, message", [({}, "none of them"), (dict(at_least=1, at_most=2), "at_least, at_most")])
def test_one_limit_decides(limits, message):
    with pytest.raises(ValueError, match=f"takes one of at_least, at_most, within, holds, got {message}"): declared(1, **limits)


def test_a_text_has_no_limit():
    with pytest.raises(ValueError, match="measured must be a number for at_least="): declared("3 of 5", at_least=3)


def test_a_reason_is_kept_only_where_a_claim_fails():
    claim = book.Claims("t")
    claim(None, "two is more than one", measured=2, holds=2 > 1, reason="not needed")
    claim(None, "one is more than two", measured=1, holds=False, reason="it is less", tolerance="exact", expected=False)
    assert [(c.holds, c.reason, c.expected) for c in claim.all] == [(True, None, True), (False, "It is less.", False)]


@pytest.mark.parametrize("wrong", [None, [1], {"a": 1}, np.zeros(2)])
def test_a_claim_needs_a_number_or_a_string(wrong):
    with pytest.raises(ValueError, match="measured must be a number or a string"): book.Claims("t")(None, "s", measured=wrong, holds=True)


@given(st.one_of(st.floats(), st.integers(), st.text()), st.text(), st.booleans())
def test_a_claim_comes_back_from_the_page_and_is_valid_json(measured, statement, holds):
    c = book.Claim("t", None, statement, None, measured, holds, "", 0, None if holds else "why")
    back, = book.claims_of(f"<div>{book._verdict_html(c)}</div>")
    assert repr(back) == repr(c)                       # repr, since NaN is not equal to itself
    json.loads(json.dumps(c.to_dict(), allow_nan=False))


@given(st.text(alphabet="<>&'\"ab ", min_size=1))
def test_what_a_claim_says_cannot_break_the_page(text):
    from bs4 import BeautifulSoup
    c = book.Claim("t", None, text, text, text, False, text, 0, text)
    row = BeautifulSoup(book._table_html([book._cells(c)]), "html.parser").select("tbody td")
    assert len(row) == 6 and row[0].get_text().startswith(text)


# exercises

def test_marks():
    check = book.Exercises("t")
    @check.add
    def ex_1_1(answer): return None if answer == 4 else "Count again."
    assert check.ex_1_1(4) and not check.ex_1_1(3)
    assert check.ex_1_1(3).hint == "Count again."
    assert "three dots" in check.ex_1_1(...).hint and "three dots" in check.ex_1_1().hint
    assert "cannot be marked" in check.ex_1_1(np.zeros(3)).hint
    with pytest.raises(AttributeError, match="it has ex_1_1"): check.ex_9_9
    with pytest.raises(ValueError, match="ex_1_2"): check.add(lambda a: None)


# reference

def test_docments_escape_what_sphinx_would_read_as_markup():
    def f(x,  # of size 2 * n, see name_ and `a*b`
         ): "Doc."
    assert book.docment_lines(f) == [r":param x: of size 2 \* n, see name\_ and ``a*b``"]
    assert book.docment_lines(3) == []


# figures

def test_palette_is_told_apart_by_colour_blind_readers():
    "Smallest difference of two colours (CIE 1976) as seen with each form of colour blindness, simulated by Machado et al. 2009."
    from itertools import combinations
    from matplotlib.colors import to_rgb
    seen = {"common": np.eye(3),
            "protanopia": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
            "deuteranopia": [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
            "tritanopia": [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]]}
    to_xyz = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]])

    def lab(linear):
        t = to_xyz @ linear.clip(0, 1) / (to_xyz @ np.ones(3))
        f = np.where(t > (6 / 29)**3, np.cbrt(t), t / (3 * (6 / 29)**2) + 4 / 29)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    linear = [np.where((c := np.array(to_rgb(h))) <= .04045, c / 12.92, ((c + .055) / 1.055)**2.4) for h in plots.PALETTE]
    for name, matrix in seen.items():
        colours = [lab(np.array(matrix) @ c) for c in linear]
        assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 15, name


def figure():
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    ax.set(title="t", xlabel="x", ylabel="y")
    return fig


def test_show_refuses_what_a_reader_could_not_follow():
    with pytest.raises(ValueError, match="alt is empty"): plots.show(figure(), " ")
    for missing, word in (("title", "title"), ("xlabel", "label"), ("ylabel", "label")):
        fig = figure()
        fig.axes[0].set(**{missing: ""})
        with pytest.raises(ValueError, match=word): plots.show(fig, "a line")
    plt.close("all")


def test_two_equal_ids_on_a_page_mean_two_equal_figures():
    import re
    fig, other = figure(), figure()
    other.axes[0].set_title("another")
    ids = lambda f: set(re.findall(r'\bid="([^"]+)"', plots.svg(f, "a line")))
    assert not ids(fig) & ids(other)

def test_svg_takes_the_page_colour_and_its_references_hold():
    import re
    with plt.rc_context():
        plots.style()
        s = plots.svg(figure(), 'a "line" <b>')
    assert set(re.findall(r'href="#([^"]+)"', s)) <= set(re.findall(r'\bid="([^"]+)"', s))
    assert "&quot;line&quot; &lt;b&gt;" in s and plots.INK not in s and "currentColor" in s
    plt.close("all")


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_picture_keeps_every_pixel(h, w, colour):
    import base64, io, re
    from PIL import Image
    a = np.random.default_rng(h * w).random((h, w, 3) if colour else (h, w))
    data = re.search(r"base64,([^\"]+)", plots.picture(a, "noise"))[1]
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) / 255
    assert back.shape == a.shape and np.abs(back - a).max() <= .5 / 255 + 1e-9


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 2, 4)), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_picture_names_what_is_wrong(wrong):
    with pytest.raises(ValueError, match="image"): plots.picture(wrong, "x")


# controls

def test_plane_shows_its_panels_and_wakes_with_a_kernel():
    calls = []
    def panel(x, y): calls.append((x, y)); return np.full((2, 2), .5)
    across, up, stack, live = widgets.plane(panel, x=(0, 1), y=(0, 2), steps=3).children
    assert sorted(calls) == [(x, y) for x in (0, .5, 1) for y in (0, 1, 2)]
    assert len(stack.children) == 3 and all(len(row.children) == 3 for row in stack.children)
    assert live.layout.display == "none"
    up.value = 2
    assert live.layout.display is None and calls[-1] == (.5, 2)
    live.children[1].value = .125
    assert calls[-1] == (.125, 2)


def test_switch_wants_a_slider_that_fits():
    import ipywidgets as W
    with pytest.raises(ValueError, match="0…1"): widgets.switch([W.HTML(), W.HTML()], W.IntSlider(min=0, max=5))


# the package

def test_import_is_light():
    code = "import sys, oplas, oplas.book, oplas.plots; assert not {'torch', 'matplotlib', 'IPython', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_the_same_everywhere():
    import configparser, oplas, yaml
    ini = configparser.ConfigParser()
    ini.read(ROOT / "settings.ini")
    assert oplas.__version__ == ini["DEFAULT"]["version"] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f"## [{oplas.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_a_wall_of_imports_is_folded_and_code_is_not():
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook
    cells = [new_code_cell(c) for c in ("#| hide\n#| default_exp x", "#| export\nimport os\nfrom os import path", "#| export\nimport os\ndef f(): return os")]
    read = [c for c in book.read(nbformat.writes(new_notebook(cells=cells))).cells if c.cell_type == "code"]
    assert ["hide-input" in c.metadata["tags"] for c in read] == [False, True, False]
    assert read[1].metadata["mystnb"]["code_prompt_show"] == "Show the imports"
