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
    image = page.locator(".jupyter-widgets img:visible, .widget-html img:visible").first
    image.wait_for(timeout=20_000)
    handles = page.locator(".jupyter-widgets .noUi-handle:visible")
    across = handles.nth(handles.count() - 2)
    across.scroll_into_view_if_needed()
    before = page.locator("article img:visible").last.get_attribute("src"), image.screenshot()
    across.focus()
    for _ in range(3): page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    after = page.locator("article img:visible").last.get_attribute("src"), image.screenshot()
    assert before[0] != after[0], "the slider moved and the picture stayed"
    up = handles.nth(handles.count() - 1)
    up.focus()
    for _ in range(3): page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert page.locator("article img:visible").last.get_attribute("src") != after[0]


def test_a_solution_unfolds(visit):
    page = visit("28_book")
    solution = page.locator("div.cell.tag_solution details").first
    assert solution.get_attribute("open") is None
    solution.locator("summary").click()
    assert "check.ex_28_1(12)" in solution.inner_text()
