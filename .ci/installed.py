"""Does a reader's installation hold every package that the book imports? Run it with the Python of an environment that
has the wheel: `python .ci/installed.py live timbral_models` runs each import statement of every page and of every
installed module, those inside functions too, except of what the extra `live` alone brings, and of the package
`timbral_models`."""
import ast, json, pathlib, re, sys
from importlib import metadata
from packaging.requirements import Requirement

NOT_RUN = re.compile(r"(?m)^#\|\s*(eval:\s*false|slow|cuda)\b")     # a cell that the book does not run, either

def pages():
    "Name and source of every code cell that a page runs."
    for path in sorted((pathlib.Path(__file__).parents[1] / "nbs").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and not NOT_RUN.search(source): yield path.stem, source

def modules():
    "Name and source of every module of the installed package."
    for file in metadata.files("oplas"):
        if file.suffix == ".py": yield str(file), file.read_text(encoding="utf-8")

def imports(source):
    "Package and statement, one for each module that is imported anywhere in a source."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for one in node.names: yield one.name.partition(".")[0], f"import {one.name}"
        if isinstance(node, ast.ImportFrom): yield (node.module or "").partition(".")[0], ast.unparse(node)

def required(extras):
    "Packages that oplas asks for with these extras; a package of `live` bears the name that it is imported by."
    asked = map(Requirement, metadata.requires("oplas"))
    return {r.name for r in asked if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)}

def fails(statement):
    "Why a statement does not run; nothing if it does."
    try: exec(statement, {"__package__": "oplas"})                  # of which `from .checks import …` is relative
    except Exception as e: return f"{type(e).__name__}: {e}"

if __name__ == "__main__":
    absent = required(sys.argv[1:]) - required([""]) | {*sys.argv[1:]}
    where = {}                                                      # statement -> the first page or module that has it
    for name, source in [*pages(), *modules()]:
        for package, statement in imports(source):
            if package not in absent: where.setdefault(statement, name)
    wrong = [f"{name}: {statement}: {why}" for statement, name in where.items() if (why := fails(statement))]
    print(f"{len(where)} import statements, {len(wrong)} of them fail", *wrong, sep="\n")
    sys.exit(bool(wrong) or len(where) < 100)
