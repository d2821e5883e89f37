"What the tests of the rendered book share: the site, a browser, local copies of the scripts that pages take from elsewhere."
import functools, http.server, os, re, shutil, subprocess, tarfile, threading
from pathlib import Path
from urllib.parse import unquote

import hypothesis, pytest
from filelock import FileLock

hypothesis.settings.register_profile("oplas", deadline=None)     # a busy machine is no failure
hypothesis.settings.load_profile("oplas")

ROOT = Path(__file__).parent.parent
SITE = ROOT / "_build/html"


def need(found, what):
    "Skip the test if something is missing on this machine; with OPLAS_REQUIRE_ALL set, as in CI, fail instead."
    if found: return found
    (pytest.fail if os.environ.get("OPLAS_REQUIRE_ALL") else pytest.skip)(f"{what} is not on this machine")


@pytest.fixture(scope="session")
def site():
    "The built book, as `make book` leaves it; seconds if nothing changed. Workers (`-n 2`) find it built: a build writes the package, which they import."
    if "PYTEST_XDIST_WORKER" not in os.environ: subprocess.run(["make", "book"], cwd=ROOT, check=True)
    assert SITE.exists(), "the book is not built; make test builds it before the workers start"
    return SITE


@pytest.fixture(scope="session")
def url(site):
    "The book on localhost."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/(@?[^@\s]+)@([^/\s]+)/([^\s?:]+)")


@pytest.fixture(scope="session")
def npm_copies():
    "Address on the CDN -> bytes, read from the npm packages of the very versions that `_config.yml` names."
    npm = need(shutil.which("npm"), "npm")
    folder = ROOT / "_build/npm"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {(name, version) for name, version, _ in CDN.findall((ROOT / "_config.yml").read_text())}
    archive = lambda name, version: folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    with FileLock(folder / ".lock"):                 # of two workers, one asks
        missing = [f"{n}@{v}" for n, v in wanted if not archive(n, v).exists()]
        if missing: subprocess.run([npm, "pack", "--silent", *missing], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    opened = {nv: tarfile.open(archive(*nv)) for nv in wanted}

    @functools.cache                                 # an archive is unpacked from its start each time
    def read(address):
        m = CDN.match(unquote(address))
        return opened[m[1], m[2]].extractfile(f"package/{m[3]}").read() if m and (m[1], m[2]) in opened else None
    return read


@pytest.fixture(scope="session")
def browser():
    "A real headless Chromium, the one that is installed."
    sync_api = pytest.importorskip("playwright.sync_api")
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), mac.exists() and str(mac))
    path = need(found, "chromium")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
                                                          "--disable-background-networking", "--disable-component-update"])
        yield b
        b.close()
