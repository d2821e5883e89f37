"The chapter kit: what it refuses, and what it shows."
import pytest, torch

from oplas import book, kit, studies


# opening a page

def test_a_chapter_opens_the_same_each_time():
    claim, check, study = kit.chapter("99_test")
    first = torch.randn(3)
    assert isinstance(claim, book.Claims) and isinstance(check, book.Exercises) and claim.chapter == study.chapter == "99_test"
    kit.chapter("99_test")
    assert torch.equal(torch.randn(3), first)


# threads

def test_in_threads_keeps_the_order_and_wants_equal_lengths():
    assert kit.in_threads(pow, range(6), [2] * 6) == [k ** 2 for k in range(6)]
    with pytest.raises(ValueError, match="shorter|longer"): kit.in_threads(pow, range(6), [2])


# tables

@pytest.fixture
def shown(monkeypatch):
    "Show a table and take its Markdown apart."
    def cells_of(*args, **options):
        said = []
        monkeypatch.setattr("IPython.display.display", lambda data, raw: said.append(data["text/markdown"]))
        kit.table(*args, **options)
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in said[0].splitlines()]
    return cells_of


def test_a_table_of_rows_and_one_of_columns_are_the_same(shown):
    rows = [{"name": "a", "value": .12345, "n": 3}, {"name": "b", "value": 1., "n": 4}]
    table = shown(rows, digits=2)
    assert table == shown({"name": ["a", "b"], "value": [.12345, 1.], "n": [3, 4]}, digits=2)
    assert table[0] == ["name", "value", "n"] and table[2:] == [["a", "0.12", "3"], ["b", "1.00", "4"]]
    assert table[1][0].startswith(":") and table[1][1].endswith("-:")


def test_a_table_keeps_the_digits_of_intervals(shown):
    assert shown([{"x": studies.Interval(.99612, .00083, 5)}], digits=1)[2] == ["0.9961 ± 0.0008"]


@pytest.mark.parametrize("nothing", [[], {}])
def test_a_table_of_nothing_is_an_error(nothing):
    with pytest.raises(ValueError, match="rows must not be empty"): kit.table(nothing)
