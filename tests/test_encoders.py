"""Frozen encoders: musicnn's four networks against TensorFlow's numbers, VGGish against its equations in numpy, CLAP and DAC in
transformers' own format with small random weights; one contract for all; and every way in which a file can be wrong."""
import json, os, pathlib, pickle, shutil, subprocess, sys, urllib.error

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from oplas import encoders
from oplas.encoders import NETWORKS, POOLS, RELEASES, VGG, DAC, Encoder, clap, dac, musicnn, vggish

torch.set_num_threads(1)

# What TensorFlow 2.21 gave for each network (MSD_vgg by the graph that was saved with it): norm, mean, first four and last of the
# embedding; sum and first four of the tags; the three likeliest as index:value. Noted once, to the digits shown.
TENSORFLOW = """
MTT_vgg waves          7.9623 -0.14195 -0.7075  0.9303 -0.5485 -0.6608 -0.9103 3.5218 0.16294 0.03680 0.11766 0.38261  6:0.4112  3:0.3826 14:0.3114
MTT_vgg chirp         12.2630  0.19861 -0.6742 -0.0909  1.8430 -0.6608 -0.5492 1.2730 0.01457 0.00768 0.09813 0.00087 25:0.6502  2:0.0981 24:0.0659
MTT_vgg silence        5.3090 -0.04302 -0.1985 -0.0460 -0.2227 -0.1974 -0.6884 2.2518 0.26995 0.11974 0.06887 0.06723  0:0.2699 24:0.1415  1:0.1197
MSD_vgg waves         13.2862 -0.11817 -0.2168  0.4101 -0.3053 -0.5973 -0.6205 3.2240 0.09439 0.08455 0.04339 0.03841  4:0.5402 11:0.2475 41:0.2366
MSD_vgg chirp         14.4380  0.12072 -0.1334 -0.7692 -0.3053  0.5443 -0.6205 1.1678 0.01608 0.00391 0.02096 0.03691 26:0.3856 30:0.1714  9:0.1420
MSD_vgg silence        7.5316 -0.19082 -0.2168 -0.7692 -0.3053 -0.5973 -0.6205 2.5895 0.21450 0.04198 0.10717 0.13244  4:0.2644 30:0.2475  0:0.2145
MTT_musicnn waves      9.8956  0.17087  1.3153 -0.0329  0.9413 -0.1861  0.6430 1.6114 0.23853 0.00947 0.11173 0.01824  0:0.2385  7:0.2258 18:0.1137
MTT_musicnn chirp     15.0578  0.37278  2.4569  1.1207 -0.0090 -0.1730  2.4606 0.4393 0.03225 0.00021 0.02829 0.00006 25:0.1507 32:0.0847  0:0.0323
MTT_musicnn silence    5.9171  0.05205  0.4108 -0.0329 -0.0923  0.3049  0.2871 2.1791 0.31067 0.20442 0.14728 0.01087  0:0.3107 24:0.2597  1:0.2044
MSD_musicnn waves     20.0212  0.52630 -0.1772  2.4582 -0.2848 -0.2751  0.1840 0.8649 0.00314 0.00028 0.00458 0.00475 30:0.3190  9:0.2475 11:0.0879
MSD_musicnn chirp     19.1034  0.45738  2.8772  0.6165  0.0245 -0.2751  1.8122 1.1857 0.00145 0.00399 0.00157 0.00138 26:0.4587  9:0.3658 25:0.1083
MSD_musicnn silence    6.6937 -0.00866 -0.1772 -0.1270 -0.2848 -0.2751 -0.2934 1.8152 0.20035 0.04922 0.10617 0.12586  0:0.2003  3:0.1259  4:0.1140
"""
ROWS = [line.split() for line in TENSORFLOW.strip().splitlines()]


def chirp(seconds=3):
    t = np.arange(16_000 * seconds) / 16_000
    return torch.from_numpy((.4 * np.sin(2 * np.pi * 220 * t) + .2 * np.sin(2 * np.pi * (1000 * t + 400 * t ** 2))).astype(np.float32))


WAVES = (2 + 2 * torch.sin(.1 * torch.arange(187.))[:, None] * torch.cos(.2 * torch.arange(96.)))[None]
MODELS = {name: musicnn(name) for name in NETWORKS}


def noise(n, samples, seed=0): return .1 * torch.randn(n, samples, generator=torch.Generator().manual_seed(seed))


# --- musicnn against TensorFlow

def heard(name, what):
    "The layers of one of the three inputs; the chirp comes as sound."
    if what == "chirp": return MODELS[name].layers(chirp()[None])
    return MODELS[name].hear(WAVES if what == "waves" else torch.zeros(1, 187, 96))


def off(found, given, scale):
    "How far numbers are from those that were noted, past the rounding of the last digit, as a share of the size of the whole."
    rounding = .5 * 10. ** -np.array([len(text.split(".")[1]) for text in given])
    return float((np.abs(np.array(found, float) - np.array(given, float)) - rounding).clip(min=0).max() / scale)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:2]))
def test_musicnn_gives_what_tensorflow_gave(row):
    (name, what), given, top = row[:2], row[2:14], [pair.split(":") for pair in row[14:]]
    layers = heard(name, what)
    e, tags = layers[MODELS[name].embedding][0].double(), layers["tags"][0].double()
    size = float(given[0])
    assert off([e.norm()], given[:1], size) < 1e-5
    assert off([e.mean(), *e[:4], e[-1]], given[1:7], size / len(e) ** .5) < 1e-5
    assert off([tags.sum(), *tags[:4]], given[7:], 1) < 1e-5
    assert tags.argsort(descending=True)[:3].tolist() == [int(k) for k, _ in top]
    assert off(tags.sort(descending=True).values[:3].tolist(), [v for _, v in top], 1) < 1e-5


def test_the_picture_is_that_of_the_original():
    m = MODELS["MTT_vgg"].layers(chirp()[None])["log-mel"].reshape(187, 96)
    assert off([m.mean(), m.max(), *m[100, [5, 10, 30, 60, 95]], *m[0, [5, 30]]],
               "0.42451 5.91263 5.2571 0.1788 0.0 0.0033 0.0 5.1753 4.4194".split(), 1) < 1e-4
    assert m.dtype == torch.float32


@pytest.mark.parametrize("what, length", [("waves", 12.3544), ("chirp", 11.3597)])
def test_the_pools_of_the_packages_code_can_be_told_from_those_of_the_graph(what, length):
    model = VGG(POOLS["MTT_vgg"]).eval()
    model.load_state_dict(MODELS["MSD_vgg"].state_dict())
    e = (model.hear(WAVES) if what == "waves" else model.layers(chirp()[None]))["pool5"]
    assert abs(e.norm() / length - 1) < 1e-4 and abs(e.norm() / heard("MSD_vgg", what)["pool5"].norm() - 1) > .05


def test_loud_music_is_no_infinity():
    "In 16 bits, 10,000 times the mel power of a loud sound is infinite."
    loud = torch.sign(chirp(3))[None]
    layers = MODELS["MTT_musicnn"].layers(loud)
    assert layers["mel power"].max() > 6.55 and all(v.isfinite().all() for v in layers.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_second_windows_go_on_where_the_first_ended(name):
    "Frames are counted through the whole sound, as the original does, and a rest of less than a window is not heard."
    import librosa
    x = chirp(7)
    mel = librosa.feature.melspectrogram(y=x.numpy(), sr=16_000, n_fft=512, hop_length=256, n_mels=96)
    logmel = torch.from_numpy(np.log10(10_000 * mel.T + 1)[:2 * 187].reshape(2, 187, 96))
    model = MODELS[name]
    assert torch.allclose(model.encode(x[None]), model.hear(logmel)[model.embedding].mean(0, keepdim=True), atol=2e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_tags_have_names(name):
    model, x = MODELS[name], torch.stack([chirp(6), torch.zeros(96_000)])
    tags, values = model.tags(x), model.layers(x)["tags"]
    assert len(model.labels) == len(set(model.labels)) == 50
    for k in range(2):
        assert list(tags[k].values()) == sorted(tags[k].values(), reverse=True)
        assert [tags[k][label] for label in model.labels] == pytest.approx(values[k].tolist())
    assert list(musicnn("MTT_vgg").tags(torch.zeros(1, 48_000))[0])[:3] == ["guitar", "quiet", "classical"]   # TensorFlow's: 0, 24, 1


def test_layers_have_the_sizes_that_the_architecture_says():
    sizes = {name: {k: v.shape[1] for k, v in MODELS[name].layers(chirp()[None]).items()} for name in ("MSD_vgg", "MSD_musicnn")}
    front = {"waveform": 48_128, "mel power": 17_952, "log-mel": 17_952}
    assert sizes["MSD_vgg"] == front | {f"pool{k}": 128 for k in range(1, 5)} | {"pool5": 256, "logits": 50, "tags": 50}
    assert sizes["MSD_musicnn"] == front | {"timbral": 408, "temporal": 153, "cnn1": 64, "cnn2": 64, "cnn3": 64, "max_pool": 753, "mean_pool": 753,
                                            "penultimate": 200, "logits": 50, "tags": 50}
    assert [sum(p.numel() for p in MODELS[name].parameters()) for name in ("MTT_vgg", "MTT_musicnn")] == [605_748, 787_159]


# --- files that are wrong

@pytest.fixture
def bundle(tmp_path):
    "A copy of MTT_vgg's bundle, to be damaged."
    shutil.copytree(encoders._wheel() / "MTT_vgg", tmp_path / "copy")
    return tmp_path / "copy"


def test_a_bundle_from_elsewhere_is_read_by_folder_or_prefix(bundle):
    for path in (bundle, str(bundle), f"{bundle}/"): assert torch.equal(musicnn(path=path).hear(WAVES)["pool5"], MODELS["MTT_vgg"].hear(WAVES)["pool5"])
    for file in bundle.glob(".*"): shutil.copy(file, bundle / f"model.ckpt{file.name}")
    assert torch.equal(musicnn(path=bundle / "model.ckpt").hear(WAVES)["tags"], MODELS["MTT_vgg"].hear(WAVES)["tags"])


@pytest.mark.parametrize("file, at", [(".index", 100), (".data-00000-of-00001", 5000)])
def test_a_byte_that_was_changed_is_noticed(bundle, file, at):
    data = bytearray((bundle / file).read_bytes())
    data[at] ^= 1
    (bundle / file).write_bytes(data)
    with pytest.raises(ValueError, match="checksum"): musicnn(path=bundle)


def test_a_file_that_was_cut_off_or_lost_is_noticed(bundle):
    data = bundle / ".data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="cut off"): musicnn(path=bundle)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="data-00000"): musicnn(path=bundle)
    with pytest.raises(FileNotFoundError, match="index"): musicnn(path=bundle / "nothing")


def test_a_checkpoint_of_the_old_kind_is_named_as_such(tmp_path):
    (tmp_path / "vggish_model.ckpt").write_bytes(b"\0" * 40 + (0xDB4775248B80FB57).to_bytes(8, "little"))
    with pytest.raises(FileNotFoundError, match="V1"): musicnn(path=tmp_path / "vggish_model.ckpt")


def test_the_file_of_another_network_is_refused_by_a_variables_name():
    with pytest.raises(ValueError, match=r"another model than VGG: under 1CNN/kernel it has nothing, where \(128, 1, 3, 3\)"):
        musicnn("MTT_vgg", encoders._wheel() / "MTT_musicnn")
    with pytest.raises(ValueError, match=r"another model than MusiCNN: under conv2d/kernel it has nothing"):
        musicnn("MSD_musicnn", encoders._wheel() / "MSD_vgg")


@pytest.mark.parametrize("change, said", [
    (lambda v: v.pop("dense/bias"), r"under dense/bias it has nothing, where \(50,\)"),
    (lambda v: v.update({"dense_1/bias": np.zeros(3, np.float32)}), r"under dense_1/bias it has \(3,\), where nothing"),
    (lambda v: v.update({"3CNN/kernel": np.zeros((3, 3, 64, 128), np.float32)}), r"under 3CNN/kernel it has \(128, 64, 3, 3\), where \(128, 128, 3, 3\)")])
def test_a_variable_too_few_too_many_or_of_another_shape_is_named(monkeypatch, change, said):
    variables = encoders.read_tf_bundle(f"{encoders._wheel()}/MTT_vgg/", encoders._trained)
    change(variables)
    monkeypatch.setattr(encoders, "read_tf_bundle", lambda *_: variables)
    with pytest.raises(ValueError, match=said): musicnn()


@pytest.mark.parametrize("name", ["mtt_vgg", "MTT_vggish", "", None, 3])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="name must be one of MTT_vgg, MSD_vgg, MTT_musicnn, MSD_musicnn"): musicnn(name)


def test_without_the_wheel_the_command_is_said(monkeypatch):
    def files(package): raise ModuleNotFoundError(f"No module named {package!r}")
    monkeypatch.setattr(encoders.importlib.resources, "files", files)
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps musicnn==0\.1\.0"): musicnn()


def test_nothing_heavy_is_imported_before_it_is_needed():
    program = ("import sys, oplas.encoders as e; heavy = {'transformers', 'librosa', 'musicnn', 'tensorflow', 'huggingface_hub'} & set(sys.modules); "
               "assert not heavy, heavy; e.musicnn(); assert not {'tensorflow', 'transformers', 'musicnn.extractor', 'musicnn.models', "
               "'musicnn.tagger'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], check=True)


# --- VGGish

def vggish_weights(seed=0):
    "Random weights under torchvggish's names. The large matrices repeat a row, so that the file stays small."
    g = torch.Generator().manual_seed(seed)
    def draw(*shape, scale): return scale * torch.randn(*shape, generator=g)
    state, before = {}, 1
    for at, size in {0: 64, 3: 128, 6: 256, 8: 256, 11: 512, 13: 512}.items():
        state |= {f"features.{at}.weight": draw(size, before, 3, 3, scale=(2 / (9 * before)) ** .5), f"features.{at}.bias": draw(size, scale=.1)}
        before = size
    state |= {"embeddings.0.weight": draw(1, 12_288, scale=.02).expand(4096, -1), "embeddings.0.bias": draw(4096, scale=.5),
              "embeddings.2.weight": draw(1, 4096, scale=.02).expand(4096, -1), "embeddings.2.bias": draw(4096, scale=.5),
              "embeddings.4.weight": draw(128, 4096, scale=.02), "embeddings.4.bias": draw(128, scale=.5)}
    return state


@pytest.fixture(scope="module")
def vggish_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vggish") / "vggish-10086976.pth"
    torch.save(vggish_weights(), path)
    assert path.stat().st_size < 25e6
    return path


@pytest.fixture(scope="module")
def vggish_model(vggish_file): return vggish(vggish_file)


def picture_in_numpy(x):
    "Log-mel of a window (15600,) by VGGish's equations, in double precision: (96, 64)."
    frames = np.stack([x[160 * k:160 * k + 400] for k in range(96)]) * (.5 - .5 * np.cos(2 * np.pi * np.arange(400) / 400))
    magnitude = abs(np.fft.rfft(frames, 512))
    def mel(hertz): return 1127 * np.log(1 + hertz / 700)
    edges, bank = np.linspace(mel(125), mel(7500), 66), np.zeros((257, 64))
    for row in range(257):
        at = mel(row * 16_000 / 512)
        for band in range(64):
            low, mid, high = edges[band:band + 3]
            bank[row, band] = max(0, min((at - low) / (mid - low), (high - at) / (high - mid)))
    return np.log(magnitude @ bank + .01)


def test_vggish_is_what_its_equations_say(vggish_model):
    x, state = noise(1, 15_600), vggish_weights()
    picture = picture_in_numpy(x[0].double().numpy())
    layers = vggish_model.layers(x)
    assert np.allclose(layers["log-mel"].reshape(96, 64), picture, atol=1e-4)
    h = torch.from_numpy(picture).float()[None, None]
    for at in (0, 3, 6, 8, 11, 13):
        h = F.relu(F.conv2d(h, state[f"features.{at}.weight"], state[f"features.{at}.bias"], padding=1))
        if at in (0, 3, 8, 13): h = F.max_pool2d(h, 2, 2)
    h = torch.from_numpy(np.transpose(h.numpy(), (0, 2, 3, 1)).reshape(1, -1).copy())
    for at in (0, 2, 4): h = F.relu(h @ state[f"embeddings.{at}.weight"].T + state[f"embeddings.{at}.bias"])
    assert torch.allclose(layers["embedding"], h, rtol=1e-3, atol=1e-3) and h.std() > .1
    assert {k: v.shape[1] for k, v in layers.items()} == {"waveform": 15_600, "mel magnitude": 6144, "log-mel": 6144, "pool1": 64, "pool2": 128,
                                                          "pool3": 256, "pool4": 512, "embedding": 128}


def test_vggish_cuts_patches_of_96_frames_a_hop_of_10_ms_apart(vggish_model):
    assert vggish_model.windows(noise(1, 15_600 + 2 * 15_360)).shape == (1, 3, 15_600)
    assert vggish_model.windows(noise(1, 15_600 + 2 * 15_360 - 1)).shape == (1, 2, 15_600)


class Mischief:
    def __reduce__(self): return os.system, ("exit 3",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    torch.save({"features.0.weight": Mischief()}, tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Mischief()))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(ValueError, match="damaged, or holds more than weights"): vggish(tmp_path / name)


def test_vggish_files_that_are_wrong(tmp_path, vggish_file):
    data = vggish_file.read_bytes()
    for k, wrong in enumerate([b"", b"hello", data[:len(data) // 2]]):
        (tmp_path / f"{k}.pth").write_bytes(wrong)
        with pytest.raises(ValueError, match="path_or_name: .* is damaged"): vggish(tmp_path / f"{k}.pth")
    state = vggish_weights()
    for k, (wrong, said) in enumerate([(state | {"embeddings.4.bias": torch.zeros(3)}, "embeddings.4.bias"), ({"conv.weight": torch.zeros(1)}, "features.0.weight"),
                                       ([1, 2], "another model")]):
        torch.save(wrong, tmp_path / f"other{k}.pth")
        with pytest.raises(ValueError, match=said): vggish(tmp_path / f"other{k}.pth")
    with pytest.raises(FileNotFoundError, match="path_or_name must be .* or 'vggish'"): vggish(tmp_path / "nothing.pth")


# --- CLAP and DAC, small, as transformers saves them

@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory): return small_clap(tmp_path_factory.mktemp("clap"))


def small_clap(folder, fusion=False):
    import transformers
    sound = dict(hidden_size=32, patch_embeds_hidden_size=4, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], enable_fusion=fusion)
    text = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    torch.manual_seed(0)
    transformers.ClapModel(transformers.ClapConfig(text_config=text, audio_config=sound, projection_dim=6)).save_pretrained(folder)
    transformers.ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dac_folder(tmp_path_factory):
    import transformers
    folder = tmp_path_factory.mktemp("dac")
    torch.manual_seed(0)
    transformers.DacModel(transformers.DacConfig(encoder_hidden_size=4, decoder_hidden_size=32, downsampling_ratios=[2, 4], upsampling_ratios=[4, 2],
                                                 sampling_rate=4001, n_codebooks=2, codebook_size=16, codebook_dim=2)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("fusion", [False, True])
def test_clap_gives_what_transformers_gives_and_leaves_nothing_to_chance(tmp_path, fusion):
    import transformers
    folder = small_clap(tmp_path, fusion)
    model, extractor = clap(folder), transformers.ClapFeatureExtractor.from_pretrained(folder)
    x = noise(2, 480_000)
    given = extractor(list(x.numpy()), sampling_rate=48_000, return_tensors="pt")
    given["is_longer"] = torch.zeros(2, 1, dtype=torch.bool)
    with torch.no_grad(): expected = model.model.get_audio_features(**given).pooler_output
    assert torch.allclose(model.encode(x), expected, atol=1e-6)
    assert torch.allclose(model.encode(x).norm(dim=1), torch.ones(2)) and model.layers(x)["projected"].norm() != 1
    two = torch.cat([x[:1], x[1:]], 1)    # longer than it can hear: transformers would cut at random
    assert torch.equal(model.encode(two), model.encode(two)) and torch.allclose(model.encode(two)[0], model.encode(x).mean(0), atol=1e-6)


def test_dac_goes_there_and_back(dac_folder):
    model = dac(dac_folder)
    assert isinstance(model, DAC) and (model.sample_rate, model.frame, model.window) == (4001, 8, 4000)
    for samples, frames in ((4000, 500), (4001, 501), (17, 3)):
        z = model.latents(noise(2, samples))
        assert z.shape == (2, model.dim, frames) and model.decode(z).shape == (2, 8 * frames)
    x = noise(2, 4000)
    assert torch.allclose(model.encode(x), model.latents(x).mean(2), atol=1e-6)
    assert torch.equal(model.latents(x[:, :-3]), model.latents(F.pad(x[:, :-3], (0, 3))))     # zeros fill the last frame
    z = model.latents(x).requires_grad_()
    model.decode(z).square().sum().backward()
    assert z.grad.norm() > 0


def test_dacs_decoder_refuses_what_is_no_latent(dac_folder):
    model = dac(dac_folder)
    for z in (torch.zeros(2, model.dim), torch.zeros(2, model.dim + 1, 3), torch.zeros(2, model.dim, 3).long(), None):
        with pytest.raises(ValueError, match="latents must be"): model.decode(z)
    with pytest.raises(ValueError, match="latents holds NaN"): model.decode(torch.full((1, model.dim, 3), torch.nan))


def wrong_folders(folder, to):
    "Copies of a folder, each with a fault, and what the error says."
    def copy(name):
        shutil.copytree(folder, to / name)
        return to / name
    weights = (folder / "model.safetensors").read_bytes()
    (copy("cut") / "model.safetensors").write_bytes(weights[:len(weights) // 2])
    (copy("empty") / "model.safetensors").write_bytes(b"")
    (copy("lost") / "model.safetensors").unlink()
    (copy("unsaid") / "config.json").unlink()
    (copy("garbled") / "config.json").write_text("{")
    config = json.loads((folder / "config.json").read_text())
    (copy("other") / "config.json").write_text(json.dumps(config | {"model_type": "whisper"}))
    return {"cut": "damaged", "empty": "damaged", "lost": "damaged", "unsaid": "has no config.json", "garbled": "has no config.json",
            "other": "another model: whisper, where"}


@pytest.mark.parametrize("kind", ["clap", "dac"])
def test_folders_that_are_wrong(kind, clap_folder, dac_folder, tmp_path):
    load, folder, other = {"clap": (clap, clap_folder, dac_folder), "dac": (dac, dac_folder, clap_folder)}[kind]
    for name, said in wrong_folders(folder, tmp_path).items():
        with pytest.raises(ValueError, match=f"path_or_name: .*{said}"): load(tmp_path / name)
    with pytest.raises(ValueError, match="is of another model"): load(other)
    with pytest.raises(FileNotFoundError, match="path_or_name must be the path of something that is there, or"): load("somebody/something")


def test_a_weight_that_is_missing_is_named_and_not_made_up(dac_folder, tmp_path):
    import safetensors.torch
    shutil.copytree(dac_folder, tmp_path / "less")
    weights = safetensors.torch.load_file(dac_folder / "model.safetensors")
    weights.pop("encoder.conv1.bias")
    safetensors.torch.save_file(weights, tmp_path / "less/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="encoder.conv1.bias is missing"): dac(tmp_path / "less")


def test_clap_without_its_pictures_is_refused(clap_folder, tmp_path):
    shutil.copytree(clap_folder, tmp_path / "less")
    (tmp_path / "less/preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="how CLAP's pictures are made"): clap(tmp_path / "less")


# --- what is fetched

def test_size_and_licence_are_said_before_a_file_is_fetched(monkeypatch, tmp_path, vggish_file, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    def fetch(address, path, prefix):
        assert "289 MB, Apache-2.0" in capsys.readouterr().out and (address, prefix) == (RELEASES["vggish"].address, "10086976")
        shutil.copy(vggish_file, path)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert vggish("vggish").encode(noise(1, 15_600)).shape == (1, 128)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)      # it is there now
    vggish("vggish")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("load, name, said", [(clap, "laion/clap-htsat-unfused", "615 MB, Apache-2.0"), (dac, "descript/dac_44khz", "307 MB, MIT")])
def test_size_and_licence_are_said_before_a_folder_is_fetched(monkeypatch, tmp_path, clap_folder, dac_folder, capsys, load, name, said):
    import huggingface_hub
    asked = []
    def snapshot(repository, local_files_only=False, allow_patterns=None):
        assert repository == name
        if local_files_only and not asked: raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        if local_files_only: return str(tmp_path)     # a download that was broken off: the folder is there, its files are not
        assert said in capsys.readouterr().out and "config.json" in allow_patterns
        return str(clap_folder if load is clap else dac_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert isinstance(load(name), Encoder)
    asked.append(name)
    assert isinstance(load(name), Encoder)


def test_without_a_network_the_release_is_named(monkeypatch, tmp_path):
    import huggingface_hub
    def no(*_, **__): raise urllib.error.URLError("no network")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no)
    for load, name in ((vggish, "vggish"), (clap, "laion/clap-htsat-unfused"), (dac, "descript/dac_44khz")):
        with pytest.raises(FileNotFoundError, match=f"{name}: .*could not be fetched: .*no network"): load(name)
    def damaged(*_): raise RuntimeError('invalid hash value (expected "10086976", got "0")')
    monkeypatch.setattr(torch.hub, "download_url_to_file", damaged)
    with pytest.raises(FileNotFoundError, match="invalid hash"): vggish("vggish")


# --- one contract

KINDS = ["MTT_vgg", "MSD_musicnn", "vggish", "clap", "dac"]


@pytest.fixture(scope="module", params=KINDS)
def model(request, vggish_model, clap_folder, dac_folder):
    fetched = {"vggish": lambda: vggish_model, "clap": lambda: clap(clap_folder), "dac": lambda: dac(dac_folder)}
    return MODELS[request.param] if request.param in MODELS else fetched[request.param]()


def sounds(model, n=2, windows=2, seed=0): return noise(n, windows * model.hop + model.window, seed)


def test_codes_are_means_over_windows(model):
    x = sounds(model)
    codes, layers, windows = model.encode(x), model.layers(x), model.windows(x)
    assert codes.shape == (2, model.dim) and codes.dtype == torch.float32 and codes.isfinite().all() and codes.std() > 0
    assert torch.equal(codes, layers[model.embedding]) and windows.shape == (2, 3, model.window)
    for k in range(2):
        parts = [model(w[None]) for w in windows[k]]
        for name in layers: assert torch.allclose(layers[name][k], torch.cat([p[name] for p in parts]).mean(0), rtol=1e-3, atol=1e-3), name
    assert torch.equal(layers["waveform"], windows.mean(1)) and all(v.ndim == 2 and len(v) == 2 for v in layers.values())


def test_a_sound_is_heard_alike_alone_and_in_company(model):
    x = sounds(model, 3, 0)
    assert torch.allclose(model.encode(x)[2:], model.encode(x[2:]), rtol=1e-3, atol=1e-3)


def test_any_rate_will_do(model):
    rate = model.sample_rate
    seconds = (model.window + 10) / rate
    def chord(rate): return .2 * torch.sin(2 * torch.pi * torch.tensor([[220.], [330.]]) * torch.arange(int(seconds * rate)) / rate).sum(0, keepdim=True)
    own, twice = model.encode(chord(rate)), model.encode(chord(2 * rate), 2 * rate)
    other = model.encode(noise(1, model.window))
    assert (own - twice).norm() < .1 * (own - other).norm() and torch.equal(own, model.encode(chord(rate), rate))
    assert model.encode(chord(rate).double()).dtype == torch.float32


def test_nothing_learns_and_gradients_reach_the_sound(model):
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    x = sounds(model, 1, 0)
    assert not model.encode(x).requires_grad
    if isinstance(model, encoders.CLAP): return       # its pictures are made in numpy
    x.requires_grad_()
    model.encode(x).square().sum().backward()
    assert x.grad.norm() > 0 and x.grad.isfinite().all()


def test_less_than_a_window_is_refused_and_a_window_is_not(model):
    least = model.window - 2 * model.edge
    assert model.encode(noise(1, least)).shape == (1, model.dim)
    with pytest.raises(ValueError, match=r"sounds must last a window of .* s or more, got .* s; repeat them, or add silence"): model.encode(noise(1, least - 1))
    with pytest.raises(ValueError, match="sounds must last a window"): model.layers(noise(1, least), 2 * model.sample_rate)


@pytest.mark.parametrize("bad, said", [
    (lambda x: x[0], "must be a float tensor of shape"), (lambda x: x[:, None].repeat(1, 2, 1), "must be a float tensor of shape"), (lambda x: x[:0], "must be a float tensor of shape"),
    (lambda x: (x * 32767).short(), "must be a float tensor"), (lambda x: x.numpy(), "must be a float tensor"), (lambda x: None, "must be a float tensor"),
    (lambda x: x.clone().index_fill_(1, torch.tensor([7]), torch.nan), "holds NaN or Inf"), (lambda x: x / 0, "holds NaN or Inf")])
def test_what_is_no_sound_is_refused(model, bad, said):
    x = bad(noise(2, model.window))
    for hear in (model.encode, model.layers, model.windows):
        with pytest.raises(ValueError, match=f"sounds {said}"): hear(x)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "44100", 10, 1e9, True])
def test_an_odd_rate_is_refused(model, rate):
    with pytest.raises(ValueError, match="sample_rate"): model.encode(noise(1, model.window), rate)


def test_only_taggers_tag(model):
    if model.labels: return
    with pytest.raises(ValueError, match=f"{type(model).__name__} was not trained to give tags"): model.tags(noise(1, model.window))


@pytest.mark.parametrize("logmel", [torch.zeros(187, 96), torch.zeros(1, 188, 96), torch.zeros(1, 187, 64), torch.zeros(1, 187, 96).long()])
@pytest.mark.parametrize("name", ["MTT_vgg", "MTT_musicnn"])
def test_a_picture_of_another_size_is_refused(name, logmel):
    with pytest.raises(ValueError, match="logmel must be a float tensor of shape"): MODELS[name].hear(logmel)
