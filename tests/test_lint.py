"""The house rules that a machine can hold: short functions and cells, one statement a line, imports that point down.
They are read off the notebooks, which are the source; page cells count as well as exported ones."""
import ast, functools, graphlib, io, json, re, subprocess, sys, tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "nbs").glob("*.ipynb"))}
LINES_OF_A_FUNCTION, LINES_OF_A_CELL, COLUMNS = 25, 60, 120
CHAPTERS = [page for page in NOTEBOOKS if page[:2].isdigit() and int(page[:2]) < 20]
each_page = pytest.mark.parametrize("page", NOTEBOOKS)


class Cell(NamedTuple):
    "A code cell: its id, its text without magics, the tree, and the module that it is exported to, if any."
    id: str
    text: str
    tree: ast.Module
    module: str | None


@functools.cache
def cells(page):
    "The code cells of a notebook."
    found, default = [], None
    for cell in json.loads(NOTEBOOKS[page].read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code": continue
        text = re.sub(r"(?m)^\s*[%!].*$", "", "".join(cell["source"]))
        if named := re.search(r"(?m)^#\|\s*default_exp\s+(\S+)", text): default = named[1]
        export = re.search(r"(?m)^#\|\s*exports?\b[ \t]*(\S*)", text)
        found.append(Cell(cell["id"], text, ast.parse(text), (export[1] or default) if export else None))
    return found


@functools.cache
def number_of():
    "Module -> the number of the notebook that it is exported from."
    return {cell.module: int(page[:2]) for page in NOTEBOOKS if page[:2].isdigit() for cell in cells(page) if cell.module}


def fails(page, faults, rule):
    "Fail with every place where a rule is broken."
    assert not faults, f"nbs/{page}.ipynb: {rule}\n  " + "\n  ".join(dict.fromkeys(faults))


def told(cell, node):
    "Where a fault stands and what it says."
    return f"cell {cell.id}, line {node.lineno}: {cell.text.splitlines()[node.lineno - 1].strip()[:90]}"


def imports(tree):
    "The oplas modules that code imports, inside functions too: (module, name or None, node)."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("oplas."): yield alias.name.split(".")[1], None, node
        if not isinstance(node, ast.ImportFrom): continue
        source = (node.module or "").split(".")
        if node.level: source = ["oplas", *filter(None, source)]
        if source[0] != "oplas": continue
        for alias in node.names:
            if len(source) > 1: yield source[1], alias.name, node
            elif (ROOT / "oplas" / f"{alias.name}.py").exists(): yield alias.name, None, node


def private(name): return name is not None and name.startswith("_") and not name.endswith("__")


def foreign_private(tree):
    "Nodes that take a private name of an oplas module, by import or as an attribute of the module."
    modules = {}
    for module, name, node in imports(tree):
        if private(name): yield node
        if name is None: modules |= {alias.asname or alias.name.split(".")[-1]: module for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not private(node.attr): continue
        owner = ast.unparse(node.value)
        if owner in modules or re.fullmatch(r"oplas\.\w+", owner): yield node


@each_page
def test_an_exported_function_is_short(page):
    def length(cell, node): return sum(bool(line.strip()) for line in cell.text.splitlines()[node.lineno - 1:node.end_lineno])
    faults = [f"cell {cell.id}: {node.name} has {length(cell, node)}" for cell in cells(page) if cell.module
              for node in ast.walk(cell.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
              and length(cell, node) > LINES_OF_A_FUNCTION]
    fails(page, faults, f"an exported function or method has at most {LINES_OF_A_FUNCTION} lines, blank ones not counted")


@each_page
def test_a_cell_holds_one_idea(page):
    faults = [f"cell {cell.id} has {n}" for cell in cells(page) if (n := len(cell.text.splitlines())) > LINES_OF_A_CELL]
    fails(page, faults, f"a code cell has at most {LINES_OF_A_CELL} lines")


@each_page
def test_an_exported_line_fits(page):
    faults = [f"cell {cell.id}: {line.strip()[:60]}…" for cell in cells(page) if cell.module for line in cell.text.splitlines() if len(line) > COLUMNS]
    fails(page, faults, f"a line of an exported cell has at most {COLUMNS} characters")


@each_page
def test_no_statement_is_a_tuple(page):
    "A tuple at the end of a page's cell is what the cell shows."
    faults = [told(cell, node) for cell in cells(page) for node in ast.walk(cell.tree)
              if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple)
              and (cell.module or node is not cell.tree.body[-1])]
    fails(page, faults, "one statement a line: `a(), b()` are two")


@each_page
def test_no_lambda_has_a_name(page):
    def pairs(node):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple): yield from zip(target.elts, node.value.elts)
            else: yield target, node.value
    faults = [told(cell, node) for cell in cells(page) for node in ast.walk(cell.tree)
              if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr))
              and any(isinstance(name, ast.Name) and isinstance(value, ast.Lambda) for name, value in pairs(node))]
    fails(page, faults, "a function with a name is made by def")


@each_page
def test_no_semicolon_joins_statements(page):
    def semicolons(text): return [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.OP and t.string == ";"]
    faults = [f"cell {cell.id}: {t.line.strip()[:90]}" for cell in cells(page) for t in semicolons(cell.text)]
    fails(page, faults, "one statement a line, no `;`")


@each_page
def test_no_private_name_of_another_module_is_used(page):
    faults = [told(cell, node) for cell in cells(page) for node in foreign_private(cell.tree)]
    fails(page, faults, "names that begin with _ are a module's own")


@each_page
def test_imports_point_down(page, AHEAD={"04_effects": ("rotations",)}):  # it compares with a layer that a later chapter explains
    """From a chapter to the toolbox (20 and up) and to earlier chapters; from a toolbox page to those before it, never to a chapter.
    What a page only shows (a figure, a sound, an exercise) may come from any toolbox page: the module does not need it."""
    if not page[:2].isdigit(): return
    own = int(page[:2])

    def is_below(module, exported):
        other = number_of().get(module, 0)      # 0: a module that no notebook exports lies below all of them
        if module in AHEAD.get(page, ()): return True
        if own < 20: return other <= own or other >= 20
        return not other or other >= 20 and (other <= own or not exported)
    faults = [f"{told(cell, node)} ({module} is page {number_of()[module]})" for cell in cells(page)
              for module, _, node in imports(cell.tree) if not is_below(module, cell.module)]
    fails(page, faults, "imports point down: to pages with smaller numbers; from a chapter also to the toolbox, never back")


def test_no_modules_import_each_other():
    paths = [p for p in (ROOT / "oplas").glob("*.py") if p.stem not in ("__init__", "_modidx")]
    needs = {p.stem: {module for module, _, _ in imports(ast.parse(p.read_text(encoding="utf-8")))} for p in paths}
    try: list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as e: pytest.fail("these modules import each other in a circle: " + " → ".join(e.args[1]))


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_does_not_import_itself(page):
    "But for one public function, for the control above the definitions: below them are the page's own names."
    own = {cell.module for cell in cells(page) if cell.module}
    taken = [(k, cell, name, node) for k, cell in enumerate(cells(page)) for module, name, node in imports(cell.tree) if module in own]
    first = next((k for k, cell in enumerate(cells(page)) if cell.module and any(
        isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in cell.tree.body)), 0)
    faults = [told(cell, node) for n, (k, cell, name, node) in enumerate(taken) if n or k > first or name is None or private(name)]
    fails(page, faults, "the control at the top may import one public function of the page's own module, before the definitions; nothing else")


@pytest.mark.parametrize("module", ["oplas", *(f"oplas.{m}" for m in ("book", "chapters", "checks", "plots") if (ROOT / "oplas" / f"{m}.py").exists())])
def test_the_light_modules_load_no_heavy_library(module):
    code = f"import sys, {module}; print(*(m for m in ('torch', 'matplotlib') if m in sys.modules))"
    assert not subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
