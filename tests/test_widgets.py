"Controls: their structure, what they ask of their input, and what they do when a kernel answers."
import itertools, json, math, re, shutil, subprocess
from importlib.resources import files

import numpy as np
import pytest
from bs4 import BeautifulSoup
from ipywidgets import HTML, FloatSlider, IntSlider, SelectionSlider
from ipywidgets.embed import dependency_state

from conftest import need
from oplas import pad, web
from oplas.plots import PALETTE
from oplas.widgets import animation, dial, grid, plane, sound_map, switch

AXES = {"note": ["A3", "C4", "E4", "G4"], "z₁": [-1., 0., 1.], "take": [1, 2, 3]}


def text(*values): return f"<b>{values}</b>"

def parts(control):
    "The sliders over positions, the stack of stacks, the live part."
    *sliders, stack, live = control.children
    return sliders, stack, live

def leaves(widget):
    return [widget] if isinstance(widget, HTML) else [leaf for c in widget.children for leaf in leaves(c)]

def visible(widget):
    while not isinstance(widget, HTML): widget = widget.children[widget.selected_index]
    return widget.value


def test_every_combination_is_computed_once_and_found_by_the_sliders():
    calls = []
    def panel(*values): calls.append(values); return text(*values)
    sliders, stack, _ = parts(grid(panel, AXES))
    assert sorted(calls) == sorted(itertools.product(*AXES.values()))
    assert [s.description for s in sliders] == list(AXES)
    links = {(l.source[0], l.target[0]) for l in all_links()}
    def descend(widget, positions):      # what the page's script does: each stack shows the child of its slider's position
        while not isinstance(widget, HTML):
            slider, = (s for s in sliders if (s, widget) in links)
            widget = widget.children[positions[sliders.index(slider)]]
        return widget.value
    for positions in itertools.product(*(range(len(v)) for v in AXES.values())):
        values = [v[k] for v, k in zip(AXES.values(), positions)]
        assert text(*values) in descend(stack, positions)

def all_links():
    from ipywidgets.widgets.widget_link import Link
    from ipywidgets.widgets.widget import _instances
    return [w for w in _instances.values() if isinstance(w, Link)]

def test_it_starts_in_the_middle_and_says_so_in_words():
    sliders, stack, live = parts(grid(text, AXES))
    assert [s.value for s in sliders] == [2, 1, 1] and not any(s.readout for s in sliders)
    assert "<div>note = E4, z₁ = 0.00, take = 2</div>" in visible(stack)
    assert live.layout.display == "none"

def test_words_are_escaped():
    _, stack, _ = parts(grid(text, {"<i>": ["a & b", "<script>"]}))
    assert "<div>&lt;i&gt; = &lt;script&gt;</div>" in visible(stack)

@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_axes(n):
    sliders, stack, live = parts(grid(text, {f"z{k}": [0., 1.] for k in range(n)}))
    assert len(sliders) == n and len(leaves(stack)) == 2**n and len(live.children) == n + 2

def test_a_panel_adds_little_to_its_content():
    "324 sounds of 4 kB must fit a page of 3 MB."
    sound = "x" * 5400
    axes = {"note": AXES["note"], **{f"z{k}": [-1.5, 0., 1.5] for k in range(4)}}
    control = grid(lambda *_: sound, axes)
    weight = len(json.dumps(dependency_state(control, drop_defaults=False)))
    assert len(leaves(parts(control)[1])) == 324
    assert weight / 324 - len(sound) < 1300


# a kernel answers

def test_live_sliders_are_continuous_over_numbers_whole_over_whole_ones_and_steps_over_words():
    _, _, live = parts(grid(text, AXES))
    _, note, z, take, _ = live.children
    assert isinstance(note, SelectionSlider) and note.options == tuple(AXES["note"]) and note.value == "E4"
    assert isinstance(z, FloatSlider) and (z.min, z.value, z.max) == (-1, 0, 1) and z.step < .01
    assert isinstance(take, IntSlider) and (take.min, take.value, take.max) == (1, 2, 3)

def test_a_move_wakes_the_live_part_and_computes_once():
    calls = []
    def panel(*values): calls.append(values); return text(*values)
    sliders, _, live = parts(grid(panel, AXES))
    _, note, z, take, out = live.children
    calls.clear()
    sliders[0].value = 0
    assert live.layout.display is None and calls == [("A3", 0., 2)] and text("A3", 0., 2) in out.value
    z.value = .25
    take.value = 3
    assert calls[1:] == [("A3", .25, 2), ("A3", .25, 3)]
    note.value = "G4"
    sliders[1].value = 2
    assert calls[3:] == [("G4", .25, 3), ("G4", 1., 3)]
    assert "note = G4, z₁ = 1.00, take = 3" in out.value

def test_values_need_no_order_and_may_come_from_numpy():
    sliders, stack, live = parts(grid(text, {"z": np.float32([1, -2, .5]), "k": np.arange(3), "mixed": [0, .5]}))
    _, z, k, mixed, _ = live.children
    assert (z.min, z.max) == (-2, 1) and isinstance(k, IntSlider) and isinstance(mixed, FloatSlider)
    assert "z = -2.00, k = 1, mixed = 0.50" in visible(stack)

def test_a_live_sound_waits_for_the_handle_and_starts_alone():
    sound = '<audio class="oplas-sound" controls preload="none" src="data:,"></audio>'
    sliders, stack, live = parts(grid(lambda *_: sound, {"z": [0., 1.], "y": [0., 1.]}))
    sliders[0].value = 0
    assert live.children[-1].value.startswith("<audio autoplay class")
    assert not any(f.continuous_update for f in live.children[1:-1])
    assert not any("autoplay" in leaf.value for leaf in leaves(stack)), "a precomputed panel must not play by itself"

def test_a_live_picture_follows_the_hand():
    sliders, _, live = parts(plane(lambda x, y: np.full((2, 2), .5), steps=2))
    sliders[0].value = 0
    assert all(f.continuous_update for f in live.children[1:-1])


# bad input

@pytest.mark.parametrize("axes, told", [
    ({}, "dict of name"), (None, "dict of name"), ([("z", [0, 1])], "dict of name"),
    ({"z": [0.]}, "'z' needs at least 2 values"), ({"z": []}, "'z' needs at least 2 values"), ({"z": [1., 1.]}, "none twice"),
    ({"ok": [0, 1], "z": 3}, "'z' must have a list"), ({"note": "A3"}, "'note' must have a list"),
    ({"z": [0, "one"]}, "all finite numbers or all str"), ({"z": [0, math.nan]}, "all finite numbers or all str"),
    ({"z": [0, math.inf]}, "all finite"), ({"z": [None, 1]}, "all finite"), ({"z": [True, False]}, "all finite"), ({"z": [[0], [1]]}, "all finite"),
    ({1: [0, 1]}, "a name must be a str"), ({"": [0, 1]}, "not empty"), ({"a": [0, 1], None: [0, 1]}, "a name must")])
def test_axes_that_make_no_grid_are_named_before_any_panel(axes, told):
    calls = []
    with pytest.raises(ValueError, match=told): grid(lambda *v: calls.append(v) or "", axes)
    assert not calls

def test_a_panel_that_is_no_function_or_returns_no_text_is_named_at_once():
    with pytest.raises(ValueError, match="panel must be a function of 2 values"): grid("<b>", {"a": [0, 1], "b": [0, 1]})
    calls = []
    with pytest.raises(ValueError, match="panel must return a str of HTML, got ndarray"):
        grid(lambda *v: calls.append(v) or np.zeros(2), {"a": [0, 1]})
    assert len(calls) == 1

@pytest.mark.parametrize("wrong, told", [
    (dict(steps=1), "steps"), (dict(steps=2.), "steps"), (dict(x=(1, 0)), "x must be"), (dict(y=(0, math.inf)), "y must be"),
    (dict(names=("z", "z")), "names"), (dict(names=("z", 1)), "a name must")])
def test_plane_names_what_is_wrong_before_any_picture(wrong, told):
    calls = []
    with pytest.raises(ValueError, match=told): plane(lambda *v: calls.append(v), **wrong)
    assert not calls

def test_switch_shares_a_layout_when_given_one():
    one = HTML()
    stack = switch([HTML(), HTML()], IntSlider(max=1), one.layout)
    assert stack.layout is one.layout


# the map

POINTS = np.array([[0., 0], [4, 0], [4, 2], [2, 1]])
SOUND = '<audio class="oplas-sound" controls preload="none" aria-label="x" src="data:audio/mpeg;base64,{}"></audio>'
SOUNDS, LABELS = [SOUND.format(k) for k in "abc"] + [None], ["low", "high", "<b> & \"c\"", "silent"]

def soup(**changed):
    "The map as a tree."
    given = dict(points=POINTS, sounds=SOUNDS, labels=LABELS, groups=["x", "y", "x", "<z>"], alt='four "points"')
    return BeautifulSoup(sound_map(**given | changed).data, "html.parser")

def places(tree): return [[float(v) for v in re.findall(r":([-\d.]+)%", b["style"])] for b in tree.select("button")]


def test_every_point_with_a_sound_is_a_named_button_with_the_sound_in_it():
    buttons = soup().select("button")
    assert [b["aria-label"] for b in buttons] == LABELS[:3]
    assert [b.audio["src"] for b in buttons] == [f"data:audio/mpeg;base64,{k}" for k in "abc"]
    for b in buttons:
        assert b.contents == [b.audio] and b.audio["class"] == ["oplas-sound"] and b.audio["preload"] == "none"
        assert "controls" not in b.audio.attrs and "autoplay" not in b.audio.attrs

def test_a_silent_point_is_a_mark_that_no_key_and_no_reader_stops_at():
    mark, = soup().select(".oplas-map > div i")
    assert mark["title"] == "silent" and mark.find_parent(attrs={"aria-hidden": "true"})

def test_points_keep_their_proportions_upwards_and_to_the_right_inside_the_box():
    assert places(soup()) == [[4, 73], [96, 73], [96, 27]]
    assert places(soup(points=POINTS * 1e6 - 3e7)) == places(soup())
    assert places(soup(points=POINTS.tolist())) == places(soup())

@pytest.mark.parametrize("points", [[[3, 3]] * 4, np.zeros((4, 2), int)])
def test_points_in_one_place_stand_in_the_middle(points):
    assert places(soup(points=points)) == [[50, 50]] * 3

def test_groups_differ_in_colour_and_shape_and_stand_in_words():
    tree = soup()
    assert [b["class"] for b in tree.select("button")] == [["g0"], ["g1"], ["g0"]]
    key = tree.select("p")[0]
    assert [s.get_text(strip=True) for s in key.select("span")] == ["x", "y", "<z>", "small: no sound"]
    looks = re.findall(r"\.g(\d)\{--fill:(#\w+);--shape:([^}]+)\}", str(tree.style))
    assert [c for _, c, _ in looks] == list(PALETTE) and len({s for *_, s in looks}) == len(PALETTE)

def test_one_group_needs_no_legend():
    tree = soup(groups=None, sounds=SOUNDS[:1] * 4)
    assert len(tree.select("p")) == 1 and tree.select_one("p")["aria-live"] == "polite"

def test_words_of_the_map_are_escaped_and_it_says_what_it_is():
    tree = soup()
    assert tree.select_one(".oplas-map")["aria-label"] == 'four "points"' and not tree.select("b, z")

def test_five_hundred_points_are_light():
    points, labels = np.random.default_rng(0).normal(size=(500, 2)), [f"point {k}" for k in range(500)]
    sounds = [SOUND.format("x" * 100) if k < 40 else None for k in range(500)]
    text = sound_map(points, sounds, labels, [f"{k % 6}" for k in range(500)], alt="a cloud").data
    assert len(text) - 40 * 100 < 50_000

@pytest.mark.parametrize("wrong, told", [
    (dict(points=3.), r"points must be \(n, 2\)"), (dict(points=POINTS[:, :1]), r"points must be \(n, 2\)"), (dict(points=POINTS[:, 0]), r"shape \(4,\)"),
    (dict(points=POINTS[:0]), r"shape \(0, 2\)"), (dict(points=POINTS * math.nan), "points holds NaN"), (dict(points=POINTS[:3]), "sounds must have 3 entries, one a point, got 4"),
    (dict(sounds=SOUNDS[:2]), "sounds must have 4 entries"), (dict(sounds=[None] * 4), "got only None"), (dict(sounds=["beep"] * 4), "<audio> elements or None, got 'beep'"),
    (dict(sounds=[np.zeros(3)] * 4), "<audio> elements"), (dict(labels=LABELS[:3]), "labels must have 4 entries, one a point, got 3"), (dict(labels=["a", "b", " ", "c"]), "labels must be str, not empty, got ' '"),
    (dict(labels=[1, 2, 3, 4]), "labels must be str"), (dict(groups=["a"]), "groups must have 4 entries"), (dict(alt=" "), "alt is empty")])
def test_a_map_names_what_does_not_fit(wrong, told):
    with pytest.raises(ValueError, match=told): soup(**wrong)

def test_more_groups_than_colours_are_refused():
    with pytest.raises(ValueError, match="groups must be 6 names at most, got 7"):
        sound_map(np.eye(7, 2), SOUNDS[:1] * 7, list("abcdefg"), range(7), alt="seven")


# the dial

MOVES = {"T (up)": [1, 2, 3, 0], "<T²>": np.array([2, 3, 0, 1])}

def dial_soup(**changed):
    "The dial as a tree."
    given = dict(points=[[0, 2], [2, 0], [0, -2], [-2, 0]], sounds=SOUNDS, labels=LABELS, moves=MOVES, alt='a "ring"')
    return BeautifulSoup(dial(**given | changed).data, "html.parser")

def spots(tree, what="i"): return [[float(v) for v in re.findall(r"(?:left|top):([-\d.]+)%", e["style"])] for e in tree.select(f"[role=slider] > {what}")]


def test_a_ring_is_a_slider_that_says_where_it_stands():
    tree = dial_soup()
    ring = tree.select_one("[role=slider]")
    assert ring["tabindex"] == "0" and [ring[f"aria-value{k}"] for k in ("min", "max", "now", "text")] == ["0", "3", "0", "low"]
    assert tree.select_one(".oplas-dial")["aria-label"] == 'a "ring"' and tree.select_one("p[aria-live]")
    assert [s.get_text() for s in ring.select("span")] == LABELS and not tree.select("b > c, t²")

def test_every_point_holds_its_sound_and_one_player_has_none_before_it_is_asked():
    tree = dial_soup()
    assert [i.get("data-sound") for i in tree.select("[role=slider] i")] == [*(f"data:audio/mpeg;base64,{k}" for k in "abc"), None]
    player, = tree.select("audio")
    assert player["class"] == ["oplas-sound"] and not {"src", "autoplay", "controls"} & set(player.attrs)
    assert [s.get_text(strip=True) for s in tree.select(".oplas-map p span")] == ["small: no sound"]
    assert not dial_soup(sounds=SOUNDS[:1] * 4).select(".oplas-map p")

def test_a_button_holds_where_its_move_lands():
    buttons = dial_soup().select("button")
    assert {b.get_text(): json.loads(b["data-to"]) for b in buttons} == {"T (up)": [1, 2, 3, 0], "<T²>": [2, 3, 0, 1]}

def test_the_centre_of_the_points_is_the_middle_and_the_farthest_sets_the_scale():
    assert spots(dial_soup()) == [[50, 14], [86, 50], [50, 86], [14, 50]]
    assert spots(dial_soup(points=np.array([[0, 2], [2, 0], [0, -2], [-2, 0]]) * 1e6 - 3e7)) == spots(dial_soup())
    hand = dial_soup().select_one("[role=slider] b")["style"]
    assert hand == "width:36.0%;rotate:-90.0deg"

def test_labels_stand_farther_out_in_the_same_direction():
    tree = dial_soup(points=np.random.default_rng(0).normal(size=(4, 2)))
    inner, outer = np.array(spots(tree)) - 50, np.array(spots(tree, "span")) - 50
    assert np.allclose(np.hypot(*outer.T), np.hypot(*inner.T) + 8, atol=.2)
    assert ((inner * outer).sum(1) > .99 * np.hypot(*inner.T) * np.hypot(*outer.T)).all()

@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.full((4, 2), .1), np.full((4, 2), -1e9)])
def test_a_collapsed_ring_stays_a_point(points):
    assert np.abs(np.array(spots(dial_soup(points=points))) - 50).max() == 0

def test_one_point_is_a_ring_too():
    tree = dial_soup(points=[[3, 4]], sounds=SOUNDS[:1], labels=["C"], moves={"T": [0]})
    assert spots(tree) == [[50, 50]] and tree.select_one("[role=slider]")["aria-valuemax"] == "0"

@pytest.mark.parametrize("wrong, told", [
    (dict(points=POINTS[:, :1]), r"points must be \(n, 2\)"), (dict(points=POINTS * math.nan), "points holds NaN"), (dict(points=POINTS[:0]), r"shape \(0, 2\)"),
    (dict(sounds=SOUNDS[:2]), "sounds must have 4 entries, one a point, got 2"), (dict(sounds=[None] * 4), "only None"), (dict(sounds=["beep"] * 4), "<audio> elements"),
    (dict(labels=LABELS[:3]), "labels must have 4"), (dict(labels=["a", "b", "c", " "]), "labels must be str, not empty"), (dict(alt=" "), "alt is empty"), (dict(alt=None), "alt is empty"),
    (dict(moves={}), "moves must be a dict"), (dict(moves=[[1, 2, 3, 0]]), "moves must be a dict"), (dict(moves={"": [1, 2, 3, 0]}), "moves must be str"), (dict(moves={7: [1, 2, 3, 0]}), "moves must be str"),
    (dict(moves={"T": [1, 2, 3]}), "'T' must have 4 indices in 0…3, got"), (dict(moves={"ok": [0] * 4, "T": [1, 2, 3, 4]}), "'T' must have 4 indices"), (dict(moves={"T": [0, 1, 2, -1]}), "'T' must"),
    (dict(moves={"T": [0., 1., 2., 3.]}), "'T' must"), (dict(moves={"T": [True] * 4}), "'T' must"), (dict(moves={"T": "0123"}), "'T' must"), (dict(moves={"T": None}), "'T' must"), (dict(moves={"T": np.eye(4, dtype=int)}), "'T' must")])
def test_a_dial_names_what_does_not_fit(wrong, told):
    with pytest.raises(ValueError, match=told): dial_soup(**wrong)


# the film

FRAMES = np.random.default_rng(0).normal(size=(7, 3, 2))

def film_soup(frames=FRAMES, **more): return BeautifulSoup(animation(frames, **dict(alt='a "film"') | more).data, "html.parser")

def paths(tree, what="circle"):
    "The path of every drawn point, (n, steps, 2), in the units of the page."
    moves = [g.find("animatetransform", recursive=False) for g in tree.select(".run > g") if g.select_one(what)]
    return np.array([[step.split() for step in m["values"].split(";")] for m in moves], float)


def test_points_go_through_their_frames_and_stay_for_a_quarter():
    path = paths(film_soup())
    assert path.shape == (3, 9, 2), "seven frames, six steps, two more to hold"
    assert (path[:, 6:] == path[:, 6:7]).all()
    scale = np.ptp(path, axis=(0, 1)).max() / np.ptp(FRAMES, axis=(0, 1)).max()
    moved = path[:, :7] - path[:1, :1]
    assert np.allclose(moved, (FRAMES - FRAMES[0, 0]).transpose(1, 0, 2) * scale * [1, -1], atol=1.5), "one scale, right and up"
    assert path.min() >= 100 and path.max() <= 900

def test_a_collapse_is_seen_as_one():
    path = paths(film_soup(np.stack([FRAMES[0], FRAMES[0] * .01])))
    first, last = np.ptp(path[:, 0], axis=0).max(), np.ptp(path[:, -1], axis=0).max()
    assert last < .02 * first

def test_everything_moves_for_as_long_and_again_and_again():
    tree = film_soup(targets=FRAMES, labels=list("abc"), captions=[f"{k}" for k in range(7)], seconds=5)
    moves = tree.select("animate, animatetransform")
    assert len(moves) == 3 + 3 + 1 + 1 and {(m["dur"], m["repeatcount"]) for m in moves} == {("5.000s", "indefinite")}
    for m in moves:
        if "keytimes" not in m.attrs: continue
        times = [float(t) for t in m["keytimes"].split(";")]
        assert len(times) == len(m["values"].split(";")) == 8 and times[0] == 0 and times[-1] == 1
        assert np.allclose(times[:-1], np.arange(7) / 8, atol=1e-3)
    assert not tree.select("script, [onload]")

def test_targets_are_hollow_rings_in_the_colour_of_their_point_on_the_same_scale():
    targets = np.roll(FRAMES, -1, axis=1)
    tree = film_soup(targets=targets)
    both = paths(tree)
    assert np.array_equal(both[:3], np.roll(both[3:], -1, axis=0))
    rings, dots = tree.select(".run circle[fill=none]"), tree.select(".run circle:not([fill=none])")
    assert [r["stroke"] for r in rings] == [d["fill"] for d in dots] and len({d["fill"] for d in dots}) == 3

def test_the_line_goes_through_the_points():
    tree = film_soup()
    line = np.array([step.split() for step in tree.select_one(".run polygon animate")["values"].split(";")], float)
    assert np.array_equal(line.reshape(8, 3, 2)[:7], paths(tree)[:, :7].transpose(1, 0, 2))

def test_whoever_wants_no_motion_gets_the_last_frame_and_nothing_in_it_moves():
    tree = film_soup(labels=["a", "<b>", "c"], captions=[f"step {k}" for k in range(7)])
    rest = tree.select_one(".rest")
    assert not rest.select("animate, animatetransform") and [t.get_text() for t in rest.select("text")] == ["a", "<b>", "c", "step 6"]
    still = [[float(v) for v in re.findall(r"[\d.]+", g["transform"])] for g in rest.select("g[transform]")]
    assert np.array_equal(still, paths(tree)[:, -1])
    assert tree.svg["role"] == "img" and tree.svg["aria-label"] == 'a "film"'
    assert [t.get_text() for t in tree.select(".run text")] == ["a", "<b>", "c", *(f"step {k}" for k in range(7))]

def test_sixteen_points_in_sixty_frames_are_light():
    crowd = np.random.default_rng(0).normal(size=(60, 16, 2))
    assert len(animation(crowd, alt="a crowd", targets=crowd).data) < 40_000
    assert len(animation(crowd, alt="a crowd", labels=["C♯"] * 16, captions=[f"step {k}" for k in range(60)]).data) < 33_000

@pytest.mark.parametrize("frames", [FRAMES.tolist(), FRAMES[:2], FRAMES[:, :1], np.zeros((2, 1, 2)), np.zeros((3, 4, 2), int), FRAMES * 1e9])
def test_other_frames_are_fine(frames):
    path = paths(film_soup(frames))
    assert np.isfinite(path).all() and path.min() >= 100 and path.max() <= 900

@pytest.mark.parametrize("wrong, told", [
    (dict(frames=FRAMES[:1]), r"frames must be \(t, n, 2\), t ≥ 2 and n ≥ 1, got shape \(1, 3, 2\)"), (dict(frames=FRAMES[:, :0]), r"got shape \(7, 0, 2\)"),
    (dict(frames=FRAMES[0]), r"frames must be"), (dict(frames=FRAMES[..., :1]), "frames must be"), (dict(frames=3.), "frames must be"),
    (dict(frames=FRAMES * math.nan), "frames holds NaN or Inf"), (dict(frames=FRAMES + math.inf), "frames holds NaN or Inf"),
    (dict(targets=FRAMES[:, :2]), r"targets must have the shape of frames, \(7, 3, 2\), got \(7, 2, 2\)"), (dict(targets=FRAMES[0]), "targets must have"), (dict(targets=FRAMES * math.nan), "targets holds NaN"),
    (dict(labels=["a"]), "labels must have 3 entries, one a point, got 1"), (dict(labels=["a", "b", ""]), "labels must be str, not empty"), (dict(labels=[]), "labels must have 3 entries"),
    (dict(captions=["a"] * 3), "captions must have 7 entries, one a frame, got 3"), (dict(captions=range(7)), "captions must be str"),
    (dict(alt=" "), "alt is empty"), (dict(alt=None), "alt is empty"),
    *((dict(seconds=s), "seconds must be a finite number above 0") for s in (0, -1, math.nan, math.inf, "8", True, None))])
def test_a_film_names_what_does_not_fit(wrong, told):
    with pytest.raises(ValueError, match=told): animation(**dict(frames=FRAMES, alt="a film") | wrong)


# style sheets and scripts

STATIC = sorted((files("oplas") / "static").iterdir(), key=lambda file: file.name)
CONTROLS = {"map": lambda: soup(), "dial": lambda: dial_soup(), "film": lambda: film_soup()}
COMMENT, RULE = r"/\*[^*]*\*/", r"[^{}@;]+\{(?:\s*[-\w]+:\s[^{};]+;)+\s*\}"

def asset(name): return (files("oplas") / "static" / name).read_text(encoding="utf-8")


def test_every_control_has_a_look_and_a_script_and_no_file_is_without_use():
    carried = {f"{name}.js" for name in (*pad._FACE, *web.RUNTIME, "kernel")} | {"pad.css"}
    here = {file.name for file in STATIC if file.suffix in (".css", ".js")}
    assert here == carried | {f"{name}.{kind}" for name in CONTROLS for kind in ("css", "js")}

@pytest.mark.parametrize("name", CONTROLS)
def test_a_script_is_one(name, tmp_path):
    "As a file, and as the handler that a control carries."
    node = need(shutil.which("node"), "node")
    carried, = {text for e in CONTROLS[name]().find_all(True) for k, text in e.attrs.items() if k.startswith("on") and len(text) > 50}
    assert '"' not in carried and "//" not in carried, "quotes are single, comments stay behind"
    for k, text in enumerate((asset(f"{name}.js"), carried)):
        (tmp_path / f"{k}.js").write_text(text, encoding="utf-8")
        subprocess.run([node, "--check", tmp_path / f"{k}.js"], check=True)

@pytest.mark.parametrize("name", CONTROLS)
def test_a_style_sheet_is_one(name):
    "Rules of declarations, and rules within @media; every rule is about this control alone, and travels with it."
    text = re.sub(COMMENT, "", asset(f"{name}.css"))
    assert re.fullmatch(rf"(?:\s*(?:{RULE}|@media[^{{}}]+\{{(?:\s*{RULE})+\s*\}}))+\s*", text)
    carried = "".join(style.string for style in CONTROLS[name]().find_all("style"))
    assert "/*" not in carried and text.count("{") <= carried.count("{") == carried.count("}")
    for selectors in re.findall(r"([^{}]+)\{[^{}]+\}", text):
        assert all(f".oplas-{name}" in s for s in re.split(r",(?![^(]*\))", selectors)), selectors
