"""The sampler's decoder in headless Chromium, by web.js and by onnxruntime-web in turn: `python tests/bench_web.py`.
Exits 1 if a target is missed. Without Chromium, playwright, or what the peer needs (onnx, onnxscript, npm), it says what it leaves out."""
import base64, functools, gzip, http.server, importlib.util, json, logging, pathlib, shutil, subprocess, sys, tempfile, threading, warnings

import torch
from oplas.sampler import ByNumbers, load_sampler
from oplas.web import script, to_web

PEER, ROUNDS, DECODES, CODES = "onnxruntime-web@1.30.0", 7, 50, 256
RUNTIME = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"

#: a page that runs one decoder: `begin` loads what it needs; `decode` is a function from numbers to a Float32Array
PAGE = """<!doctype html><meta charset="utf-8"><script>
const load = (src) => new Promise((onload, failed) => {
  const onerror = () => failed(new Error(`${src} is refused`));
  document.head.append(Object.assign(document.createElement("script"), { src, onload, onerror }));
});
const ours = async ({ model }) => {
  await Promise.all([load("web.js"), load(model)]);
  const program = oplasProgram(JSON.parse(text).decode);
  return async (numbers) => program(numbers);
};
// From another address: then the model comes as a script, as a page that was opened as a file needs it.
const peer = async ({ from }) => {
  await Promise.all([load(from + "ort.wasm.min.js"), from && load("onnx.js")]);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: from || new URL(".", location.href).href });
  const model = from ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : "decoder.onnx";
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return async (numbers) => (await session.run({ numbers: new ort.Tensor("float32", numbers, [1, numbers.length]) })).picture.data;
};
const begin = async (way) => {
  const since = performance.now();
  window.decode = await (way.model ? ours : peer)(way);
  return performance.now() - since;
};
const timed = async (rows) => {
  const times = [];
  for (const row of rows) {
    const since = performance.now();
    await decode(row);
    times.push(performance.now() - since);
  }
  return times;
};
const worst = async (rows) => {
  const wanted = new Float32Array(await (await fetch("wanted.bin")).arrayBuffer()), size = wanted.length / rows.length;
  let most = 0;
  for (const [k, row] of rows.entries()) {
    (await decode(row)).forEach((v, i) => { most = Math.max(most, Math.abs(v - wanted[k * size + i])); });
  }
  return most;
};
</script>"""


def drawn(sampler):
    "Notes and codes, as `sampler_for_page` draws them."
    draw, low, high = torch.Generator().manual_seed(0), sampler.config["low"], sampler.config["high"]
    notes = torch.randint(low, high + 1, (CODES, 1), generator=draw)
    return torch.cat([notes, torch.randn(CODES, sampler.dim, generator=draw)], 1)


def ours(folder, decoder, rows):
    "The files of web.js, with the lightest and the chosen precision, put into a folder: name, how to begin, files."
    (folder / "web.js").write_text(script("web"))
    for tolerance in (1e-3, 1):
        model = to_web(decoder, rows[:8], tolerance=tolerance)
        (folder / f"{model.precision}.js").write_text(f"var text = {json.dumps(model.text)};")
        yield f"web.js, {model.precision}", {"model": f"{model.precision}.js"}, ["web.js", f"{model.precision}.js"]


def peers(folder, decoder, rows):
    "The same for the peer: its runtime from npm, and the decoder as ONNX. Nothing if it cannot be had."
    missing = [name for name in ("onnx", "onnxscript") if not importlib.util.find_spec(name)] or ["npm"] * (not shutil.which("npm"))
    if missing: return print(f"left out, {PEER}: {' and '.join(missing)} missing")
    asked = subprocess.run(["npm", "pack", "--silent", PEER], cwd=folder, capture_output=True, text=True)
    if asked.returncode: return print(f"left out, {PEER}: npm does not get it")
    shutil.unpack_archive(folder / asked.stdout.split()[-1], folder / "npm", "gztar")
    for name in RUNTIME: shutil.move(folder / "npm/package/dist" / name, folder / name)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.onnx.export(decoder, (rows[:1],), folder / "decoder.onnx", input_names=["numbers"], output_names=["picture"],
                      external_data=False, verbose=False)
    (folder / "onnx.js").write_text(f'var text = "{base64.b64encode((folder / "decoder.onnx").read_bytes()).decode()}";')
    yield PEER.replace("@", " "), {"from": ""}, [*RUNTIME, "decoder.onnx"]


class Files(http.server.SimpleHTTPRequestHandler):
    "Files of a folder, for pages from elsewhere as well, as a CDN gives them."
    def log_message(self, *_): pass
    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


def served(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def visit(browser, address, way, ask, rows, **context):
    "Milliseconds until a decoder is ready on a fresh page, where nothing is cached; and what it is asked for."
    page = browser.new_context(**context).new_page()
    try:
        page.goto(address + "index.html")
        return page.evaluate("way => begin(way)", way), page.evaluate(f"rows => {ask}(rows)", rows)
    finally: page.context.close()


def answers(browser, address, way, row, **context):
    "Whether a decoder answers on a page at this address."
    try: return "yes" if visit(browser, address, way, "decode", row, **context) else "no"
    except Exception: return "no"


def speed(browser, address, ways, rows):
    "Milliseconds to start, of the first decode, and of those after it. The ways take turns."
    spent = {name: ([], [], []) for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start, (first, *others) = visit(browser, address, way, "timed", rows[:1 + DECODES])
            for part, times in zip(spent[name], ([start], [first], others)): part += times
    return spent


def share(values, part): return sorted(values)[int(part * (len(values) - 1))]


def line(name, numbers, unit="", digits=1):
    "A line of the table. After each number, how many times the first it is."
    cells = [f"{v:,.{digits}f} {unit} ({v / numbers[0]:.2f})" if unit else str(v) for v in numbers]
    print(f"| {name} | {' | '.join(cells)} |")


def compare(browser, folder, address, ways, files, rows):
    "The table. True if all targets are met."
    spent = speed(browser, address, ways, rows)
    errors = [visit(browser, address, way, "worst", rows)[1] for way in ways.values()]
    bodies = [[(folder / name).read_bytes() for name in some] for some in files.values()]
    plain = [sum(map(len, some)) / 1e6 for some in bodies]
    packed = [sum(len(gzip.compress(body, 6)) for body in some) / 1e6 for some in bodies]
    starts, firsts, others = ([s[k] for s in spent.values()] for k in range(3))
    print(f"\nChromium {browser.version}; {ROUNDS} rounds in turn. In brackets: how many times the first.\n")
    print(f"| | {' | '.join(ways)} |\n|---|{'---:|' * len(ways)}")
    line("bytes", plain, "MB", 2)
    line("bytes, compressed (gzip, level 6)", packed, "MB", 2)
    line("from the first request to ready, median", [share(t, .5) for t in starts], "ms", 0)
    line("first decode, median", [share(t, .5) for t in firsts], "ms")
    line(f"the {DECODES} after it, median", [share(t, .5) for t in others], "ms")
    line(f"the {DECODES} after it, 90th percentile", [share(t, .9) for t in others], "ms")
    line(f"largest difference from torch, {CODES} codes", [f"{e:.1e}" for e in errors])
    opened = functools.partial(answers, browser, folder.as_uri() + "/", row=rows[0])
    line("answers on a page opened as a file, without network", [opened(way, offline=True) for way in ways.values()])
    line("the same, the peer's runtime from a server", [opened({**way, "from": address}) for way in ways.values()])
    targets = {"at most 3 MB, compressed": packed[0] <= 3, "off by 1e-3 at most": errors[0] <= 1e-3,
               "ready no later than the peer": share(starts[0], .5) <= share(starts[-1], .5) or len(ways) < 3}
    for what, met in targets.items(): print(f"{'met   ' if met else 'MISSED'} {what}")
    return all(targets.values())


def main():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not path or not importlib.util.find_spec("playwright"):
        return print(f"left out, all of it: {'playwright' if path else 'Chromium'} is missing") or 0
    from playwright.sync_api import sync_playwright
    sampler = load_sampler(seed=20)
    decoder, rows = ByNumbers(sampler).eval(), drawn(sampler)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        folder = pathlib.Path(folder)
        (folder / "index.html").write_text(PAGE)
        with torch.no_grad(): (folder / "wanted.bin").write_bytes(torch.cat([decoder(r[None]) for r in rows]).numpy().tobytes())
        all_of_them = [*ours(folder, decoder, rows), *peers(folder, decoder, rows)]
        ways, files = {name: way for name, way, _ in all_of_them}, {name: some for name, _, some in all_of_them}
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        met = compare(browser, folder, served(folder), ways, files, rows.tolist())
        browser.close()
    return 0 if met else 1


if __name__ == "__main__": sys.exit(main())
