"The rendered book, as files: nothing of the machinery shows, nothing is missing, no link leads nowhere."
import importlib, json, os, pkgutil, re, shutil, subprocess, sys
from functools import lru_cache
from urllib.parse import unquote, urlparse

import nbformat, pytest, yaml
from bs4 import BeautifulSoup

import oplas
from conftest import ROOT, SITE

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
CHAPTERS = [n for n in NOTEBOOKS if n.stem < "20"]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(c["file"] for p in TOC["parts"] for c in p["chapters"])]


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
    assert "nbdev_export()" not in code and "google.colab" not in code
    assert not re.search(r"oplas-scoreboard|\{(cite|term|py:\w+|eq|ref)\}`", prose), "a role or a directive is not resolved"


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_has_a_description(site, page):
    for img in article(page).find_all("img"): assert len(img.get("alt", "").strip()) > 5, img
    for svg in article(page).select("figure svg"):
        label = svg.get("aria-label") or (svg.find("title") and svg.find("title").get_text())
        assert svg.get("role") in ("img", "group") and len(label or "") > 20, str(svg)[:200]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_light(site, page):
    assert (SITE / f"{page}.html").stat().st_size < 3_000_000


@pytest.mark.parametrize("page", PAGES)
def test_controls_carry_their_state(site, page):
    views = soup(page).find_all("script", type="application/vnd.jupyter.widget-view+json")
    states = soup(page).find_all("script", type="application/vnd.jupyter.widget-state+json")
    known = {k for s in states for k in json.loads(s.string)["state"]}
    for v in views: assert json.loads(v.string)["model_id"] in known
    if page in ("02_autoencoders", "25_widgets"): assert views


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
    for c in claims(): assert list(c) == ["chapter", "source", "statement", "published", "measured", "holds", "tolerance", "seed"]


def test_scoreboard_lists_every_claim_with_its_verdict(site):
    rows = article("scoreboard").select("table.claims tbody tr")
    assert len(rows) == len(claims())
    for row, c in zip(rows, claims()):
        cells = {td["data-label"]: td for td in row.find_all("td")}
        assert cells["Source"].get_text().strip()
    assert cells["Chapter"].a["href"] == f"{c['chapter']}.html"
        assert c["statement"] in cells["What is claimed"].get_text()
        assert ("does not hold" in cells["Verdict"].get_text()) != c["holds"]


def test_claims_survive_the_execution_cache(site, tmp_path):
    "Pages built from the cache alone, with no notebook run, give the same claims and the same scoreboard."
    shutil.copytree(SITE.parent / ".jupyter_cache", tmp_path / "_build/.jupyter_cache")
    env = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    log = subprocess.run(["jupyter-book", "build", "nbs", "--config", ROOT / "_config.yml", "--toc", ROOT / "_toc.yml",
                          "--path-output", tmp_path], cwd=ROOT, env=env, capture_output=True, text=True)
    assert log.returncode == 0, log.stderr[-2000:]
    assert "Executing notebook" not in log.stdout + log.stderr
    assert json.loads((tmp_path / "_build/claims.json").read_text()) == claims()
    again = BeautifulSoup((tmp_path / "_build/html/scoreboard.html").read_text(), "html.parser")
    assert again.find("article").get_text() == article("scoreboard").get_text()


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
def test_launch_buttons_open_this_notebook_and_it_installs_itself(site, notebook):
    links = " ".join(a["href"] for a in soup(notebook.stem).find_all("a", href=True))
    assert f"colab.research.google.com/github/oplas/oplas/blob/main/nbs/{notebook.name}" in links
    assert re.search(rf"mybinder\.org/v2/gh/oplas/oplas/main\?urlpath=.*nbs/{notebook.name}", links)
    code = [c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    install = next(c for c in code if not c.startswith("#| hide\n#| default_exp"))
    assert "google.colab" in install and "oplas[" in install, "the first cell that runs must install the package on Colab"


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
