"Networks in the page: every kind of step against torch, bad input, and what the book moves beside a page."
import json, math, subprocess, sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from oplas import book, web
from oplas.pad import LatentPad
from py_mini_racer import MiniRacer
from oplas.web import InV8, Unsupported, script, to_web

TABLE = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))

#: name -> a function of a row of twelve numbers
STEPS = {
    "plus a number": lambda x: x + 2.5, "a number less": lambda x: 1 - x, "over a number": lambda x: x / 4, "under one": lambda x: 1 / (x * x + 1),
    "power": lambda x: x ** 2, "clamp": lambda x: x.clamp(-1, .5), "clamp below": lambda x: x.clamp(min=0), "maximum": lambda x: torch.maximum(x, -x),
    "functions": lambda x: x.sin().exp() + x.cos().tanh() - x.abs().sqrt() * torch.sigmoid(x) + F.gelu(x) + torch.erf(x) + F.relu(-x) + F.silu(x),
    "logarithm": lambda x: (x.abs() + 1).log() + torch.rsqrt(x * x + 2) + torch.reciprocal(x * x + 3),
    "rows and columns": lambda x: x.view(3, 4).T @ torch.arange(6.).view(3, 2), "both ways": lambda x: x.view(3, 4) @ x.view(4, 3),
    "a batch": lambda x: x.view(2, 3, 2) @ x.view(2, 2, 3), "spread": lambda x: x.view(3, 4) * x.view(3, 4)[:, :1] + torch.arange(4.),
    "slices": lambda x: x[:, 1:10:3], "one": lambda x: x[0, 3], "flipped": lambda x: x.view(3, 4).flip(1), "rolled": lambda x: x.roll(5, 1),
    "repeated": lambda x: x.view(3, 4).repeat(2, 3), "each twice": lambda x: x.repeat_interleave(2, 1), "windows": lambda x: x.unfold(1, 4, 2),
    "parts": lambda x: x.chunk(3, 1)[1] + x.split([4, 4, 4], 1)[2], "joined": lambda x: torch.cat([x, torch.ones(1, 3), x[:, :2]], 1),
    "stacked": lambda x: torch.stack([x, 2 * x, torch.zeros(1, 12)], 1), "joined with nothing": lambda x: torch.cat([x, x.new_zeros(1, 0)], 1),
    "sums": lambda x: x.view(3, 4).sum(0) + x.mean(), "largest": lambda x: x.view(2, 3, 2).amax((0, 2), keepdim=True), "place": lambda x: x.argmax(-1),
    "shares": lambda x: x.view(3, 4).softmax(-1), "norm": lambda x: F.layer_norm(x.view(3, 4), (4,)),
    "norm of two": lambda x: F.layer_norm(x.view(2, 3, 2), (3, 2), torch.arange(6.).view(3, 2), torch.ones(3, 2)),
    "row of a table": lambda x: TABLE[(x[:, 0].abs() * 2).long().clamp(max=4)], "rows of a table": lambda x: F.embedding(x.abs().clamp(max=4).long(), TABLE[:, 0]),
    "filters": lambda x: F.conv1d(x.view(1, 2, 6), WEIGHT, stride=2, padding=2), "grown": lambda x: F.interpolate(x.view(1, 2, 6), scale_factor=3),
    "filters of two": lambda x: F.conv1d(F.conv1d(x.view(1, 2, 6), WEIGHT, torch.ones(4)), torch.ones(1, 4, 1)),
}


ROLL = MiniRacer()
ROLL.eval(script("player", "pad", "roll"))


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x): return self.f(x)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_does_what_torch_does(name):
    codes = 2 * torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
    made = to_web(Function(STEPS[name]), codes, tolerance=1e-4)
    assert made.error <= 1e-4 and made.codes == 6 and made.inputs == 12


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(-5, 5)), min_size=1, max_size=4), st.integers(0, 50))
def test_loops_give_the_addresses_that_they_were_found_in(loops, start):
    import numpy as np
    wanted = np.array([start])
    for count, step in loops: wanted = (wanted[:, None] + step * np.arange(count)).ravel()
    found = web._loops(wanted)
    again = wanted[:1]
    for count, step in found or (): again = (again[:, None] + step * np.arange(count)).ravel()
    assert found is None or (again == wanted).all()


@pytest.mark.parametrize("move", [lambda a: a.T, lambda a: a[:, 1:4:2], lambda a: a.repeat_interleave(2, 1), lambda a: a[None].expand(3, -1, -1), lambda a: a[1:, ::3].T])
def test_what_walks_in_loops_is_told_in_loops(move):
    "And not as a list of addresses, which would be as heavy as the numbers."
    addresses = move(torch.arange(24.).view(4, 6)).long().reshape(-1).numpy()
    found, again = web._loops(addresses), addresses[:1]
    for count, step in found: again = (again[:, None] + step * torch.arange(count).numpy()).ravel()
    assert (again == addresses).all() and len(found) <= 3


@pytest.mark.parametrize("f", [lambda x: x.sort(-1).values, lambda x: F.gelu(x, approximate="tanh"), lambda x: F.conv2d(x.view(1, 1, 3, 4), torch.ones(1, 1, 2, 2)),
                               lambda x: F.conv_transpose1d(x.view(1, 2, 6), torch.ones(2, 1, 3)), lambda x: x.view(3, 4).softmax(0), lambda x: x.cumsum(-1)])
def test_an_operation_that_the_page_lacks_is_named_with_its_line(f):
    with pytest.raises(Unsupported, match=r"which the page lacks; .*test_web\.py, line \d+: "): to_web(Function(f), torch.randn(2, 12))


def test_what_depends_on_the_numbers_in_its_shape_is_refused():
    with pytest.raises(ValueError, match="one shape for all codes"): to_web(Function(lambda x: x[x > 0]), torch.randn(6, 12))
    with pytest.raises(ValueError, match="fixed list of operations"): to_web(Function(lambda x: x if x.sum() > 0 else -x), torch.randn(6, 12))


@pytest.mark.parametrize("wrong, word", [
    (dict(decode=abs), "decode must be a torch.nn.Module"), (dict(codes=torch.randn(3)), r"codes must be \(m, k\)"), (dict(codes=torch.full((2, 2), torch.nan)), "codes"),
    (dict(codes=torch.zeros(0, 2)), "codes must be"), (dict(tolerance=0), "tolerance"), (dict(budget=10), "budget is 10"), (dict(tolerance=1e-12), "more than tolerance")])
def test_bad_input(wrong, word):
    with pytest.raises(ValueError, match=word): to_web(**{"decode": nn.Sequential(nn.Linear(2, 70), nn.GELU()), "codes": torch.randn(3, 2), **wrong})


def test_nan_is_named_in_the_weights_and_in_the_output():
    net = nn.Linear(2, 2)
    net.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="decode's weight"): to_web(net, torch.randn(2, 2))
    with pytest.raises(ValueError, match="decode's output"): to_web(Function(lambda x: x.log()), -torch.ones(2, 2))


def test_a_page_says_that_a_decoder_gave_nan():
    made = to_web(Function(lambda x: x.log()), torch.ones(2, 2))
    v8 = InV8(made.text).v8
    v8.eval(f"const said = []; const ask = oplasWorker((m) => said.push(m)); ask({{data: {{id: 1, text: {json.dumps(made.text)}}}}}); ask({{data: {{id: 2, decode: [-1, 1]}}}});")
    assert json.loads(v8.eval("JSON.stringify(said)")) == [{"id": 1}, {"id": 2, "error": "the decoder gave NaN"}]


def test_precision_is_the_lightest_that_is_exact_enough():
    net, codes = nn.Linear(8, 200), torch.randn(16, 8, generator=torch.Generator().manual_seed(3))
    kinds = [to_web(net, codes, tolerance=t).precision for t in (.1, 2e-3, 1e-5)]
    sizes = [len(to_web(net, codes, tolerance=t).text) for t in (.1, 2e-3, 1e-5)]
    assert kinds == ["int8", "float16", "float32"] and sizes == sorted(sizes)


def test_what_a_control_carries_goes_beside_the_page_once(tmp_path):
    made = to_web(nn.Linear(2, 3), torch.randn(2, 2))
    body = "".join(web.beside("model", made.text) for _ in range(2))
    context = {"body": body, "pathto": lambda address, _: f"../{address}"}
    book._put_beside(SimpleNamespace(outdir=tmp_path), "page", "", context, None)
    file, = (tmp_path / "_static/live").iterdir()
    assert made.text not in context["body"] and context["body"].count(f'data-src="../_static/live/{file.name}"') == 2
    assert file.read_text() == f"oplasArrived[{json.dumps(file.stem)}]({json.dumps(made.text)});\n"
    with pytest.raises(ValueError, match="end of a script"): web.beside("model", "</script>")


def test_a_file_to_keep_goes_beside_the_page_under_its_name(tmp_path):
    (tmp_path / "a & b.ts").write_bytes(bytes(range(256)))
    context = {"body": web.download(tmp_path / "a & b.ts"), "pathto": lambda address, _: address}
    assert "0.3 kB" in context["body"]
    book._put_beside(SimpleNamespace(outdir=tmp_path), "page", "", context, None)
    file, = tmp_path.glob("_static/live/*/*")
    assert file.read_bytes() == bytes(range(256)) and f'href="{file.relative_to(tmp_path)}"' in context["body"]
    with pytest.raises(FileNotFoundError, match="no file"): web.download(tmp_path / "c")


def test_without_mini_racer_the_error_says_what_to_install():
    code = "import sys; sys.modules['py_mini_racer'] = None\nimport oplas.web\ntry: oplas.web.InV8('{}')\nexcept ImportError as e: print(e)"
    assert "pip install mini-racer" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# ---- bars in the page

@settings(max_examples=40)
@given(st.lists(st.integers(0, 45), min_size=24, max_size=24))
def test_the_page_reads_scores_as_the_notes_that_python_reads(index):
    from oplas.attributes import from_index
    from oplas.music import GRIDS, to_events
    scores = torch.nn.functional.one_hot(torch.tensor(index), 46).float().flatten().tolist()
    times = [*(beat + t for beat in range(4) for t in GRIDS[24]), 4]
    got = json.loads(ROLL.eval(f"JSON.stringify(notesOf(tokensOf(Float32Array.from({scores}), 46), 46, 52, {times}))"))
    notes = to_events(from_index(torch.tensor(index)))
    want = [[p, a, a + d] for p, a, d in zip(notes.pitch.tolist(), notes.onset.tolist(), notes.duration.tolist())]
    assert len(got) == len(want) and all(g == pytest.approx(w) for g, w in zip(got, want))


@pytest.mark.parametrize("pitch", [52, 64, 79, 95])
def test_the_string_of_the_page_sounds_at_its_pitch(pitch):
    from oplas.audio import f0_autocorrelation
    sound = ROLL.eval(f"const out{pitch} = new Float32Array(22050); pluckString(out{pitch}, 0, 22050, {pitch}, 22050); out{pitch}.buffer")
    x = torch.frombuffer(bytearray(sound), dtype=torch.float32)
    hertz = float(f0_autocorrelation(x, fmin=150, fmax=2100, refine=True))
    assert abs(1200 * math.log2(hertz / (440 * 2 ** ((pitch - 69) / 12)))) < 25 and .05 < x.abs().max() < 1 and abs(x[-1]) < .01


# ---- the pad, seen from Python

def pad(**settings): return LatentPad(**{"decode": lambda row: row * 2, "label": "a pad", **settings})


def test_a_pad_has_what_the_page_asks_for():
    options = pad(dims=3, notes=range(60, 63)).options
    assert options["start"] == [61, 0, 0, 0] and options["names"] == ["z₁", "z₂", "z₃"] and json.dumps(options)
    assert pad(faces=[((0, 1), "<audio></audio>", "a & b")]).faces.count("a &amp; b") == 1
    assert "marks" not in options and pad(marks=[(-.001, 1.239, 7, "a")]).options["marks"] == [[0., 1.24, 7., "a"]]


@pytest.mark.parametrize("wrong, word", [
    (dict(decode=3), "decode must be a WebModel"), (dict(dims=0), "dims"), (dict(notes=[]), "notes"), (dict(notes=[60, 62]), "without a gap"), (dict(label=""), "label"),
    (dict(names=["a"]), "names"), (dict(limit=-1), "limit"), (dict(start=[0]), "start must hold 2"), (dict(faces=[((0,), "<audio>", "")]), "faces must have 2"),
    (dict(faces=[((0, 0), "<video>", "")]), "faces must be"), (dict(decode=lambda row: row[0, :round(float(row[0, -1])) + 1]), "one shape"), (dict(decode=lambda row: row / 0), "NaN or Inf"), (dict(encode=abs, samples=0), "samples"),
    (dict(marks=[(0, 4, 1, "a")]), r"marks\[0\], y, must be a finite number from -3"), (dict(marks=[(0, 1, math.nan, "a")]), r"marks\[0\], value"), (dict(marks=[(0, 1, 2, " ")]), r"marks\[0\], words"),
    (dict(marks=[(0, 1, "a")]), r"must be \(x, y, value, words\)"), (dict(dims=1, marks=[(0, 1, 2, "a")]), "dims=1"), (dict(marks=[(0, 1, 2, "a"), (.004, 1, 2, "b")]), r"marks\[1\] lies where another does")])
@pytest.mark.filterwarnings("ignore:.*divide")
@pytest.mark.filterwarnings("ignore:.*invalid")
def test_bad_pads(wrong, word):
    with pytest.raises(ValueError, match=word): pad(**wrong)


def test_the_kernel_answers_or_says_why_not():
    widget, sent = SimpleNamespace(), []
    widget.send = lambda content, buffers=None: sent.append((content, buffers))
    p = pad(encode=lambda sound: sound[:, :2] + 1, samples=3)
    asked = [("ready", []), ("decode", [1, 2]), ("decode", [float("nan"), 0]), ("encode", [1, 2, 3])]
    for k, (what, values) in enumerate(asked): p._answer(widget, {"id": k, "what": what, "values": values}, None)
    def numbers(k): return torch.frombuffer(bytearray(sent[k][1][0]), dtype=torch.float32).tolist()
    assert sent[0] == ({"id": 0}, [b""]) and numbers(1) == [2, 4] and "NaN" in sent[2][0]["error"] and numbers(3) == [2, 3]
    assert p.options["encode"] == 3 and pad().options["encode"] == 0
