"Exported files: they run without oplas, give the same samples for every block, never click, never raise, and grow no bigger."
import copy, json, re, subprocess, sys, types, warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from oplas import realtime
from oplas.audio import LogMel, GriffinLimStream, mel_to_linear
from oplas.models import fresh
from oplas.realtime import (Host, Keyboard, PATCHES, Phases, PitchTables, Resampler, Voice, export_nn_tilde,
                            export_onnx, main, perform, write_patches)
from oplas.sampler import Sampler
from oplas.strings import pluck
from conftest import ROOT

torch.set_num_threads(1)
POINT = torch.zeros(4)


@pytest.fixture(scope="module")
def sampler():
    "One that has learned nothing: it hums. What counts here is when it does, not what."
    sampler = fresh(0, Sampler)
    sampler.logmel.top.fill_(6.7)
    with torch.no_grad(): sampler.decoder.scale_shift.weight.normal_(0, .1)
    return sampler.eval()


@pytest.fixture(scope="module")
def file(sampler, tmp_path_factory): return export_nn_tilde(sampler, tmp_path_factory.mktemp("files") / "sampler.ts")


@pytest.fixture
def host(file): return Host(file, 22_050, 64)


class Tone(nn.Module):
    "A generator: two partials whose levels are the code."
    def __init__(self, samples=512):
        super().__init__()
        self.waves = torch.sin(2 * torch.pi * torch.tensor([[8.], [16.]]) * torch.arange(samples) / samples)

    def forward(self, z): return z @ self.waves


# --- without oplas

PLAY = """
import hashlib, sys
sys.modules["oplas"] = None                  # whoever imports it gets an error
import torch
torch.set_num_threads(1)
for rate in (22_050, 48_000):
    heard = set()
    for block in (64, 256, 1024, 8192):
        model = torch.jit.load(sys.argv[1])
        model.set_sample_rate(rate)
        channels = int(model.forward_params[0])
        controls = torch.zeros(channels, 24_576)
        for k, at in enumerate((3000, 4000, 9000, 12_000, 15_000, 18_000)):
            controls[:-1, at:] = torch.tensor([.5 * k, -k, 1., 0.][:channels - 2] + [50. + 5 * k])[:, None]
            controls[-1, at:at + 640] = .8
        with torch.inference_mode():
            parts = [model(c[None, :, 63::64])[0, 0] for c in controls.split(block, 1)]
        assert all(len(part) == block for part in parts)
        sound = torch.cat(parts)
        assert torch.isfinite(sound).all() and not sound[:2900].any() and sound[3100:].abs().max() > .001
        heard.add(hashlib.sha256(sound.numpy().tobytes()).hexdigest())
    print(len(heard))
"""

def alone(code, *args):
    "Run code in an interpreter that knows nothing of this one's paths."
    run = subprocess.run([sys.executable, "-I", "-c", code, *map(str, args)], capture_output=True, text=True, cwd="/")
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.split()


def test_a_file_plays_without_oplas_and_gives_the_same_samples_for_every_block(file):
    assert alone(PLAY, file) == ["1", "1"]


GROW = """
import sys
import psutil, torch
torch.set_num_threads(1)
model, held = torch.jit.load(sys.argv[1]), []
model.set_sample_rate(22_050)
with torch.inference_mode():
    for second in range(60):
        for note in (50, 60, 70, 80): model.set_play(note, 0., 1., 0., float(second % 3))
        for _ in range(11): model(torch.zeros(1, 6, 32))
        held.append(psutil.Process().memory_info().rss / 2**20)
print(max(held[20:]) - held[19])
"""

def test_memory_is_flat_while_four_voices_play(file):
    assert float(alone(GROW, file)[0]) <= 1


# --- the parts against oplas.audio

def test_tables_give_what_the_decoder_gives(sampler):
    tables, z, midi = PitchTables(sampler).eval(), torch.randn(5, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([48, 55, 60, 71, 83])
    with torch.no_grad():
        want = sampler.logmel.inverse(sampler.decode(z, midi).clamp(max=1.5))
        got = torch.stack([tables(code, int(note) - 48) for code, note in zip(z, midi)])
    assert torch.allclose(got, want, atol=1e-5 * float(want.max()), rtol=1e-4)


@pytest.fixture(scope="module")
def plucked():
    "A plucked note's mel magnitudes."
    logmel = LogMel()
    return logmel, logmel.mel(pluck(57))


def streamed(phases, mel):
    phases.reset(mel)
    while not phases.finished: phases.work()
    return phases.sound


def test_rounds_in_pieces_are_those_of_the_stream(plucked):
    logmel, mel = plucked
    stream = GriffinLimStream(block=8, look_ahead=4, n_iter=8)
    want = torch.cat([stream.push(mel_to_linear(mel, logmel)), stream.flush()])
    got = streamed(Phases(logmel, lead=0, first=8, ramp=0), mel)
    assert got.shape == want.shape and (got - want).abs().max() < 1e-3 * want.abs().max()


@pytest.mark.parametrize("frames", [6, 9, 15, 16, 17, 24, 33, 136])  # 16, 24 and 136: no frame is left for the last block
def test_pictures_of_any_length_end(plucked, frames):
    logmel, mel = plucked
    sound = streamed(Phases(logmel), mel[:, :frames])
    assert torch.isfinite(sound).all() and len(sound) <= 256 * frames and float(sound[-1:].abs().sum()) == 0


def test_no_click_at_a_seam(plucked):
    logmel, mel = plucked
    sound = streamed(Phases(logmel), mel)
    bend = sound.diff(n=2).abs()
    at = torch.arange(512 + 64, len(bend) - 4, 2048)
    near = torch.stack([bend[at + k] for k in (-3, -2, -1, 0, 1)])
    assert near.max() < bend[512:].max() and near[:, 2:].max() < 3 * bend[4096:].max()


@pytest.mark.parametrize("steal_at", [64, 640, 1000, 3333])
def test_a_note_that_is_cut_off_fades(plucked, steal_at):
    logmel, mel = plucked
    voice = Voice(logmel)
    voice.start(mel, 1.)
    before = torch.cat([voice.take(64, True) for _ in range(steal_at // 64)])
    voice.start(torch.zeros_like(mel), 1.)
    after = torch.cat([voice.take(64, True) for _ in range(8)])
    assert not after[256:].any()
    assert torch.cat([before[-64:], after]).diff().abs().max() <= 1.2 * streamed(Phases(logmel), mel).diff().abs().max()


@settings(max_examples=20)
@given(st.sampled_from([8000, 11_025, 16_000, 32_000, 44_100, 48_000, 96_000, 192_000]), st.integers(1, 9))
def test_a_resampled_sound_lasts_as_long_and_keeps_its_level(rate, harmonic):
    resampler, hertz, out, at = Resampler(22_050), 300 * harmonic, [], 0
    assert resampler.set(rate)
    x = torch.sin(2 * torch.pi * hertz * torch.arange(22_050) / 22_050)
    while at + (m := resampler.needs(64)) <= len(x):
        out.append(resampler(x[at:at + m], 64))
        at += m
    y = torch.cat(out)
    assert abs(len(y) - rate) < 128 + rate // 200
    level = y[rate // 10:].square().mean().sqrt() / x.square().mean().sqrt()
    assert abs(level - 1) < .02 if hertz < .35 * rate else level < 1.02


# --- the instrument

def onset(sound): return int((sound.abs() > .01 * sound.abs().max()).nonzero()[0])


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
@pytest.mark.parametrize("at", [64, 1000, 4095, 5000])
def test_a_note_begins_in_the_step_in_which_the_gate_rises(file, rate, at):
    sound = perform(Host(file, rate), [(at / rate, 60, POINT, 1.)], .5)
    assert not sound[:at // 64 * 64].any()
    assert onset(sound) < at + .005 * rate


def test_the_gate_and_the_message_play_the_same_note(file):
    by_gate = perform(Host(file, 22_050), [(0, 60, POINT, 1.)], .5)
    host = Host(file, 22_050)
    host.set("play", 60, 0, 0, 0, 0)
    assert torch.equal(torch.cat([host(torch.zeros(6, 64)) for _ in range(len(by_gate) // 64)]), by_gate)


def test_loudness_follows_the_gate(file):
    full, half = (perform(Host(file, 22_050), [(0, 60, POINT, gate)], .3) for gate in (1., .5))
    assert torch.allclose(full / 2, half, atol=1e-6)
    assert torch.equal(perform(Host(file, 22_050), [(0, 60, POINT, 7.)], .3), full)


def test_a_new_note_under_a_gate_that_stays_up_begins(file):
    held = perform(Host(file, 22_050), [(0, 60, POINT, .8), (.25, 67, POINT, .8)], .5, held=.25)
    two = sum(perform(Host(file, 22_050), [note], .5, held=.01) for note in ((0, 60, POINT, .8), (.25, 67, POINT, .8)))
    assert torch.allclose(held, two, atol=1e-5)


def test_four_voices_add_up_and_a_fifth_takes_the_oldest(file):
    def heard(notes, voices=4):
        host = Host(file, 22_050)
        host.set("voices", voices)
        return perform(host, [(.1 * k, note, POINT, .5) for k, note in enumerate(notes)], .6)
    one_by_one = sum(perform(Host(file, 22_050), [(.1 * k, note, POINT, .5)], .6) for k, note in enumerate((50, 55, 60, 65)))
    four = heard((50, 55, 60, 65))
    assert torch.allclose(four, one_by_one, atol=1e-5)
    last = heard((50, 55, 60, 65, 70))
    assert not torch.allclose(last[-2000:], four[-2000:], atol=1e-3)
    only = perform(Host(file, 22_050), [(.1, 55, POINT, .5)], .6)
    assert torch.allclose(heard((50, 55), voices=1)[3000:], only[3000:], atol=1e-5)


def test_a_note_ends_and_costs_nothing_then(host):
    sound = perform(host, [(0, 60, POINT, 1.)], 2)
    assert sound[30_000:32_000].abs().max() > 0 and not sound[34_000:].any()


@pytest.mark.parametrize("sound, samples, lead", [(dict(n_fft=1024, n_mels=48), 8192, 1536),
                                                  (dict(sample_rate=44_100, n_fft=4096, hop_length=512), 69_120, 3072),
                                                  (dict(hop_length=128, n_mels=128), 17_280, 0)])
def test_samplers_of_other_sounds_play_to_the_end(tmp_path, sound, samples, lead):
    other = fresh(0, Sampler, sound=sound, samples=samples)
    other.logmel.top.fill_(6.7)
    path = export_nn_tilde(other, tmp_path / "other.ts", lead=lead)
    long, short = (perform(Host(path, 44_100, block), [(.02, 60, POINT, 1.), (.2, 70, POINT, 1.)], 2) for block in (4096, 64))
    assert torch.isfinite(long).all() and torch.equal(long[:len(short)], short[:len(long)])
    assert .02 - 64 / 44_100 < onset(long) / 44_100 < .03 and not long[-1000:].any()


# --- the contract of nn~

TYPES = {bool: 0, int: 1, float: 2, str: 3}

def test_what_nn_asks_for_is_there(file):
    model = torch.jit.load(str(file))
    assert model.get_methods() == ["forward"]
    for method in model.get_methods():
        params = getattr(model, f"{method}_params")
        assert params.dtype == torch.int64 and params.tolist() == [6, 64, 1, 1]
    assert model.get_attributes() == ["play", "voices"]
    for name in model.get_attributes():
        codes, values = getattr(model, f"{name}_params").tolist(), getattr(model, f"get_{name}")()
        assert isinstance(values, tuple) and [TYPES[type(v)] for v in values] == codes
        assert getattr(model, f"set_{name}")(*values) == 0
    assert model.set_sample_rate(44_100) == 0
    with torch.inference_mode(): assert model(torch.zeros(1, 6, 3)).shape == (1, 1, 192)


def test_a_gpu_that_nn_finds_changes_nothing(file):
    "nn~ sends parameters and buffers there. Here there are none, so all stays together."
    model = torch.jit.load(str(file))
    assert not list(model.parameters()) and not list(model.buffers())


def test_what_was_set_can_be_read(host):
    host.set("play", 61, .5, -1, 2, 0)
    host.set("voices", 2.0)                       # Pure Data knows numbers of one kind only
    assert host.model.get_play() == (61, .5, -1., 2., 0.) and host.model.get_voices() == (2,)


# --- bad input from a patch

def said_once(recorded, pattern): return sum(bool(re.search(pattern, str(w.message))) for w in recorded) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channel", range(6))
def test_nan_is_ignored_and_reported_once(host, bad, channel):
    controls = torch.zeros(6, 64)
    controls[4:, :] = torch.tensor([[60.], [1.]])
    controls[channel] = bad
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        heard = torch.cat([host(controls) for _ in range(5)])
    assert not heard.any() and said_once(said, "NaN or Inf")
    controls[:4], controls[4], controls[5] = 0, 60, 1
    assert torch.cat([host(controls) for _ in range(5)]).any()


@pytest.mark.parametrize("play", [(47, 0, 0, 0, 0), (84, 0, 0, 0, 0), (60, float("nan"), 0, 0, 0), (-(10**9), 0, 0, 0, 0)])
def test_a_note_that_cannot_be_played_is_ignored_and_reported_once(host, play):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3): host.set("play", *play)
        assert not torch.cat([host(torch.zeros(6, 64)) for _ in range(5)]).any()
    assert said_once(said, "ignored, and not reported again")


def test_an_unknown_attribute_is_ignored_and_reported_once(host):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3): host.set("cutoff", 100)
    assert said_once(said, "no attribute 'cutoff'")


def test_numbers_of_voices_and_rates_that_cannot_be_are_ignored(host):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for voices in (0, 5, -1): host.set("voices", voices)
        assert host.model.set_sample_rate(0) == 0 and host.model.set_sample_rate(-48_000) == 0
    assert host.model.get_voices() == (4,) and said_once(said, "voices outside") and said_once(said, "a sample rate")
    assert len(perform(host, [(0, 60, POINT, 1.)], .1)) == 35 * 64


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-2.0**100, 2.0**100, width=32), min_size=6, max_size=6))
def test_any_finite_control_gives_a_finite_sound(file, values):
    host = Host(file, 22_050)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound = torch.cat([host(torch.tensor(values)[:, None].expand(6, 64)) for _ in range(10)])
        host.set("play", 60, *values[:4])
        sound = torch.cat([sound, *(host(torch.zeros(6, 64)) for _ in range(20))])
    assert torch.isfinite(sound).all()


def test_many_messages_at_once_do_not_pile_up(host):
    for k in range(100): host.set("play", 50 + k % 30, 0, 0, 0, 0)
    sound = torch.cat([host(torch.zeros(6, 64)) for _ in range(60)])
    assert torch.isfinite(sound).all() and sound.any()


# --- generators

def test_a_generator_plays_on_and_moves_without_a_click(tmp_path):
    path = export_nn_tilde(Tone(), tmp_path / "tone.ts", dim=2, sample_rate=22_050)
    sounds = []
    for block in (64, 1024):
        host = Host(path, 22_050, block)
        controls = torch.zeros(2, 8192)
        controls[0, 2048:] = 1
        sounds.append(torch.cat([host(part) for part in controls.split(block, 1)]))
    assert torch.equal(*sounds)
    assert sounds[0].diff().abs().max() < 1.1 * 2 * torch.pi * 8 / 512
    assert abs(float(sounds[0][4096:].abs().max()) - 1) < .01
    assert Host(path).model.get_attributes() == []


class Branches(nn.Module):
    def forward(self, z):
        by_name = {"a": 1}.setdefault("b", 256)
        return z * torch.ones(1, 256 * len(set(str(by_name))))

class Lambda(nn.Module):
    def forward(self, z): return next(iter(map(lambda v: v.sum() * torch.ones(1, 256), [z])))

class Free(nn.Module):
    def forward(self, z, *rest): return torch.from_numpy(np.ones((1, 256), np.float32)) * z.sum()


@pytest.mark.parametrize("model", [Branches, Lambda, Free])
def test_a_model_that_torchscript_cannot_take_is_refused_with_the_line(tmp_path, model):
    with pytest.raises(ValueError, match=r"model: TorchScript cannot take it at “.+”, File \".*test_realtime.py\", line \d+: "):
        export_nn_tilde(model(), tmp_path / "x.ts", dim=1)
    assert not (tmp_path / "x.ts").exists()


class Made(nn.Module):
    def __init__(self, shape, value=0.):
        super().__init__()
        self.made = torch.full(shape, value)

    def forward(self, z): return self.made


@pytest.mark.parametrize("model, settings, words", [
    (Made((1, 64)), dict(dim=2), "even number of at least 128"), (Made((1, 255)), dict(dim=2), "even number"),
    (Made((2, 256)), dict(dim=2), r"\(1, samples\)"), (Made((256,)), dict(dim=2), r"got \(256,\)"),
    (Made((1, 256), float("nan")), dict(dim=2), "NaN or Inf"), (Made((1, 256)), {}, "dim"), (Made((1, 256)), dict(dim=0), "dim"),
    (Made((1, 256)), dict(dim=2, sample_rate=100), "sample_rate"), (torch.sin, {}, "Sampler or a torch module, got builtin"),
    (Sampler(pitch="beside"), {}, "pitch = 'beside'"), (Sampler(dim=3), {}, "dim = 3"), (Sampler(), dict(lead=-1), "lead")])
def test_models_that_are_no_instruments_are_refused(tmp_path, model, settings, words):
    with pytest.raises(ValueError, match=words): export_nn_tilde(model, tmp_path / "x.ts", **settings)
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_changed_by_its_export(sampler, tmp_path):
    before = copy.deepcopy(sampler.state_dict())
    export_nn_tilde(sampler, tmp_path / "x.ts")
    assert all(torch.equal(v, before[k]) or v.isnan().any() for k, v in sampler.state_dict().items())
    assert all(p.requires_grad for p in sampler.decoder.parameters())


# --- asked by name

NAMES = ("brightness", "noisiness", "attack_time")


@pytest.fixture(scope="module")
def steer():
    "From three wishes to a code: nothing that was learned, only of the same form."
    return fresh(0, lambda: nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)))


@pytest.fixture(scope="module")
def named(sampler, steer, tmp_path_factory):
    return export_nn_tilde(sampler, tmp_path_factory.mktemp("named") / "named.ts", steer=steer, names=NAMES)


def played(host, asked=(0, 0, 0), note=60, blocks=20):
    "A note whose gate rises in the first block; what is asked stands at the inlets."
    controls = torch.tensor([*asked, note, 0.])[:, None].repeat(1, blocks * 64)
    controls[-1, :64] = 1
    return torch.cat([host(part) for part in controls.split(64, 1)])


def test_a_named_file_plays_without_oplas_and_gives_the_same_samples_for_every_block(named):
    assert alone(PLAY, named) == ["1", "1"]


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_what_is_asked_becomes_the_code_that_the_module_says(file, named, steer, rate):
    asked = [(.1 + .2 * k, 50 + 4 * k, torch.randn(3, generator=torch.Generator().manual_seed(k)), .7) for k in range(6)]
    with torch.no_grad(): codes = [(t, note, steer(wish[None])[0], gate) for t, note, wish, gate in asked]
    assert torch.equal(perform(Host(named, rate), asked, 1.5), perform(Host(file, rate), codes, 1.5))


def test_what_nn_asks_of_a_named_file_is_there(named):
    model = torch.jit.load(str(named))
    assert model.get_methods() == ["forward"] and model.forward_params.tolist() == [5, 64, 1, 1]
    assert model.get_attributes() == [*NAMES, "play", "voices"]
    for name in model.get_attributes():
        codes, values = getattr(model, f"{name}_params").tolist(), getattr(model, f"get_{name}")()
        assert isinstance(values, tuple) and [TYPES[type(v)] for v in values] == codes
        assert getattr(model, f"set_{name}")(*values) == 0
    assert model.set_sample_rate(44_100) == 0
    with torch.inference_mode(): assert model(torch.zeros(1, 5, 3)).shape == (1, 1, 192)


def silent(host, asked):
    "The host, when its voices have ended, with these wishes at the inlets."
    for _ in range(600): host(torch.tensor([*asked, 60., 0.])[:, None].repeat(1, 64))
    return host


def test_a_wish_by_name_holds_until_its_inlet_moves(named):
    by_inlet = {wish: played(Host(named, 22_050), (wish, 0, 1)) for wish in (0, .5, 2)}
    host = Host(named, 22_050)
    host.set("brightness", .5)
    host.set("attack_time", 1)
    assert torch.equal(played(host), by_inlet[.5])                           # nothing at the inlets
    assert host.model.get_brightness() == (.5,) and host.model.get_noisiness() == (0.,)
    assert torch.equal(played(silent(host, (2, 0, 1)), (2, 0, 1)), by_inlet[2])  # they move
    host.set("brightness", 0)
    assert torch.equal(played(silent(host, (2, 0, 1)), (2, 0, 1)), by_inlet[0])  # and rest
    assert host.model.get_brightness() == (0.,)


def test_a_message_plays_a_note_as_it_was_asked(named):
    host = Host(named, 22_050)
    for name, wish in zip(NAMES, (1, -1, .5)): host.set(name, wish)
    host.set("play", 60)
    heard = torch.cat([host(torch.zeros(5, 64)) for _ in range(20)])
    assert torch.equal(heard, played(Host(named, 22_050), (1, -1, .5))) and host.model.get_play() == (60,)


def test_a_wish_that_is_no_number_is_ignored_and_reported_once(named):
    want, host = played(Host(named, 22_050), (1, 0, 0)), Host(named, 22_050)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        host.set("brightness", 1)
        for bad in (float("nan"), float("inf")): host.set("noisiness", bad)
        heard = played(host, (0, float("nan"), 0))
    assert torch.equal(heard, want) and said_once(said, "a wish that is NaN or Inf")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-2.0**127, 2.0**127, width=32), min_size=3, max_size=3))
def test_any_finite_wish_gives_a_finite_sound(named, asked):
    assert torch.isfinite(played(Host(named, 22_050), asked)).all()


def test_a_named_generator_plays_what_the_module_says_for_every_block(tmp_path):
    steer = fresh(1, lambda: nn.Linear(1, 2))
    plain = export_nn_tilde(Tone(), tmp_path / "plain.ts", dim=2)
    named = export_nn_tilde(Tone(), tmp_path / "named.ts", dim=2, steer=steer, names=["play"])  # free, where there are no notes
    wishes = torch.linspace(-1, 1, 128)
    with torch.no_grad(): codes = torch.cat([steer(wish[None, None]) for wish in wishes]).T.repeat_interleave(64, 1)
    want = heard(Host(plain, 48_000, 64), codes)
    for block in (64, 1024, 8192): assert torch.equal(heard(Host(named, 48_000, block), wishes.repeat_interleave(64)[None]), want)
    assert Host(named).model.get_attributes() == ["play"]


def heard(host, controls): return torch.cat([host(part) for part in controls.split(host.block, 1)])


class Wide(nn.Module):
    def forward(self, asked): return asked.repeat(1, 5)

class Blows(nn.Module):
    def forward(self, asked): return (asked / asked.abs() * torch.ones(1, 4))


@pytest.mark.parametrize("steer, names, words", [
    (None, ["a"], "given together"), (nn.Linear(1, 4), [], "given together"), (torch.sin, ["a"], "steer must be a torch module, got builtin"),
    (nn.Linear(2, 4), ["a"], "steer refuses 1 numbers"), (Wide(), ["a"], r"\(1, 4\), finite, from \(1, 1\), got \(1, 5\)"),
    (Blows(), ["a"], "finite"), (nn.Linear(2, 4), ["a", "a"], "each once"), (nn.Linear(1, 4), ["a b"], "words of letters"),
    (nn.Linear(1, 4), ["é"], "words of letters"), (nn.Linear(1, 4), [3], "words of letters"), (nn.Linear(1, 4), ["play"], "uses 'play'"),
    (nn.Linear(1, 4), ["sample_rate"], "uses 'sample_rate'"), (nn.Linear(1, 4), ["forward"], "uses 'forward'")])
def test_wishes_that_cannot_be_are_refused(sampler, tmp_path, steer, names, words):
    with pytest.raises(ValueError, match=words): export_nn_tilde(sampler, tmp_path / "x.ts", steer=steer, names=names)
    assert not list(tmp_path.iterdir())


def test_what_steers_is_not_changed_by_its_export(sampler, steer, named):
    assert steer.training and all(p.requires_grad for p in steer.parameters())


# --- the host

def test_a_host_refuses_what_is_no_file_of_nn(tmp_path, file):
    with pytest.raises(FileNotFoundError, match="there is no file"): Host(tmp_path / "none.ts")
    (tmp_path / "text.ts").write_text("hello")
    with pytest.raises(ValueError, match="no TorchScript file"): Host(tmp_path / "text.ts")
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "linear.ts"))
    with pytest.raises(ValueError, match="no forward_params"): Host(tmp_path / "linear.ts")
    with pytest.raises(FileNotFoundError, match="there is no folder"): export_nn_tilde(Tone(), tmp_path / "none" / "x.ts", dim=2)
    for block in (32, 63, 100, 96):
        with pytest.raises(ValueError, match="block"): Host(file, 48_000, block)
    with pytest.raises(ValueError, match=r"controls must be \(6, 64\)"): Host(file)(torch.zeros(6, 128))
    with pytest.raises(ValueError, match="play takes 5 values, got 2"): Host(file).set("play", 60, 0)


# --- patches

def pd(path):
    "Objects and cords of a patch of Pure Data."
    lines = re.findall(r"(?ms)^#(.*?)(?<!\\);$", path.read_text())
    assert lines[0].startswith("N canvas")
    objects = [line.split(maxsplit=1)[1] for line in lines[1:] if not line.startswith("X connect")]
    return objects, [tuple(map(int, line.split()[2:])) for line in lines[1:] if line.startswith("X connect")]


def test_the_patches_are_whole_and_fit_the_file(tmp_path, file):
    paths = {path.suffix + path.stem[7:]: path for path in write_patches(tmp_path)}
    assert sorted(path.name for path in paths.values()) == sorted(PATCHES)
    objects, cords = pd(paths[".pd"])
    nn_at = next(k for k, text in enumerate(objects) if "nn~ sampler.ts forward" in text)
    assert all(0 <= a < len(objects) and 0 <= b < len(objects) for a, _, b, _ in cords)
    channels = Host(file).channels
    signals = {inlet for a, _, b, inlet in cords if b == nn_at and "sig~" in objects[a]}
    assert signals == set(range(channels))
    messages = [re.search(r"set (\w+)", objects[a])[1] for a, _, b, _ in cords if b == nn_at and "msg" in objects[a] and " set " in objects[a]]
    assert set(messages) == set(Host(file).model.get_attributes())
    assert len(pd(paths[".pd-help"])[0]) > 5


def test_the_patch_for_max_is_whole_and_fits_the_file(tmp_path, file):
    write_patches(tmp_path)
    patcher = json.loads((tmp_path / "sampler.maxpat").read_text())["patcher"]
    boxes = {b["box"]["id"]: b["box"] for b in patcher["boxes"]}
    for line in patcher["lines"]:
        (a, outlet), (b, inlet) = line["patchline"]["source"], line["patchline"]["destination"]
        assert outlet < boxes[a]["numoutlets"] and inlet < boxes[b]["numinlets"]
    assert boxes["nn"]["numinlets"] == Host(file).channels
    fed = {line["patchline"]["destination"][1] for line in patcher["lines"] if line["patchline"]["destination"][0] == "nn"}
    assert fed == set(range(6))


def test_the_patch_by_name_is_whole_and_fits_the_file(tmp_path, named):
    [path] = write_patches(tmp_path, NAMES)
    objects, cords = pd(path)
    nn_at = next(k for k, text in enumerate(objects) if "nn~ named.ts forward" in text)
    assert all(0 <= a < len(objects) and 0 <= b < len(objects) for a, _, b, _ in cords)
    into = {b: (a, outlet, inlet) for a, outlet, b, inlet in cords}
    fed = {inlet: objects[into[a][0]] for a, _, b, inlet in cords if b == nn_at and "sig~" in objects[a]}
    assert [fed[k].split(" empty empty ")[1].split()[0] for k in range(3)] == list(NAMES) and len(fed) == Host(named).channels
    assert "notein" in fed[3] and "/ 127" in fed[4]
    messages = {re.search(r"set (\w+)", objects[a])[1] for a, _, b, _ in cords if b == nn_at and " set " in objects[a]}
    assert messages == {"play", "voices"} <= set(Host(named).model.get_attributes())


def test_patches_need_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"): write_patches(tmp_path / "none")
    with pytest.raises(ValueError, match="words of letters"): write_patches(tmp_path, ["too bright"])


# --- ONNX

def test_the_decoder_as_onnx_agrees(sampler, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"): pytest.importorskip(name)
    assert export_onnx(sampler, tmp_path / "x.onnx", checks=8) < 1e-4
    import onnxruntime
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    one = session.run(None, {"z": np.zeros((1, 4), np.float32), "told": sampler.tell(torch.tensor([60])).numpy()})[0]
    with torch.no_grad(): assert np.allclose(one, sampler.decode(POINT, 60).numpy(), atol=1e-4)


def test_without_the_extra_onnx_says_what_is_missing(sampler, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="oplas\\[realtime\\]"): export_onnx(sampler, tmp_path / "x.onnx")


# --- oplas play

def test_the_command_writes_a_tune(file, tmp_path, capsys):
    import soundfile
    main(["play", str(file), "--wav", str(tmp_path / "tune.wav"), "--rate", "22050", "--z", "0", "1", "0", "-1"])
    sound, rate = soundfile.read(tmp_path / "tune.wav")
    assert rate == 22_050 and len(sound) > 3 * rate and np.abs(sound).max() > .001 and "Wrote" in capsys.readouterr().out


def test_without_a_device_the_command_writes_a_wav_and_says_why(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    main(["play", str(file), "--rate", "22050"])
    assert (tmp_path / "oplas.wav").exists() and "Not live" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["play", "none.ts"], ["play", "--rate", "5"], ["play", "--block", "63"], [], ["sing"]])
def test_the_command_names_what_is_wrong(file, words, capsys):
    if words[1:2] in (["--rate"], ["--block"]): words = ["play", str(file), *words[1:]]
    with pytest.raises(SystemExit): main(words)
    assert "error:" in capsys.readouterr().err


def test_the_command_wants_a_sampler_that_is_played_by_its_code(named, capsys):
    with pytest.raises(SystemExit): main(["play", str(named)])
    assert "a sampler with 6 inlets, got 5" in capsys.readouterr().err


class FakeCard(types.ModuleType):
    "A sound card that asks for ten blocks, and then is unplugged."
    def __init__(self, devices=1):
        super().__init__("sounddevice")
        self.heard, self.devices = [], devices

    def query_devices(self): return [dict(max_output_channels=2)] * self.devices

    def sleep(self, ms): raise KeyboardInterrupt

    def OutputStream(self, rate, block, channels, latency, callback):
        card = self
        class Stream:
            def __enter__(self):
                for _ in range(10):
                    out = np.full((block, channels), 9., np.float32)
                    callback(out, block, None, None)
                    card.heard.append(out)
            def __exit__(self, *_): pass
        return Stream()


class FakeMidi(types.ModuleType):
    "A keyboard on which one key is pressed, at once."
    def __init__(self):
        super().__init__("mido")

    def get_input_names(self): return ["keys"]

    def open_input(self, port, callback):
        class Inlet:
            name = "keys"
            def __enter__(self):
                callback(types.SimpleNamespace(type="control_change", control=16, value=127))
                callback(types.SimpleNamespace(type="note_on", note=60, velocity=90))
                callback(types.SimpleNamespace(type="note_off", note=60, velocity=0))
                return self
            def __exit__(self, *_): pass
        return Inlet()


def test_live_a_key_is_heard_in_the_first_block(file, monkeypatch, capsys):
    card = FakeCard()
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    monkeypatch.setitem(sys.modules, "mido", FakeMidi())
    main(["play", str(file), "--rate", "22050"])
    assert np.abs(card.heard[0]).max() > 0 and np.abs(np.concatenate(card.heard)).max() <= 1
    assert "Playing from keys" in capsys.readouterr().out


def test_without_a_device_or_a_keyboard_there_is_a_reason(file, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeCard(devices=0))
    monkeypatch.setitem(sys.modules, "mido", FakeMidi())
    main(["play", str(file), "--rate", "22050"])
    assert "there is no sound device" in capsys.readouterr().err


def test_controllers_move_the_code(host):
    keys = Keyboard(host)
    for number, value in ((16, 0), (17, 127), (19, 127), (21, 5)): keys(types.SimpleNamespace(type="control_change", control=number, value=value))
    assert keys.z == [-2, 2, 0, 2]
    keys(types.SimpleNamespace(type="note_on", note=60, velocity=64))
    assert host.model.get_play() == (60, -2., 2., 0., 2.)


def test_the_command_is_declared():
    assert 'oplas = "oplas.realtime:main"' in (ROOT / "pyproject.toml").read_text() and realtime.main is main
