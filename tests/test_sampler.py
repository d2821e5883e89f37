"The sampler: shapes, pitch, files and bad input. What it can do is measured in the chapter; here small ones are trained for seconds."
import json

import pytest
import torch
from hypothesis import given, settings, strategies as st

from oplas.web import InV8
from oplas.strings import Notes, plucks
from oplas import sampler as module
from oplas.cache import write
from oplas.sampler import (Decoder, Encoder, Sampler, cents_off, clip, grow, many_notes, pitch_onehots,
                           pitch_scalar, pitched_wae_loss, playground, resynthesise, train_sampler)

torch.set_num_threads(1)
SMALL = dict(sound=dict(n_fft=1024, hop_length=256, n_mels=48))


@pytest.fixture(scope="module")
def notes():
    "An octave of plucks, cut to a third of a second."
    all_notes = plucks(1)
    some = all_notes[(all_notes.midi >= 60) & (all_notes.midi < 78)]
    return Notes(some.audio[:, :8192].contiguous(), some.midi, some.instrument, some.take, some.instruments, some.sample_rate)


@pytest.fixture(scope="module")
def trained(notes): return train_sampler(notes, epochs=6, progress=False, **SMALL)


@given(st.lists(st.integers(12, 95), min_size=1, max_size=20))
def test_one_hots_tell_every_pitch(midi):
    told = pitch_onehots(torch.tensor(midi))
    octave, semitone = told[:, :7].argmax(1), told[:, 7:].argmax(1)
    assert (12 * (octave + 1) + semitone).tolist() == midi and (told.sum(1) == 2).all()


@pytest.mark.parametrize("midi", [11, 96, -1])
def test_a_pitch_outside_seven_octaves_is_refused(midi):
    with pytest.raises(ValueError, match="12 … 95"): pitch_onehots(torch.tensor([60, midi]))


def test_the_scalar_counts_octaves(): assert pitch_scalar(torch.tensor([60, 72, 54])).flatten().tolist() == [0, 1, -.5]


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 70), st.integers(1, 6))
def test_encoder_and_decoder_fit_any_number_of_frames(frames, dim):
    z = Encoder(8, frames, dim, 3)(torch.randn(2, 8, frames), torch.zeros(2, 3))
    assert z.shape == (2, dim)
    for late in (True, False):
        assert Decoder(8, frames, dim, 3, late)(z, torch.zeros(2, 3)).shape == (2, 8, frames)


@pytest.mark.parametrize("transposed", [True, False])
def test_growing_doubles_the_frames(transposed):
    assert grow(3, 5, transposed)(torch.randn(2, 3, 7)).shape == (2, 5, 14)


def test_at_first_the_pitch_changes_nothing():
    "The late way starts from shapes that are the same for all pitches."
    decoder = Decoder(8, 16, 4, 19)
    z = torch.randn(1, 4).expand(36, -1)
    drawn = decoder(z, pitch_onehots(torch.arange(48, 84)))
    assert torch.allclose(drawn, drawn[:1].expand_as(drawn), atol=1e-6)


def test_training_learns_the_pitch(notes):
    "A pitch that the decoder is told changes what it draws, and the loss falls."
    short, longer = (train_sampler(notes, epochs=n, progress=False, **SMALL) for n in (1, 60))
    x = longer.logmel(notes.audio)
    with torch.no_grad(): before, after = (pitched_wae_loss(m, x, notes.midi)["mse"] for m in (short, longer))
    assert after < .5 * before
    drawn = longer.decode(torch.zeros(4), [60, 67])
    assert (drawn[0] - drawn[1]).abs().max() > .05


def test_the_same_seed_gives_the_same_sampler(notes):
    a, b, c = (train_sampler(notes, epochs=2, seed=s, progress=False, **SMALL).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["decoder.shared.weight"], c["decoder.shared.weight"])


def test_training_leaves_the_callers_random_numbers(notes):
    torch.manual_seed(5); expected = torch.rand(3)
    torch.manual_seed(5); train_sampler(notes, epochs=1, progress=False, **SMALL)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("pitch", ["late", "beside", "scalar"])
def test_every_way_of_telling_the_pitch_trains_and_plays(notes, pitch):
    s = train_sampler(notes, epochs=2, pitch=pitch, progress=False, **SMALL)
    z = s.encode(s.logmel(notes.audio[:3]), notes.midi[:3])
    assert z.shape == (3, 4) and s.notes(z.detach(), notes.midi[:3], n_iter=2).shape == (3, 8192)


def test_notes_are_what_note_gives(trained):
    z, midi = torch.randn(3, 4), [60, 65, 70]
    together = trained.notes(z, midi, n_iter=5)
    for k in range(3): assert torch.allclose(together[k], trained.note(z[k], midi[k], n_iter=5), atol=1e-3)
    assert trained.notes(z, 62, n_iter=2).shape == trained.notes(z[0], midi, n_iter=2).shape == (3, 8192)


def test_many_notes_are_what_note_gives(trained):
    z, midi = torch.randn(11, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60, 71)
    together = many_notes(trained, z, midi, n_iter=5)
    pictures = trained.decode(z, midi)
    for k in (0, 7, 8, 10):
        assert torch.allclose(pictures[k], trained.decode(z[k], int(midi[k]))[0], atol=1e-5)
        assert torch.allclose(together[k], trained.note(z[k], int(midi[k]), n_iter=5), atol=1e-3)
    assert many_notes(trained, z, 62, n_iter=2).shape == many_notes(trained, z[0], midi, n_iter=2).shape == (11, 8192)
    with pytest.raises(ValueError, match="11 codes, midi 3"): many_notes(trained, z, [60, 61, 62])


@given(st.integers(0, 300), st.integers(0, 100), st.integers(0, 300), st.integers(1, 80))
def test_a_clip_ends_in_silence(samples, start, end, fade):
    cut = clip(torch.ones(samples), start, end, fade)
    assert len(cut) == len(range(samples)[start:end]) and not cut[-1:].any()
    assert (cut[:-fade] == 1).all() and (cut.diff() <= 0).all()


def test_the_playground_is_a_pad_for_any_sampler_with_ready_made_notes(monkeypatch):
    fresh, asked = Sampler(samples=8192, **SMALL).eval(), []
    fresh.logmel.top.fill_(6.)
    pad = playground(fresh)
    assert pad.faces.count("<audio ") == 11 and pad.options["dims"] == 4 and pad.options["notes"] == [*range(48, 84)]
    assert pad.decode.inputs == 5 and pad.options["encode"] == 8192
    monkeypatch.setattr(module, "load_sampler", lambda **settings: asked.append(settings) or fresh)
    playground()
    assert asked == [{"seed": 20}]


def test_a_page_computes_what_the_sampler_does(notes):
    "Pictures, codes of pictures, and the way back; a sampler whose encoder is told the pitch takes no sounds in."
    fresh = Sampler(samples=8192, **SMALL).eval()
    fresh.logmel.top.fill_(6.)
    web = module.sampler_for_page(fresh, codes=8)
    v8, row = InV8(web.text), [60., .5, -1., 0., 2.]
    want = fresh.decode(torch.tensor(row[1:]), 60)
    assert (v8.decode(row).view_as(want) - want).abs().max() < 1e-3
    code = v8.run(f"model.encode(model.decode({row}))")
    assert (code - fresh.encode(want)[0]).abs().max() < .02
    told = Sampler(samples=8192, pitch="beside", **SMALL).eval()
    told.logmel.top.fill_(6.)
    assert module.sampler_for_page(told, codes=2).listens == 0


def test_encode_refuses_what_it_cannot_read(trained, notes):
    x = trained.logmel(notes.audio[:2])
    for bad in (x[:, 1:], x[..., 1:], x[0], x.long(), [0.]):
        with pytest.raises(ValueError, match="^x must be"): trained.encode(bad)
    told = Sampler(**{**trained.config, "pitch": "beside"})
    with pytest.raises(ValueError, match="^midi must be told"): told.encode(x)
    assert told.encode(x, notes.midi[:2]).shape == (2, 4)


def test_note_is_one_note(trained):
    with pytest.raises(ValueError, match="use notes"): trained.note(torch.zeros(2, 4), 60)


@pytest.mark.parametrize("z", [torch.zeros(3), torch.zeros(2, 5), torch.zeros(0, 4), torch.zeros(2, 2, 4),
                               torch.full((4,), float("nan")), torch.tensor([0, 0, 0, float("inf")])])
def test_a_code_of_another_kind_is_refused(trained, z):
    with pytest.raises(ValueError, match="^z "): trained.notes(z, 60)


@pytest.mark.parametrize("midi", [59, 78, [60, 90], 60.5, [], True, float("nan")])
def test_a_note_that_is_not_playable_is_refused(trained, midi):
    with pytest.raises(ValueError, match="midi must"): trained.notes(torch.zeros(4), midi)


def test_the_error_gives_the_range(trained):
    with pytest.raises(ValueError, match="60 … 77"): trained.note(torch.zeros(4), 40)


def test_as_many_codes_as_notes(trained):
    with pytest.raises(ValueError, match="2 codes, midi 3"): trained.decode(torch.zeros(2, 4), [60, 61, 62])


def test_a_saved_sampler_is_the_same(trained, tmp_path):
    trained.save(tmp_path / "s.safetensors")
    again = Sampler.load(tmp_path / "s.safetensors")
    assert again.config == trained.config and json.dumps(again.config)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in trained.state_dict().items())
    assert torch.equal(again.note(torch.ones(4), 61, 3), trained.note(torch.ones(4), 61, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize("change", [{"dim": 5}, {"pitch": "early"}, {"transposed": True}, {"knob": 1}, {"pitch": "beside"}])
def test_a_file_from_another_configuration_is_refused(trained, tmp_path, change):
    write(tmp_path / "s", trained.state_dict(), {"model": "Sampler", "config": {**trained.config, **change}})
    with pytest.raises(ValueError, match="another configuration"): Sampler.load(tmp_path / "s")


def test_too_few_notes_and_bad_weights_are_refused(notes):
    with pytest.raises(ValueError, match="at least 32"): train_sampler(notes[:31])
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight must"): train_sampler(notes, weight=weight)
    with pytest.raises(ValueError, match="pitch must be one of"): train_sampler(notes, pitch="early")
    high = Notes(notes.audio, notes.midi + 30, notes.instrument, notes.take, notes.instruments, notes.sample_rate)
    with pytest.raises(ValueError, match="12 … 95"): train_sampler(high)


def test_another_rate_goes_into_the_pictures(notes):
    slow = Notes(notes.audio, notes.midi, notes.instrument, notes.take, notes.instruments, 16_000)
    assert train_sampler(slow, epochs=1, progress=False, **SMALL).logmel.sample_rate == 16_000


def test_silence_is_in_no_tune():
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(22_050) / 22_050)
    off = cents_off(torch.stack([tone, torch.zeros(22_050)]), torch.tensor([69, 69]))
    assert off[0].abs() < 5 and off[1].isnan()


def test_resynthesised_silence_is_silent(trained):
    assert resynthesise(trained.logmel, torch.full((1, 48, 33), -1.), 8192, 3).abs().max() == 0

