"oplas.pictures: the two sources of digits, every file that is not what it should be, and dealing groups into parts."
import gzip, struct

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from oplas import pictures
from oplas.pictures import Digits, deal, digits


def idx(array):  # the bytes of an IDX file, as LeCun et al. describe it
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (30, 28, 28)), np.arange(30) % 10, rng.integers(0, 256, (10, 28, 28)), np.arange(10)]

@pytest.fixture
def folder(tmp_path, arrays):
    for name, a in zip(NAMES, arrays): (tmp_path / name).write_bytes(idx(a))
    return tmp_path


def holds(d, n, m, size):
    assert isinstance(d, Digits) and d.size == size
    assert d.x_train.shape == (n, 1, size, size) and d.x_test.shape == (m, 1, size, size)
    assert d.x_train.dtype == d.x_test.dtype == torch.float32 and d.y_train.dtype == d.y_test.dtype == torch.int64
    assert d.y_train.shape == (n,) and d.y_test.shape == (m,)
    for x in (d.x_train, d.x_test): assert 0 <= x.min() and .9 < x.max() <= 1


def test_small_digits():
    d = digits()
    holds(d, 1437, 360, 8)
    shares = d.y_test.bincount() / torch.cat([d.y_train, d.y_test]).bincount()
    assert shares.min() > .19 and shares.max() < .21  # stratified

def test_split_is_a_partition_that_follows_the_seed():
    a, b, c = digits(seed=3), digits(seed=3), digits(seed=4)
    assert torch.equal(a.x_train, b.x_train) and torch.equal(a.y_test, b.y_test) and not torch.equal(a.y_train, c.y_train)
    whole = lambda d: sorted(map(bytes, torch.cat([d.x_train, d.x_test]).flatten(1).mul(16).byte().numpy()))
    assert whole(a) == whole(c)

def test_small_digits_are_the_real_ones():
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    lookup = {bytes(row.astype(np.uint8)): label for row, label in zip(x, y)}
    d = digits(test_size=.5)
    for picture, label in zip(d.x_test, d.y_test): assert lookup[bytes((picture * 16).byte().flatten().numpy())] == label

@pytest.mark.parametrize("size", [0, 1, -.1, 1.5, float("nan"), "a", None])
def test_bad_test_size(size):
    with pytest.raises(ValueError, match="test_size"): digits(test_size=size)


@pytest.mark.parametrize("form", ["plain", "gzip", "dots", "dots.gz", "gz without its suffix"])
def test_folder(tmp_path, arrays, form):
    for name, a in zip(NAMES, arrays):
        name, raw = (name.replace("-idx", ".idx") if "dots" in form else name), idx(a)
        if form in ("gzip", "dots.gz"): (tmp_path / f"{name}.gz").write_bytes(gzip.compress(raw))
        elif form.startswith("gz "): (tmp_path / name).write_bytes(gzip.compress(raw))
        else: (tmp_path / name).write_bytes(raw)
    d = digits(full=True, path=tmp_path)
    holds(d, 30, 10, 28)
    assert torch.equal((d.x_train[:, 0] * 255).round().long(), torch.as_tensor(arrays[0])) and d.y_test.tolist() == list(range(10))
    assert torch.equal(digits(path=str(tmp_path), seed=5, test_size=.5).x_train, d.x_train)  # the published split stays

def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"): digits(path=tmp_path / "nowhere")

@pytest.mark.parametrize("gone", NAMES)
def test_missing_file_is_named_with_its_folder(folder, gone):
    (folder / gone).unlink()
    with pytest.raises(FileNotFoundError) as e: digits(path=folder)
    assert gone in str(e.value) and str(folder) in str(e.value)
    assert not any(n in str(e.value) for n in NAMES if n != gone)

def test_all_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError) as e: digits(path=tmp_path)
    assert all(n in str(e.value) for n in NAMES)

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [0, 1, 3, 4, 7, 8, 12, 15, -1])
def test_truncated(folder, name, length):
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[:length])
    with pytest.raises(ValueError, match=name): digits(path=folder)

@pytest.mark.parametrize("length", [2, 5, 11, 40, -9, -1])
def test_truncated_gzip(folder, arrays, length):
    (folder / NAMES[0]).write_bytes(gzip.compress(idx(arrays[0]))[:length])
    with pytest.raises(ValueError, match="train-images.*truncated or damaged"): digits(path=folder)

def test_damaged_gzip(folder, arrays):
    raw = bytearray(gzip.compress(idx(arrays[0])))
    raw[len(raw) // 2] ^= 0xFF
    (folder / NAMES[0]).write_bytes(raw)
    with pytest.raises(ValueError, match="train-images.*truncated or damaged"): digits(path=folder)

def test_too_long(folder):
    (folder / NAMES[0]).write_bytes((folder / NAMES[0]).read_bytes() + b"\0")
    with pytest.raises(ValueError, match="train-images.*too long"): digits(path=folder)

def test_labels_where_images_should_be(folder):
    (folder / NAMES[0]).write_bytes((folder / NAMES[1]).read_bytes())
    with pytest.raises(ValueError, match="train-images.*should be an IDX file of images.*labels"): digits(path=folder)

def test_images_where_labels_should_be(folder):
    (folder / NAMES[3]).write_bytes((folder / NAMES[2]).read_bytes())
    with pytest.raises(ValueError, match="t10k-labels.*should be an IDX file of labels.*images"): digits(path=folder)

def test_not_idx_at_all(folder):
    (folder / NAMES[0]).write_bytes(b"<!DOCTYPE html><html>404</html>")
    with pytest.raises(ValueError, match="train-images.*begins with"): digits(path=folder)

def test_counts_do_not_match(folder):
    (folder / NAMES[1]).write_bytes(idx(np.arange(29) % 10))
    with pytest.raises(ValueError, match="30 images.*29 labels"): digits(path=folder)

def test_other_pictures(folder):
    (folder / NAMES[2]).write_bytes(idx(np.zeros((10, 32, 32))))
    with pytest.raises(ValueError, match=r"t10k-images.*\(32, 32\)"): digits(path=folder)

def test_labels_beyond_nine(folder):
    (folder / NAMES[1]).write_bytes(idx(np.arange(30)))
    with pytest.raises(ValueError, match="train-labels.*0 to 9.*29"): digits(path=folder)

def test_no_pictures(folder):
    (folder / NAMES[2]).write_bytes(idx(np.zeros((0, 28, 28))))
    (folder / NAMES[3]).write_bytes(idx(np.zeros(0)))
    with pytest.raises(ValueError, match="t10k-labels.*got none"): digits(path=folder)


@pytest.mark.parametrize("pandas", [True, False])
def test_openml(monkeypatch, pandas):
    x = np.zeros((70_000, 784), np.uint8)
    x[:, 5], x[60_000, 27] = 255, 51
    y = np.array([str(i % 10) for i in range(70_000)], dtype=object)
    def fetch(name, **options):
        assert name == "mnist_784" and options["parser"] == ("pandas" if pandas else "liac-arff")
        return x, y
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: object() if pandas else None)
    d = digits(full=True)
    holds(d, 60_000, 10_000, 28)
    assert d.x_test[0, 0, 0, 27] == pytest.approx(.2) and d.y_test[7] == 7

def test_openml_without_network_names_the_way_out(monkeypatch):
    def fetch(*args, **options): raise OSError("no route to host")
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    with pytest.raises(ConnectionError, match=r"openml.org.*no route to host.*digits\(\).*path="): digits(full=True)

def test_openml_sends_something_else(monkeypatch):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *a, **k: (np.zeros((10, 784)), np.zeros(10)))
    with pytest.raises(ValueError, match="openml.org sent"): digits(full=True)


def test_plot():
    import matplotlib.pyplot as plt
    fig = digits().plot(rows=1, columns=3)
    assert len(fig.axes) == 3 and fig.get_suptitle()
    plt.close(fig)


# ---- dealing

@pytest.mark.parametrize("shares", [(), (.5,), (.5, .6), (1.2, -.2), (1., 0.), (float("nan"), 1.), ((.5, .5),), .5])
def test_bad_shares(shares):
    for kinds in (None, np.zeros(9)):
        with pytest.raises(ValueError, match="shares must be"): deal(range(9), shares, kinds=kinds)

@pytest.mark.parametrize("seed", [-1, .5, None, "0", True])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"): deal(range(9), seed=seed)

def test_too_few_groups():
    with pytest.raises(ValueError, match="shares: 3 parts.*got 2"): deal([0, 1, 1])
    with pytest.raises(ValueError, match="got 0"): deal([])
    assert len(deal([], kinds=[])) == 0

def test_kinds_of_another_length():
    with pytest.raises(ValueError, match="kinds must be 4.*got 3"): deal([0, 1, 2, 3], kinds=[0, 0, 1])

@pytest.mark.parametrize("wrap", [list, np.array, torch.tensor, lambda x: np.array([f"name {v}" for v in x])])
def test_what_groups_may_be(wrap):
    groups = [3, 1, 3, 9, 1, 5, 7, 2]
    part = deal(wrap(groups), (.5, .5), 1)
    assert part.dtype == np.int64 and (part == deal(groups, (.5, .5), 1)).all() and part[0] == part[2] and part[1] == part[4]

@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=40), st.sampled_from([(.7, .1, .2), (.5, .5), (.98, .01, .01), (.25,) * 4, (1.,)]), st.integers(0, 2**32))
def test_groups_of_one_kind(groups, shares, seed):
    groups = np.array(groups)
    n = len(np.unique(groups))
    if n < len(shares): return
    part = deal(groups, shares, seed)
    counts = np.array([len(np.unique(groups[part == i])) for i in range(len(shares))])
    assert counts.sum() == n and counts.min() >= 1                                          # no group in two parts, no part empty
    if (n * np.array(shares) >= 1).all(): assert np.abs(counts - n * np.array(shares)).max() <= 1
    assert (part == deal(groups, shares, seed)).all()

@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=60), st.integers(0, 99))
def test_kinds_are_dealt_by_themselves(rows, seed):
    groups, kinds = np.array(rows, int).reshape(-1, 2).T
    part = deal(groups, (.6, .4), seed, kinds)
    for g in np.unique(groups):
        own = part[groups == g]
        assert len(set(own.tolist())) == 1 and (len(set(kinds[groups == g].tolist())) == 1 or own[0] == 0)
    for k in np.unique(kinds): assert (part[kinds == k] == 0).any()
