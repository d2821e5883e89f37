"""RAVE exports and other files for nn~: small ones with what real ones have, each in turn. What comes out depends on the input alone, the
report finds what was put in, and every way in which a file can be wrong has its own words."""
import math, zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from oplas import encoders
from oplas.encoders import rave
from oplas.realtime import Host, export_nn_tilde

torch.set_num_threads(1)


def sines(count=6, samples=128): return torch.sin(2 * math.pi * torch.arange(1, count + 1)[:, None] * 4 * torch.arange(samples) / samples) / (samples / 2) ** .5


def params(**four): return {f"{name}_params": torch.tensor(values) for name, values in four.items()}


class File(nn.Module):
    "Four levels of sines every 128 samples; no noise, no state. Its buffers are what a test gives it."
    def __init__(self, **buffers):
        super().__init__()
        self.waves = sines()
        for name, value in buffers.items(): self.register_buffer(name, value)

    @torch.jit.export
    def encode(self, x): return (x[:, :1].reshape(1, -1, 128) @ self.waves[:4].t()).transpose(1, 2)

    @torch.jit.export
    def decode(self, z): return (z.transpose(1, 2) @ self.waves[:4]).reshape(1, 1, -1)

    def forward(self, x): return self.decode(self.encode(x))


class Plain(File):
    def __init__(self, **buffers):
        super().__init__(**params(encode=[1, 1, 4, 128], decode=[4, 128, 1, 1], forward=[1, 1, 1, 1]) | buffers)
        self.sr = 24_000


class Noisy(Plain):
    "As RAVE's second version: codes drawn, what was dropped filled with noise, and what the training found out."
    def __init__(self, fidelity=(.5, .75, .875, 1., 1., 1.)):
        super().__init__(latent_pca=torch.eye(6), latent_mean=torch.zeros(6), fidelity=torch.tensor(fidelity))

    @torch.jit.export
    def encode(self, x):
        z = (x.reshape(1, -1, 128) @ self.waves[:4].t()).transpose(1, 2)
        return z + torch.randn_like(z)

    @torch.jit.export
    def decode(self, z): return (torch.cat([z, torch.randn(1, 2, z.shape[2])], 1).transpose(1, 2) @ self.waves).reshape(1, 1, -1)


class Streaming(Plain):
    "State of all kinds: a buffer written in place, as cached convolutions have; a tensor, a number and a list that are attributes."
    def __init__(self):
        super().__init__(pad=torch.zeros(1, 1, 128))
        self.last, self.calls, self.seen = torch.zeros(1, 4, 1), 0, torch.jit.Attribute([], list[float])

    @torch.jit.export
    def encode(self, x):
        z = (x.reshape(1, -1, 128) @ self.waves[:4].t()).transpose(1, 2)
        moved = torch.cat([self.last, z], 2)
        self.last = moved[:, :, -1:]
        return moved[:, :, :-1]

    @torch.jit.export
    def decode(self, z):
        dry = (z.transpose(1, 2) @ self.waves[:4]).reshape(1, 1, -1)
        wet = dry + .5 * torch.cat([self.pad, dry[:, :, :-128]], 2) + float(self.calls) + float(len(self.seen))
        self.pad.copy_(dry[:, :, -128:])
        self.calls += 1
        self.seen.append(0.)
        return wet


class Stereo(File):
    "As RAVE's first version: the rate is a buffer; one code goes to two channels."
    def __init__(self):
        super().__init__(sampling_rate=torch.tensor(44_100), latent_size=torch.tensor(6), max_batch_size=torch.tensor(1),
                         **params(encode=[2, 1, 4, 128], decode=[4, 128, 2, 1]))

    @torch.jit.export
    def encode(self, x):
        assert x.shape[1] == 2
        return (x[:, :1].reshape(1, -1, 128) @ self.waves[:4].t()).transpose(1, 2)

    @torch.jit.export
    def decode(self, z):
        y = (z.transpose(1, 2) @ self.waves[:4]).reshape(1, 1, -1)
        return torch.cat([y, .5 * y], 1)


class Organ(nn.Module):
    def __init__(self):
        super().__init__()
        self.waves = sines(3, 1024)

    def forward(self, z): return z @ self.waves


def save(module, path):
    torch.jit.script(module.eval()).save(str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("rave")


@pytest.fixture(scope="module")
def plain(folder): return rave(save(Plain(), folder / "plain.ts"))


@pytest.fixture(scope="module")
def noisy(folder): return rave(save(Noisy(), folder / "noisy.ts"))


@pytest.fixture(scope="module")
def streaming(folder): return rave(save(Streaming(), folder / "streaming.ts"))


@pytest.fixture(scope="module")
def stereo(folder): return rave(save(Stereo(), folder / "stereo.ts"))


@pytest.fixture(scope="module")
def organ(folder): return rave(export_nn_tilde(Organ(), folder / "organ.ts", dim=3, sample_rate=44_100), sample_rate=48_000)


def codes(n=2, dim=4, frames=7, seed=0): return torch.randn(n, dim, frames, generator=torch.Generator().manual_seed(seed))


# --- there and back

def test_codes_and_sounds_have_the_shapes_that_the_file_says(plain):
    assert (plain.latent_dim, plain.ratio, plain.sample_rate, plain.seed) == (4, 128, 24_000, 0)
    z = codes()
    sound = plain.decode(z)
    assert sound.shape == (2, 7 * 128) and torch.allclose(plain.encode(sound), z, atol=1e-5)
    assert torch.allclose(sound[1], (z[1].T @ sines()[:4]).flatten(), atol=1e-6)


def test_a_code_without_frames_is_held(plain):
    z = codes(frames=1)[..., 0]
    assert torch.equal(plain.decode(z, frames=3), plain.decode(z[..., None].expand(-1, -1, 3)))
    held = plain.decode(z)
    assert held.shape == (2, 188 * 128) and 24_000 <= held.shape[1] < 24_000 + 128


def test_zeros_fill_the_last_frame(plain):
    sound = plain.decode(codes())
    cut = sound[:, :-100]
    assert torch.equal(plain.encode(cut), plain.encode(torch.cat([cut, torch.zeros(2, 100)], 1))) and plain.encode(sound[:, :1]).shape == (2, 4, 1)


def test_another_sample_rate_is_resampled_as_by_the_other_encoders(plain):
    import librosa
    sound = plain.decode(codes())
    expected = torch.from_numpy(librosa.resample(sound.numpy(), orig_sr=12_000, target_sr=24_000))
    assert torch.allclose(plain.encode(sound, 12_000), plain.encode(expected), atol=1e-5)


def test_the_first_version_in_stereo(stereo):
    assert stereo.sample_rate == 44_100
    z = codes()
    sound = stereo.decode(z)
    assert sound.shape == (2, 7 * 128) and torch.allclose(stereo.encode(sound), .75 * z, atol=1e-5)


def test_what_an_export_adds_at_the_end_is_cut_off(folder, plain):
    "Some of RAVE's exports make a sound somewhat longer than its codes."
    class Longer(Plain):
        @torch.jit.export
        def decode(self, z): return torch.cat([(z.transpose(1, 2) @ self.waves[:4]).reshape(1, 1, -1), torch.ones(1, 1, 90)], 2)
    assert torch.equal(rave(save(Longer(), folder / "longer.ts")).decode(codes()), plain.decode(codes()))


def test_weights_are_frozen(folder):
    class Trained(Plain):
        def __init__(self):
            super().__init__()
            self.waves = nn.Parameter(sines())
    model = rave(save(Trained(), folder / "trained.ts"))
    assert not model.encode(model.decode(codes())).requires_grad and model.decode(codes().requires_grad_()).requires_grad


def test_gradients_pass_to_a_code_and_to_a_sound(plain, streaming):
    for model in (plain, streaming):
        z = codes().requires_grad_()
        model.encode(model.decode(z)).square().sum().backward()
        assert z.grad.norm() > 0
        with torch.no_grad(): assert not model.decode(z).requires_grad


# --- noise and state

def test_results_depend_on_the_input_alone(noisy, streaming):
    z = codes()
    for model in (noisy, streaming):
        sound, alone = model.decode(z), model.decode(z[1:])
        model.decode(codes(3, seed=5))
        model.encode(sound)
        assert torch.equal(model.decode(z), sound) and torch.equal(sound[1:], alone)
        assert torch.equal(model.encode(sound)[1:], model.encode(sound[1:]))
        assert torch.equal(rave(model.path).decode(z), sound)


def test_the_file_alone_would_give_something_else_each_time(noisy, streaming):
    for model in (noisy, streaming):
        raw = torch.jit.load(model.path)
        assert not torch.equal(raw.decode(codes(1)), raw.decode(codes(1)))


def test_a_state_is_the_one_that_was_saved(folder):
    module = torch.jit.script(Streaming().eval())
    module.decode(codes(1))
    module.save(str(folder / "played.ts"))
    played = rave(folder / "played.ts").decode(codes())
    assert torch.equal(played[0], torch.jit.load(folder / "played.ts").decode(codes()[:1])[0, 0]) and float(played.mean()) > 1


def test_noise_is_of_the_seed_and_the_callers_chance_is_left_alone(noisy):
    other = rave(noisy.path, seed=1)
    assert not torch.equal(noisy.decode(codes()), other.decode(codes())) and not torch.equal(noisy.encode(torch.zeros(1, 128)), other.encode(torch.zeros(1, 128)))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    noisy.info()
    assert torch.equal(torch.rand(1), expected)


# --- the report

def levels(strength, n=6, frames=60, seed=1):
    "Sounds in which the four sines come and go, of these standard deviations."
    return ((torch.tensor(strength) * torch.randn(n, frames, 4, generator=torch.Generator().manual_seed(seed))) @ sines()[:4]).flatten(1)


@pytest.mark.parametrize("strength, rank", [((4., 0., 0., 0.), 1), ((4., 0., 4., 0.), 2), ((4., 4., 4., 4.), 4)])
def test_effective_rank_is_the_number_of_dimensions_in_use(plain, noisy, strength, rank):
    for model, within in ((plain, .02), (noisy, .15)):
        report = model.info(levels(strength))
        assert abs(report.effective_rank["codes"] - rank) < within * rank
        assert set(np.flatnonzero(report.change > report.chance + 1e-5)) == {k for k in range(4) if strength[k]} and report.heard == rank
    assert abs(plain.info(levels(strength)).effective_rank["sound"] - rank) < .05 * rank


def test_unequal_shares_count_less(plain):
    report = plain.info(levels((8., 4., 0., 0.)))
    power = np.array([64, 16]) / 80
    assert abs(report.effective_rank["codes"] - np.exp(-(power * np.log(power)).sum())) < .05
    assert np.allclose(report.variance["codes"][:2], power, atol=.03) and report.change[0] > report.change[1] > .1 and report.change[2:].max() < 1e-5


def test_the_share_that_training_saw_is_read_off_the_files_curve(folder, noisy, plain):
    report = noisy.info()
    p = np.array([.5, .25, .125, .125])
    assert abs(report.effective_rank["training"] - np.exp(-(p * np.log(p)).sum())) < 1e-5
    assert (report.full_dim, report.latent_dim) == (6, 4) and set(plain.info().variance) == {"codes"} and plain.info().full_dim == 4
    unset = rave(save(Noisy((0.,) * 6), folder / "unset.ts")).info()     # a model that was exported before it was validated
    assert "training" not in unset.effective_rank


def test_noise_is_measured_in_decibels(noisy, plain):
    sound = levels((4., 0., 4., 0.))
    report = noisy.info(sound)
    z = noisy.encode(sound)
    raw = torch.jit.load(noisy.path)
    torch.manual_seed(77)
    a, b = (torch.cat([raw.decode(item) for item in z.split(1)]) for _ in range(2))
    assert abs(report.noise_db["sound"] - 10 * math.log10(float((a - b).square().sum() / a.square().sum()))) < .5
    a, b = (torch.cat([raw.encode(item[None, None]) for item in sound]) for _ in range(2))
    assert abs(report.noise_db["codes"] - 10 * math.log10(float((a - b).square().sum() / a.square().sum()))) < .5
    quiet = plain.info(sound)
    assert quiet.noise_db == {"codes": -math.inf, "sound": -math.inf} and quiet.chance == 0 and str(quiet).count("not at all") == 2


def test_a_report_can_be_read_drawn_and_tabled(noisy):
    from matplotlib.figure import Figure
    report = noisy.info()
    assert all(words in str(report) for words in ("4 of 6 numbers every 128 samples at 24,000 Hz", "seeded with 0", "in the codes", "in the training", "in the sound"))
    assert isinstance(report.plot(), Figure) and {len(v) for v in report.to_dict().values()} == {4}
    again = noisy.info()
    assert np.array_equal(again.change, report.change) and again.effective_rank == report.effective_rank


def test_a_silent_file_has_a_report(folder):
    class Silent(Plain):
        @torch.jit.export
        def decode(self, z): return torch.zeros(1, 1, 128 * z.shape[2])
    report = rave(save(Silent(), folder / "silent.ts")).info()
    assert report.effective_rank == {"codes": 0, "sound": 0} and report.heard == 0 and report.noise_db["sound"] == -math.inf


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_effective_rank_lies_between_one_and_the_number_of_shares(shares):
    rank = encoders._effective(torch.tensor(shares))
    positive = sum(torch.tensor(shares) > 0)
    assert rank == 0 if not positive else 1 - 1e-9 <= rank <= positive + 1e-6


# --- what Real time writes

def test_a_file_of_chapter_10_is_a_decoder(organ):
    assert (organ.latent_dim, organ.ratio, organ.sample_rate) == (3, 64, 48_000)
    z = codes(dim=3, frames=1)[..., 0]
    host = Host(organ.path, 48_000, 64)
    expected = torch.cat([host(z[0][:, None].expand(-1, 64)) for _ in range(80)])
    assert torch.allclose(organ.decode(z, frames=80)[0], expected, atol=1e-6)
    report = organ.info()
    assert set(report.effective_rank) == {"sound"} and report.heard == 3 and set(report.noise_db) == {"sound"}
    for refused in (organ.encode, organ.info):
        with pytest.raises(ValueError, match="organ.ts has no encode: it only makes sound"): refused(torch.zeros(1, 640))


def test_a_file_that_does_not_say_its_rate_is_told(folder, plain):
    with pytest.raises(ValueError, match="sample_rate must be given, since .*organ2.ts does not say"): rave(export_nn_tilde(Organ(), folder / "organ2.ts", dim=3))
    with pytest.raises(ValueError, match="sample_rate must be left out or be 24000, as .*plain.ts says, got 48000"): rave(plain.path, 48_000)
    assert rave(plain.path, 24_000).sample_rate == 24_000
    for rate in (0, 44.1, "48k"):
        with pytest.raises(ValueError, match="sample_rate must be a whole number"): rave(plain.path, rate)
    for seed in (-1, .5, None):
        with pytest.raises(ValueError, match="seed must be a whole number"): rave(plain.path, seed=seed)


# --- what is wrong

def test_codes_that_are_wrong(plain):
    for z in (torch.zeros(2, 5), torch.zeros(2, 5, 3), torch.zeros(4), torch.zeros(2, 4, 0), torch.zeros(0, 4), torch.zeros(2, 4).long(), np.zeros((2, 4)), None):
        with pytest.raises(ValueError, match=r"z must be a float tensor of shape \(n ≥ 1, 4"): plain.decode(z)
    with pytest.raises(ValueError, match="z holds NaN"): plain.decode(torch.full((1, 4), torch.nan))
    with pytest.raises(ValueError, match="frames must be a whole number of at least 1, got 0"): plain.decode(torch.zeros(1, 4), frames=0)
    with pytest.raises(ValueError, match=r"frames is for z of shape \(n, 4\); this z has 3 of its own"): plain.decode(torch.zeros(1, 4, 3), frames=2)


def test_sounds_that_are_wrong(plain):
    for use in (plain.encode, plain.info):
        for x in (torch.zeros(100), torch.zeros(1, 1, 100), torch.zeros(1, 0), torch.zeros(1, 100).long()):
            with pytest.raises(ValueError, match="audio must be a float tensor of shape"): use(x)
        with pytest.raises(ValueError, match="audio holds NaN"): use(torch.full((1, 100), torch.inf))
        with pytest.raises(ValueError, match="sample_rate must be"): use(torch.zeros(1, 100), 0)


def test_files_that_are_none(folder, plain, tmp_path):
    data = open(plain.path, "rb").read()
    torch.save(Plain().state_dict(), tmp_path / "checkpoint.ckpt")
    for name, content in {"empty": b"", "text": b"hello", "cut": data[:len(data) // 2]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"path: .*{name} is no TorchScript file, or is damaged"): rave(tmp_path / name)
    with pytest.raises(ValueError, match="checkpoint.ckpt is no TorchScript file but .*exported first"): rave(tmp_path / "checkpoint.ckpt")
    for missing in (tmp_path / "nothing.ts", tmp_path):
        with pytest.raises(FileNotFoundError, match="path: there is no file"): rave(missing)


def test_a_byte_that_was_changed_is_noticed(plain, tmp_path):
    "torch itself loads such a file, with a weight that is another."
    with zipfile.ZipFile(plain.path) as archive: largest = max(archive.infolist(), key=lambda part: part.file_size)
    data = bytearray(open(plain.path, "rb").read())
    data[data.index(sines()[1].numpy().tobytes()) + 7] ^= 1
    (tmp_path / "changed.ts").write_bytes(data)
    with pytest.raises(ValueError, match=f"changed.ts is damaged: the checksum of {largest.filename} is wrong"): rave(tmp_path / "changed.ts")


def test_a_file_of_another_torch_is_named(plain, tmp_path):
    with zipfile.ZipFile(plain.path) as old, zipfile.ZipFile(tmp_path / "other.ts", "w") as new:
        for part in old.infolist():
            content = old.read(part)
            new.writestr(part.filename, content.replace(b"torch.matmul", b"torch.matnul") if part.filename.endswith(".py") else content)
    with pytest.raises(ValueError, match=r"path: .*other.ts cannot be loaded by torch \d"): rave(tmp_path / "other.ts")


class NoDecode(nn.Module):
    def __init__(self):
        super().__init__()
        self.sr, self.encode_params = 24_000, torch.tensor([1, 1, 4, 128])

    @torch.jit.export
    def encode(self, x): return x

    def forward(self, x): return x


class Fails(Plain):
    @torch.jit.export
    def decode(self, z): return z.view(7, 7, 7)


class Pair(Plain):
    @torch.jit.export
    def decode(self, z): return z, z


class Lies(Plain):
    @torch.jit.export
    def encode(self, x): return (x.reshape(1, -1, 64) @ self.waves[:4, :64].t()).transpose(1, 2)


@pytest.mark.parametrize("module, said", [
    (NoDecode(), "cannot decode: it needs a method decode and its decode_params, .* it has encode, encode_params, forward$"),
    (nn.Identity(), "cannot decode: .* it has forward$"),
    (File(), "cannot decode: .* it has encode, decode, forward$"),
    (Plain(decode_params=torch.tensor([4, 128])), r"decode_params must be four whole numbers of at least 1, got \[4, 128\]"),
    (Plain(encode_params=torch.tensor([1, 1, 4, 0])), r"encode_params must be four whole numbers of at least 1, got \[1, 1, 4, 0\]"),
    (Plain(encode_params=torch.tensor([1, 1, 8, 128])), "encode gives 8 numbers every 128 samples, and decode takes 4 every 128"),
    (Plain(decode_params=torch.tensor([4, 64, 1, 1])), "encode gives 4 numbers every 128 samples, and decode takes 4 every 64"),
    (Plain(encode_params=torch.tensor([1, 2, 4, 5]), decode_params=torch.tensor([4, 5, 1, 2])), "they must agree, on whole samples"),
    (Fails(), r"decode of .* fails on \(1, 4, 128\): .*invalid for input"),
    (Pair(), r"decode of .* should make \(1, 1, 16384\) of \(1, 4, 128\), and makes tuple"),
    (Lies(), r"encode of .* should make \(1, 4, 128\) of \(1, 1, 16384\), and makes \(1, 4, 256\)")],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "")
def test_a_file_that_does_not_do_what_nn_asks_is_refused(module, said, tmp_path):
    with pytest.raises(ValueError, match=said): rave(save(module, tmp_path / "wrong.ts"))


def test_what_is_no_number_is_refused_when_it_is_made(tmp_path):
    "Silence may have no code, as in RAVE's spherical kind; the file is not wrong for that."
    class Broken(Plain):
        @torch.jit.export
        def encode(self, x): return (x.reshape(1, -1, 128) @ self.waves[:4].t()).transpose(1, 2) / x.abs().max()
    model = rave(save(Broken(), tmp_path / "broken.ts"))
    assert model.encode(model.decode(codes())).shape == (2, 4, 7)
    for use in (model.encode, model.info):
        with pytest.raises(ValueError, match="what encode of .*broken.ts makes holds NaN or Inf in 20 places"): use(torch.zeros(1, 640))
