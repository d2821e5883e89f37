"The instrument `oplas/static/pad.js` in a real browser, with an engine of its own that decodes nothing: decaying sines."
import base64, io, json, re
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile

STATIC = Path(__file__).parent.parent / "oplas/static"
RATE = 22050

MOCK = """
const sine = (values) => Float32Array.from({length: 17640}, (_, k) => .5 * Math.exp(-k / 8000)
  * Math.sin(2 * Math.PI * 440 * 2 ** ((values[0] - 69) / 12 + values[1] / 24) * k / 22050));
window.calls = 0, window.asked = [], window.taken = [], window.cancelled = 0;
const mock = {
  sound: (values, take) => {
    asked.push(values);
    const whole = sine(values);
    let on = true;
    for (let k = 0; k < 10; k++)
      setTimeout(() => on && take(whole.slice(1764 * k, 1764 * (k + 1)), k === 9), 30 + 5 * k);
    return () => { on = false; cancelled += 1; };
  },
  decode: async (values) => { asked.push(values); return Float32Array.from({length: 6}, (_, k) => k / 5 * (values[0] + 3) / 6); },
  encode: async (samples) => { taken.push(samples); return window.nocode ? null : [.5, -9, 1.234, 0]; },
};
window.mock = mock;
window.engine = async () => { calls += 1; if (window.broken) throw new Error(broken); return mock; };
"""


def wav(x, rate=RATE):
    file = io.BytesIO()
    scipy.io.wavfile.write(file, rate, (32767 * np.asarray(x)).astype(np.int16))
    return file.getvalue()

def face(note, z):
    source = base64.b64encode(wav(np.sin(np.arange(4000) * note / 500))).decode()
    return (f'<figure data-values="{[note, *z]}"><audio class="oplas-sound" controls src="data:audio/wav;base64,{source}"></audio>'
            f"<figcaption>note {note} at {z}</figcaption></figure>")

OPTIONS = dict(label="sampler", dims=4, names=["z₁", "z₂", "z₃", "z₄"], limit=3, start=[57, 0, 0, 0, 0],
               notes=list(range(48, 84)), sampleRate=RATE, encode=8000)
FACES = "".join(face(n, z) for n in (57, 64) for z in ([0, 0, 0, 0], [2, 0, 0, 0]))
THEME = """:root { --pst-color-text-base: #222832; --pst-color-background: #fff; --pst-color-surface: #f3f4f5; --pst-color-border: #d1d5da; --pst-color-primary: #176de8; }
@media (prefers-color-scheme: dark) { :root { --pst-color-text-base: #ced6dd; --pst-color-background: #14181e; --pst-color-surface: #29313d;
  --pst-color-border: #48566b; --pst-color-primary: #528fe4; color-scheme: dark } }
body { font-family: sans-serif; background: var(--pst-color-background); color: var(--pst-color-text-base); margin: 1rem; max-width: 56rem }"""


def page_of(options, faces=FACES, before=""):
    js = "".join((STATIC / f"{n}.js").read_text() for n in ("player", "pad"))
    return (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>pad</title>"
            f"<style>{THEME}{(STATIC / 'pad.css').read_text()}</style><article><p>Text before.</p><audio class='oplas-sound' id=other></audio>"
            f"<div class=oplas-pad id=pad><div class=oplas-faces>{faces}</div></div><p>Text after.</p></article>"
            f"<script>{MOCK}{before}</script><script>{{{js}\nwindow.oplasPad = oplasPad; window.oplasPlayer = oplasPlayer;}}"
            f"window.ms = []; pad.addEventListener('oplas-sounding', (e) => ms.push(e.detail.ms));"
            f"window.it = oplasPad(pad, {json.dumps(options)}, engine)</script></html>")


@pytest.fixture
def open_pad(browser, tmp_path):
    "Open a pad from a file, at phone width; an error in the page fails the test."
    contexts, errors = [], []
    def opened(options=OPTIONS, faces=FACES, before="", **context):
        file = tmp_path / f"pad{len(contexts)}.html"
        file.write_text(page_of(options, faces, before))
        contexts.append(browser.new_context(**dict(viewport={"width": 390, "height": 844}) | context))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(file.as_uri())
        return page
    yield opened
    for c in contexts: c.close()
    assert not errors, errors


def point(page): return page.evaluate("it.values()")
def who(page): return page.locator(".oplas-who").inner_text()
def status(page): return page.locator("[role=status]").inner_text()
