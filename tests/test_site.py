"The rendered book, as files: nothing of the machinery shows, nothing is missing, no link leads nowhere."
import importlib, json, os, pkgutil, re, shutil, signal, socket, subprocess, sys, time, urllib.request
from functools import lru_cache
from urllib.parse import unquote, urlparse

import nbformat, pytest, yaml
from bs4 import BeautifulSoup

import oplas
from oplas import chapters
from conftest import ROOT, SITE

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))       # that these are the registry's: tests/test_chapters.py
CHAPTERS = [ROOT / f"nbs/{p.stem}.ipynb" for p in chapters.CHAPTERS if p.written]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(c["file"] for p in TOC["parts"] for c in p["chapters"])]


def pages_that_call(*names):
    "Pages with a cell that calls one of the functions, by what their notebooks say."
    calls = re.compile(rf"(?m)^(?!\s*def )(.*[^.\w])?({'|'.join(names)})\(")
    return [n.stem for n in NOTEBOOKS if any(c.cell_type == "code" and calls.search(c.source) for c in nbformat.read(n, 4).cells)]


@lru_cache
def soup(page): return BeautifulSoup((SITE / f"{page}.html").read_text(), "html.parser")

def article(page): return soup(page).find("article")


def test_every_notebook_is_in_the_book():
    assert {n.stem for n in NOTEBOOKS} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_of_the_machinery_shows(site, page):
    code = "\n".join(c.get_text() for c in article(page).select("div.cell_input"))
    prose = " ".join(p.get_text() for p in article(page).select("p, li, td, h1, h2, h3"))
    outputs = " ".join(o.get_text() for o in article(page).select("div.cell_output"))
    assert not re.search(r"^\s*#\|", code, flags=re.M), "a directive is left in the code"
    assert "Traceback (most recent call last)" not in outputs
    assert "nbdev_export()" not in code and ("google.colab" not in code or page == "36_chapters"), "36_chapters writes that cell"
    assert not re.search(r"oplas-scoreboard|\{(cite|term|py:\w+|eq|ref)\}`", prose), "a role or a directive is not resolved"


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_has_a_description(site, page):
    for img in article(page).find_all("img"): assert len(img.get("alt", "").strip()) > 5, img
    assert article(page).select("figure svg") or page not in [c.stem for c in CHAPTERS], "a chapter without a figure"
    for svg in article(page).select("figure svg"):
        label = svg.get("aria-label") or (svg.find("title") and svg.find("title").get_text())
        assert svg.get("role") in ("img", "group") and len(label or "") > 20, str(svg)[:200]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_light(site, page):
    assert (SITE / f"{page}.html").stat().st_size < (1_500_000 if page == "03_sampler" else 3_000_000)


@pytest.mark.parametrize("page", PAGES)
def test_controls_carry_their_state(site, page):
    views = soup(page).find_all("script", type="application/vnd.jupyter.widget-view+json")
    states = soup(page).find_all("script", type="application/vnd.jupyter.widget-state+json")
    known = {k for s in states for k in json.loads(s.string)["state"]}
    for v in views: assert json.loads(v.string)["model_id"] in known
    if page in pages_that_call("plane", "grid", "switch"): assert views
    if page in pages_that_call("dial"):             # this needs no state: all is in the page
        assert article(page).select(".oplas-dial [role=slider]") and article(page).select(".oplas-dial button[data-to]")
    if page in pages_that_call("LatentPad", "playground", "compare_planes", "bar_pad"):
        for pad in article(page).select(".oplas-pad"):
            parts = {e["data-part"]: e for e in pad.select(".oplas-beside")}
            assert {*parts} == {"runtime", "model"} and not any(e.string for e in parts.values())
            for e in parts.values(): assert (SITE / e["data-src"]).stat().st_size > 1000
    if page in pages_that_call("animation"): assert article(page).select(".oplas-film svg")


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_book_lead_somewhere(site, page):
    for a in soup(page).find_all("a", href=True):
        link = urlparse(a["href"])
        if link.scheme or link.netloc or a["href"] in ("#", ""): continue
        target = (SITE / unquote(link.path)) if link.path else SITE / f"{page}.html"
        assert target.exists(), f"{page}: {a['href']}"
        if link.fragment and target.suffix == ".html":
            assert soup(target.stem).find(id=unquote(link.fragment)), f"{page}: {a['href']}"


@pytest.mark.parametrize("page", PAGES)
def test_scripts_from_elsewhere_are_pinned(site, page):
    for s in soup(page).find_all("script", src=re.compile("^(https?:)?//")):
        assert re.match(r"https://cdn\.jsdelivr\.net/npm/@?[^@]+@\d+\.\d+\.\d+/", s["src"]), s["src"]


def test_integrity_hashes_are_those_of_the_npm_packages(npm_copies):
    import base64, hashlib
    scripts = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["nb_ipywidgets_js"]
    for address, options in scripts.items():
        kind, digest = options["integrity"].split("-", 1)
        assert base64.b64encode(hashlib.new(kind, npm_copies(address)).digest()).decode() == digest, address


# claims and the scoreboard

def claims(): return json.loads((SITE.parent / "claims.json").read_text())


@pytest.mark.parametrize("chapter", [c.stem for c in CHAPTERS])
def test_a_chapter_shows_its_claims(site, chapter):
    ours = [c for c in claims() if c["chapter"] == chapter]
    rows = article(chapter).select("table.claims tbody tr")
    assert ours and len(rows) == len(ours) == len(article(chapter).select("p.claim"))


def test_claims_file_has_the_promised_fields(site):
    assert claims()
    for c in claims(): assert list(c) == ["chapter", "source", "statement", "published", "measured", "holds", "tolerance", "seed", "expected", "interval", "seeds", "date", "replicated"]


def test_scoreboard_lists_every_claim_with_its_verdict(site):
    rows = article("scoreboard").select("table.claims tbody tr")
    assert len(rows) == len(claims())
    for row, c in zip(rows, claims()):
        cells = {td["data-label"]: td for td in row.find_all("td")}
        assert cells["Source"].get_text().strip()
        assert cells["Chapter"].a["href"] == f"{c['chapter']}.html"
        assert c["statement"] in cells["What is claimed"].get_text()
        assert ("does not hold" in cells["Verdict"].get_text()) != c["holds"]


# The text of a chapter is written for its verdicts, and says so beside each claim (`expected=`). Some hang on an interval, and another
# processor's rounding may turn one: that must not keep a reader from building the book. It must not go unnoticed either.
@pytest.mark.parametrize("chapter", [c.stem for c in CHAPTERS])
def test_verdicts_are_those_the_text_was_written_for(site, chapter):
    turned = [c["statement"] for c in claims() if c["chapter"] == chapter and c["holds"] != c["expected"]]
    assert not turned, f"read the text of {chapter} again"


def test_every_study_is_replicated(site):
    "A build runs one seed of each study again. What differs, or is of another program, or was never computed, is mended or measured anew."
    bad = [d.select_one("summary").get_text() for f in sorted(SITE.glob("*.html")) for d in soup(f.stem).select("details.study") if "yes" not in d["class"]]
    shown = {d["data-study"] for f in SITE.glob("*.html") for d in soup(f.stem).select("details.study")}
    assert shown == {f"{f.parent.name}/{f.stem}" for f in (ROOT / "oplas" / "evidence").glob("*/*.json")}
    assert not bad and {c["replicated"] for c in claims()} <= {None, "yes"}


def test_claims_survive_the_execution_cache(site, tmp_path):
    "Pages with claims, built from the cache alone, with no notebook run, give the same claims and the same scoreboard."
    shutil.copytree(SITE.parent / ".jupyter_cache", tmp_path / "_build/.jupyter_cache")
    pages = [{"file": page} for page in sorted({c["chapter"] for c in claims()}) + ["32_book", "bibliography", "scoreboard"]]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(TOC | {"parts": [{"caption": "Pages with claims", "chapters": pages}]}))
    env = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    log = subprocess.run(["jupyter-book", "build", "nbs", "--config", ROOT / "_config.yml", "--toc", tmp_path / "_toc.yml",
                          "--path-output", tmp_path], cwd=ROOT, env=env, capture_output=True, text=True)
    assert log.returncode == 0, log.stderr[-2000:]
    assert "Executing notebook" not in log.stdout + log.stderr
    assert json.loads((tmp_path / "_build/claims.json").read_text()) == claims()
    again = BeautifulSoup((tmp_path / "_build/html/scoreboard.html").read_text(), "html.parser")
    assert again.find("article").get_text() == article("scoreboard").get_text()


@pytest.fixture
def small_book(tmp_path):
    "A page over a copy of the package: a function that builds it and says what it shows and whether it ran, and the copy's folder."
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
    shutil.copytree(ROOT / "oplas", tmp_path / "lib/oplas", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pages").mkdir()
    cells = [new_markdown_cell("# Page"), new_code_cell("import oplas.plots; print('the answer is', getattr(oplas.plots, 'answer', 1))")]
    (tmp_path / "pages/index.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)))
    (tmp_path / "pages/reference.md").write_text("# Reference\n\n```{eval-rst}\n.. automodule:: oplas.plots\n   :members:\n```\n")
    (tmp_path / "pages/conf.py").write_text(
        "extensions = ['myst_nb', 'oplas.book']\nnb_custom_formats = {'.ipynb': ['oplas.book.read', {}, False]}\nnb_execution_mode = 'cache'\n"
        "suppress_warnings = ['*']\n")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "lib")}

    def build():
        log = subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "pages", "out/html"], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert log.returncode == 0, log.stderr[-2000:]
        return (tmp_path / "out/html/index.html").read_text(), "Executed notebook" in log.stdout + log.stderr
    return build, tmp_path / "lib/oplas", tmp_path / "out/html/reference.html"


def append(path, text):
    with path.open("a") as f: f.write(text)


def test_a_page_runs_again_for_code_that_it_reaches_and_the_reference_is_renewed_for_words(small_book):
    "Else the cache would show a stale page: a notebook that did not change, over a package that did."
    build, lib, reference = small_book
    page, ran = build()
    assert ran and "the answer is 1" in page
    plots = (lib / "plots.py").read_text()
    (lib / "plots.py").write_text(plots.replace('    "', '    "Renewed words. ', 1) + "\n# a comment\n")
    append(lib / "divergences.py", "\nanswer = 2\n")
    page, ran = build()
    assert not ran and "the answer is 1" in page and "Renewed words." in reference.read_text()
    append(lib / "plots.py", "\nanswer = 2\n")
    page, ran = build()
    assert ran and "the answer is 2" in page


# pages that are no chapters

def test_status_gives_the_run_time_of_every_notebook(site):
    rows = [[td.get_text().strip() for td in tr.find_all("td")] for tr in article("status").select("table tbody tr")]
    assert {r[0] for r in rows} == {n.stem for n in NOTEBOOKS}
    assert all(float(r[3]) > 0 and "✅" in r[4] for r in rows), rows


def test_every_source_is_in_the_bibliography(site):
    entries = article("bibliography").select("div.citation")
    assert len(entries) == len(re.findall(r"^@", (ROOT / "references.bib").read_text(), flags=re.M))


def test_index_shows_the_book_and_the_two_commands(site):
    text = article("index").get_text()
    assert "make book" in text and "make test" in text
    assert all(p.title in article("index").find("figure").get_text() for p in chapters.PAGES)


def test_teaching_covers_every_chapter_and_every_exercise(site):
    text = article("teaching").get_text()
    for chapter in chapters.CHAPTERS: assert chapter.title in text
    for n in range(1, 11): assert f"Week {n}." in text
    for notebook in NOTEBOOKS:
        for exercise in set(re.findall(r"def (ex_\d+_\d+)", notebook.read_text())): assert exercise in text, f"{exercise} is not on the teaching page"


def test_glossary_terms_are_linked_from_the_chapters(site):
    terms = article("glossary").select("dl.glossary dt")
    assert len(terms) >= 30
    for c in CHAPTERS: assert article(c.stem).select("a[href^='glossary.html#term-']")


# the reference

@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(oplas.__path__) if not m.name.startswith("_")])
def test_reference_has_every_public_name(site, module):
    for name in importlib.import_module(f"oplas.{module}").__all__:
        entry = soup("reference").find(id=f"oplas.{module}.{name}")
        assert entry, f"oplas.{module}.{name} is not in nbs/reference.md"
        assert "In the book" in entry.parent.get_text(), name


def test_reference_shows_comments_of_parameters(site):
    entry = soup("reference").find(id="oplas.plots.show").parent.get_text()
    assert "for a reader who cannot see it" in entry


# what a host needs

@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_launch_buttons_open_this_notebook_if_the_book_has_an_address(site, notebook):
    links = " ".join(a["href"] for a in soup(notebook.stem).find_all("a", href=True))
    address = chapters.address_of(ROOT).removeprefix("https://github.com/")
    if not address: assert not re.search(r"colab\.research|mybinder|executablebooks/jupyter-book/", links)
    else:
        assert f"colab.research.google.com/github/{address}/blob/main/nbs/{notebook.name}" in links
        assert re.search(rf"mybinder\.org/v2/gh/{address}/main\?urlpath=.*nbs/{notebook.name}", links)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_notebooks_are_committed_without_outputs(notebook):
    for c in nbformat.read(notebook, 4).cells:
        if c.cell_type == "code" and not re.search(r"#\|\s*(slow|cuda|eval:\s*false)", c.source): assert not c.outputs


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml", "CITATION.cff", *(f".github/workflows/{w}" for w in ("ci.yml", "pages.yml"))])
def test_settings_have_no_key_twice(name):
    "YAML keeps the last of two equal keys and says nothing."
    class Strict(yaml.SafeLoader): pass
    def mapping(loader, node):
        keys = [loader.construct_object(k) for k, _ in node.value]
        assert len(keys) == len(set(keys)), f"{name}: {keys}"
        return dict((k, loader.construct_object(v, deep=True)) for k, (_, v) in zip(keys, node.value))
    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load((ROOT / name).read_text(), Strict)


# the frame of a chapter

@pytest.mark.parametrize("chapter", [c.stem for c in CHAPTERS])
def test_a_chapter_keeps_to_the_frame(site, chapter):
    heads = [h.get_text().lower() for h in article(chapter).find_all(["h1", "h2"])]
    for part in ("what the paper says, what we measured", "where it breaks", "beyond", "exercises", "in the library"):
        assert any(part in h for h in heads), f"no section '{part}' among {heads}"
    assert article(chapter).find("blockquote"), "no line that says what the chapter lets you do"
    assert len(article(chapter).select("div.mark, p.mark")) >= 4, "exercises with a mark"
    assert len(article(chapter).select("div.cell.tag_solution")) >= 4, "folded solutions"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_an_exercise_has_a_prompt_and_a_solution_that_is_run(notebook):
    code = [c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    for name in re.findall(r"def (ex_\d+_\d+)", "\n".join(code)):
        assert any(re.search(rf"^check\.{name}\(\.\.\.(?:, \.\.\.)*\)", c, flags=re.M) for c in code), f"{name}: no cell for the reader's answer"
        assert any("#| solution" in c and f"check.{name}(" in c for c in code), f"{name}: no solution"
        assert re.search(rf"assert[^\n]*check\.{name}\(", "\n".join(code)), f"{name}: nothing asserts that the solution is right"


# what stands around the book

def test_make_help_names_the_commands():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("book", "test", "serve", "bench", "clean", "help"): assert re.search(rf"^make {command} ", text, flags=re.M)


def page_at(address, seconds=60):
    "The text of a page, once somebody serves it."
    end = time.time() + seconds
    while True:
        try: return urllib.request.urlopen(address, timeout=5).read().decode()
        except OSError:
            if time.time() > end: raise
            time.sleep(.1)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_make_serve_builds_serves_builds_again_and_ends(site, tmp_path):
    "In a copy, where a build adds a line to the page."
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    port = free_port()
    serve = subprocess.Popen(["make", "serve", f"PORT={port}", "BOOK=mkdir -p _build/html && echo built >> _build/html/index.html"],
                             cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for(builds):
        end = time.time() + 60
        while page_at(f"http://127.0.0.1:{port}/index.html").count("built") < builds:
            assert time.time() < end, f"not built {builds} times"
            time.sleep(.1)
    try:
        wait_for(2)                                  # before it serves, and when it begins to watch
        append(tmp_path / "nbs/index.md", "\nA line.\n")
        wait_for(3)
    finally:
        os.killpg(serve.pid, signal.SIGINT)
        serve.wait(timeout=30)
    with socket.socket() as s:
        time.sleep(1)
        assert s.connect_ex(("127.0.0.1", port)), "the server is still there"


def test_readme_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert text.index("make book") < text.index("make test") < text.index("## ")
