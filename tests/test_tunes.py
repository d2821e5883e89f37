"oplas.tunes on small files in the real formats: which bars pass, what is broken, the cache, the split by tune."
import builtins, os, re, subprocess, sys, warnings, zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

music21 = pytest.importorskip("music21")
joblib = pytest.importorskip("joblib")

from music21 import chord, key, meter, note, stream, tempo

from oplas import tunes as reader
from oplas.music import HOLD, REST, Events, to_tokens
from oplas.tunes import Melodies, melodies

METRE, LENGTH, CHORD, EMPTY, SECOND = ("not in 4/4 or 2/2", "not four quarters long", "several notes at once",
                                       "without a note", "without a second bar")
GRID = "off the grid of 24 ticks"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    "Each test its own cache; a warning nobody asked for is an error."
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def abc(body, m="4/4", l="1/4", k="C", t="A Tune", x=1):
    return f"X:{x}\nT:{t}\nM:{m}\nL:{l}\nK:{k}\n{body}\n"

def put(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")

def rows(notes, n_bars=1, ticks=24):
    "Tokens of one window, by hand: [(onset, duration, pitch)]."
    onset, long, pitch = np.array(notes, float).T
    return to_tokens(Events(np.zeros(len(notes), int), onset, long, pitch.astype(int)), 1, ticks, n_bars)[0].tolist()

def read(folder, body, name="tune.abc", ticks_per_bar=24, bars=1, **kw):
    put(folder, name, abc(body, **kw))
    return melodies(folder, ticks_per_bar, bars)

def left(m): return {k: v for k, v in m.left_out.items() if v}

CDEF = rows([(0, 1, 60), (1, 1, 62), (2, 1, 64), (3, 1, 65)])


# which bars pass

def test_a_bar_by_hand(tmp_path):
    m = read(tmp_path, "C D E F|z/2G/2- G2 z|")
    H, R = HOLD, REST
    assert m.tokens.tolist() == [[60] + 5 * [H] + [62] + 5 * [H] + [64] + 5 * [H] + [65] + 5 * [H],
                                 3 * [R] + [67] + 2 * [H] + 12 * [H] + 6 * [R]]
    assert m.tokens.dtype == m.tune.dtype == m.bar.dtype == torch.int64 and m.ticks_per_bar == 24
    assert m.bar.tolist() == [1, 2] and m.tune.tolist() == [0, 0] and m.titles == ("A Tune",)

@pytest.mark.parametrize("m", ["4/4", "C", "2/2", "C|"])
def test_duple_metres(tmp_path, m): assert read(tmp_path, "CDEF|", m=m).tokens.tolist() == [CDEF]

@pytest.mark.parametrize("m, bar", [("3/4", "CDE"), ("2/4", "CD"), ("6/8", "CDE"), ("2/4", "CDEF"), ("8/8", "CDEF"), ("4/2", "C4D4"), ("none", "CDEF"), ("12/8", "CDEFGA")])
def test_other_metres_do_not_pass(tmp_path, m, bar):
    put(tmp_path, "b.abc", abc(f"{bar}|{bar}|", m=m, t="Other"))
    got = read(tmp_path, "CDEF|", name="a.abc")
    assert got.tokens.tolist() == [CDEF] and left(got) == {METRE: 2}

@pytest.mark.parametrize("change, back", [("\nM:3/4\n", "\nM:4/4\n"), ("[M:3/4]", "[M:C]")])
def test_metre_that_changes_on_the_way(tmp_path, change, back):
    m = read(tmp_path, f"CDEF|{change}C2D|EFG|{back}CDEF|")
    assert m.tokens.tolist() == [CDEF, CDEF] and m.bar.tolist() == [1, 4] and left(m) == {METRE: 2}

def test_a_bar_of_four_quarters_under_another_signature(tmp_path):
    m = read(tmp_path, "CDEF|[M:3/4]CDEF|[M:4/4]CDE|")  # each fails one of the two tests
    assert m.bar.tolist() == [1] and left(m) == {METRE: 1, LENGTH: 1}

def test_upbeats_short_bars_and_long_ones(tmp_path):
    m = read(tmp_path, "G|CDEF|CDE:|:F|CDEF|CDEFG|CDEF CDEF|CDE|")
    assert m.tokens.tolist() == [CDEF, CDEF] and m.bar.tolist() == [1, 4]  # the upbeat is bar 0
    assert left(m) == {LENGTH: 6}

def test_no_upbeat_begins_at_bar_one(tmp_path): assert read(tmp_path, "CDEF|CDE|CDEF|").bar.tolist() == [1, 3]

def test_accents_and_chord_symbols_are_no_notes(tmp_path):
    m = read(tmp_path, '">"C"Am"D!trill!E.F|"G7"CDEF|')
    assert m.tokens.tolist() == [CDEF, CDEF]

@pytest.mark.parametrize("bar, notes", [
    ('C>.D', "long short"), ('C<"4"D', "short long"), ("C>vD", "long short"), ("C>(D", "long short"), ("(C>{e}D)", "long short"), ("C>-D", "long short"), ("C-<D", "short long"),
    ('("2"C>"1"u.D)', "long short"), ("C!accent!>D", "long short"), ("C > D", "long short")])
def test_broken_rhythm_reaches_over_signs(tmp_path, bar, notes):
    long = {"long": 1.5, "short": .5}
    a, b = (long[n] for n in notes.split())
    assert read(tmp_path, f"{bar}EF|").tokens.tolist() == [rows([(0, a, 60), (a, b, 62), (2, 1, 64), (3, 1, 65)])]

def test_broken_rhythm_and_a_tie(tmp_path):
    assert read(tmp_path, "C>-CEF|").tokens.tolist() == [rows([(0, 2, 60), (2, 1, 64), (3, 1, 65)])]

@pytest.mark.parametrize("body", ["CDHEF|", "HCDEF|", "CDEF::", "CDE ~F:|", "CTDEF|]", "uCDvEF|", 'C"D.C. (al fine) H"DEF|', "CDEF|=20", "CDE=\nF|", "CDE.F y|", "[P:A]CDEF|", "[r:a remark]CDEF|",
                                  "CDEF|\nN::A note\nw:la la la|", "P:B\nCDEF[|]", "C!fermata!DEF|% DEFG|"])
def test_signs_and_fields_are_no_notes(tmp_path, body):
    assert read(tmp_path, body).tokens.tolist() == [CDEF]

def test_a_line_that_begins_with_a_note_and_a_repeat(tmp_path):
    m = read(tmp_path, "CDE\nF::CDE\nF:|CDEF|")
    assert m.tokens.tolist() == [CDEF] * 3

@pytest.mark.parametrize("body", ["T^FFfF|", "uT^FFfF|", '"a"^F{_F}FfF|'])
def test_an_accidental_under_a_sign_holds(tmp_path, body):
    assert read(tmp_path, body).tokens[:, ::6].tolist() == [[66, 66, 77, 66]]

def test_chords_do_not_pass(tmp_path):
    m = read(tmp_path, "[CE]DEF|CDEF|[C]DEF|")
    assert m.tokens.tolist() == [CDEF, CDEF] and m.bar.tolist() == [2, 3] and left(m) == {CHORD: 1}

def test_grace_notes_are_dropped(tmp_path): assert read(tmp_path, "{GA}CD{B}EF|").tokens.tolist() == [CDEF]

def test_rests(tmp_path):
    m = read(tmp_path, "z4|CzzF|")
    assert m.tokens.tolist() == [rows([(0, 1, 60), (3, 1, 65)])] and left(m) == {EMPTY: 1}

def test_triplets_need_the_grid_of_24(tmp_path):
    body = "(3C/D/E/ F G A|CDEF|"
    m = read(tmp_path, body)
    assert m.tokens[0].tolist() == rows([(0, 1/3, 60), (1/3, 1/3, 62), (2/3, 1/3, 64), (1, 1, 65), (2, 1, 67), (3, 1, 69)])
    m = read(tmp_path, body, ticks_per_bar=16)
    assert m.tokens.tolist() == [rows([(0, 1, 60), (1, 1, 62), (2, 1, 64), (3, 1, 65)], ticks=16)]
    assert left(m) == {"off the grid of 16 ticks": 1} and m.ticks_per_bar == 16

@pytest.mark.parametrize("bar", ["C/8D7/8 E F G", "(3C/4D/4E/4 F/2 G A B", "(5C/D/E/F/G/ A2 z"])
def test_off_the_grid(tmp_path, bar):
    m = read(tmp_path, f"CDEF|{bar}|")
    assert m.tokens.tolist() == [CDEF] and sum(left(m).values()) == 1

def test_thirty_seconds_are_off_the_grid(tmp_path):
    m = read(tmp_path, "CDEF|C/8D/8E/4F/2GAB|")
    assert m.tokens.tolist() == [CDEF] and left(m) == {GRID: 1}

def test_broken_rhythm_accidentals_and_keys(tmp_path):
    m = read(tmp_path, "C>D ^F F|F =c _B B|", k="D")
    assert m.tokens[0].tolist() == rows([(0, 1.5, 61), (1.5, .5, 62), (2, 1, 66), (3, 1, 66)])
    assert m.tokens[1].tolist() == rows([(0, 1, 66), (1, 1, 72), (2, 1, 70), (3, 1, 70)])

def test_accidentals_hold_until_the_bar_line_in_their_octave(tmp_path):
    m = read(tmp_path, "^FFf=F|F_BBb|")
    assert m.tokens[:, ::6].tolist() == [[66, 66, 77, 65], [65, 70, 70, 83]]

def test_ties(tmp_path):
    body = "C- C D E-|E2 F2-|F4|"
    m = read(tmp_path, body)
    assert m.tokens.tolist() == [rows([(0, 2, 60), (2, 1, 62), (3, 1, 64)]), rows([(0, 2, 64), (2, 2, 65)]), rows([(0, 4, 65)])]
    two = read(tmp_path, body, bars=2)  # inside a window the tie holds
    assert two.tokens.tolist() == [rows([(0, 2, 60), (2, 1, 62), (3, 3, 64), (6, 2, 65)], n_bars=2)] and left(two) == {SECOND: 1}

def test_a_tie_to_another_pitch_is_none(tmp_path):
    assert read(tmp_path, "C-D2E|").tokens.tolist() == [rows([(0, 1, 60), (1, 2, 62), (3, 1, 64)])]

def test_two_bars(tmp_path):
    m = read(tmp_path, "G|CDEF|DEFG|EFGA|CDE|CDEF|DEFG|", bars=2)
    first = CDEF + rows([(i, 1, p) for i, p in enumerate((62, 64, 65, 67))])
    assert m.tokens.tolist() == [first, first] and m.bar.tolist() == [1, 5]
    assert left(m) == {LENGTH: 2, SECOND: 1} and len(m) * 2 + sum(m.left_out.values()) == 7

def test_windows_do_not_run_from_tune_to_tune(tmp_path):
    put(tmp_path, "a.abc", abc("CDEF|") + "\n" + abc("CDEF|DEFG|", x=2, t="B"))
    m = melodies(tmp_path, bars=2)
    assert m.tune.tolist() == [1] and m.bar.tolist() == [1]

def test_voices(tmp_path):
    body = "V:1\n[CE]DEF|CDEF|\nV:2\nC,4|C,4|\nV:1\nCDEF|\nV:2\nD,4|"
    m = read(tmp_path, body)  # the first voice has a chord, so the second is the melody
    assert m.tokens[:, 0].tolist() == [48, 48, 50] and m.bar.tolist() == [1, 2, 3]
    m = read(tmp_path, body.replace("[CE]", "C"))
    assert m.tokens.tolist() == [CDEF] * 3
    put(tmp_path, "tune.abc", abc("CDEF|").replace("K:C", "V:1 name=x\nK:C\nV:1"))
    assert melodies(tmp_path).tokens.tolist() == [CDEF]

def test_what_stands_above_the_first_tune_holds_for_all(tmp_path):
    put(tmp_path, "a.abc", "%abc-2.1\nM:4/4\nL:1/4\n\nX:1\nT:One\nK:C\nCDEF|\n\nX:2\nT:Two\nM:3/4\nK:C\nCDE|\n")
    m = melodies(tmp_path)
    assert m.tokens.tolist() == [CDEF] and m.titles == ("One", "Two") and left(m) == {METRE: 1}

def test_tunes_with_one_number(tmp_path):
    put(tmp_path, "a.abc", abc("CDEF|", t="One") + "\n" + abc("CDEF|CDEF|", t="Two"))
    m = melodies(tmp_path)
    assert m.titles == ("One", "Two") and m.tune.tolist() == [0, 1, 1]

def test_titles(tmp_path):
    put(tmp_path, "a.abc", abc("CDEF|", t="Miller's Maid, The") + "\n" + abc("CDEF|", t="Café", x=2))
    put(tmp_path, "sub/no title.abc", "M:4/4\nL:1/4\nK:C\nCDEF|")
    assert melodies(tmp_path).titles == ("The Miller's Maid", "Café", "no title")

@pytest.mark.parametrize("write", [lambda f, t: f.write_bytes(t.encode("latin-1")), lambda f, t: f.write_bytes(t.encode("utf-8-sig")),
                                   lambda f, t: f.write_bytes(t.replace("\n", "\r\n").encode()), lambda f, t: f.write_bytes(t.replace("\n", "\r").encode())])
def test_encodings_and_line_ends(tmp_path, write):
    write(tmp_path / "a.abc", abc("CDEF|\nCDEF|", t="Café"))
    m = melodies(tmp_path)
    assert m.titles == ("Café",) and m.tokens.tolist() == [CDEF, CDEF]


# MIDI and MusicXML

def score(*parts, signature="4/4", title=None):
    s = stream.Score()
    for notes in parts:
        p = stream.Part()
        p.append([meter.TimeSignature(signature), key.KeySignature(2), tempo.MetronomeMark(number=71)])
        for pitch, long in notes:
            n = note.Rest() if pitch is None else chord.Chord(list(pitch)) if isinstance(pitch, tuple) else note.Note(pitch)
            n.duration.quarterLength = long
            p.append(n)
        s.insert(0, p)
    if title: s.insert(0, music21.metadata.Metadata(title=title))
    return s

SCALE = [(60, 1), (62, 1), (64, 1), (65, 1)]
FORMS = [("midi", "t.mid"), ("midi", "t.MIDI"), ("musicxml", "t.musicxml"), ("musicxml", "t.xml"), ("mxl", "t.mxl")]

def write(folder, form, name, s):
    made = s.write("midi" if form == "midi" else "musicxml", folder.parent / ("made.mid" if form == "midi" else "made.musicxml"))
    raw = made.read_bytes() if hasattr(made, "read_bytes") else open(made, "rb").read()
    if form != "mxl": (folder / name).write_bytes(raw)
    else:
        with zipfile.ZipFile(folder / name, "w") as z:
            z.writestr("META-INF/container.xml", '<?xml version="1.0"?><container><rootfiles><rootfile full-path="t.xml"/></rootfiles></container>')
            z.writestr("t.xml", raw)

@pytest.fixture
def tunes(tmp_path):
    (tmp_path / "tunes").mkdir()
    return tmp_path / "tunes"

@pytest.mark.parametrize("form, name", FORMS)
def test_formats(tunes, form, name):
    write(tunes, form, name, score(SCALE + [(67, 1/3), (69, 1/3), (71, 1/3), (None, 1), (60, 2)]))
    m = melodies(tunes)
    assert m.tokens.tolist() == [CDEF, rows([(0, 1/3, 67), (1/3, 1/3, 69), (2/3, 1/3, 71), (2, 2, 60)])]
    assert m.bar.tolist() == [1, 2] and sum(m.left_out.values()) == 0

@pytest.mark.parametrize("form, name", FORMS[::2])
def test_formats_metres(tunes, form, name):
    write(tunes, form, "a" + name, score(SCALE * 3, signature="3/4"))
    write(tunes, form, "b" + name, score(SCALE * 2, signature="2/4"))
    write(tunes, form, "c" + name, score(SCALE, signature="2/2"))
    m = melodies(tunes)
    assert m.tokens.tolist() == [CDEF] and left(m) == {METRE: 8}

@pytest.mark.parametrize("form, name", FORMS[::2])
def test_formats_ties_over_the_bar_line(tunes, form, name):
    write(tunes, form, name, score([(60, 3), (62, 2), (64, 3)]).makeNotation())
    assert melodies(tunes).tokens.tolist() == [rows([(0, 3, 60), (3, 1, 62)]), rows([(0, 1, 62), (1, 3, 64)])]
    assert melodies(tunes, bars=2).tokens.tolist() == [rows([(0, 3, 60), (3, 2, 62), (5, 3, 64)], n_bars=2)]

@pytest.mark.parametrize("form, name", FORMS[::2])
def test_formats_off_the_grid(tunes, form, name):
    write(tunes, form, name, score(SCALE + [(60, .125), (62, .375), (64, 1.5), (65, 2)]))
    m = melodies(tunes)
    assert m.tokens.tolist() == [CDEF] and left(m) == {GRID: 1}

@pytest.mark.parametrize("form, name", FORMS[::2])
def test_the_first_part_with_one_note_at_a_time(tunes, form, name):
    write(tunes, form, name, score([((60, 64), 4)], [(None, 4)], [(p + 12, d) for p, d in SCALE], SCALE))
    assert melodies(tunes).tokens[0, ::6].tolist() == [72, 74, 76, 77]

@pytest.mark.parametrize("form, name", FORMS[::2])
def test_a_part_that_is_mostly_single(tunes, form, name):
    write(tunes, form, name, score([((60, 64), 4), *SCALE]))
    m = melodies(tunes)
    assert m.tokens.tolist() == [CDEF] and m.bar.tolist() == [2] and left(m) == {CHORD: 1}

def test_midi_that_was_played(tunes):
    write(tunes, "midi", "t.mid", score([(60, 1), (62, 1 - 1/32), (None, 1/32), (64, 1), (65, 1)]))
    assert melodies(tunes).tokens.tolist() == [CDEF]

def test_overlapping_notes_in_midi(tunes):
    p = stream.Part([meter.TimeSignature("4/4")])
    for at, pitch, long in ((0, 60, 3), (1, 64, 3), (4, 60, 1), (5, 62, 1), (6, 64, 1), (7, 65, 1)): p.insert(at, note.Note(pitch, quarterLength=long))
    write(tunes, "midi", "t.mid", stream.Score([p]))
    m = melodies(tunes)
    assert m.tokens.tolist() == [CDEF] and left(m) == {CHORD: 1}

def test_musicxml_upbeat_grace_notes_and_title(tunes):
    p = stream.Part()
    up = stream.Measure([meter.TimeSignature("4/4"), note.Note(67)], number=0)
    up.padAsAnacrusis()
    full = stream.Measure([note.Note(m) for m in (60, 62, 64, 65)], number=1)
    full.insert(1, note.Note(72).getGrace())
    p.append([up, full])
    write(tunes, "musicxml", "t.xml", stream.Score([music21.metadata.Metadata(title="With Grace"), p]))
    m = melodies(tunes)
    assert m.tokens.tolist() == [CDEF] and m.bar.tolist() == [1] and m.titles == ("With Grace",) and left(m) == {LENGTH: 1}

def test_mixed_folders(tunes):
    put(tunes, "deep/er/a.abc", abc("CDEF|"))
    write(tunes, "midi", "b.mid", score(SCALE))
    write(tunes, "mxl", "c.mxl", score(SCALE, title="Packed"))
    put(tunes, "readme.txt", "no tune")
    (tunes / "folder.abc").mkdir()
    m = melodies(str(tunes))
    assert m.tokens.tolist() == [CDEF] * 3 and m.titles == ("b", "Packed", "A Tune")


# what is broken

@pytest.mark.parametrize("name", ["bad.abc", "bad.mid", "bad.xml", "bad.mxl", "bad.musicxml"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe rubbish", b"<html>404</html>", b"MThd\0\0\0\6\0\1", b"PK\3\4broken"])
def test_a_broken_file_is_named_and_skipped(tunes, name, content, capfd):
    put(tunes, "good.abc", abc("CDEF|"))
    (tunes / name).write_bytes(content)
    for _ in range(2):  # parsed, then from the cache
        with pytest.warns(UserWarning, match=f"1 skipped.*{name}"): m = melodies(tunes)
        assert m.tokens.tolist() == [CDEF] and m.titles == ("A Tune",)
    assert capfd.readouterr().err == ""

def test_one_broken_tune_costs_no_other(tunes):
    put(tunes, "a.abc", abc("CDEF|", t="One") + "\n" + abc("CDEF|", l="x/y", x=2) + "\n" + abc("CDEF|", t="Three", x=3))
    with pytest.warns(UserWarning, match="a.abc X:2"): m = melodies(tunes)
    assert m.titles == ("One", "Three")

def test_a_truncated_midi_file(tunes):
    write(tunes, "midi", "a.mid", score(SCALE * 4))
    raw = (tunes / "a.mid").read_bytes()
    put(tunes, "good.abc", abc("CDEF|"))
    (tunes / "a.mid").write_bytes(raw[: len(raw) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # music21 reads what is there, and may or may not complain
        assert "A Tune" in melodies(tunes).titles

def test_a_file_that_may_not_be_read(tunes, monkeypatch):
    put(tunes, "good.abc", abc("CDEF|"))
    put(tunes, "bad.abc", abc("CDEF|"))
    real = reader.pathlib.Path.read_bytes
    def forbidden(path):                             # not by chmod: root may read everything
        if path.name == "bad.abc": raise PermissionError(13, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(reader.pathlib.Path, "read_bytes", forbidden)
    with pytest.warns(UserWarning, match="bad.abc"): assert len(melodies(tunes)) == 1

def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="source.*nowhere"): melodies(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="source.*'folk', 'essen'.*jazz"): melodies("jazz")
    put(tmp_path, "a.abc", abc("CDEF|"))
    with pytest.raises(FileNotFoundError, match="a.abc"): melodies(tmp_path / "a.abc")

def test_empty_folder(tunes):
    with pytest.raises(FileNotFoundError, match=r"tunes ends in \.abc, \.mid"): melodies(tunes)
    put(tunes, "a.txt", "x")
    with pytest.raises(FileNotFoundError, match="tunes"): melodies(tunes)

def test_nothing_can_be_read(tunes):
    put(tunes, "a.mid", "x")
    with pytest.raises(ValueError, match=r"source: no tune in .*tunes can be read: a\.mid"): melodies(tunes)

def test_no_bar_is_left(tunes):
    with pytest.raises(ValueError, match="source: no bar .*tunes.*'not in 4/4 or 2/2': 1"): read(tunes, "CDE|", m="3/4")

@pytest.mark.parametrize("bad", [dict(ticks_per_bar=12), dict(ticks_per_bar=None), dict(ticks_per_bar="24"), dict(bars=3), dict(bars=0), dict(bars="1")])
def test_bad_settings(tmp_path, bad):
    with pytest.raises(ValueError, match=f"{[*bad][0]} must be one of .* got"): melodies(tmp_path / "nowhere", **bad)

@pytest.mark.parametrize("source", [None, 3, ["folk"]])
def test_bad_source(source):
    with pytest.raises(ValueError, match="source must be one of"): melodies(source)

def test_without_music21(monkeypatch, tmp_path):
    real = builtins.__import__
    def without(name, *a, **k):
        if name.split(".")[0] == "music21": raise ModuleNotFoundError("No module named 'music21'")
        return real(name, *a, **k)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "oplas\[music\]"'): melodies(tmp_path)


# the cache

def kept(): return sorted(os.listdir(os.environ["OPLAS_CACHE"]))

def never(*a): raise AssertionError("parsed again")

def test_parsed_once(tunes, monkeypatch):
    put(tunes, "a.abc", abc("CDEF|(3C/D/E/ FGA|"))
    a = melodies(tunes)
    assert len(kept()) == 1 and kept()[0].startswith("tunes-")
    monkeypatch.setattr(reader, "_tunes", never)  # part of what the name hashes, so the name changes, too
    monkeypatch.setattr(reader, "cache_file", lambda *_: reader.pathlib.Path(os.environ["OPLAS_CACHE"], kept()[0]))
    b = melodies(tunes)
    assert torch.equal(a.tokens, b.tokens) and a.titles == b.titles and a.left_out == b.left_out
    assert len(melodies(tunes, 16)) == 1 and melodies(tunes, bars=2).tokens.shape == (1, 48)  # of the same parse

def test_a_changed_file_is_read_again(tunes):
    assert len(read(tunes, "CDEF|")) == 1
    assert len(read(tunes, "CDEF|CDEF|")) == 2 and len(kept()) == 2
    put(tunes, "new.abc", abc("CDEF|"))
    assert len(melodies(tunes)) == 3

def test_a_moved_folder_is_not(tunes, tmp_path):
    read(tunes, "CDEF|")
    tunes.rename(tmp_path / "elsewhere")
    assert len(melodies(tmp_path / "elsewhere")) == 1 and len(kept()) == 1

def test_the_name_hashes_music21(tunes):
    put(tunes, "a.abc", abc("CDEF|"))
    program = """if True:
        import importlib.metadata, pathlib, sys
        from oplas import source, tunes
        real, folder = importlib.metadata.version, pathlib.Path(sys.argv[1])
        def another(name): return "another" if name == "music21" else real(name)
        for importlib.metadata.version in (real, another):
            source._version.cache_clear()
            print(*tunes._file_groups(folder, [folder / "a.abc"]))"""
    one, another = subprocess.run([sys.executable, "-c", program, tunes], capture_output=True, text=True, check=True).stdout.split("\n")[:2]
    assert one == str(*reader._file_groups(tunes, [tunes / "a.abc"])) != another

@pytest.mark.parametrize("harm", [lambda b: b[:-7], lambda b: b"", lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:]])
def test_a_damaged_cache_is_set_aside(tunes, harm):
    a = read(tunes, "CDEF|")
    path = reader.pathlib.Path(os.environ["OPLAS_CACHE"], kept()[0])
    path.write_bytes(harm(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"): b = melodies(tunes)
    assert torch.equal(a.tokens, b.tokens) and len(kept()) == 2
    melodies(tunes)

def test_another_files_content_is_not_trusted(tunes):
    read(tunes, "CDEF|")
    first = kept()[0]
    read(tunes, "GABc|")
    second, = set(kept()) - {first}
    cache = reader.pathlib.Path(os.environ["OPLAS_CACHE"])
    (cache / first).replace(cache / second)
    with pytest.warns(UserWarning, match="another file"): assert melodies(tunes).tokens[0, 0] == 67

def test_a_cache_that_cannot_be_written(tunes, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPLAS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be written|cannot be read"): assert len(read(tunes, "CDEF|")) == 1

def many(folder, n=24):
    "So much that it is parsed in groups."
    for i in range(n): put(folder, f"{i:03d}.abc", "%" + "-" * 50_000 + "\n" + abc("CDEF|" * (i + 1), t=f"Tune {i}"))

def test_groups_in_parallel_and_in_order(tunes):
    many(tunes)
    groups = reader._file_groups(tunes, sorted(tunes.iterdir()))
    assert len(groups) > 3 and sorted(sum(groups.values(), [])) == [f"{i:03d}.abc" for i in range(24)]
    with joblib.parallel_config(backend="threading", n_jobs=2): m = melodies(tunes)
    assert m.titles == tuple(f"Tune {i}" for i in range(24)) and len(kept()) == len(groups)
    assert m.tune.bincount().tolist() == list(range(1, 25)) and (m.tune.diff() >= 0).all()
    assert m.bar.tolist() == [b for i in range(24) for b in range(1, i + 2)]
    put(tunes, "new.abc", abc("CDEF|"))
    assert len(melodies(tunes)) == len(m) + 1 and len(kept()) == len(groups) + 1  # one group was read again

@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "sequential"])
def test_backends(tunes, backend, capfd):
    many(tunes, 12)
    with joblib.parallel_config(backend=backend, n_jobs=2): m = melodies(tunes, progress=False)
    assert m.tune.bincount().tolist() == list(range(1, 13)) and "tunes" not in capfd.readouterr().err

def test_a_parse_that_was_stopped_goes_on(tunes, monkeypatch):
    many(tunes)
    real, seen = reader._parse, []
    names = {n: p.name for p, g in reader._file_groups(tunes, sorted(tunes.iterdir())).items() for n in g}
    def stopped(folder, group):
        if len(seen) == 2: raise KeyboardInterrupt  # in the second round: a round is two groups for each process
        seen.append(names[group[0]])
        return real(folder, group)
    def once(n, c, f): return cache_file(n, c, real)
    cache_file = reader.cache_file
    monkeypatch.setattr(reader, "cache_file", once)
    monkeypatch.setattr(reader, "_parse", stopped)
    with joblib.parallel_config(backend="sequential"), pytest.raises(KeyboardInterrupt): melodies(tunes)
    assert kept() == sorted(seen) and len(seen) == 2
    monkeypatch.setattr(reader, "_parse", lambda folder, group: (seen.append(names[group[0]]), real(folder, group))[1])
    with joblib.parallel_config(backend="sequential"): assert len(melodies(tunes)) == 300
    assert sorted(seen) == kept() and len(set(seen)) == len(seen)

@pytest.mark.parametrize("progress", [True, False, None])
def test_the_bar(tunes, progress, monkeypatch):
    put(tunes, "a.abc", abc("CDEF|"))
    asked, real = [], reader.bar
    monkeypatch.setattr(reader, "bar", lambda progress, **how: (asked.append(progress), real(False, **how))[1])
    melodies(tunes, progress=progress)
    assert asked == [progress]


# Melodies

def make(tokens, tune, titles=None, ticks=16):
    tune = torch.as_tensor(tune)
    return Melodies(torch.as_tensor(tokens), tune, torch.arange(1, len(tune) + 1), titles or tuple(f"Tune {i}" for i in range(int(tune.max()) + 1)), ticks)

def plain(values, ticks=16):
    "A bar for each number, different if the numbers are."
    return [[30 + v // 60, *[HOLD] * (ticks // 2 - 1), 30 + v % 60, *[HOLD] * (ticks // 2 - 1)] for v in values]

def test_index(tunes):
    m = read(tunes, "CDEF|DEFG|EFGA|")
    assert len(m) == 3 and m[1].tokens.shape == (1, 24) and m[1].bar.tolist() == [2] and m[-1].bar.tolist() == [3]
    assert m[1:].bar.tolist() == [2, 3] and m[m.bar > 2].bar.tolist() == [3] and m[[2, 0]].bar.tolist() == [3, 1]
    assert m[torch.tensor([1])].titles == m.titles and m[:0].left_out == {} and len(m[:0]) == 0
    with pytest.raises(IndexError): m[3]
    assert "3 of 1 bar from 1 tunes, 24 ticks" in repr(m) and "0 of" in repr(m[:0])

def test_plot(tunes):
    m = read(tunes, "CDEF|DEFG|EFGA|")
    fig = m[1:].plot(2)
    assert fig.axes[0].get_title() == "A Tune, from bar 2" and len(fig.axes[0].patches) == 8
    for count in (0, 4, -1):
        with pytest.raises(ValueError, match="count must be a whole number from 1 to 3"): m.plot(count)

@pytest.mark.parametrize("field, value, match", [
    ("tokens", torch.zeros(2, 24), "tokens must be .*int64.*float32"), ("tokens", torch.zeros(2, 16).long(), r"tokens.*one of 24, 48, got 16"), ("tokens", torch.zeros(24).long(), "tokens"),
    ("tune", torch.zeros(3).long(), r"tune must.*\(2,\)"), ("tune", torch.zeros(2), "tune.*float32"), ("tune", torch.tensor([0, 1]), "tune must lie in 0 … 0"),
    ("bar", torch.zeros(2, 1).long(), "bar must"), ("ticks_per_bar", 12, "ticks_per_bar.*12")])
def test_fields_that_do_not_fit(field, value, match):
    fields = dict(tokens=torch.zeros(2, 24).long(), tune=torch.zeros(2).long(), bar=torch.ones(2).long(), titles=("a",), ticks_per_bar=24)
    Melodies(**fields)
    with pytest.raises(ValueError, match=match): Melodies(**{**fields, field: value})

def bars_of(m): return {tuple(b) for b in m.tokens.view(-1, m.ticks_per_bar).tolist()}

@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 2]), st.integers(0, 99), st.sampled_from([(.7, .1, .2), (.5, .5), (.98, .01, .01), (.25,) * 4, (1.,)]))
def test_split_leaves_nothing_shared_and_loses_no_bar(draw, n_bars, seed, shares):
    sizes = draw.draw(st.lists(st.integers(1, 6), min_size=8, max_size=20))
    tune = np.repeat(range(len(sizes)), sizes)
    values = draw.draw(st.lists(st.integers(0, 40), min_size=n_bars * len(tune), max_size=n_bars * len(tune)))
    m = make(torch.tensor(plain(values)).view(len(tune), -1), tune, tuple(f"T{i // 2}" for i in range(len(sizes))))
    if (len(sizes) + 1) // 2 < len(shares): return
    parts = m.split(shares, seed)
    assert len(parts) == len(shares)
    for i, part in enumerate(parts):
        assert len({tuple(t) for t in part.tokens.tolist()}) == len(part)
        for other in parts[:i]:
            assert not bars_of(part) & bars_of(other)
            assert not {m.titles[t] for t in part.tune} & {m.titles[t] for t in other.tune}
    assert len(parts[-1])  # the test gives nothing away
    if n_bars == 1: assert set().union(*map(bars_of, parts)) == bars_of(m)
    again = m.split(shares, seed)
    assert all(torch.equal(a.tokens, b.tokens) and torch.equal(a.tune, b.tune) for a, b in zip(parts, again))

def test_a_shared_bar_stays_in_the_last_part():
    m = make(plain([0, *range(1, 40)] + [0, *range(50, 89)]), [0] * 40 + [1] * 40)
    a, b = m.split((.5, .5))
    assert len(a) == 39 and len(b) == 40 and bars_of(b) & set(map(tuple, plain([0])))

def test_a_window_goes_when_one_of_its_bars_is_in_a_later_part():
    tokens = torch.tensor(plain([0, 1, 2, 3] + [1, 4, 5, 6])).view(4, 32)
    for seed in range(6):
        a, b = make(tokens, [0, 0, 1, 1]).split((.5, .5), seed)
        assert len(a) == 1 and len(b) == 2

def test_shares_count_tunes():
    m = make(plain(range(1000)), np.arange(1000) // 2)
    parts = m.split((.7, .1, .2))
    assert [len(p.tune.unique()) for p in parts] == [350, 50, 100] and [len(p) for p in parts] == [700, 100, 200]
    assert not torch.equal(m.split(seed=1)[0].tune, parts[0].tune)
    assert all((p.bar.diff() > 0).all() for p in parts)  # in order

@pytest.mark.parametrize("variants", [("The Miller's Maid", "MILLERS MAID -- REEL."), ("Blackbird, The", "The Blackbird (2nd setting)"), ("Café", "CAFE"), ("A Tune [1]", "Tune")])
def test_variants_stay_together(variants):
    titles = (*variants, *(f"Tune {i}" for i in range(8)))
    m = make(plain(range(20)), np.arange(20) // 2, titles)
    for seed in range(20):
        where = {int(t): i for i, p in enumerate(m.split((.5, .5), seed)) for t in p.tune}
        assert where[0] == where[1]

@pytest.mark.parametrize("title, same", [("O'Neill's Reel", "ONeills Reel"), ("Drowsy Maggie - Reel", "Drowsy Maggie"), ("???", "???"), ("The", "The"), ("1. Polka", "1 Polka")])
def test_plain_titles(title, same): assert reader._plain_title(title) == reader._plain_title(same) != ""

def test_titles_that_differ(): assert len({reader._plain_title(t) for t in ("Polka 1", "Polka 2", "Maid", "???", "!!!", "The", "Jenny's Wedding")}) == 7

@pytest.mark.parametrize("shares", [(), (.5, .4), (1.2, -.2), (0, 1), .5, (float("nan"), 1), ((.5, .5),)])
def test_bad_shares(shares):
    with pytest.raises(ValueError, match="shares"): make(plain(range(9)), range(9)).split(shares)

@pytest.mark.parametrize("seed", [-1, .5, None, "0", True])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed"): make(plain(range(9)), range(9)).split(seed=seed)

def test_too_few_tunes():
    with pytest.raises(ValueError, match="shares: 3 parts.*got 2"): make(plain(range(2)), range(2)).split()
    with pytest.raises(ValueError, match="got 0"): make(plain(range(2)), range(2))[:0].split()


# a small reader of ABC by itself, to hold the bars made of music21's tokens against

FIFTHS = {"": 0, "maj": 0, "ion": 0, "mix": -1, "dor": -2, "m": -3, "min": -3, "aeo": -3, "phr": -4, "loc": -5, "lyd": 1}
ABC = re.compile(r"""\((?P<p>\d)(?::(?P<q>\d*))?(?::(?P<r>\d*))?|(?P<bar>:?\|[]|:]*|:+\|?)|\[\d|\[(?P<field>\w):(?P<value>[^]]*)\]|\[(?P<chord>[^]]*)\](?P<clen>\d*/*\d*)
                     |(?P<acc>\^\^?|__?|=)?(?P<name>[A-Ga-g])(?P<oct>[,']*)(?P<len>\d*/*\d*)|z(?P<rest>\d*/*\d*)|(?P<broken>>+|<+)|.""", re.X)

def signature(key):
    "Sharps and flats of a key, by note name."
    name, sign, mode = re.match(r"\s*([A-G])([#b]?)\s*(\w*)", key).groups()
    fifths = "FCGDAEB".index(name) - 1 + 7 * ((sign == "#") - (sign == "b")) + FIFTHS[mode.lower()[:3]]
    return {c: 1 for c in "FCGDAEB"[:max(fifths, 0)]} | {c: -1 for c in "BEADGCF"[:max(-fifths, 0)]}

def quarters(text, unit):
    n, slashes, d = re.fullmatch(r"(\d*)(/*)(\d*)", text).groups()
    return int(n or 1) * unit * 4 / (int(d) if d else 2 ** len(slashes))

class Reader:
    "Bars of a tune: [(metre, length, [(onset, duration, pitch)])]."
    def __init__(self, text):
        self.unit, self.metre, self.key, self.bars = Fraction(1, 8), (0, 0), {}, []
        self.last, self.broken, self.tuplet, self.held = None, None, (1, 0), {}
        self.notes, self.at = [], Fraction(0)
        for line in text.splitlines():
            line = re.sub(r'"[^"]*"|![^!]*!|\{[^}]*\}|%.*|=(20)?\s*$', "", line)
            if m := re.match(r"([H-Zh-w]|[A-G](?=:(?![|:]))):(.*)", line): self.field(*m.groups())
            else: [self.token(m.groupdict()) for m in ABC.finditer(line)]
        self.end()

    def end(self):
        if self.at: self.bars.append((self.metre, self.at, self.notes))
        self.notes, self.at, self.held = [], Fraction(0), {}

    def field(self, name, value):
        if name == "M": self.metre = {"C": (4, 4), "C|": (2, 2)}.get(value.strip()) or tuple(map(int, value.split("/")))
        if name == "L": self.unit = Fraction(value.strip())
        if name == "K": self.key = signature(value)

    def token(self, t):
        if t["p"]:
            p = int(t["p"])
            q = int(t["q"] or {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p) or (3 if self.metre[1] == 8 and self.metre[0] in (6, 9, 12) else 2))
            self.tuplet = Fraction(q, p), int(t["r"] or p)
        elif t["bar"]: self.end()
        elif t["field"]: self.field(t["field"], t["value"])
        elif t["broken"]: self.broken = t["broken"]
        elif t["chord"]:
            heads = list(re.finditer(r"([_=^]*)([A-Ga-g])([,']*)(\d*/*\d*)", t["chord"]))
            if heads: self.sound(quarters(t["clen"], self.unit) * quarters(heads[0][4], Fraction(1, 4)), [h.groups()[:3] for h in heads])
        elif t["name"]: self.sound(quarters(t["len"], self.unit), [(t["acc"], t["name"], t["oct"])])
        elif t["rest"] is not None: self.sound(quarters(t["rest"], self.unit), [])

    def sound(self, long, heads):
        scale, left = self.tuplet
        if left: long, self.tuplet = long * scale, (scale, left - 1)
        if self.broken:
            short = Fraction(1, 2 ** len(self.broken))
            first, second = (2 - short, short) if self.broken[0] == ">" else (short, 2 - short)
            notes, n, before = self.last
            for i in range(n, len(notes)): notes[i] = (notes[i][0], before * first, notes[i][2])
            self.at, long, self.broken = self.at + before * (first - 1), long * second, None
        self.last = self.notes, len(self.notes), long
        for accidental, name, octave in heads:
            place = name.upper(), 60 + 12 * (name.islower() + octave.count("'") - octave.count(","))
            if accidental: self.held[place] = {"^": 1, "_": -1, "=": 0, "^^": 2, "__": -2}[accidental]
            pitch = place[1] + dict(C=0, D=2, E=4, F=5, G=7, A=9, B=11)[place[0]] + self.held.get(place, self.key.get(place[0], 0))
            self.notes.append((self.at, long, pitch))
        self.at += long

def test_tunes_of_the_corpus_are_read_as_a_second_reader_reads_them():
    folder, files = reader._tune_files("folk")
    tunes = [t for f in files for t in reader._abc_tunes(f)][::10]
    off = []
    for _, title, text in tunes:
        ours = [bar for voice in reader._abc_voices(text) for bar in reader._abc_bars(voice)]
        ours = [((m, n), long, [tuple(map(float, note[:3])) for note in notes]) for m, n, long, _, notes in ours]
        theirs = [(metre, float(long), [tuple(map(float, n)) for n in notes]) for metre, long, notes in Reader(text).bars]
        if len(ours) != len(theirs) or any(a[0] != b[0] or abs(a[1] - b[1]) > 1e-6 or not np.allclose(a[2], b[2]) for a, b in zip(ours, theirs)): off.append(title)
    assert len(tunes) > 300 and len(off) <= 2, off  # misprints that can be read in two ways


# the corpus

@pytest.fixture(scope="module")
def folk(): return melodies()  # from the reader's own cache, if the book was built

def test_folk(folk):
    assert len(folk) + sum(folk.left_out.values()) == 57_645 and len(folk.titles) == 3068 and len(folk) == 17_009
    assert (folk.tokens[:, 0] != HOLD).all() and (folk.tokens < HOLD).any(1).all() and folk.tokens.max() <= REST
    for name in ("tune", "bar"): assert getattr(folk, name).min() >= 0

def test_the_split_of_folk(folk):
    parts = folk.split()
    for i, j in ((0, 1), (0, 2), (1, 2)): assert not bars_of(parts[i]) & bars_of(parts[j])
    assert sum(map(len, parts)) == len(folk.tokens.unique(dim=0))
