"The one place that knows the pages and the address: it agrees with the files, and what is written from it is up to date."
import os, re, shutil, subprocess, sys

import nbformat, pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from oplas import chapters
from oplas.chapters import CHAPTERS, PAGES
from conftest import ROOT

ADDRESS = "https://github.com/someone/songs"
WRITTEN = [p for p in PAGES if p.written]
HERE = [p for p in WRITTEN if (ROOT / f"nbs/{p.stem}.ipynb").exists()]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()


def notebook(page): return nbformat.read(ROOT / f"nbs/{page.stem}.ipynb", 4)

def cells(page, kind): return [c.source for c in notebook(page).cells if c.cell_type == kind]


# the pages

def test_what_is_written_is_there_and_nothing_else():
    assert [p.stem for p in WRITTEN] == sorted(p.stem for p in (ROOT / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("page", HERE, ids=lambda p: p.stem)
def test_a_page_is_what_its_line_says(page):
    title = cells(page, "markdown")[0].splitlines()[0]
    exports = re.findall(r"^#\|\s*default_exp (\S+)", "\n".join(cells(page, "code")), flags=re.M)
    assert title == f"# {page.title}"
    assert ([f"oplas.{exports[0]}"] if page.exports else []) == [page.module][:page.exports] and bool(exports) == page.exports


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_builds_on_pages_and_sources_that_exist(page):
    known = {p.stem for p in PAGES}
    assert all(n in known for n in page.needs + page.helps if re.match(r"\d\d", n))
    assert page.operation and page.sources, f"{page.stem}: its line in nbs/36_chapters.ipynb needs an operation and sources"
    bibliography = (ROOT / "references.bib").read_text()
    prose = "\n".join(cells(page, "markdown")) if page in HERE else ""
    for key in page.sources:
        assert f"{{{key}," in bibliography
        assert page not in HERE or re.search(rf"{{cite(:\w+)?}}`[^`]*\b{key}\b", prose), f"{page.stem} does not cite {key}"


def words(page):
    "What a text calls a page that it says is to come."
    return {page.title.lower(), page.title.lower().split()[-1], *page.stem.split("_")[1:], f"chapter {page.number}"} - {""}


def texts():
    for path in sorted((ROOT / "nbs").glob("*.md")): yield path.name, path.read_text()
    for page in HERE:
        for text in cells(page, "markdown"): yield page.stem, text


def test_what_is_said_to_come_is_to_come():
    for where, text in texts():
        for clause in re.split(r"[.;:|\n](?:\s|\*|$)|\n\n", re.sub(r"(?<![|.])\n(?!\n)", " ", text)):
            said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", clause).lower()
            if not re.search(r"\bto come\b", said) or re.search(r"(sections|chapters?|those|one) to come|marked \*?to come", said): continue
            assert any(w in said for p in PAGES if not p.written for w in words(p)), f"{where}: what is to come? {clause!r}"
            assert not any(re.search(rf"\b{re.escape(w)}\b", said) for p in CHAPTERS if p.written for w in words(p)), f"{where}: is here: {clause!r}"


# the map

def test_the_map_has_every_page_a_link_to_each_that_is_written_and_a_word_for_the_rest():
    soup = BeautifulSoup(chapters.book_map(), "html.parser")
    items = soup.find_all("li")
    assert sorted(next(iter(li.find(["a", "span"]))).string for li in items) == sorted(p.title for p in PAGES)
    assert {a["href"] for a in soup.find_all("a")} == {f"{p.stem}.html" for p in WRITTEN}
    assert all((li.a is None) == ("to come" in li.get_text()) for li in items)
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in soup.find_all("svg"))


# what is written from it

def test_one_line_is_enough_for_a_new_chapter(monkeypatch):
    new = chapters.Page("11_dummy", "Steer", "A dummy", "show that one line is enough", ("08_rotations",), ("30_metrics",), ("hawley2024",))
    monkeypatch.setattr(chapters, "CHAPTERS", (*CHAPTERS, new))
    monkeypatch.setattr(chapters, "PAGES", (*PAGES, new))
    texts = chapters.derived()
    assert "|  | 11 A dummy | show that one line is enough |" in texts["chapters"]
    assert "      - file: 11_dummy\n" in texts["contents"] and ".. automodule:: oplas.dummy\n" in texts["modules"]
    assert "| 11 [A dummy](11_dummy.ipynb) | 8 | [Metrics](30_metrics.ipynb) |" in texts["dependencies"]
    assert "<a href='11_dummy.html'>A dummy</a>" in chapters.book_map()


@pytest.fixture
def copy(tmp_path):
    "The tracked files, elsewhere."
    for f in TRACKED:
        if (ROOT / f).exists():
            (tmp_path / f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / f, tmp_path / f)
    return tmp_path


def contents(root): return {f: (root / f).read_bytes() for f in TRACKED if (root / f).exists()}


def publish(root, address):
    settings = (root / "settings.ini").read_text()
    (root / "settings.ini").write_text(re.sub(r"(?m)^address =.*$", f"address = {address}".rstrip(), settings))
    return chapters.write(root)


def test_all_that_is_written_from_the_pages_is_up_to_date(copy):
    before = contents(copy)
    renewed = [str(p.relative_to(copy)) for p in chapters.write(copy)]
    assert not renewed, f"not up to date: {', '.join(renewed)}; run `make package`"
    assert contents(copy) == before


def test_without_an_address_nothing_leads_to_one(copy):
    publish(copy, "")
    for f, data in contents(copy).items():
        if f.startswith("tests/") or "chapters" in f or not data: continue
        assert not re.search(rb"oplas/oplas|oplas\.github\.io|google\.colab|mybinder|colab\.research|git\+https", data), f


def test_an_address_appears_everywhere_and_goes_without_a_trace(copy):
    publish(copy, "")
    before = contents(copy)
    changed = {str(p.relative_to(copy)) for p in publish(copy, ADDRESS)}
    assert changed == {"README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml", "_config.yml", "nbs/index.md", "nbs/teaching.md",
                       *(f"nbs/{p.stem}.ipynb" for p in HERE)}
    for f in changed - {"nbs/teaching.md"}: assert "someone" in (copy / f).read_text(), f
    assert "rocket" in (copy / "nbs/teaching.md").read_text() and "https://someone.github.io/songs" in (copy / "README.md").read_text()
    for page in HERE:
        code = [c for c in nbformat.read(copy / f"nbs/{page.stem}.ipynb", 4).cells if c.cell_type == "code"]
        install = next(c for c in code if "default_exp" not in c.source)
        assert "google.colab" in install.source and f'"oplas[{page.extras}] @ git+{ADDRESS}"' in install.source
        assert [line for line in install.source.splitlines() if "--no-deps" in line] == [f"        \"pip\", 'install -q --no-deps {name}')" for name in page.alone]
        compile(install.source, page.stem, "exec")
    publish(copy, "")
    assert contents(copy) == before


@pytest.mark.parametrize("address", ["", ADDRESS])
def test_buttons_are_there_with_an_address_alone(copy, address):
    publish(copy, address)
    pages = copy / "pages"
    pages.mkdir()
    (pages / "page.ipynb").write_text(nbformat.writes(new_notebook(cells=[new_markdown_cell("# Page"), new_code_cell("1 + 1")])))
    (copy / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    config = re.sub(r"(?ms)^sphinx:.*", "", (copy / "_config.yml").read_text()).replace("_static/favicon.svg", "")
    (copy / "_config.yml").write_text(config.replace("execute_notebooks: cache", "execute_notebooks: 'off'"))
    command = [os.path.join(os.path.dirname(sys.executable), "jupyter-book"), "build", "pages", "--config", copy / "_config.yml", "--toc",
               copy / "_toc.yml", "--path-output", "."]
    log = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert log.returncode == 0, log.stderr[-2000:]
    soup = BeautifulSoup((copy / "_build/html/page.html").read_text(), "html.parser")
    links = " ".join(a["href"] for a in soup.find_all("a", href=True))
    launch = ("colab.research.google.com/github/someone/songs/blob/main/nbs/page.ipynb", "mybinder.org/v2/gh/someone/songs/main", f"{ADDRESS}/issues")
    assert all((part in links) == bool(address) for part in launch)
    assert address or not re.search(r"https?://(?!jupyterbook)", links), links


@pytest.mark.parametrize("address", ["someone/songs", "https://example.org/a/b", "https://github.com/someone", "https://github.com/a/b/c"])
def test_an_odd_address_is_refused_before_anything_is_written(copy, address):
    before = {f: d for f, d in contents(copy).items() if f != "settings.ini"}
    with pytest.raises(ValueError, match="address must be like"): publish(copy, address)
    assert {f: d for f, d in contents(copy).items() if f != "settings.ini"} == before


def test_a_stretch_that_nobody_writes_is_an_error():
    with pytest.raises(KeyError, match="nothing"): chapters.filled("# BEGIN nothing\n# END nothing\n", {})


def test_import_is_light():
    code = "import sys, oplas.chapters; assert not {'torch', 'matplotlib', 'IPython', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
