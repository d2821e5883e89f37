"""MusicVAE from TensorFlow's files: the port against the equations written out in numpy, both formats against writers of their own
here, and every way in which a file can be damaged. `OPLAS_BUNDLES=prefix:prefix…` tries real checkpoints."""
import functools, http.server, importlib.resources, json, os, re, struct, tarfile, threading
from pathlib import Path

import numpy as np
import pytest
import torch

from oplas.models import fresh
from oplas.music import HOLD, REST, render
from oplas.pretrained import MusicVAE, attribute_vectors, from_classes, read_tf_bundle, read_tfjs, to_classes

torch.set_num_threads(1)
DIM, ENCODER, DECODER = 6, 7, 5     # all different, so that no mistake fits


# --- variables, named and shaped as in Magenta's files

def shapes(dim=DIM, encoder=ENCODER, decoder=DECODER, layers=2):
    found = {"encoder/mu/kernel": (2 * encoder, dim), "encoder/mu/bias": (dim,), "encoder/sigma/kernel": (2 * encoder, dim), "encoder/sigma/bias": (dim,),
             "decoder/z_to_initial_state/kernel": (dim, 2 * layers * decoder), "decoder/z_to_initial_state/bias": (2 * layers * decoder,),
             "decoder/output_projection/kernel": (decoder, 90), "decoder/output_projection/bias": (90,)}
    for way in ("fw", "bw"):
        cell = f"encoder/cell_0/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/lstm_cell"
        found |= {f"{cell}/kernel": (90 + encoder, 4 * encoder), f"{cell}/bias": (4 * encoder,)}
    for k in range(layers):
        cell = f"decoder/multi_rnn_cell/cell_{k}/lstm_cell"
        found |= {f"{cell}/kernel": ((decoder if k else 90 + dim) + decoder, 4 * decoder), f"{cell}/bias": (4 * decoder,)}
    return found


def drawn(seed=0, scale=.7, **sizes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(scale=scale, size=shape).astype(np.float32) for name, shape in shapes(**sizes).items()}


VARIABLES = drawn()
NAMES = sorted(VARIABLES)
KERNEL = "decoder/multi_rnn_cell/cell_1/lstm_cell/kernel"


def two_bars(n=5, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.random((n, 32))
    return torch.from_numpy(np.where(kind < .4, rng.integers(21, 109, (n, 32)), np.where(kind < .8, HOLD, REST)))


def codes(n=40, dim=DIM, seed=1): return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# --- the equations, in numpy and double precision

def sigmoid(x): return 1 / (1 + np.exp(-x))


def cell(v, name, x, c, h):
    i, j, f, o = np.split(np.concatenate([x, h], 1) @ v[f"{name}/kernel"].astype(float) + v[f"{name}/bias"], 4, axis=1)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
    return c, sigmoid(o) * np.tanh(c)


def dense(v, name, x): return x @ v[f"{name}/kernel"].astype(float) + v[f"{name}/bias"]


def posterior_in_numpy(v, classes):
    x, last = np.eye(90)[classes], []
    for way, order in (("fw", 1), ("bw", -1)):
        name = f"encoder/cell_0/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/lstm_cell"
        c = h = np.zeros((len(x), v[f"{name}/bias"].size // 4))
        for step in range(32)[::order]: c, h = cell(v, name, x[:, step], c, h)
        last.append(h)
    shown = np.concatenate(last, 1)
    return dense(v, "encoder/mu", shown), np.log1p(np.exp(dense(v, "encoder/sigma", shown)))


def decoder_in_numpy(v, z, layers=2, given=None):
    parts = np.split(np.tanh(dense(v, "decoder/z_to_initial_state", z)), 2 * layers, axis=1)
    states, written, scores = [[parts[2 * k], parts[2 * k + 1]] for k in range(layers)], np.zeros((len(z), 90)), []
    for step in range(32):
        x = np.concatenate([written, z], 1)
        for k in range(layers):
            states[k] = cell(v, f"decoder/multi_rnn_cell/cell_{k}/lstm_cell", x, *states[k])
            x = states[k][1]
        scores.append(dense(v, "decoder/output_projection", x))
        written = np.eye(90)[scores[-1].argmax(1) if given is None else given[:, step]]
    return np.stack(scores, 1)


# --- TensorFlow.js, written

def write_tfjs(folder, variables, packed=None, shards=3):
    "A folder with a group of float32 or quantised variables, in shards that do not end where variables do."
    data, weights = b"", []
    for name, v in variables.items():
        entry = {"name": name, "shape": list(v.shape), "dtype": "float32"}
        if packed:
            low, steps = float(v.min()), 2 ** (8 * np.dtype(packed).itemsize) - 1
            scale = float(v.max() - low) / steps or 1.
            v, entry["quantization"] = np.round((v - low) / scale).astype(packed), {"dtype": packed, "scale": scale, "min": low}
        weights.append(entry)
        data += v.tobytes()
    paths, size = [f"group1-shard{k + 1}of{shards}" for k in range(shards)], -(-len(data) // shards)
    for k, path in enumerate(paths): Path(folder, path).write_bytes(data[k * size:(k + 1) * size])
    Path(folder, "weights_manifest.json").write_text(json.dumps([{"paths": paths, "weights": weights}]))
    return Path(folder)


# --- the bundle, written: several blocks, keys that lean on the ones before, shards; its checksum byte by byte

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2 ** 32)


def varint(n):
    out = b""
    while n > 127: out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int): return varint(number << 3) + varint(value) if value else b""     # 0 is left out
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries, restart=4):
    body, last, restarts = b"", b"", []
    for k, (key, value) in enumerate(entries):
        shared = 0 if k % restart == 0 else len(os.path.commonprefix([key, last]))
        if k % restart == 0: restarts.append(len(body))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return body + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10, "uint16": 17, "float16": 19, "uint32": 22, "uint64": 23}


def write_index(prefix, entries, a_block=6, kind=b"\0"):
    out, handles = b"", []
    def sealed(contents):
        nonlocal out
        handle, out = varint(len(out)) + varint(len(contents)), out + contents + kind + masked(contents + kind)
        return handle
    for k in range(0, len(entries), a_block): handles.append((entries[k:k + a_block][-1][0], sealed(block(entries[k:k + a_block]))))
    meta, top = sealed(block([])), sealed(block(handles, 1))
    Path(f"{prefix}.index").write_bytes(out + (meta + top).ljust(40, b"\0") + bytes.fromhex("57fb808b2475 47db"))


def write_bundle(prefix, variables, shards=1, header=b"", **how):
    data, entries = [b""] * shards, [(b"", field(1, shards) + header)]
    for k, (name, v) in enumerate(sorted(variables.items())):
        raw, shard = v.tobytes(), k % shards
        shape = b"".join(field(2, field(1, size)) for size in v.shape)
        entry = field(1, TYPES[str(v.dtype)]) + field(2, shape) + field(3, shard) + field(4, len(data[shard])) + field(5, len(raw))
        entries.append((name.encode(), entry + varint(6 << 3 | 5) + masked(raw)))
        data[shard] += raw
    for k, part in enumerate(data): Path(f"{prefix}.data-{k:05d}-of-{shards:05d}").write_bytes(part)
    write_index(prefix, entries, **how)
    return f"{prefix}"


@pytest.fixture
def tfjs(tmp_path): return write_tfjs(tmp_path, VARIABLES)


@pytest.fixture
def bundle(tmp_path): return write_bundle(tmp_path / "x.ckpt", VARIABLES)


@pytest.fixture(scope="module")
def model(tmp_path_factory): return MusicVAE.from_tfjs(write_tfjs(tmp_path_factory.mktemp("tfjs"), VARIABLES))


def same(a, b): return a.config == b.config and all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


# --- tokens and classes

def test_classes_say_what_changes():
    tokens = torch.tensor([[HOLD, REST, 60, HOLD, REST, REST, HOLD, 21, 108, HOLD]])
    classes = to_classes(tokens)
    assert classes.tolist() == [[0, 0, 41, 0, 1, 0, 0, 2, 89, 0]]
    assert from_classes(classes).tolist() == [[REST, REST, 60, HOLD, REST, REST, REST, 21, 108, HOLD]]     # as much, in one way of writing it


@pytest.mark.parametrize("as_what", [torch.Tensor.numpy, torch.Tensor.int, lambda x: x.to(torch.uint8), lambda x: x.reshape(5, 2, 16)[:, :1]])
def test_tokens_survive_the_way_there_and_back(as_what):
    tokens = as_what(two_bars())
    once = from_classes(to_classes(tokens))
    assert once.shape == tuple(tokens.shape) and torch.equal(from_classes(to_classes(once)), once)
    assert torch.equal(render(once[..., :16], ticks_per_bar=16), render(torch.as_tensor(tokens)[..., :16], ticks_per_bar=16))


def slow_classes(row):
    sounds, out = False, []
    for t in row:
        out.append(t - 19 if t < HOLD else int(t == REST and sounds))
        sounds = t < HOLD or sounds and t == HOLD
    return out


def test_classes_agree_with_a_loop():
    tokens = two_bars(200)
    assert to_classes(tokens).tolist() == [slow_classes(row) for row in tokens.tolist()]


@pytest.mark.parametrize("tokens, words", [([[20]], "got 20"), ([[109]], "got 109"), ([[-1]], "got -1"), ([[130]], "got 130"), ([[60.]], "int tensor"), ([[True]], "int tensor"), (60, "ticks")])
def test_bad_tokens_are_named(tokens, words):
    with pytest.raises(ValueError, match=f"^tokens must.*{words}"): to_classes(torch.tensor(tokens))


@pytest.mark.parametrize("classes", [[90], [-1], [1.], 3])
def test_bad_classes_are_named(classes):
    with pytest.raises(ValueError, match="^classes must"): from_classes(torch.tensor(classes))


# --- the port against the equations

@torch.no_grad()
def test_the_encoder_agrees_with_the_equations(model):
    tokens = two_bars()
    for ours, theirs in zip(model.posterior(tokens), posterior_in_numpy(VARIABLES, to_classes(tokens).numpy())):
        assert ours.shape == (5, DIM) and np.abs(ours.numpy() - theirs).max() < 1e-5
    assert torch.equal(model.encode(tokens), model.posterior(tokens)[0]) and torch.equal(model.encode(tokens.numpy()), model.encode(tokens))


@torch.no_grad()
def test_the_decoder_agrees_with_the_equations(model):
    z, tokens = codes(), two_bars(40)
    free, given = (decoder_in_numpy(VARIABLES, z.numpy(), given=g) for g in (None, to_classes(tokens).numpy()))
    assert np.abs(model.logits(z).numpy() - free).max() < 1e-5 and np.abs(model.logits(z, tokens).numpy() - given).max() < 1e-5
    assert torch.equal(model.decode(z), from_classes(torch.from_numpy(free.argmax(2))))
    assert len({tuple(row) for row in model.decode(z).tolist()}) > 10      # not all the same silence


@pytest.mark.parametrize("sizes", [dict(layers=1), dict(layers=3), dict(dim=3, encoder=4, decoder=8), dict(dim=1, encoder=1, decoder=1, layers=1), dict(dim=64, encoder=64, decoder=64, scale=.2)])
@torch.no_grad()
def test_sizes_are_read_off_the_shapes(sizes, tmp_path):
    "The smaller weights of the largest one keep it from doubling every rounding error."
    v = drawn(3, **sizes)
    model = MusicVAE.from_checkpoint(write_bundle(tmp_path / "m", v))
    sizes = dict(dim=DIM, encoder=ENCODER, decoder=DECODER, layers=2) | sizes
    assert model.config == {"dim": sizes["dim"], "encoder_size": sizes["encoder"], "decoder_size": sizes["decoder"], "layers": sizes["layers"]}
    z = codes(8, sizes["dim"])
    theirs = decoder_in_numpy(v, z.numpy(), sizes["layers"])
    assert np.abs(model.logits(z).numpy() - theirs).max() < 1e-5 and torch.equal(model.decode(z), from_classes(torch.from_numpy(theirs.argmax(2))))


@torch.no_grad()
def test_the_published_size_agrees(tmp_path):
    "17.7 MB, as the smallest model that was published for two bars."
    v = drawn(4, scale=.1, dim=256, encoder=512, decoder=256)
    model = MusicVAE.from_tfjs(write_tfjs(tmp_path, v, shards=5))
    assert model.config == MusicVAE().config and sum(x.nbytes for x in v.values()) == pytest.approx(17.7e6, rel=.01)
    z, tokens = codes(4, 256), two_bars(4)
    theirs = decoder_in_numpy(v, z.numpy())
    assert np.abs(model.logits(z).numpy() - theirs).max() < 1e-5 and torch.equal(model.decode(z), from_classes(torch.from_numpy(theirs.argmax(2))))
    assert np.abs(model.encode(tokens).numpy() - posterior_in_numpy(v, to_classes(tokens).numpy())[0]).max() < 1e-5


# --- the contract of models

def test_shapes_gradients_and_files(model, tmp_path):
    tokens = two_bars(3)
    z = model.encode(tokens)
    assert z.shape == (3, model.dim) and z.requires_grad and not model.training
    z.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    z = z.detach().requires_grad_()
    model.logits(z, tokens).square().sum().backward()
    assert z.grad.abs().sum() > 0 and model.decode(z).shape == tokens.shape and model.decode(z).dtype == tokens.dtype
    model.zero_grad()
    path = tmp_path / "model.safetensors"
    model.save(path)
    assert same(MusicVAE.load(path), model) and not MusicVAE.load(path).training
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"): MusicVAE.load(path)


@torch.no_grad()
def test_each_item_by_itself_and_none_at_all(model):
    z, tokens = codes(), two_bars()
    assert torch.equal(model.decode(z[3:4])[0], model.decode(z)[3]) and torch.allclose(model.encode(tokens[1:2])[0], model.encode(tokens)[1], atol=1e-6)
    assert model.decode(z[:0]).shape == (0, 32) and model.encode(tokens[:0]).shape == (0, DIM)


@pytest.mark.parametrize("change", [lambda z: torch.cat([z, z], 1), lambda z: z[:, 1:], lambda z: z[None], lambda z: z * float("nan"), lambda z: z / 0])
def test_bad_codes_are_named(model, change):
    with pytest.raises(ValueError, match="^z "): model.decode(change(codes(3)))


@pytest.mark.parametrize("change", [lambda x: x[..., 1:], lambda x: x[0], lambda x: x[None], lambda x: x.bool(), lambda x: x.float(), lambda x: x * 2])
def test_bad_batches_are_named(model, change):
    with pytest.raises(ValueError, match="^tokens must"): model.encode(change(two_bars(3)))
    with pytest.raises(ValueError, match="^tokens must"): model.logits(codes(3), change(two_bars(3)))


@pytest.mark.parametrize("name", ["dim", "encoder_size", "decoder_size", "layers"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4"])
def test_bad_sizes_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"): MusicVAE(**{name: value})


def test_the_seed_decides(): assert same(fresh(0, MusicVAE, 4, 4, 4), fresh(0, MusicVAE, 4, 4, 4)) and not same(fresh(0, MusicVAE, 4, 4, 4), fresh(1, MusicVAE, 4, 4, 4))


# --- temperature

def test_a_temperature_draws(model):
    z = codes()
    def at(t, seed=0): return model.decode(z, t, torch.Generator().manual_seed(seed))
    assert torch.equal(at(1.), at(1.)) and not torch.equal(at(1.), at(1., 1)) and torch.equal(at(1e-30), model.decode(z))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    at(1.)
    model.decode(z)
    assert torch.equal(torch.rand(2), expected)     # the generator's chance, not the caller's


@torch.no_grad()
def test_the_first_class_is_drawn_as_often_as_the_scores_say(model):
    z, n, t = codes(1), 20_000, 1.7
    p = (model.logits(z)[0, 0] / t).softmax(0)
    first = to_classes(model.decode(z.expand(n, -1), t, torch.Generator().manual_seed(0)))[:, 0]    # "off" before any note is silence
    p = torch.cat([(p[0] + p[1])[None], torch.zeros(1), p[2:]])
    assert (torch.bincount(first, minlength=90) / n - p).abs().max() < 4 * .5 / n ** .5


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf"), "hot", True])
def test_a_bad_temperature_is_named(model, temperature):
    with pytest.raises(ValueError, match="^temperature must"): model.decode(codes(2), temperature)


# --- attribute vectors

def test_attribute_vectors_are_differences_of_means():
    z, has = codes(50), torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) < .4
    expected = torch.stack([z[h].mean(0) - z[~h].mean(0) for h in has.T])
    assert torch.allclose(attribute_vectors(z, has), expected, atol=1e-6) and torch.allclose(attribute_vectors(z, has.numpy()), expected, atol=1e-6)


@pytest.mark.parametrize("z, has, words", [
    (codes(4), torch.ones(4, 1, dtype=torch.bool), "has: attribute 0 .*got 4 of 4"), (codes(4), torch.eye(4, 2) > 2, "has: attribute 0 .*got 0 of 4"),
    (codes(4), torch.eye(3) > 0, "has must"), (codes(4), torch.eye(4), "has must"), (codes(4)[0], torch.eye(4) > 0, "z must"), (codes(4) / 0, torch.eye(4) > 0, "z holds")])
def test_bad_attributes_are_named(z, has, words):
    with pytest.raises(ValueError, match=f"^{words}"): attribute_vectors(z, has)


# --- TensorFlow.js, read

def test_a_folder_is_read_to_the_bit(tfjs):
    read = read_tfjs(tfjs)
    assert list(read) == list(VARIABLES) and all(np.array_equal(read[name], v) and read[name].dtype == np.float32 for name, v in VARIABLES.items())


@pytest.mark.parametrize("packed, steps", [("uint8", 255), ("uint16", 65535)])
@torch.no_grad()
def test_quantised_variables(packed, steps, tmp_path):
    folder = write_tfjs(tmp_path, VARIABLES, packed)
    read = read_tfjs(folder)
    for name, v in VARIABLES.items(): assert np.abs(read[name] - v).max() <= (v.max() - v.min()) / steps * .51 + 1e-6
    z, model = codes(), MusicVAE.from_tfjs(folder)
    theirs = decoder_in_numpy(read, z.numpy())
    assert np.abs(model.logits(z).numpy() - theirs).max() < 1e-5 and torch.equal(model.decode(z), from_classes(torch.from_numpy(theirs.argmax(2))))


@pytest.fixture
def address(tfjs):
    "The folder behind a web server on this machine."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tfjs)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_read_as_a_folder(address, tfjs, model):
    for place in (address, address + "/", tfjs.as_uri(), str(tfjs)): assert same(MusicVAE.from_tfjs(place), model)
    (tfjs / "group1-shard2of3").unlink()
    for place in (address, tfjs.as_uri(), tfjs):
        with pytest.raises(FileNotFoundError, match="folder: .*group1-shard2of3"): MusicVAE.from_tfjs(place)


def test_an_answer_that_breaks_off(address, tfjs, monkeypatch):
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "copyfile", lambda self, source, out: out.write(source.read()[:-9]))
    with pytest.raises(FileNotFoundError, match="folder: .*weights_manifest.json"): MusicVAE.from_tfjs(address)


def test_nobody_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder: .*weights_manifest.json"): MusicVAE.from_tfjs(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="folder: .*weights_manifest.json"): MusicVAE.from_tfjs("http://127.0.0.1:9/no")


def test_a_shard_too_short_or_too_long(tfjs):
    last = tfjs / "group1-shard3of3"
    data = last.read_bytes()
    for cut in (1, 4, len(data) - 1):
        last.write_bytes(data[:-cut])
        with pytest.raises(ValueError, match=r"group1-shard1of3.*(encoder|decoder)/\S+ lies in bytes"): MusicVAE.from_tfjs(tfjs)
    last.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="1 bytes belong to no variable"): MusicVAE.from_tfjs(tfjs)


def in_manifest(folder, change):
    path = folder / "weights_manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("change, words", [
    (lambda m: m[0]["weights"][0].update(dtype="int32"), "encoder/mu/kernel has the type int32"),
    (lambda m: m[0]["weights"][0].update(quantization={"dtype": "float16"}), "encoder/mu/kernel has the type float16"),
    (lambda m: m[0]["weights"][0].update(quantization={"dtype": "uint8"}), "damaged"),
    (lambda m: m[0]["weights"][0].update(shape=[-1, 2]), "the shape of encoder/mu/kernel must"),
    (lambda m: m[0]["weights"][0].update(shape=7), "damaged"), (lambda m: m[0]["weights"][0].pop("name"), "damaged"),
    (lambda m: m[0]["weights"].append("x"), "damaged"), (lambda m: m[0].pop("paths"), "damaged"), (lambda m: m.append(3), "damaged"),
    (lambda m: m[0].update(paths=["../secret"]), "no name of a file"), (lambda m: m[0].update(paths=["/etc/hostname"]), "no name of a file")])
def test_a_damaged_manifest(tfjs, change, words):
    in_manifest(tfjs, change)
    with pytest.raises(ValueError, match=words): read_tfjs(tfjs)


@pytest.mark.parametrize("text", [b"", b"{", b"3", b"null", b"\xff\xfe\xff"])
def test_no_manifest(tfjs, text):
    (tfjs / "weights_manifest.json").write_bytes(text)
    with pytest.raises(ValueError, match="weights_manifest.json"): read_tfjs(tfjs)


# --- the bundle, read

def test_the_published_checksum(): assert crc32c(b"123456789") == 0xE3069283


def test_a_bundle_is_read_to_the_bit(bundle, model):
    read = read_tf_bundle(bundle)
    assert list(read) == NAMES and all(np.array_equal(read[name], v) and read[name].dtype == v.dtype and read[name].flags.writeable for name, v in VARIABLES.items())
    assert same(MusicVAE.from_checkpoint(bundle), model) and same(MusicVAE.from_checkpoint(Path(bundle)), model)


@pytest.mark.parametrize("shards, a_block", [(1, 1), (1, 1000), (2, 5), (11, 7)])
def test_types_shapes_blocks_and_shards(shards, a_block, tmp_path):
    rng = np.random.default_rng(0)
    made = {f"many/{k:03d}": rng.normal(size=k % 5).astype(np.float32) for k in range(60)}
    made |= {f"of/{kind}": (rng.random((3, 0 if kind == "int8" else 2)) * 100).astype(kind) for kind in TYPES}
    made |= {"a/scalar": np.array(3.5), "long/" + "n" * 300: np.arange(5_000, dtype=np.int64)}
    read = read_tf_bundle(write_bundle(tmp_path / "b", made, shards, a_block=a_block))
    assert list(read) == sorted(made)
    for name, v in made.items(): assert read[name].dtype == v.dtype and read[name].shape == v.shape and np.array_equal(read[name], v)
    assert list(read_tf_bundle(tmp_path / "b", lambda name: name.startswith("of/"))) == sorted(n for n in made if n.startswith("of/"))


def test_a_prefix_with_an_empty_name(tmp_path):
    "As in the package musicnn, whose files are called .index and .data-00000-of-00001."
    write_bundle(f"{tmp_path}/", {"a": np.ones(2)})
    assert read_tf_bundle(f"{tmp_path}/")["a"].tolist() == [1, 1]


def test_scopes_in_front_and_what_an_optimiser_remembers(tmp_path, model):
    v = {f"vae/{name}": x for name, x in VARIABLES.items()}
    v |= {f"vae/{name}/Adam": x[..., :1] for name, x in VARIABLES.items()} | {"global_step": np.array(7), "beta1_power": np.array(.9, np.float32)}
    assert same(MusicVAE.from_checkpoint(write_bundle(tmp_path / "m", v)), model)
    with pytest.raises(ValueError, match="two variables for encoder/mu/bias"):
        MusicVAE.from_checkpoint(write_bundle(tmp_path / "m", v | {"encoder/mu/bias": VARIABLES["encoder/mu/bias"]}))


def in_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for f, name in files: tar.add(f, name)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive(bundle, tmp_path, model, mode):
    files = [(f, f"some/where/../../../{f.name}") for f in tmp_path.glob("x.ckpt.*")]
    tar = in_tar(tmp_path / "big.tar", files, mode)
    before = sorted(tmp_path.parent.rglob("*"))
    assert same(MusicVAE.from_checkpoint(tar), model) and sorted(tmp_path.parent.rglob("*")) == before
    tar.write_bytes(tar.read_bytes()[:len(tar.read_bytes()) // 2])
    with pytest.raises(ValueError, match="path: .*big.tar is a damaged tar"): MusicVAE.from_checkpoint(tar)


def test_an_archive_without_a_bundle_or_with_two_or_with_half(bundle, tmp_path):
    index, data = Path(f"{bundle}.index"), Path(f"{bundle}.data-00000-of-00001")
    for files, n in (([(data, "x.ckpt.data-00000-of-00001")], 0), ([(index, "x.index"), (index, "y.index")], 2)):
        with pytest.raises(ValueError, match=f"holds {n} files that end in .index"): MusicVAE.from_checkpoint(in_tar(tmp_path / "t.tar", files))
    with pytest.raises(FileNotFoundError, match="there is no file .*x.data-00000-of-00001"): MusicVAE.from_checkpoint(in_tar(tmp_path / "t.tar", [(index, "x.index")]))


def test_files_that_are_missing(bundle, tmp_path):
    with pytest.raises(FileNotFoundError, match="no.index$"): read_tf_bundle(tmp_path / "no")
    Path(f"{bundle}.data-00000-of-00001").unlink()
    with pytest.raises(FileNotFoundError, match="x.ckpt.data-00000-of-00001, where decoder/multi"): read_tf_bundle(bundle)
    (tmp_path / "old.ckpt").write_bytes(b"an old checkpoint")
    for read in (read_tf_bundle, MusicVAE.from_checkpoint):
        with pytest.raises(FileNotFoundError, match="old kind"): read(tmp_path / "old.ckpt")


def test_every_wrong_byte_of_the_numbers_is_noticed_and_named(tmp_path):
    made = {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 3))}
    path = Path(f"{write_bundle(tmp_path / 'b', made)}.data-00000-of-00001")
    data = path.read_bytes()
    for k in range(len(data)):
        path.write_bytes(data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1:])
        with pytest.raises(ValueError, match=f"checksum of {'ab'[k >= 20]} is wrong"): read_tf_bundle(tmp_path / "b")
    for k in range(len(data)):
        path.write_bytes(data[:k])
        with pytest.raises(ValueError, match=f"ends before {'ab'[k >= 20]} does"): read_tf_bundle(tmp_path / "b")


def test_every_wrong_byte_of_the_index_is_noticed(tmp_path):
    "But for one of the padding, or of what describes the table, which are not read."
    made = {f"a/{k}": np.arange(k, dtype=np.float32) for k in range(6)}
    path = Path(f"{write_bundle(tmp_path / 'b', made, a_block=3)}.index")
    data, unnoticed = path.read_bytes(), 0
    for k in range(len(data)):
        path.write_bytes(data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1:])
        try: read = read_tf_bundle(tmp_path / "b")
        except ValueError as e: assert re.match(r"prefix: .*b\.index is damaged", str(e))
        else:
            assert all(np.array_equal(read[name], v) for name, v in made.items())
            unnoticed += 1
    assert unnoticed <= 50
    for k in range(len(data)):
        path.write_bytes(data[:k])
        with pytest.raises(ValueError, match=r"b\.index is damaged"): read_tf_bundle(tmp_path / "b")


def entries(*fields): return [(b"", field(1, 1)), (b"a", b"".join(fields))]


@pytest.mark.parametrize("entry, words", [
    ([field(1, 7), field(5, 4)], "a is stored of TensorFlow's type 7.*keep"), ([field(1, 14), field(5, 4)], "type 14"),
    ([field(1, 1), field(5, 4), field(7, b"")], "a is stored in slices"), ([field(1, 1), field(2, field(2, field(1, 3))), field(5, 4)], r"a of shape \(3,\) cannot have 4 bytes"),
    ([field(1, 1), field(2, field(2, field(1, 2 ** 60))), field(5, 2 ** 62)], "ends before a does"),
    ([field(1, 1), field(2, field(2, field(1, 2 ** 64 - 1))), field(5, 4)], "a of shape .* cannot have 4 bytes"),
    ([b"\x0b"], "index is damaged"), ([b"\x12\xff"], "index is damaged"), ([b"\x12\x09abc"], "index is damaged"), ([b"\xff" * 12], "index is damaged"),
    *(([field(1, 1), field(k, b"x")], "index is damaged") for k in (3, 4, 5)), ([field(1, b"x")], "index is damaged"), ([varint(6 << 3) + b"\1"], "index is damaged"),
    ([field(2, field(2, field(1, b"x")))], "index is damaged"), ([field(2, 3)], "index is damaged")])
def test_entries_that_make_no_sense(tmp_path, entry, words):
    "With right checksums: somebody wrote them so."
    (tmp_path / "b.data-00000-of-00001").write_bytes(bytes(4))
    write_index(tmp_path / "b", entries(*entry))
    with pytest.raises(ValueError, match=f"^prefix: .*({words})"): read_tf_bundle(tmp_path / "b")


def test_nonsense_under_right_checksums(tmp_path):
    "Whatever stands there, the error is one of two, and soon."
    rng = np.random.default_rng(0)
    (tmp_path / "b.data-00000-of-00001").write_bytes(bytes(40))
    good = field(1, 1) + field(2, field(2, field(1, 3))) + field(4, 4) + field(5, 12) + varint(6 << 3 | 5) + masked(bytes(12))
    for k in range(400):
        entry = bytearray(good if k % 2 else rng.bytes(rng.integers(1, 12)))
        entry[rng.integers(len(entry))] = rng.integers(256)
        write_index(tmp_path / "b", entries(bytes(entry)))
        try: read_tf_bundle(tmp_path / "b")
        except (ValueError, FileNotFoundError) as e: assert str(e).startswith("prefix: ")


def test_headers_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="high byte"): read_tf_bundle(write_bundle(tmp_path / "b", VARIABLES, header=field(2, 1)))
    with pytest.raises(ValueError, match="compressed"): read_tf_bundle(write_bundle(tmp_path / "b", VARIABLES, kind=b"\1"))
    write_index(tmp_path / "b", [(b"a", b"")])
    with pytest.raises(ValueError, match="no header"): read_tf_bundle(tmp_path / "b")
    write_index(tmp_path / "b", [])
    with pytest.raises(ValueError, match="index is damaged"): read_tf_bundle(tmp_path / "b")


# --- a variable that is missing, or has another shape

def as_tfjs(folder, variables): return functools.partial(MusicVAE.from_tfjs, write_tfjs(folder, variables))

def as_bundle(folder, variables): return functools.partial(MusicVAE.from_checkpoint, write_bundle(folder / "m", variables))


@pytest.mark.parametrize("stored", [as_tfjs, as_bundle])
@pytest.mark.parametrize("name", NAMES)
def test_the_variable_is_named(name, stored, tmp_path):
    v = VARIABLES[name]
    with pytest.raises(ValueError, match=f"lacks the variable {name}, of shape"): stored(tmp_path, {k: x for k, x in VARIABLES.items() if k != name})()
    for wrong in (v[1:], v[..., :-1], v[..., None], v[None], v[:0], np.concatenate([v, v], -1)):
        with pytest.raises(ValueError, match=f": {name} must have the shape {re.escape(str(v.shape))}"): stored(tmp_path, VARIABLES | {name: wrong})()
    bad = v.copy()
    bad.flat[0] = np.nan
    with pytest.raises(ValueError, match=f": {name} holds NaN"): stored(tmp_path, VARIABLES | {name: bad})()


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="lacks the variable"): as_bundle(tmp_path, {"dense/kernel": np.ones((2, 2))})()
    with pytest.raises(ValueError, match="lacks the variable"): as_tfjs(tmp_path, {})()
    drums = {name: x for name, x in VARIABLES.items()} | {f"decoder/output_projection/{k}": np.ones(s, np.float32) for k, s in (("kernel", (DECODER, 512)), ("bias", (512,)))}
    with pytest.raises(ValueError, match=r"output_projection/kernel must have the shape \(5, 90\).*got \(5, 512\)"): as_bundle(tmp_path, drums)()


# --- real ones

def test_real_checkpoints_are_read():
    "Those of musicnn's wheel, which `make` installs, and any that OPLAS_BUNDLES names."
    wheel = importlib.resources.files("musicnn")
    prefixes = [f"{wheel / name}/" for name in ("MTT_vgg", "MSD_vgg", "MTT_musicnn", "MSD_musicnn")]
    counts = []
    for prefix in [*prefixes, *filter(None, os.environ.get("OPLAS_BUNDLES", "").split(":"))]:
        read = read_tf_bundle(prefix)
        assert read and all(np.isfinite(v).all() for v in read.values())
        counts.append(len(read))
    assert counts[:4] == [86, 86, 150, 150]
