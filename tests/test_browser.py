"The rendered book in a real browser: every page opens at desktop and phone width, in light and dark, and its controls move."
import pytest

from test_site import PAGES, pages_that_call

SIZES = {"desktop": (1300, 900), "phone": (390, 844)}


@pytest.fixture(params=SIZES)
def visit(request, browser, url, npm_copies):
    "Open a page; scripts from elsewhere come from local npm copies, any other request is refused and fails the test."
    refused, errors = [], []
    w, h = SIZES[request.param]
    context = browser.new_context(viewport={"width": w, "height": h})
    page = context.new_page()

    def route(r):
        address = r.request.url
        if address.startswith((url, "data:")): return r.continue_()
        body = npm_copies(address)
        if body is None:
            refused.append(address)
            return r.abort()
        kind = "text/javascript" if address.split("?")[0].endswith(".js") else "application/octet-stream"
        r.fulfill(body=body, content_type=kind, headers={"Access-Control-Allow-Origin": "*"})
    page.route("**/*", route)
    page.add_init_script("window.started = []; addEventListener('play', (e) => started.push(e.target), true)")
    page.on("pageerror", lambda e: errors.append(str(e)))

    def go(name, scheme="light"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{url}/{name}.html")
        page.wait_for_load_state("networkidle")
        return page
    yield go
    context.close()
    assert not refused, f"requests to the outside: {refused}"
    assert not errors, f"errors in the page: {errors}"


def in_scheme(page, scheme):
    "Ask for light or dark, and wait until the page has answered."
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("""scheme => document.documentElement.dataset.theme === scheme
                              && document.getAnimations().every(a => !(a instanceof CSSTransition) || a.playState === "finished")""", arg=scheme)


CONTRAST = """() => {
  const rgb = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m };
  const lum = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
                      .reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > .5) return c } return [255, 255, 255, 1] };
  const poor = [];
  for (const e of document.querySelectorAll("article :is(p, li, td, th, h1, h2, h3, dt, pre, .claim, .mark, .widget-label, .widget-html-content div)")) {
    if (!e.innerText || !e.innerText.trim() || !e.offsetParent) continue;
    const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push(`${e.tagName}.${e.className}: ${e.innerText.slice(0, 40)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_and_fits_and_its_text_stands_out(visit, name):
    "Text stands out, light and dark, by the web's rule (WCAG 2.2): a contrast of 4.5."
    page = visit(name)
    assert page.locator("article h1").first.is_visible()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 1, f"the page is {overflow} px wider than the window"
    assert page.locator("mjx-container").count() >= page.locator("article .math").count(), "formulas are not set"
    assert page.locator("mjx-merror").count() == 0, "a formula has an error"
    for scheme in ("light", "dark"):
        in_scheme(page, scheme)
        assert not page.evaluate(CONTRAST), scheme
    assert page.evaluate("started.length") == 0, "a sound plays before anybody touched anything"


@pytest.mark.parametrize("name", ["01_divergences", "24_plots"])
def test_figures_take_the_colour_of_the_page(visit, name):
    ink = {}
    for scheme in ("light", "dark"):
        page = visit(name, scheme)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        ink[scheme] = page.evaluate("getComputedStyle(document.querySelector('figure.oplas-figure svg')).color")
    brightness = {k: sum(map(float, v[v.index("(") + 1:-1].split(",")[:3])) for k, v in ink.items()}
    assert brightness["light"] < 250 < 500 < brightness["dark"]


@pytest.mark.parametrize("name", ["31_widgets"])
def test_moving_a_slider_changes_the_picture(visit, name):
    "No kernel runs: what answers is the page itself."
    page = visit(name)
    control = page.locator(".widget-subarea", has=page.locator("img")).last
    shown = control.locator("img:visible").last
    shown.wait_for(timeout=20_000)
    handles = control.locator(".noUi-handle:visible")

    def press(slider, key):
        slider.scroll_into_view_if_needed()
        slider.focus()
        for _ in range(3): page.keyboard.press(key)
        page.wait_for_timeout(300)
        return shown.get_attribute("src"), shown.screenshot()
    start = shown.get_attribute("src"), shown.screenshot()
    across = press(handles.nth(handles.count() - 2), "ArrowRight")
    up = press(handles.nth(handles.count() - 1), "ArrowLeft")
    assert len({start[0], across[0], up[0]}) == 3, "a slider moved and the picture stayed"
    assert len({start[1], across[1], up[1]}) == 3, "what is on the screen did not change"


SOUND_PAGES = [p for p in pages_that_call("sound_html") if p in pages_that_call("grid", "plane")]     # with sliders over sounds


@pytest.fixture(params=SOUND_PAGES)
def sounds(request, visit):
    "The first control of a page with a sound in it."
    page = visit(request.param)
    control = page.locator(".widget-subarea", has=page.locator("audio.oplas-sound")).first
    control.locator("audio.oplas-sound").first.wait_for(timeout=20_000)
    control.scroll_into_view_if_needed()
    return page, control.locator("audio.oplas-sound:visible").first, control.locator(".noUi-handle:visible")


def await_start(page, sound, n):
    "Wait until this sound is the n-th that started on the page, and is heard."
    page.wait_for_function("([a, n]) => started.length === n && started.at(-1) === a && a.currentTime > 0",
                           arg=[sound.element_handle(), n], timeout=5_000)
    assert page.evaluate("started.slice(0, -1).every(a => a.paused || a === started.at(-1))"), "two sounds at a time"


def test_a_slider_plays_its_sound_by_keyboard(sounds):
    page, sound, handles = sounds
    assert page.evaluate("started.length") == 0, "a sound plays on load"
    sources, before = {sound.get_attribute("src")}, None
    for n, (handle, key) in enumerate(((handles.first, "ArrowLeft"), (handles.last, "ArrowLeft"), (handles.last, "ArrowRight")), 1):
        handle.focus()
        page.keyboard.down(key)
        page.wait_for_timeout(150)
        if before: assert before.evaluate("a => a.paused"), "what is out of view sounds on"
        page.keyboard.up(key)
        await_start(page, sound, n)
        before = sound.element_handle()
        sources.add(sound.get_attribute("src"))
    assert len(sources) >= 3, "a slider moved and the sound stayed"


def test_a_slider_plays_its_sound_when_the_mouse_lets_go(sounds):
    page, sound, handles = sounds
    start, box = sound.get_attribute("src"), handles.last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(page.viewport_size["width"] - 5, box["y"] + 40, steps=8)  # to the right: down there a bar may stay as it is
    page.wait_for_timeout(300)
    assert sound.get_attribute("src") != start, "a slider moved and the sound stayed"
    assert page.evaluate("started.length") == 0, "it sounds before the handle is let go"
    page.mouse.up()
    await_start(page, sound, 1)


def test_a_slider_that_stays_plays_nothing(sounds):
    page, sound, handles = sounds
    handles.first.click()
    handles.first.focus()
    for key in ("Tab", "Shift+Tab", "Enter"): page.keyboard.press(key)
    page.wait_for_timeout(800)
    assert page.evaluate("started.length") == 0


def test_one_sound_of_a_page_at_a_time(sounds):
    "Also the sounds that belong to no control, and with the player's own keys."
    page, sound, handles = sounds
    sound.evaluate("""a => { const other = a.cloneNode(); other.id = "other"; other.loop = true; document.querySelector("article").prepend(other) }""")
    other = page.locator("#other")
    for n, player in enumerate((sound, other, sound, other), 1):
        player.focus()
        page.keyboard.press("Space")
        await_start(page, player, n)
    handles.last.focus()
    page.keyboard.press("ArrowLeft")
    await_start(page, sound, 5)
    assert other.evaluate("a => a.paused")


def test_a_control_is_reached_and_named_without_a_mouse(sounds):
    page, sound, handles = sounds
    handles.first.focus()
    for handle in handles.all():
        assert handle.evaluate("h => h === document.activeElement")
        assert handle.get_attribute("aria-label").strip(), "a slider without a name"
        page.keyboard.press("Tab")
    assert sound.evaluate("a => a === document.activeElement")


def test_a_sound_that_cannot_play_breaks_nothing(sounds):
    "`visit` fails on an error in the page."
    page, sound, handles = sounds
    page.evaluate("""() => { HTMLMediaElement.prototype.play = () => {
        window.asked = true; return Promise.reject(new DOMException("no", "NotAllowedError")) } }""")
    handles.last.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("window.asked")
    page.wait_for_timeout(100)


MAP_PAGES = pages_that_call("sound_map")


@pytest.fixture(params=MAP_PAGES)
def sound_map(request, visit):
    "The first map of a page: the page, the map, its buttons."
    page = visit(request.param)
    found = page.locator(".oplas-map").first
    found.scroll_into_view_if_needed()
    return page, found, found.locator("button")


def test_a_press_plays_its_point_alone_and_names_it(sound_map):
    page, found, buttons = sound_map
    assert page.evaluate("started.length") == 0, "a sound plays on load"
    for n, k in enumerate((0, -1, 0, 0), 1):
        b = buttons.nth(k)
        if n == 2: b.click(force=True)
        else: b.evaluate("b => b.click()")
        await_start(page, b.locator("audio"), n)
        assert found.locator("[aria-live]").inner_text() == b.get_attribute("aria-label")
        assert found.locator("[aria-current]").count() == 1 and b.get_attribute("aria-current")


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_map_is_played_by_keyboard(sound_map, key):
    page, found, buttons = sound_map
    buttons.first.focus()
    page.keyboard.press("Tab")
    second = buttons.nth(1)
    assert second.evaluate("b => b === document.activeElement")
    assert second.evaluate("b => getComputedStyle(b).outlineStyle === 'solid' && parseFloat(getComputedStyle(b).outlineWidth) >= 2")
    page.keyboard.press(key)
    await_start(page, second.locator("audio"), 1)


def test_a_map_stops_the_players_and_they_stop_it(sound_map):
    page, found, buttons = sound_map
    buttons.first.evaluate("""b => { const other = b.firstChild.cloneNode(); other.id = "other"; other.loop = other.controls = true;
                                     document.querySelector("article").prepend(other) }""")
    other, sound = page.locator("#other"), buttons.last.locator("audio")
    for n, (player, go) in enumerate(((other, "a => a.play()"), (sound, "a => a.parentElement.click()"), (other, "a => a.play()")), 1):
        player.evaluate(go)
        await_start(page, player, n)


def test_points_lie_in_a_square_and_are_large_enough_for_a_finger(sound_map):
    page, found, buttons = sound_map
    box = found.locator("> div").bounding_box()
    assert abs(box["width"] - box["height"]) < 1
    for b in (b.bounding_box() for b in buttons.all()):
        assert b["width"] >= 24 and b["height"] >= 24
        assert box["x"] <= b["x"] and b["x"] + b["width"] <= box["x"] + box["width"]
        assert box["y"] <= b["y"] and b["y"] + b["height"] <= box["y"] + box["height"]
    assert not found.locator("audio").evaluate_all("all => all.some(a => a.getClientRects().length)"), "a player shows"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_edge_of_a_dot_has_the_colour_of_the_text(visit, scheme):
    page = visit("31_widgets", scheme)
    dots = page.locator(".oplas-map :is(button, i)")
    edge, text = dots.evaluate_all("""all => [all.map(e => getComputedStyle(e, "::before").backgroundColor),
                                              getComputedStyle(document.querySelector("article p")).color]""")
    assert set(edge) == {text}


def test_a_solution_unfolds(visit):
    page = visit("32_book")
    solution = page.locator("div.cell.tag_solution details").first
    assert solution.get_attribute("open") is None
    solution.locator("summary").click()
    assert "check.ex_28_1(12)" in solution.inner_text()


# controls in a page of their own

@pytest.fixture
def alone(browser, tmp_path):
    "Open HTML by itself, on a phone if asked, and count the sounds that start; an error in the page fails the test."
    contexts, errors = [], []

    def go(content, **context):
        (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><style>body {{ margin: 1rem }}</style>{content}")
        contexts.append(browser.new_context(**dict(viewport={"width": 390, "height": 844}) | context))
        page = contexts[-1].new_page()
        page.add_init_script("window.started = []; addEventListener('play', (e) => started.push(e.target.src), true)")
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto((tmp_path / "page.html").as_uri())
        return page
    yield go
    for c in contexts: c.close()
    assert not errors, f"errors in the page: {errors}"


def test_a_map_is_pressed_alone(alone):
    "The same as on its page, which needs the built book."
    np, audio, widgets = pytest.importorskip("numpy"), pytest.importorskip("oplas.audio"), pytest.importorskip("oplas.widgets")
    sounds = [audio.sound_html(np.sin(np.arange(11025) / k), small=True) for k in (5, 6)] + [None]
    page = alone(widgets.sound_map([[0, 0], [1, 1], [2, 0]], sounds, list("abc"), alt="a map").data)
    buttons, line = page.locator(".oplas-map button"), page.locator("[aria-live]")
    for n, (k, label) in enumerate(((0, "a"), (1, "b"), (1, "b")), 1):
        buttons.nth(k).click()
        page.wait_for_function("n => started.length === n", arg=n)
        assert line.inner_text() == label and page.locator("[aria-current]").get_attribute("aria-label") == label
        assert page.locator("audio").evaluate_all("all => all.map(a => a.paused)") == [k != 0, k != 1], "two sounds at a time"
    page.locator(".oplas-map > div").click(position={"x": 5, "y": 5})
    assert line.inner_text() == "b" and page.evaluate("started.length") == 3, "beside the points nothing is pressed"


@pytest.fixture
def ring():
    "A dial of six notes, the fifth silent, clockwise from the top; and the addresses of its sounds."
    np, audio, widgets = pytest.importorskip("numpy"), pytest.importorskip("oplas.audio"), pytest.importorskip("oplas.widgets")
    angle, t = np.arange(6) * np.pi / 3, np.arange(11025) / 22050
    sounds = [audio.sound_html(np.sin(2 * np.pi * 220 * 2 ** (k / 6) * t), small=True) for k in range(6)]
    sounds[4] = None
    dial = widgets.dial(np.stack([np.sin(angle), np.cos(angle)], 1), sounds, list("CDEFGA"), {"T": [1, 2, 3, 4, 5, 0], "T²": [2, 3, 4, 5, 0, 1]}, alt="a ring")
    return dial.data, [s and s.split('src="')[1].split('"')[0] for s in sounds]


def heard(page, sources, *points):
    "Wait until just these points have started, in this order, and the last one is heard."
    page.wait_for_function("n => started.length === n && (!n || document.querySelector('.oplas-dial audio').currentTime > 0)", arg=len(points), timeout=5_000)
    assert [sources.index(s) for s in page.evaluate("started")] == list(points)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_dial_is_moved_by_buttons_and_keys(alone, ring, scheme):
    content, sources = ring
    page = alone(content + sources[0].join(['<audio id="other" class="oplas-sound" loop src="', '"></audio>']), color_scheme=scheme)
    slider, line, buttons, other = (page.locator(s) for s in (".oplas-dial [role=slider]", "[aria-live]", ".oplas-dial button", "#other"))
    assert page.evaluate("started.length") == 0
    for b in buttons.all(): assert min(b.bounding_box()["width"], b.bounding_box()["height"]) >= 24
    buttons.nth(1).click()
    heard(page, sources, 2)
    assert line.inner_text() == "C → E" and line.get_attribute("aria-live") == "polite" and slider.get_attribute("aria-valuetext") == "E"
    other.evaluate("a => a.play()")
    buttons.nth(0).click()
    heard(page, sources, 2, 0, 3)
    assert line.inner_text() == "E → F" and other.evaluate("a => a.paused"), "two sounds at a time"
    hand = slider.locator("b")
    assert hand.evaluate("b => Math.abs(parseFloat(b.style.rotate) - 90) < 1"), "down, clockwise from the top"

    page.keyboard.press("Shift+Tab")
    assert slider.evaluate("s => s === document.activeElement && getComputedStyle(s).outlineStyle === 'solid' && parseFloat(getComputedStyle(s).outlineWidth) >= 2")
    n = 3
    for key, label, sound in (("ArrowRight", "G", None), ("ArrowUp", "A", 5), ("ArrowRight", "C", 0), ("ArrowLeft", "A", 5), ("ArrowDown", "G", None), ("Home", "C", 0), ("End", "A", 5)):
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == line.inner_text() == label and line.get_attribute("aria-live") == "off"
        assert slider.locator("[data-on]").count() == 1
        n += sound is not None
        page.wait_for_function("n => started.length === n", arg=n)
        if sound is None: assert page.locator(".oplas-dial audio").evaluate("a => a.paused"), "a silent point sounds"
        else: assert sources.index(page.evaluate("started.at(-1)")) == sound
    page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("x")
    assert slider.get_attribute("aria-valuenow") == "5" and page.evaluate("started.length") == n


SHY = """() => { const play = HTMLMediaElement.prototype.play; let may = false;
  addEventListener("pointerup", () => { may = true }, true);
  HTMLMediaElement.prototype.play = function () { return may ? play.call(this) : Promise.reject(new DOMException("no", "NotAllowedError")) } }"""


@pytest.mark.parametrize("hand", ["mouse", "finger"])
def test_a_dial_is_turned_by_hand(alone, ring, hand):
    content, sources = ring
    page = alone(content + "<div style='height: 3000px'></div>", has_touch=hand == "finger", is_mobile=hand == "finger")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    slider = page.locator(".oplas-dial [role=slider]")
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def move(kind, dx, dy):
        if hand == "mouse":
            page.mouse.move(x + dx, y + dy)
            if kind != "Move": (page.mouse.down if kind == "Start" else page.mouse.up)()
        else: touch.send("Input.dispatchTouchEvent", dict(type=f"touch{kind}", touchPoints=[] if kind == "End" else [dict(x=x + dx, y=y + dy)]))
        page.wait_for_timeout(150)
    if hand == "mouse": page.mouse.move(x + 20, y - 90)
    assert page.evaluate("started.length") == 0, "it sounds before it is touched"
    if hand == "finger":                             # a phone lets nothing sound before a touch has ended
        page.evaluate(SHY)
        for step in (("Start", 0, 90), ("Move", -90, 50), ("End", -90, 50)): move(*step)        # from F to the silent G
        assert page.evaluate("started.length") == 0 and slider.get_attribute("aria-valuetext") == "G"
        page.reload()
        page.evaluate(SHY)
    move("Start", 20, -90)
    if hand == "finger": move("End", 20, -90)
    heard(page, sources, 0)
    if hand == "finger": move("Start", 20, -90)
    first = [0] * (1 + (hand == "finger"))
    for dx, dy in ((100, -30), (100, 30), (100, 35), (10, 200)): move("Move", dx, dy)     # past D and E to F; the last far outside
    heard(page, sources, *first, 1, 2, 3)
    move("Move", 2, -2)
    move("End", 2, -2)
    if hand == "mouse": page.mouse.move(x, y - 90)
    page.wait_for_timeout(150)
    heard(page, sources, *first, 1, 2, 3)
    assert slider.get_attribute("aria-valuetext") == "F" and slider.locator("[data-on] + span").inner_text() == "F"
    assert page.evaluate("scrollY") == 0, "the page scrolled under the hand"


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_film_plays_pauses_and_respects_who_wants_no_motion(alone, motion):
    np, widgets = pytest.importorskip("numpy"), pytest.importorskip("oplas.widgets")
    frames = np.stack([np.array([[0, 0], [4, 4], [4 * k, 0]]) for k in np.linspace(0, 1, 9)])
    film = widgets.animation(frames, alt="a point goes right", labels=list("abc"), captions=[f"step {k}" for k in range(9)]).data
    page = alone(film, reduced_motion=motion)
    button, drawing = page.locator(".oplas-film button"), page.locator(".oplas-film svg")
    where = lambda: page.evaluate("""() => { const shown = [...document.querySelectorAll('.oplas-film circle')].filter(c => c.getClientRects().length);
        return shown.map(c => c.getBoundingClientRect().x) }""")
    caption = lambda: page.evaluate("""() => { const box = document.querySelector('.oplas-film svg').getBoundingClientRect();
        return [...document.querySelectorAll('.oplas-film text')].filter(t => /step/.test(t.textContent) && t.getClientRects().length)
            .filter(t => { const r = t.getBoundingClientRect(); return r.x >= box.x && r.right <= box.right }).map(t => t.textContent) }""")
    assert len(where()) == 3 and drawing.bounding_box()["width"] <= 360
    if motion == "reduce":
        assert button.inner_text() == "Play" and caption() == ["step 8"]
        at = where()
        assert at[2] == at[1], "the last frame is not shown"
        page.wait_for_timeout(300)
        assert where() == at
        drawing.evaluate("s => s.setCurrentTime(60)")
        button.click()
        assert drawing.evaluate("s => s.getCurrentTime()") < 60, "it does not start at its beginning"
    assert button.inner_text() == "Pause"
    before = where()[2]
    page.wait_for_function("x => [...document.querySelectorAll('.oplas-film .run circle')][2].getBoundingClientRect().x > x + 10", arg=before if motion != "reduce" else where()[0])
    button.click()
    assert button.inner_text() == "Play" and drawing.evaluate("s => s.animationsPaused()")
    at, said = where(), caption()
    page.wait_for_timeout(400)
    assert where() == at and caption() == said and len(said) == 1
    button.click()
    assert button.inner_text() == "Pause" and not drawing.evaluate("s => s.animationsPaused()")
    for time, step in ((0, 0), (3.1, 4), (7, 8)):
        drawing.evaluate("(s, t) => { s.pauseAnimations(); s.setCurrentTime(t) }", time)
        assert caption() == [f"step {step}"]


def test_the_ring_of_notes_answers_in_its_chapter(visit):
    "T goes up a semitone, T⁷ a fifth: where the operator that was learned lands, and what is heard there."
    page = visit("08_rotations")
    ring = page.locator(".oplas-dial").first
    slider, line, sound = (ring.locator(s) for s in ("[role=slider]", "[aria-live]", "audio"))
    notes = slider.locator("[data-sound]").evaluate_all("all => all.map(i => i.dataset.sound)")
    assert len(set(notes)) == 12 and slider.get_attribute("aria-valuetext") == "C"
    once, seven = ring.locator("button:text-is('T')"), ring.locator("button", has_text="T⁷")
    for n, (press, label, said) in enumerate(((once, "C♯", "C → C♯"), (None, "C", "C"), (seven, "G", "C → G")), 1):
        if press: press.click()
        else: slider.press("Home")
        await_start(page, sound, n)
        assert line.inner_text() == said and slider.get_attribute("aria-valuetext") == label
        assert sound.get_attribute("src") == notes[{"C": 0, "C♯": 1, "G": 7}[label]], "another note sounds"


# ---- pads whose decoder runs in the page

SOUNDING_PADS = ["03_sampler", "31c_pad"]


def answered(page, touch):
    "Touch the first pad of a page, and wait until its decoder answers."
    pad = page.locator(".oplas-pad").first
    pad.scroll_into_view_if_needed()
    page.evaluate("window.heard = []; document.addEventListener('oplas-sounding', (e) => heard.push(e.detail.ms), true)")
    pad.locator(touch).first.click()
    pad.get_by_text("Who answers: the decoder, in this page").wait_for(timeout=20_000)
    return pad


def strike(page, pad, midi=62):
    "Press a key of the piano, and wait for its sound."
    before = page.evaluate("heard.length")
    pad.locator(f".oplas-piano [data-midi='{midi}']").click()
    page.wait_for_function("n => heard.length > n && heard.at(-1) > 0", arg=before, timeout=10_000)


@pytest.mark.parametrize("name", SOUNDING_PADS)
def test_a_pad_plays_what_its_page_decodes(visit, name):
    page = visit(name)
    assert page.evaluate("document.querySelectorAll('script[src*=\"/live/model-\"]').length") == 0, "the model came before it was asked for"
    pad = answered(page, ".oplas-piano [data-midi='60']")
    strike(page, pad)
    assert not pad.locator(".oplas-faces").is_visible()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 1, f"the page is {overflow} px wider than the window"


@pytest.mark.parametrize("name", ["02_autoencoders", "05_attributes"])
def test_a_pad_draws_what_its_page_decodes(visit, name):
    page = visit(name)
    pad = answered(page, ".oplas-field")
    canvas, seen = pad.locator("canvas"), set()
    for key in ("Home", "ArrowRight", "ArrowUp"):
        pad.locator("[role=slider]").first.focus()
        for _ in range(12): page.keyboard.press(key)
        page.wait_for_timeout(300)
        seen.add(canvas.evaluate("c => c.toDataURL()"))
    assert len(seen) == 3, "the point moved and the picture stayed"


def test_a_pad_plays_from_a_file_with_no_network(browser, site):
    context, errors = browser.new_context(), []
    page = context.new_page()
    page.on("pageerror", lambda e: errors.append(str(e)) if "MathJax" not in str(e) else None)
    page.route("**/*", lambda r: r.continue_() if r.request.url.startswith(("file:", "data:", "blob:")) else r.abort())
    page.goto((site / "31c_pad.html").as_uri(), wait_until="domcontentloaded")
    strike(page, answered(page, ".oplas-piano [data-midi='60']"))
    context.close()
    assert not errors


def test_a_pad_whose_file_is_missing_says_so_and_plays_ready_made_sounds(browser, url):
    context = browser.new_context()
    page = context.new_page()
    page.route("**/*", lambda r: r.continue_() if r.request.url.startswith(url) and "/live/model-" not in r.request.url else r.abort())
    page.goto(f"{url}/31c_pad.html", wait_until="domcontentloaded")
    pad = page.locator(".oplas-pad").first
    pad.locator(".oplas-piano [data-midi='60']").click()
    pad.get_by_text("could not be loaded").first.wait_for(timeout=20_000)
    pad.locator(".oplas-piano [data-midi='60']").click()
    page.wait_for_function("[...document.querySelectorAll('.oplas-faces audio')].some(a => a.currentTime > 0)", timeout=10_000)
    context.close()
