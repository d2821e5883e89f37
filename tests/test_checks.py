"oplas.checks: what is let through, what is refused, and in which words."
import math, subprocess, sys

import numpy as np
import pytest
import torch

from oplas.checks import finite, number, one_of, positive, shaped, whole

NO_NUMBERS = [True, False, np.True_, "3", None, [3], 3j, torch.tensor(3), np.array([3])]

@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers(value):
    assert whole("n", value) == whole("n", value, 3, 3) == 3 and type(whole("n", value)) is int

@pytest.mark.parametrize("value", [*NO_NUMBERS, 3., np.float32(3), math.nan])
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match="^n must be a whole number, got "): whole("n", value)

@pytest.mark.parametrize("least, most, words", [(4, None, "of at least 4"), (None, 2, "of at most 2"), (4, 9, "from 4 to 9"), (0, 2, "from 0 to 2")])
def test_limits_are_named(least, most, words):
    with pytest.raises(ValueError, match=f"^n must be a whole number {words}, got 3$"): whole("n", 3, least, most)
    with pytest.raises(ValueError, match=f"^n must be a finite number {words}, got 3$"): number("n", 3, least, most)

@pytest.mark.parametrize("value", [3, 3., np.float32(3), np.int16(3)])
def test_numbers(value):
    assert number("w", value) == positive("w", value) == number("w", value, 3, 3) == 3 and type(number("w", value)) is float

@pytest.mark.parametrize("value", [*NO_NUMBERS, math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_no_finite_number(value):
    with pytest.raises(ValueError, match="^w must be a finite number, got "): number("w", value)

@pytest.mark.parametrize("value", [0, -1, -0., np.float32(-.1), math.inf])
def test_what_is_not_positive(value):
    with pytest.raises(ValueError, match="^lr must be a finite number above 0, got "): positive("lr", value)

def test_above_and_at_most():
    assert number("share", 1, above=0, most=1) == 1
    for wrong in (0, 1.01):
        with pytest.raises(ValueError, match="above 0 and of at most 1, got"): number("share", wrong, above=0, most=1)

def test_one_of():
    assert one_of("kind", "a", ("a", "b")) == "a" and one_of("bars", np.int64(2), (1, 2)) == 2 and one_of("kind", None, [None, "a"]) is None
    assert one_of("kind", "b", {"a": 1, "b": 2}) == "b" and one_of("kind", "b", (k for k in "ab")) == "b"

@pytest.mark.parametrize("value", ["c", "", 1, True, None, ["a"], torch.ones(2), np.ones(2), math.nan])
def test_none_of(value):
    with pytest.raises(ValueError, match="^kind must be one of a, b, 2, got "): one_of("kind", value, ("a", "b", 2))

def test_true_is_not_1():
    with pytest.raises(ValueError, match="bars must be one of 1, 2, got True"): one_of("bars", True, (1, 2))

@pytest.mark.parametrize("values", [torch.ones(3), torch.ones(3, requires_grad=True), torch.zeros(0), torch.arange(3), np.ones(3), [1., 2.], 1., torch.ones(2, dtype=torch.bfloat16)])
def test_finite(values): assert finite("x", values) is values

@pytest.mark.parametrize("values, places", [(torch.tensor([1, math.nan, math.inf]), "2 places"), (np.full(2000, math.nan), "2,000 places"), ([1., -math.inf], "1 places"), (math.nan, "1 places")])
def test_not_finite(values, places):
    with pytest.raises(ValueError, match=f"^x holds NaN or Inf in {places}; every value must be finite"): finite("x", values)

@pytest.mark.parametrize("values", ["three", None, ["a"], np.array(["a"])])
def test_finite_wants_numbers(values):
    with pytest.raises(ValueError, match="^x must be numbers, got"): finite("x", values)

@pytest.mark.parametrize("shape", [(5, 1, 8, 8), ("n", 1, 8, 8), ("n ≥ 5", 1, "side", "side"), (..., 8, 8), (..., 5, 1, 8, 8), (...,), ("a", "b", "c", "c")])
def test_shapes_that_fit(shape):
    x = torch.zeros(5, 1, 8, 8)
    assert shaped("x", x, *shape) is shaped("x", x, *shape, kind="float") is x

@pytest.mark.parametrize("shape, written", [((5, 1, 8), "5, 1, 8"), (("n ≥ 6", 1, 8, 8), "n ≥ 6, 1, 8, 8"), (("n", "n", 8, 8), "n, n, 8, 8"), ((..., 7), r"\.\.\., 7"), ((..., "m", 5, 1, 8, 8), r"\.\.\., m, 5, 1, 8, 8"),
                                            ((5,), "5,"), ((), "")])
def test_shapes_that_do_not(shape, written):
    with pytest.raises(ValueError, match=rf"^x must be a tensor of shape \({written}\), got \(5, 1, 8, 8\)$"): shaped("x", torch.zeros(5, 1, 8, 8), *shape)

@pytest.mark.parametrize("x, kind, words", [(np.zeros((2, 2)), "", "a tensor of shape (n, 2), got float64"), ([[1, 2]], "", "a tensor of shape (n, 2), got list"), (torch.zeros(2, 2).long(), "float", "a float tensor of shape (n, 2), got torch.int64"),
                                            (torch.zeros(2, 2), "int", "an int tensor of shape (n, 2), got torch.float32"), (torch.zeros(2, 2).bool(), "int", "an int tensor of shape (n, 2), got torch.bool")])
def test_what_is_no_tensor_of_the_kind(x, kind, words):
    with pytest.raises(ValueError) as error: shaped("x", x, "n", 2, kind=kind)
    assert str(error.value) == f"x must be {words}"

def test_an_empty_batch_is_refused_only_on_request():
    empty = torch.zeros(0, 2)
    assert shaped("x", empty, "n", 2) is empty
    with pytest.raises(ValueError, match="n ≥ 1"): shaped("x", empty, "n ≥ 1", 2)

def test_checks_need_no_torch():
    subprocess.run([sys.executable, "-c", "import sys, oplas.checks; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"], check=True)
