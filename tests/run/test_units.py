"""How a bench's work is cut, and what its pieces are called (they name files)."""

import pytest

from diffcern.run.spec import parse_spec
from diffcern.run.units import Unit, units


@pytest.fixture
def cut(table):
    """The units of one entry on so many images of one shift."""

    def cut(entry, count, names=("clean",)):
        table["shifts"] = {"names": list(names), "severities": [3]}
        table["entries"] = {"it": entry}
        return units(parse_spec(table), count)

    return cut


@pytest.mark.parametrize(
    ("batch_size", "count", "stops"),
    [
        (1, 45, [20, 40, 45]),
        (1, 20, [20]),
        (1, 21, [20, 21]),
        (3, 45, [18, 36, 45]),  # whole batches; the rest of nine is more than one
        (20, 45, [20, 45]),  # the five that would not fill a batch go to those before
        (20, 60, [20, 40, 60]),
        (32, 45, [45]),
        (32, 64, [32, 64]),
        (7, 15, [15]),  # one that does not fill a batch
        (50, 45, [45]),
        (50, 99, [99]),
    ],
)
def test_episodes_that_read_batches(cut, batch_size, count, stops):
    made = cut({"method": "tent", "batch_size": batch_size}, count)
    assert [unit.stop for unit in made] == stops
    assert [unit.start for unit in made] == [0, *stops[:-1]]


@pytest.mark.parametrize(
    ("batch_size", "count", "stops"), [(1, 45, [20, 40, 45]), (20, 45, [20, 40, 45]), (7, 15, [14, 15])]
)
def test_episodes_that_read_none(cut, batch_size, count, stops):
    assert [unit.stop for unit in cut({"method": "source", "batch_size": batch_size}, count)] == stops


def test_streams_are_whole(cut):
    """Of one shift each, or of all: then the protocol stands in the shift's place, after everything else."""
    whole = [Unit("it", "clean", 0, 0, 45), Unit("it", "noise", 3, 0, 45)]
    for protocol in ("online", "reset-per-shift", "correlated"):
        entry = {"method": "tent", "protocol": protocol, "batch_size": 10}
        assert cut(entry, 45, ["clean", "noise"]) == whole
    for protocol in ("continual", "mixed"):
        entry = {"method": "tent", "protocol": protocol, "batch_size": 10}
        assert cut(entry, 45, ["clean", "noise"]) == [Unit("it", protocol, 0, 0, 90)]


def test_the_order_is_shift_by_shift_and_streams_of_all_come_last(table):
    table["entries"] = {
        "all": {"method": "tent", "protocol": "mixed", "batch_size": 10},
        "a": {"method": "source"},
        "b": {"method": "tent", "protocol": "online", "batch_size": 10},
    }
    made = [(unit.entry, unit.shift) for unit in units(parse_spec(table), 20)]
    assert made == [("a", "clean"), ("b", "clean"), ("a", "noise"), ("b", "noise"), ("all", "mixed")]


def test_names_are_files_and_titles_are_read():
    assert Unit("tent", "noise", 3, 20, 40).name == "tent--noise-3--000020"
    assert Unit("tent", "noise", 3, 20, 40).title == "tent on noise 3"
    assert Unit("tent", "clean", 0, 0, 40).title == "tent on clean"
