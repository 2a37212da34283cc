"""Pictures, by what is drawn in them."""

from report_runs import run

from lthbench.report.board import board
from lthbench.report.lines import Barriers, plot_barriers
from lthbench.report.plot import COLOURS, _figure, plot

CELLS = [("dense", "0", run(0.95)), ("a", "0.9", run(0.9, removed=900)), ("b", "0.9", run(0.8, removed=900))]


def axes_of(cells):
    made = board("t", "title", cells, "command")
    assert plot(made).startswith(b"\x89PNG")
    return _figure(made, made.entries, "title", COLOURS).axes[0]


def test_at_one_sparsity_each_method_has_a_row():
    axes = axes_of([*CELLS, ("b", "0.9", run(0.84, seed=1, removed=900))])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("Test accuracy in percent", "linear")
    (points,) = [c for c in axes.containers if hasattr(c, "has_xerr")]
    assert points.lines[0].get_xdata().tolist() == [90.0, 82.0] and points.has_xerr


def test_at_several_it_is_against_sparsity():
    axes = axes_of([*CELLS, ("a", "0.95", run(0.85, removed=950))])
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "Test accuracy in percent"


def test_networks_have_barriers_of_their_own():
    rows = [Barriers(net, 0.0, k, {"test": [1.0, 2.0]}, [90.0, 91.0]) for net in ("x", "y") for k in (0, 10)]
    assert plot_barriers("title", rows).startswith(b"\x89PNG")
