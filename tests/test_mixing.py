"Adding and subtracting in latent spaces: the mathematics, and what is refused."
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from oplas import mixing
from oplas.mixing import (TERMS, Projector, TrainedProjector, add, additivity, by_song, dots, effective_rank, found, inverse_error, log_spectral_distance,
                          mixing_error, mixing_loss, relations, remix, si_sdr, subtract, train_projector, twist, untwist, with_mixes)
from oplas.stems import stems

torch.set_num_threads(1)
G = torch.Generator().manual_seed(0)


def sounds(n=40, k=3, size=6): return torch.randn(n, k, size, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


MATRIX = torch.randn(6, 5, generator=G, dtype=torch.float64)
def straight(x): return x @ MATRIX


# the toy

def test_the_twist_has_an_exact_inverse():
    x = dots(500, 3).sum(1)
    assert torch.allclose(untwist(twist(x)), x, atol=1e-9)


def test_dots_are_the_same_for_a_seed_and_lie_where_the_paper_says():
    assert torch.equal(dots(50, 1), dots(50, 1)) and not torch.equal(dots(50, 1), dots(50, 2))
    assert dots(1000).abs().max() <= 1.8 and dots(1000).shape == (1000, 2, 2)


# additivity

def test_a_linear_encoder_adds_up_and_keeps_gains():
    a = additivity(straight, sounds())
    assert max(a.distance.max(), a.from_silence.max(), a.half.max()) < 1e-10 and a.cosine.min() > 1 - 1e-10


def test_an_affine_encoder_adds_up_once_silence_is_taken_off():
    a = additivity(lambda x: straight(x) + 3, sounds())
    assert a.distance.min() > .1 and a.from_silence.max() < 1e-10 and a.from_silence_cosine.min() > 1 - 1e-10


def test_the_mean_of_equal_stems_is_nearest_for_an_encoder_that_hears_no_gain():
    x = sounds(20, 1).repeat(1, 2, 1)
    a = additivity(lambda v: nn.functional.normalize(v + 1e-12, dim=-1), x)
    assert torch.allclose(a.mean, torch.zeros(20).double(), atol=1e-6) and torch.allclose(a.distance, torch.ones(20).double(), atol=1e-6)


def test_additivity_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="stems must be a tensor"): additivity(straight, sounds()[:, 0])
    silent = sounds()
    silent[7] = 0
    with pytest.raises(ValueError, match="must not all be silent, those of song 7"): additivity(straight, silent)
    with pytest.raises(ValueError, match="codes of one length"):
        calls = iter(range(100))
        additivity(lambda x: straight(x)[:, :4 + (next(calls) < 3)], sounds())
    with pytest.raises(ValueError, match="what encode gave"): additivity(lambda x: straight(x)[:3], sounds())
    with pytest.raises(ValueError, match="NaN"): additivity(lambda x: straight(x) * float("nan"), sounds())
    with pytest.raises(ValueError, match="other"): additivity(straight, sounds(), sounds()[:, 0, :2])


# relations

@pytest.mark.parametrize("k", [2, 3, 4])
def test_every_relation_holds_among_sounds(k):
    x = with_mixes(sounds(5, k))
    assert x.shape[1] == 2 * k + 1 == relations(k).shape[1] and (relations(k) @ x).abs().max() < 1e-12


# the projector

def test_it_is_exact_where_the_encoder_is_linear():
    y = straight(with_mixes(sounds(200)))
    h = Projector(5, features=0, damping=0.).fit(y, relations(3))
    assert h.spectrum[:5].abs().max() < 1e-12
    assert torch.allclose(subtract(h, y[:, 3], y[:, 0]), y[:, 4], atol=1e-4)
    assert torch.allclose(add(h, y[:, :3]), y[:, 3], atol=1e-4)
    assert torch.allclose(remix(h, y[:, :3], torch.tensor([0., 1, 1])), y[:, 4], atol=1e-4)


def test_a_bend_that_can_be_undone_is_undone():
    x = sounds(1500, 2, 2) / 3
    y = torch.tanh(with_mixes(x)) + .1 * with_mixes(x)
    h = Projector(2, features=400, spread=3., damping=0., ridge=1e-9).fit(y[:1200], relations(2))
    z = h.transform(y[1200:])
    assert mixing_error(z[:, :2].sum(1), z[:, 2]) < .03 < mixing_error(y[:, :2].sum(1), y[:, 2])
    assert h.spectrum[2] > 100 * h.spectrum[1]                         # two directions, and no third
    solution = torch.linalg.lstsq(z[:, 2], x[1200:].sum(1)).solution   # a linear map of the encoder's inverse
    assert (z[:, 2] @ solution - x[1200:].sum(1)).norm() < .03 * x[1200:].sum(1).norm()


def test_the_space_cannot_collapse():
    y = torch.tanh(with_mixes(sounds(300, 2, 4)))
    z = Projector(4, features=50).fit(y, relations(2)).transform(y)
    mixes = z[:, 2:].flatten(0, 1)
    assert torch.allclose(mixes.T @ mixes / len(mixes), torch.eye(4).double(), atol=1e-6)


def test_trust_gives_all_directions_errors_of_one_size_and_turns_none():
    y = torch.tanh(with_mixes(sounds(300, 2, 4)))
    alike, trusted = (Projector(4, features=50, damping=0., trust=t).fit(y, relations(2)) for t in (0., 1.))
    errors = (relations(2) @ trusted.transform(y)).flatten(0, 1).square().mean(0)
    assert torch.allclose(errors, errors.mean().expand(4), rtol=1e-6)
    assert torch.allclose(trusted.transform(y) / trusted.sizes, alike.transform(y), atol=1e-9)
    assert abs(float(trusted.transform(y)[:, 2:].square().mean()) - 1) < 1e-6           # the mean power of mixes stays 1
    assert torch.allclose(trusted.inverse_transform(trusted.transform(y)), alike.inverse_transform(alike.transform(y)), atol=1e-3)


def test_numbers_that_are_always_zero_do_no_harm():
    "Most of a trained network's filters may be silent: the solver of eigenvalues once stopped at 371 of 408."
    y = torch.cat([torch.tanh(with_mixes(sounds(100, 2, 4))), torch.zeros(100, 5, 300)], -1)
    z = Projector(3, features=0).fit(y, relations(2)).transform(y)
    assert torch.isfinite(z).all() and torch.allclose(z, Projector(3, features=0).fit(y[..., :4], relations(2)).transform(y[..., :4]), atol=1e-4)


@pytest.mark.parametrize("ask", [lambda h, y: h.transform(y), lambda h, y: h.inverse_transform(y), lambda h, y: add(h, y[:, :2]), lambda h, y: subtract(h, y[:, 0], y[:, 1])])
def test_a_projector_that_was_not_fitted_says_so(ask):
    with pytest.raises(NotFittedError, match="Projector has to be fitted first"): ask(Projector(2), torch.zeros(4, 3, 2))


def test_fit_depends_on_its_seed_alone():
    y = torch.tanh(with_mixes(sounds(100, 2)))
    one, two, other = (Projector(2, features=30, seed=s).fit(y, relations(2)).transform(y) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_the_projector_refuses_bad_input():
    y = straight(with_mixes(sounds(10)))
    with pytest.raises(ValueError, match="codes must be of 16 songs or more, one for each dimension, got 10"): Projector(16).fit(y, relations(3))
    with pytest.raises(ValueError, match="relations must be"): Projector(2).fit(y, relations(4))
    with pytest.raises(ValueError, match="codes must be"): Projector(2).fit(y[0], relations(3))
    with pytest.raises(ValueError, match="codes holds NaN"): Projector(2).fit(y / 0, relations(3))
    with pytest.raises(ValueError, match="dims must be at most"): Projector(8, features=0).fit(y, relations(3))
    for name, bad in dict(dims=0, features=-1, spread=0, damping=-1, ridge=0, trust=-1, seed=-1).items():
        with pytest.raises(ValueError, match=name): Projector(**{name: bad})


# the paper's loss

def test_each_term_sees_the_fault_it_is_for():
    z = torch.randn(5000, 3, generator=G)
    assert mixing.invariance(z, z) == 0 and mixing.reconstruction(z, z) == 0
    assert mixing.variance(z / z.std(0)) < 1e-3 and abs(float(mixing.variance(0 * z)) - .99) < 1e-3
    assert mixing.covariance(z) < .01 and mixing.covariance(z[:, :1].repeat(1, 3)) > 1


def test_the_loss_is_the_sum_of_its_terms_without_the_one_that_is_left_out():
    h, y = TrainedProjector(2, 2), twist(torch.cat([dots(30), dots(30).sum(1, keepdim=True)], 1)).float()
    for without in (None, *TERMS):
        found_terms = mixing_loss(h, y[:, :2], y[:, 2], without)
        assert torch.isclose(found_terms["loss"], sum(v for k, v in found_terms.items() if k not in ("loss", without)))


def test_training_lowers_the_error():
    y = twist(torch.cat([dots(6000), dots(6000).sum(1, keepdim=True)], 1)).float()
    h = train_projector(y[:, :2], y[:, 2], epochs=20, progress=False)
    with torch.no_grad(): z = h.transform(y)
    assert mixing_error(z[:, :2].sum(1), z[:, 2]) < .5 * mixing_error(y[:, :2].sum(1), y[:, 2])


# measures

def test_effective_rank_counts_dimensions():
    z = torch.randn(20_000, 4, generator=G)
    assert abs(effective_rank(z) - 4) < .01 and abs(effective_rank(z[:, :1].repeat(1, 4)) - 1) < 1e-3
    assert effective_rank(torch.zeros(5, 3)) == 1


def test_inverse_error_is_one_for_the_mean_and_none_for_the_code():
    y = torch.randn(50, 3, generator=G) + 7
    assert inverse_error(y, y) == 0 and abs(inverse_error(y.mean(0).expand(50, 3), y) - 1) < 1e-6


def test_found_counts_the_right_place_among_all():
    candidates = torch.randn(6, 5, 2, generator=G)
    assert found(candidates[:, 2], candidates, 2) == 1 and found(candidates[:, 2], candidates, 1) == 0


def test_si_sdr_sees_no_scale_and_knows_a_noise_of_a_tenth():
    x, noise = torch.randn(2, 100_000, generator=G)
    assert abs(float(si_sdr(3 * x + .3 * noise, x)) - 20) < .2


def test_log_spectral_distance_of_twice_the_magnitude_is_six_decibels():
    a = torch.rand(4, 64, 10, generator=G) + 1
    assert torch.allclose(log_spectral_distance(2 * a, a), torch.full((4,), 6.02), atol=.02)


# the encoder of blocks

def test_blocks_go_in_and_out_in_one_shape_and_others_are_refused():
    model = mixing.BlockAutoencoder(dim=7, width=16)
    x = torch.rand(3, 64, 8, generator=G)
    assert model.encode(x).shape == (3, 7) and model.decode(model.encode(x)).shape == x.shape
    with pytest.raises(ValueError, match="x must be"): model.encode(x[..., :5])
    with pytest.raises(ValueError, match="z must be"): model.decode(torch.zeros(3, 6))
    with pytest.raises(ValueError, match="x must be"): mixing.train_blocks(x)


def test_a_saved_encoder_comes_back(tmp_path):
    model = mixing.BlockAutoencoder(dim=7, width=16)
    model.save(tmp_path / "m.safetensors")
    x = torch.rand(3, 64, 8, generator=G)
    assert torch.equal(mixing.BlockAutoencoder.load(tmp_path / "m.safetensors").encode(x), model.encode(x))


@pytest.mark.parametrize("change", [lambda x: x * float("nan"), lambda x: x.bool()])
def test_bad_blocks_are_named(change):
    model = mixing.BlockAutoencoder(dim=7, width=16)
    with pytest.raises(ValueError, match="^x "): model.encode(change(torch.rand(3, 64, 8, generator=G)))


# recorded songs

@pytest.mark.parametrize("way", ["folders", "stem.mp4"])
def test_a_folder_of_songs_is_asked_by_song(tmp_path, way):
    "Tiny songs in the two forms of MUSDB18: 6 to fit on, 2 unseen."
    pytest.importorskip("musicnn"), pytest.importorskip("av")
    from test_stems import NAMES, mp4, sine, wavs
    for k in range(8):
        parts = [sine(f0, 3.2, .1 + .02 * k) for f0 in (110 + 9 * k, 220 + 5 * k, 440, 880 - 20 * k)]
        if way == "folders": wavs(tmp_path / f"song {k}", dict(zip(NAMES, parts)))
        else: mp4(tmp_path / f"song {k}.stem.mp4", [sum(parts), *parts])
    rows = by_song(stems(tmp_path), each=1, dims=2)
    assert len(rows) == 2 and {r["song"] for r in rows} < {f"song {k}" for k in range(8)}
    assert all({"embedding", "below", "embedding, h", "below, h"} < set(r) and all(0 < v < 100 for n, v in r.items() if n != "song") for r in rows)
    with pytest.raises(ValueError, match="codes must be of 16 songs or more"): by_song(stems(tmp_path), each=1)
