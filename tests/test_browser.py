"The rendered book in a real browser: every page opens at desktop and phone width, in light and dark, and its controls move."
import pytest

from test_site import PAGES

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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_and_fits(visit, name):
    page = visit(name)
    assert page.locator("article h1").first.is_visible()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 1, f"the page is {overflow} px wider than the window"
    assert page.locator("mjx-container").count() >= page.locator("article .math").count(), "formulas are not set"
    assert page.locator("mjx-merror").count() == 0, "a formula has an error"


@pytest.mark.parametrize("name", ["01_divergences", "29_plots"])
def test_figures_take_the_colour_of_the_page(visit, name):
    ink = {}
    for scheme in ("light", "dark"):
        page = visit(name, scheme)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        ink[scheme] = page.evaluate("getComputedStyle(document.querySelector('figure.oplas-figure svg')).color")
    brightness = {k: sum(map(float, v[v.index("(") + 1:-1].split(",")[:3])) for k, v in ink.items()}
    assert brightness["light"] < 250 < 500 < brightness["dark"]


@pytest.mark.parametrize("name", ["25_widgets", "02_autoencoders"])
def test_moving_a_slider_changes_the_picture(visit, name):
    "No kernel runs: what answers is the page itself."
    page = visit(name)
    shown = page.locator(".jupyter-widgets img:visible").last
    shown.wait_for(timeout=20_000)
    handles = page.locator(".jupyter-widgets .noUi-handle:visible")

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_stands_out_from_its_ground(visit, name, scheme):
    "The web's rule for readable text (WCAG 2.2): a contrast of 4.5."
    assert not visit(name, scheme).evaluate(CONTRAST)


def test_a_solution_unfolds(visit):
    page = visit("28_book")
    solution = page.locator("div.cell.tag_solution details").first
    assert solution.get_attribute("open") is None
    solution.locator("summary").click()
    assert "check.ex_28_1(12)" in solution.inner_text()
