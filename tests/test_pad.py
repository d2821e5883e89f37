"The instrument `oplas/static/pad.js` in a real browser, with an engine of its own that decodes nothing: decaying sines."
import base64, io, json
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import torch

from oplas.pad import LatentPad, _page
from test_browser import CONTRAST

STATIC = Path(__file__).parent.parent / "oplas/static"
CODE = "".join((STATIC / f"{name}.js").read_text() for name in ("player", "pad", "marks", "heat"))
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
    return (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>pad</title>"
            f"<style>{THEME}{(STATIC / 'pad.css').read_text()}</style><article><p>Text before.</p><audio class='oplas-sound' id=other></audio>"
            f"<div class=oplas-pad id=pad><div class=oplas-faces>{faces}</div></div><p>Text after.</p></article>"
            f"<script>{MOCK}{before}</script><script>{{{CODE}\nwindow.oplasPad = oplasPad; window.oplasPlayer = oplasPlayer;"
            f"views.roll = () => ({{shown: document.createElement('p'), draw: (x) => drawn.push(x[5]), play: () => played.push(drawn.at(-1))}})}}"
            f"window.ms = []; pad.addEventListener('oplas-sounding', (e) => ms.push(e.detail.ms));"
            f"window.it = oplasPad(pad, {json.dumps(options)}, engine)</script></html>")


@pytest.fixture(scope="module")
def windows(browser):
    "Browser contexts by what is asked of them, phone width unless told."
    made = {}
    def window(**wanted):
        wanted = dict(viewport={"width": 390, "height": 844}) | wanted
        if str(wanted) not in made: made[str(wanted)] = browser.new_context(**wanted)
        return made[str(wanted)]
    yield window
    for context in made.values(): context.close()

@pytest.fixture
def open_pad(windows, tmp_path):
    "Open a pad from a file; an error in the page fails the test."
    pages, errors = [], []
    def opened(options=OPTIONS, faces=FACES, before="", **wanted):
        file = tmp_path / f"pad{len(pages)}.html"
        file.write_text(page_of(options, faces, before))
        page = windows(**wanted).new_page()
        pages.append(page)
        page.set_default_timeout(5000)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(file.as_uri())
        return page
    yield opened
    for page in pages: page.close()
    assert not errors, errors


def point(page): return page.evaluate("it.values()")
def who(page): return page.locator(".oplas-who").inner_text()
def text_of(page): return page.get_by_role("textbox", name="Point")
def status(page): return page.locator("[role=status]").inner_text()
def live(page):
    "A touch that moves nothing, and the mock has answered."
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.locator("[role=slider]").first.press("Home")
    page.wait_for_function("document.querySelector('.oplas-who').innerText.includes('in this page')")
    page.evaluate("asked.length = 0")
    return page

def asked(page, n):
    "What the engine was asked for, once it was asked n times."
    page.wait_for_function("n => asked.length >= n", arg=n)
    return page.evaluate("asked")


# before and without the engine

def test_nothing_is_loaded_or_played_before_a_touch_and_the_first_touch_calls_the_engine_once(open_pad):
    page = open_pad()
    assert page.locator(".oplas-faces").is_hidden() and "precomputed sounds" in who(page)
    page.mouse.move(100, 200)
    page.keyboard.press("Tab")
    assert page.evaluate("calls") == 0
    page.locator(".oplas-field").first.click()
    page.locator(".oplas-field").last.click()
    assert page.evaluate("calls") == 1 and "the decoder, in this page" in who(page)

def test_without_scripts_the_precomputed_face_is_there(open_pad):
    page = open_pad(java_script_enabled=False)
    assert page.locator("audio[controls]").count() == 4 and page.locator(".oplas-faces").is_visible()

PLAYED = "[...document.querySelectorAll('.oplas-faces audio')].map((a) => a.played.length)"

def test_an_engine_that_fails_is_named_and_the_nearest_face_sounds(open_pad):
    page = open_pad(before="window.broken = 'no network'")
    page.locator("[data-midi='63']").click()
    assert "no network" in status(page) and "precomputed sounds" in who(page)
    page.wait_for_function(PLAYED + "[2]")
    text_of(page).fill("z = [1.9, 0, 0, 0]; midi = 65")
    page.keyboard.press("Enter")
    page.wait_for_function(PLAYED + "[3]")
    assert "no network" in who(page) and "note 64 at [2, 0, 0, 0]" in who(page) and page.evaluate("calls") == 1 and page.evaluate("asked") == []

def test_an_engine_that_breaks_later_gives_way_to_the_faces(open_pad):
    page = live(open_pad())
    page.evaluate("() => { mock.sound = () => { throw new Error('out of memory') } }")
    page.locator("[data-midi='57']").click()
    assert "out of memory" in status(page) and "precomputed" in who(page)
    page = live(open_pad(before="mock.failed = new Promise((end) => { window.end = end });"))
    page.evaluate("end('the Worker has ended')")
    assert "the Worker has ended" in status(page) and "precomputed" in who(page)

def test_without_web_audio_the_faces_sound_and_the_pad_says_so(open_pad):
    page = open_pad(before="delete window.AudioContext")
    page.locator("[data-midi='57']").click()
    page.wait_for_function(PLAYED + "[0]")
    assert "Web Audio" in status(page) and page.evaluate("calls") == 0

def test_until_the_engine_answers_the_nearest_face_sounds(open_pad):
    page = open_pad(before="window.engine = () => new Promise((answer) => { window.answer = () => answer(mock) })")
    page.locator("[data-midi='57']").click()
    page.wait_for_function(PLAYED + "[0]")
    assert "while the decoder loads" in who(page)
    page.evaluate("answer()")
    page.locator("[data-midi='60']").click()
    assert asked(page, 1) == [[60, 0, 0, 0, 0]] and "in this page" in who(page)

def test_a_note_that_is_held_or_has_no_face_sounds_when_the_engine_has_come(open_pad):
    late = "window.engine = () => new Promise((answer) => { window.answer = () => answer(mock) })"
    page = open_pad(before=late)
    page.get_by_role("slider", name="z₁").focus()
    page.keyboard.down("d")
    page.evaluate("answer()")
    assert asked(page, 1) == [[52, 0, 0, 0, 0]]
    page = open_pad(faces="", before=late)
    assert "nobody yet" in who(page)
    page.locator("[data-midi='57']").click()
    page.evaluate("answer()")
    assert asked(page, 1) == [[57, 0, 0, 0, 0]] and "in this page" in who(page)

def test_it_is_a_module_too_with_no_faces_and_leaves_nothing_behind(open_pad):
    "As anywidget takes it: one text that ends in `export default`."
    page = open_pad()
    page.evaluate("""async ([code, options]) => {
      const esm = code + "export default {render: ({model, el}) => { const pad = oplasPad(el, model.options, model.engine); return pad.close }}";
      const {default: widget} = await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})));
      const el = document.querySelector("article").appendChild(document.createElement("div"));
      el.id = "widget";
      el.addEventListener("oplas-moved", ({detail}) => { window.moved = detail; });
      window.gone = widget.render({el, model: {options, engine: async () => ({...mock, name: "the kernel"})}}); }""", [CODE, OPTIONS])
    page.locator("#widget [data-midi='60']").click()
    assert asked(page, 1) == [[60, 0, 0, 0, 0]] and "the kernel" in page.locator("#widget .oplas-who").inner_text()
    assert page.evaluate("moved") == {"z": [0, 0, 0, 0], "midi": 60}
    page.evaluate("gone()")

KERNEL = "".join((STATIC / f"{name}.js").read_text() for name in ("player", "pad", "marks", "heat", "roll", "live", "kernel"))

def test_a_map_asks_the_kernel_for_the_place_of_a_mark(open_pad):
    page, pad = open_pad(), LatentPad(lambda row: row.repeat(1, 700), dims=3, label="a map", marks=[(0, 1, 5, "a"), (2, -1, 7, "b")])
    page.evaluate("""async ([esm, html]) => {
      const {default: widget} = await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})));
      const el = document.querySelector("article").appendChild(document.createElement("div")), listeners = [];
      el.id = "widget";
      const model = {get: () => html, on: (kind, listen) => listeners.push(listen), send: ({id, what, values}) => {
        asked.push([what, ...values]);
        setTimeout(() => listeners.forEach((listen) => listen({id}, [new DataView(new Float32Array(2100).buffer)])));
      }};
      widget.render({el, model}); }""", [KERNEL, _page(pad.options, "", None)])
    field = page.locator("#widget .oplas-field").first
    field.click(position=dict(x=250, y=220))
    page.locator("#widget .oplas-who").get_by_text("the kernel").wait_for()
    page.locator("#widget").get_by_role("slider", name="z₁").press("Enter")
    page.wait_for_function("asked.at(-1)[0] === 'decode'")
    assert page.evaluate("asked.at(-1)") == ["decode", 2, -1, 0] and page.locator("#widget .oplas-said").inner_text() == "b (7)"

@pytest.mark.parametrize("answers", [True, False])
def test_a_kernel_answers_through_the_widget_or_its_silence_is_told(open_pad, answers):
    "The very module that `LatentPad.widget` carries, with a model as anywidget has it."
    page = open_pad()
    html = f"<div class='oplas-pad' data-options='{json.dumps(OPTIONS)}'><div class='oplas-faces'>{FACES}</div></div>"
    page.evaluate("""async ([esm, html, answers]) => {
      const {default: widget} = await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})));
      const el = document.querySelector("article").appendChild(document.createElement("div")), listeners = [];
      el.id = "widget";
      const model = {get: () => html, on: (kind, listen) => listeners.push(listen), send: ({id, what, values}) => {
        asked.push([what, ...values]);
        const sound = new DataView(Float32Array.from({length: 2000}, (_, k) => Math.sin(k / 9)).buffer);
        if (answers) setTimeout(() => listeners.forEach((listen) => listen({id}, what === "ready" ? [] : [sound])));
      }};
      el.addEventListener("oplas-sounding", () => { window.kernelSounds = true; }, true);
      window.gone = widget.render({el, model}); }""", [KERNEL, html, answers])
    page.locator("#widget [data-midi='60']").click()
    said = page.locator("#widget .oplas-who").get_by_text("the kernel" if answers else "no kernel answers")
    said.wait_for(timeout=10_000)
    if answers:
        page.locator("#widget [data-midi='62']").click()
        page.wait_for_function("window.kernelSounds")
        assert page.evaluate("asked.at(-1)") == ["decode", 62, 0, 0, 0, 0]
    page.evaluate("gone()")


# pads

def drag(page, to, steps=10, of=0):
    box = page.locator(".oplas-field").nth(of).bounding_box()
    at = lambda x, y: (box["x"] + box["width"] * (x + 3) / 6, box["y"] + box["height"] * (3 - y) / 6)
    page.mouse.move(*at(0, 0))
    page.mouse.down()
    page.mouse.move(*at(*to), steps=steps)
    page.mouse.up()

def test_the_mouse_moves_a_point_to_scale_and_its_end_is_heard(open_pad):
    page = live(open_pad())
    drag(page, (1.5, -2), of=1)
    assert np.allclose(point(page), [57, 0, 0, 1.5, -2], atol=.05)
    assert asked(page, 2)[-1] == point(page)
    drag(page, (9, 9))
    assert point(page)[1:3] == [3, 3], "kept inside"

def test_a_dragged_point_sounds_six_times_a_second_at_most(open_pad):
    page = live(open_pad())
    seconds = page.evaluate("""async () => {
      const field = document.querySelector('.oplas-field'), box = field.getBoundingClientRect(), began = performance.now();
      field.setPointerCapture = () => {}, field.hasPointerCapture = () => true;
      const at = (kind, x) => field.dispatchEvent(new PointerEvent(kind, {bubbles: true, pointerId: 7, clientX: box.x + x, clientY: box.y + 9}));
      at('pointerdown', 5);
      for (let k = 0; k < 60; k++) { await new Promise(requestAnimationFrame); at('pointermove', 6 + k); }
      return (performance.now() - began) / 1000 }""")
    assert 3 <= len(asked(page, 3)) <= 2 + 6 * seconds

def test_a_held_note_sounds_again_where_the_point_comes_to_rest(open_pad):
    page = live(open_pad())
    page.keyboard.down("d")
    drag(page, (2, 1), steps=1)
    assert {note for note, *_ in asked(page, 3)} == {52}
    assert page.evaluate("asked").pop() == point(page)
    page.keyboard.up("d")
    assert page.locator("[data-down]").count() == 0

def test_arrows_go_a_tenth_with_shift_a_hundredth_and_home_goes_to_zero(open_pad):
    page = live(open_pad())
    slider = page.get_by_role("slider", name="z₃")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft"): slider.press(key)
    assert point(page) == [57, 0, 0, .19, .1]
    assert slider.get_attribute("aria-valuetext") == "z₃ 0.19, z₄ 0.10" and slider.get_attribute("aria-valuenow") == "0.19"
    slider.press("Home")
    assert point(page) == [57, 0, 0, 0, 0] == asked(page, 2)[-1]
    for _ in range(31): slider.press("ArrowDown")
    assert point(page)[4] == -3

def test_an_odd_dimension_is_a_slider_and_without_notes_there_is_no_piano(open_pad):
    page = live(open_pad(OPTIONS | dict(dims=3, names=["a", "b", "c"], notes=None, start=[0, 0, 1], encode=0)))
    assert page.get_by_role("slider").count() == 3 and page.locator(".oplas-piano").count() == 0
    page.get_by_role("slider", name="c").press("ArrowUp")
    assert point(page) == [0, 0, 1.1] == asked(page, 1)[-1]
    assert text_of(page).input_value() == "z = [0.00, 0.00, 1.10]"


# maps

RANDOM = np.random.default_rng(0)
MARKS = [[round(x, 2), round(y, 2), v, f"mark {k}"] for k, (x, y, v) in enumerate(RANDOM.uniform(-2.9, 2.9, (100, 3)).tolist())]
MAP = dict(label="a map", dims=3, names=["x", "y", "c"], limit=3, start=[0, 0, 0], sampleRate=RATE, marks=MARKS)

def said(page): return page.locator(".oplas-said").inner_text()
def nearest(x, y): return min(MARKS, key=lambda m: np.hypot(m[0] - x, m[1] - y))

def test_on_a_map_the_point_goes_to_the_nearest_mark_which_is_ringed_and_named(open_pad):
    page = live(open_pad(MAP, ""))
    drag(page, (1.5, -2))
    x, y, value, words = nearest(1.5, -2)
    assert point(page) == [x, y, 0] == asked(page, 1)[-1]
    assert said(page).startswith(words + " (") and page.locator(".oplas-said").get_attribute("aria-live") == "polite"
    ring, dot = (page.locator(at).bounding_box() for at in (".oplas-knob span >> nth=0", f".oplas-marks i >> nth={MARKS.index([x, y, value, words])}"))
    assert all(abs(ring[k] + ring[s] / 2 - dot[k] - dot[s] / 2) < 1 for k, s in (("x", "width"), ("y", "height")))
    page.get_by_role("slider", name="c").press("ArrowUp")
    assert point(page) == [x, y, .1] == asked(page, 2)[-1] and said(page).startswith(words + " (")
    assert page.get_by_role("group", name="map with 100 marks").count() == 1
    low, high = (f"{f(m[2] for m in MARKS):.3g}".replace("-", "−") for f in (min, max))
    assert page.locator(".oplas-scale").inner_text().split() == ["100", "marks,", "from", low, "to", high]

def test_text_and_chance_and_the_start_stand_on_marks_too(open_pad):
    page = live(open_pad(MAP, ""))
    assert point(page)[:2] == nearest(0, 0)[:2]
    write(page, "2.5 2.5 1")
    assert point(page) == [*nearest(2.5, 2.5)[:2], 1] and str(nearest(2.5, 2.5)[0]) in text_of(page).input_value()
    page.get_by_role("button", name="Random").click()
    assert any(point(page)[:2] == m[:2] for m in MARKS) and abs(point(page)[2]) < 3

def test_arrows_reach_every_mark_and_enter_and_space_play(open_pad):
    page = live(open_pad(MAP, ""))
    reached = page.evaluate("""() => {
      const field = document.querySelector('.oplas-field'), start = it.values().slice(0, 2), seen = {[start]: start}, todo = [start];
      while (todo.length) {
        const from = todo.pop();
        for (const key of ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown']) {
          it.place([...from, 0]);
          field.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
          const to = it.values().slice(0, 2);
          if (!(to in seen)) todo.push(seen[to] = to);
        }
      }
      return Object.keys(seen).length }""")
    assert reached == len(MARKS)
    page.evaluate("it.place([0, 0, 0]); asked.length = 0")
    slider = page.get_by_role("slider", name="x")
    slider.press("ArrowRight")
    here = point(page)
    assert here[0] > nearest(0, 0)[0] and asked(page, 1) == [here]
    for key in ("Enter", " "): slider.press(key)
    assert asked(page, 3) == [here] * 3

def test_every_mark_of_a_map_is_under_a_finger_on_a_phone(open_pad):
    page = open_pad(MAP, "", has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator(".oplas-field").first.bounding_box()
    for x, y, _, words in MARKS:
        page.touchscreen.tap(box["x"] + box["width"] * (x + 3) / 6, box["y"] + box["height"] * (3 - y) / 6)
        assert said(page).startswith(words + " (")

def test_without_marks_there_is_no_map(open_pad):
    assert open_pad().locator(".oplas-marked, .oplas-marks, .oplas-said, [role=group][aria-label^=map]").count() == 0


# planes in colours

UP, SLOPE = [[5 * r for _ in range(4)] for r in range(3)], [[r + 2 * c - 4 for c in range(4)] for r in range(3)]   # 3 rows, 4 columns
PLANES = OPTIONS | dict(backdrop={"height": dict(values=UP, unit="Hz"), "slope": dict(values=SLOPE, unit="")}, encode=0)
PIXELS = "[...document.querySelector('.oplas-heat').getContext('2d').getImageData(0, 0, 4, 3).data]"

def pixels(page): return np.array(page.evaluate(PIXELS)).reshape(3, 4, 4)[::-1]   # the lowest row first

def test_a_plane_shows_its_values_in_colours_lowest_row_below(open_pad):
    seen = pixels(open_pad(PLANES))
    assert (seen == seen[:, :1]).all() and (seen[..., 3] == 255).all(), "one colour a row"
    assert [tuple(row[0][:3]) for row in seen] == [(68, 1, 84), (33, 145, 140), (253, 231, 37)]

def test_the_cell_of_the_point_is_told_and_the_point_goes_anywhere(open_pad):
    page = live(open_pad(PLANES))
    assert said(page) == "height 5 Hz" and page.locator(".oplas-said").get_attribute("aria-live") == "polite"
    for to in ((1.3, 2.9), (1.3, -1.1), (-9, -.9), (9, 9)):
        drag(page, to)
        x, y = point(page)[1:3]
        row, column = min(2, int((y + 3) / 2)), min(3, int((x + 3) / 1.5))
        assert said(page) == f"height {UP[row][column]} Hz"
    assert np.allclose(point(page), [57, 3, 3, 0, 0]) and asked(page, 1)[-1] == point(page)
    page.get_by_role("slider", name="z₂").press("Home")
    page.get_by_role("slider", name="z₂").press("ArrowDown")
    assert point(page)[1:3] == [0, -.1] and said(page) == "height 5 Hz"

def test_buttons_choose_what_the_colours_show(open_pad):
    page = live(open_pad(PLANES))
    scale, alt = page.locator(".oplas-scale"), page.locator(".oplas-heat")
    assert scale.inner_text().split() == "height, from 0 to 10 Hz".split()
    assert alt.get_attribute("aria-label") == "height: lowest 0 Hz at (−2.25, −2), highest 10 Hz at (−2.25, 2)"
    before = pixels(page)
    page.get_by_role("button", name="slope").click()
    assert (pixels(page) != before).any() and said(page) == "slope 1" and scale.inner_text().split() == "slope, from −4 to 4".split()
    assert alt.get_attribute("aria-label") == "slope: lowest −4 at (−2.25, −2), highest 4 at (2.25, 2)"
    pressed = {name: page.get_by_role("button", name=name).get_attribute("aria-pressed") for name in ("height", "slope")}
    assert pressed == {"height": "false", "slope": "true"}

def test_one_plane_has_no_buttons_and_enter_plays(open_pad):
    page = live(open_pad(PLANES | dict(backdrop={"flat": dict(values=[[7, 7], [7, 7]], unit="dB")})))
    assert page.get_by_role("group", name="what the colours show").count() == 0 and said(page) == "flat 7 dB"
    page.get_by_role("slider", name="z₁").press("Enter")
    assert asked(page, 1) == [[57, 0, 0, 0, 0]]
    assert page.get_by_role("group", name="plane in colours").count() == 1 and page.locator(".oplas-heat").count() == 1

def test_without_a_backdrop_no_colours(open_pad):
    assert open_pad().locator(".oplas-heat, .oplas-said, .oplas-scale").count() == 0

def test_planes_fit_a_phone_and_stand_out_in_the_dark(open_pad):
    page = live(open_pad(PLANES, color_scheme="dark"))
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0 and page.evaluate(POOR) == []
    field, heat = (page.locator(at).first.bounding_box() for at in (".oplas-field", ".oplas-heat"))
    assert all(abs(field[k] - heat[k]) <= 2 for k in field)

@pytest.mark.parametrize("wrong, told", [
    (dict(backdrop={}), "at least one plane"),
    (dict(backdrop={"a": (UP, "")}, dims=1), "two numbers, got dims=1"),
    (dict(backdrop={"a": ([[1.]], "")}), "backdrop, a, must be a tensor of shape"),
    (dict(backdrop={"a": ([[0., np.nan], [0, 1]], "")}), "backdrop, a, .*NaN"),
    (dict(backdrop={"a": (UP, "")}, marks=[(0, 0, 1, "a")]), "both")])
def test_a_plane_that_does_not_fit_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told): LatentPad(lambda row: torch.zeros(9), label="a plane", **wrong)

def test_a_plane_goes_to_the_page_with_three_digits():
    pad = LatentPad(lambda row: torch.zeros(9), label="a plane", backdrop={"a": (torch.tensor([[1 / 3, 2e3 / 3], [0, -1]]), "Hz")})
    assert pad.options["backdrop"] == {"a": {"values": [[.333, 667], [0, -1]], "unit": "Hz"}}
    assert "backdrop" not in LatentPad(lambda row: torch.zeros(9), label="none").options


# notes

def test_computer_keys_play_z_and_x_shift_and_what_is_not_ours_is_left_alone(open_pad):
    page = live(open_pad())
    for key in ("a", "w", "Control+a", "Alt+s", "x", "a", "z", "z", "z"): page.keyboard.press(key)
    assert [note for note, *_ in asked(page, 3)] == [48, 49, 60]
    page.keyboard.press("s")
    assert asked(page, 4)[3][0] == 50, "no octave below the piano"
    text_of(page).focus()
    page.keyboard.press("d")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("d")
    assert len(page.evaluate("asked")) == 4

def test_the_piano_is_one_stop_and_plays_by_arrows_and_enter(open_pad):
    page = live(open_pad())
    assert page.locator("[data-midi][tabindex='0']").count() == 1
    page.locator("[data-midi='57']").focus()
    for key in ("ArrowRight", "ArrowRight", "Enter", " "): page.keyboard.press(key)
    assert [note for note, *_ in asked(page, 2)] == [59, 59]
    assert page.locator("[data-midi='59']").get_attribute("aria-label") == "B3"

def test_two_fingers_hold_two_notes_and_one_slides_on_and_every_key_is_reached_on_a_phone(open_pad):
    page = live(open_pad(has_touch=True, is_mobile=True))
    cdp = page.context.new_cdp_session(page)
    def touch(kind, *midis):
        boxes = [page.locator(f"[data-midi='{m}']").bounding_box() for m in midis]
        cdp.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=[
            dict(x=b["x"] + b["width"] / 2, y=b["y"] + .9 * b["height"], id=k) for k, b in enumerate(boxes)]))
    touch("touchStart", 48, 52)
    assert [n for n, *_ in asked(page, 2)] == [48, 52] and page.locator("[data-down]").count() == 2
    touch("touchMove", 48, 53)
    assert asked(page, 3)[2][0] == 53
    touch("touchEnd")
    assert page.locator("[data-down]").count() == 0
    for _ in range(3): page.get_by_role("button", name="octave up").tap()
    page.locator("[data-midi='83']").tap(position=dict(x=17, y=90))
    assert asked(page, 4)[3][0] == 83
    page.locator(".oplas-field").first.tap(position=dict(x=5, y=5))
    assert asked(page, 5)[4][1] < -2 and point(page)[2] > 2

def test_midi_is_asked_for_by_its_button_only_and_plays(open_pad):
    page = live(open_pad(before="""
      window.input = {id: 'i', name: 'Keys'};
      navigator.requestMIDIAccess = async () => { window.midi = true; return {inputs: new Map([['i', input]])} };
      window.send = (...data) => input.onmidimessage({target: input, data});"""))
    assert not page.evaluate("window.midi")
    page.get_by_role("button", name="MIDI").click()
    assert "Keys" in status(page)
    page.evaluate("send(0x90, 60, 100); send(0x91, 64, 90); send(0x80, 60, 0); send(0x90, 20, 64)")
    assert [n for n, *_ in asked(page, 2)] == [60, 64] and "G♯0" in status(page)
    assert page.locator("[data-down]").get_attribute("data-midi") == "64"
    page.evaluate("() => { navigator.requestMIDIAccess = async () => { throw new Error('denied') } }")
    page.get_by_role("button", name="MIDI").click()
    assert status(page) == "No MIDI: denied"


# text, chance, memory

def write(page, text):
    text_of(page).fill(text)
    page.keyboard.press("Enter")

def test_a_point_comes_back_from_text(open_pad):
    page = live(open_pad())
    for k, (text, expected) in enumerate({
            "z = [0.10, -1.20, 0.00, 0.50]; midi = 60": [60, .1, -1.2, 0, .5], "z=[.2,−1.2,0,.5]": [60, .2, -1.2, 0, .5],
            "0.1 -1.2 0 5e-1": [60, .1, -1.2, 0, .5], "[62, 0.1, -1.2, 0, 0.5]": [62, .1, -1.2, 0, .5]}.items()):
        write(page, text)
        assert point(page) == expected == asked(page, k + 1)[-1]
        scope = {}
        exec(text_of(page).input_value(), scope)
        assert [scope["midi"], *scope["z"]] == expected

def test_a_bad_text_is_named_and_nothing_changes(open_pad):
    page = live(open_pad())
    for text, named in {"z = [a, 0, 0, 0]": "“a”", "1, 2": "2 came", "4, 0, 0, 0": "z₁ must be within ±3, 4 came", "": "0 came",
                        "z = [0, 0, 0, 0]; midi = 90": "48 … 83, 90 came", "0 0 0 0; midi = 60.5": "60.5 came", "0 0 0 nan": "“nan”"}.items():
        write(page, text)
        assert named in status(page) and "nothing changed" in status(page)
        assert point(page) == [57, 0, 0, 0, 0] and text_of(page).get_attribute("aria-invalid")
    assert page.evaluate("asked") == []

def test_copy_and_paste(open_pad):
    page = live(open_pad(permissions=["clipboard-read", "clipboard-write"]))
    write(page, "1 2 -1 0.5")
    page.get_by_role("button", name="Copy").click()
    page.wait_for_function("document.querySelector('[role=status]').innerText == 'Copied.'")
    page.get_by_role("slider", name="z₁").press("Home")
    text_of(page).focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+v")
    page.wait_for_function("it.values()[1] == 1")
    assert point(page) == [57, 1, 2, -1, .5]

def test_chance_is_repeated_by_its_seed(open_pad):
    page = live(open_pad())
    random, seed = page.get_by_role("button", name="Random"), page.get_by_label("Seed")
    random.click()
    first, of = point(page), seed.input_value()
    random.click()
    assert point(page) != first
    seed.fill(of)
    page.keyboard.press("Enter")
    assert point(page) == first == asked(page, 3)[-1]
    seed.fill("-1.5")
    page.keyboard.press("Enter")
    assert "-1.5" in status(page) and point(page) == first

def test_chance_is_normal(open_pad):
    page = open_pad(OPTIONS | dict(dims=500, names=[f"z{k}" for k in range(500)], notes=None, start=[0] * 500, limit=9))
    page.get_by_role("button", name="Random").click()
    z = np.array(point(page))
    assert abs(z.mean()) < .15 and abs(z.std() - 1) < .1 and abs((np.abs(z) < 1).mean() - .683) < .07
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < .15

def test_points_are_remembered_and_recalled_and_the_ninth_pushes_out_the_first(open_pad):
    page = live(open_pad())
    for k in range(9):
        write(page, f"{k / 10} 0 0 0; midi = {60 + k}")
        page.get_by_role("button", name="Remember").click()
    names = page.get_by_role("group", name="remembered").get_by_role("button")
    assert names.all_inner_texts() == list("23456789")
    names.first.click()
    assert point(page) == [61, .1, 0, 0, 0] == asked(page, 10)[-1] and "C♯4" in names.first.get_attribute("aria-label")

def test_a_trajectory_is_recorded_and_loops_until_it_is_stopped(open_pad):
    page = live(open_pad())
    record, loop = (page.get_by_role("button", name=n) for n in ("Record", "Loop"))
    assert loop.is_disabled()
    record.click()
    page.get_by_role("slider", name="z₁").press("ArrowRight")
    page.keyboard.press("d")
    page.get_by_role("slider", name="z₁").press("ArrowRight")
    record.click()
    once = asked(page, 3)
    page.evaluate("asked.length = 0")
    loop.click()
    assert asked(page, 6)[:6] == 2 * once and loop.get_attribute("aria-pressed") == "true"
    loop.click()
    n = len(page.evaluate("asked"))
    page.wait_for_timeout(400)
    assert len(page.evaluate("asked")) == n
    loop.click()
    page.keyboard.press("Escape")
    assert loop.get_attribute("aria-pressed") == "false"
    loop.click()
    page.evaluate("other.dispatchEvent(new Event('play'))")
    assert loop.get_attribute("aria-pressed") == "false", "another sound of the page ends it"

def test_a_recording_ends_after_half_a_minute(open_pad):
    page = open_pad(locale="en-GB")          # a window of its own: its clock is stopped
    page.clock.install()
    page.get_by_role("button", name="Record").click()
    page.clock.fast_forward(29000)
    assert page.get_by_role("button", name="Record").get_attribute("aria-pressed") == "true"
    page.clock.fast_forward(1100)
    assert "Recorded 30" in status(page) and page.get_by_role("button", name="Loop").is_enabled()


# a sound of one's own

def test_a_sound_of_ones_own_becomes_the_point(open_pad):
    page = live(open_pad())
    x = np.zeros((44100, 2))
    x[22050:, 0] = np.sin(np.arange(22050) * 2 * np.pi * 440 / 44100)
    choose = page.locator("input[type=file]")
    choose.set_input_files(dict(name="mine.wav", mimeType="audio/wav", buffer=wav(x, 44100)))
    page.wait_for_function("taken.length == 1 && it.values()[1] == .5")
    assert status(page).startswith("mine.wav, held within ±3: A3")
    assert point(page) == [57, .5, -3, 1.23, 0] == asked(page, 1)[-1]
    heard = np.array(list(page.evaluate("Array.from(taken[0])")))
    assert len(heard) == 8000 and np.argmax(np.abs(heard) > .02) == pytest.approx(110, abs=12)
    assert heard[2000:4000].std() == pytest.approx(.5 / np.sqrt(2), rel=.02)
    spectrum = np.abs(np.fft.rfft(heard[1000:7000] * np.hanning(6000)))
    assert spectrum.argmax() * RATE / 6000 == pytest.approx(440, abs=4)
    for name, bytes, named in (("notes.txt", b"no sound", "notes.txt is no sound"), ("rest.wav", wav(np.zeros(999)), "rest.wav is silent")):
        choose.set_input_files(dict(name=name, mimeType="audio/wav", buffer=bytes))
        page.wait_for_function("named => document.querySelector('[role=status]').innerText.includes(named)", arg=named)
    page.get_by_role("slider", name="z₁").press("Home")
    page.evaluate("""bytes => { const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], 'dropped.wav'));
      document.querySelector('.oplas-drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})) }""",
                  list(wav(x[20000:40000], 44100)))
    page.wait_for_function("taken.length == 2 && it.values()[1] == .5")
    page.evaluate("window.nocode = true")
    choose.set_input_files(dict(name="odd.wav", mimeType="audio/wav", buffer=wav(x, 44100)))
    page.wait_for_function("document.querySelector('[role=status]').innerText.includes('no code for odd.wav')")
    assert point(page) == [57, .5, -3, 1.23, 0]

def test_without_an_encoder_there_is_no_place_for_a_sound(open_pad):
    page = live(open_pad(before="delete mock.encode"))
    assert page.locator("input[type=file]").is_hidden()


# pictures

def test_a_picture_is_drawn_live_and_says_where_it_is(open_pad):
    image = '<img data-values="[0,0]" alt="nought" src="data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%223%22 height=%222%22/>">'
    options = dict(label="a digit", dims=2, names=["x", "y"], view=dict(kind="image", height=2, width=3, low=0, high=1))
    page = live(open_pad(options, image))
    page.get_by_role("slider", name="x").press("ArrowRight")
    drag(page, (3, 0))
    page.wait_for_function("asked.at(-1)[0] == 3")
    pixels = page.evaluate("[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 3, 2).data].filter((_, k) => k % 4 == 0)")
    assert pixels == [0, 51, 102, 153, 204, 255]
    assert page.get_by_role("img", name="a digit: x 3.00, y 0.00").is_visible()
    assert page.evaluate("document.querySelectorAll('audio').length") == 1

def test_a_decoder_of_pictures_that_fails_leaves_the_nearest_picture(open_pad):
    image = '<img data-values="[0,0]" alt="nought" src="data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%223%22 height=%222%22/>">'
    options = dict(label="a digit", dims=2, names=["x", "y"], view=dict(kind="image", height=2, width=3, low=0, high=1))
    page = open_pad(options, image, before="mock.decode = async () => { throw new Error('damaged file') }")
    page.locator(".oplas-field").click()
    page.wait_for_function("document.querySelector('[role=status]').innerText.includes('damaged file')")
    assert "precomputed pictures (no decoder: damaged file); the nearest is nought" in who(page)


def test_another_view_can_be_added_and_plays_what_was_drawn_last(open_pad):
    page = live(open_pad(dict(label="a bar", dims=2, names=["x", "y"], view=dict(kind="roll")), "", before="window.drawn = [], window.played = [];"))
    drag(page, (3, 0))
    page.wait_for_function("played.length")
    assert page.evaluate("drawn.at(-1)") == page.evaluate("played.at(-1)") == 1


# what is heard

def test_one_thing_sounds_on_a_page(open_pad):
    page = live(open_pad(before="let made = HTMLMediaElement.prototype.pause; window.paused = 0;"
                                "HTMLMediaElement.prototype.pause = function () { paused += 1; made.call(this); }"))
    page.locator("[data-midi='57']").click()
    assert page.evaluate("paused") >= 5, "sounds of the page stop"
    page.evaluate("cancelled = 0; other.dispatchEvent(new Event('play'))")
    assert page.evaluate("cancelled") >= 1, "the pad stops when another sound begins"

def test_a_key_is_heard_within_40_ms_of_its_first_block(open_pad):
    page = live(open_pad(before="""const Ready = AudioContext;
      window.AudioContext = class extends Ready { constructor(...all) { super(...all); window.context = this; } };"""))
    assert page.evaluate("[context.state, context.sampleRate]") == ["running", RATE]
    for midi in (60, 62, 64):
        page.locator(f"[data-midi='{midi}']").click()
        page.wait_for_timeout(60)
    page.wait_for_function("ms.length >= 3")
    assert 30 < min(page.evaluate("ms")[-3:]) < 30 + 40

RENDER = """async ({rate, blocks, plan}) => {
  const context = new OfflineAudioContext(1, rate, rate);
  context.resume = async () => {};
  const player = oplasPlayer(rate, () => {}, () => context);
  const cut = (x) => { const out = []; for (let k = 0, b = 0; k < x.length; k += blocks[b++ % blocks.length]) out.push(x.slice(k, k + blocks[b % blocks.length])); return out; };
  const tone = (hz) => Float32Array.from({length: rate / 2}, (_, k) => .5 * Math.sin(2 * Math.PI * hz * k / rate) * Math.exp(-k / rate) * Math.min(1, k / 300));
  for (const [at, key, hz] of plan.slice(1)) context.suspend(at).then(() => { act(key, hz); OfflineAudioContext.prototype.resume.call(context); });
  const act = (key, hz) => hz ? player.start(key, (take) => { cut(tone(hz)).forEach((b, k, all) => take(b, k === all.length - 1)); return () => {}; }) : player.stop(key);
  act(plan[0][1], plan[0][2]);
  return Array.from((await context.startRendering()).getChannelData(0)) }"""

@pytest.mark.parametrize("blocks", [[128], [1000], [333, 64, 2048, 1]])
def test_blocks_meet_without_a_gap(open_pad, blocks):
    heard = np.array(open_pad().evaluate(RENDER, dict(rate=RATE, blocks=blocks, plan=[[0, 57, 440]])))
    k = np.arange(RATE // 2)
    tone = .7 * .5 * np.sin(2 * np.pi * 440 * k / RATE) * np.exp(-k / RATE) * np.minimum(1, k / 300)
    start = np.argmax(np.abs(heard) > 1e-6) - 1
    assert start == pytest.approx(.01 * RATE, abs=2)
    assert np.abs(heard[start:start + len(k)] - tone).max() < 1e-4

def test_a_voice_stops_and_is_struck_again_without_a_click(open_pad):
    page = open_pad()
    for plan in ([[0, 57, 440], [.2, 57, None]], [[0, 57, 440], [.2, 57, 440], [.3, 57, 466]]):
        heard = np.array(page.evaluate(RENDER, dict(rate=RATE, blocks=[500], plan=plan)))
        bend = np.abs(np.diff(heard[:int(.8 * RATE)], 2)).max()
        assert bend < 2.1 * .7 * .5 * (2 * np.pi * 466 / RATE) ** 2, bend   # what two such tones bend by themselves
    assert np.abs(heard[int(.9 * RATE):]).max() < 1e-3

def test_many_voices_are_bent_not_cut(open_pad):
    plan = [[0, 0, 220]] + [[.02 * k, k, 220 * 2 ** (k / 12)] for k in range(1, 12)]
    heard = np.array(open_pad().evaluate(RENDER, dict(rate=RATE, blocks=[500], plan=plan)))
    assert .8 < np.abs(heard).max() < 1


# look

POOR = CONTRAST.replace("article :is(", ".oplas-play :is(button, input, label, b, i, span, ")

@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_it_fits_stands_out_and_can_be_hit(open_pad, width, scheme):
    page = live(open_pad(viewport=dict(width=width, height=800), color_scheme=scheme))
    page.get_by_role("button", name="Remember").click()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    small = page.evaluate("""[...document.querySelectorAll('.oplas-play :is(button, input, [role=slider])')]
      .map((e) => [e.getBoundingClientRect(), e.outerHTML]).filter(([b]) => b.width < 24 || b.height < 24).map(([, html]) => html)""")
    assert small == []
    assert page.evaluate(POOR) == []
