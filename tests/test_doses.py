"""Dose and response: the rows of the experiment, and the curves that are drawn of them."""

import pytest

from sat_tf import activations, hparams, report

FIGURES = True  # are drawn


def rows_of(n=3, **differences):
    """Return rows of a table, `{row: (difference, interval)}`."""
    quantity = lambda found: {"robust": {"mean": 30.0, "difference": found[0], "interval": found[1]}}  # noqa: E731
    return [{"row": row, "label": row, "n": n, "quantities": quantity(found)} for row, found in differences.items()]


def table_of(rows, doses):
    return {"rows": rows, "doses": doses, "baseline": "relu", "attack": "pgd-10"}


def test_each_curve_lists_rows_that_there_are_by_their_own_alpha():
    content = hparams.EXPERIMENTS["dose"]
    named = {row for curve in content.doses.values() for row in curve}
    assert named | {content.baseline} == set(content.rows)
    for title, curve in content.doses.items():
        for row, alpha in curve.items():
            act = activations.factory(content.rows[row].changes["act"])("act")
            name = type(act).__name__.lower()
            assert title.lower().replace(" ", "").startswith(name) and act.get_config()["alpha"] == alpha


def test_curves_are_drawn_in_the_order_of_their_numbers_with_intervals():
    rows = rows_of(relu=(0.0, 0.0), b=(1.0, 0.5), a=(-1.0, 0.25), c=(2.0, None))
    figure = report.draw_doses(table_of(rows, {"Softplus: alpha": {"c": 100, "b": 10, "a": 1}, "ELU": {"missing": 1}}))
    (axes,) = figure.axes
    (line,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 3 and line.get_linestyle() == "-"]
    assert line.get_xdata().tolist() == [1, 10, 100] and line.get_ydata().tolist() == [-1, 1, 2]
    assert axes.get_xscale() == "log" and axes.get_title() == "Softplus" and "points" in axes.get_ylabel()
    bars = axes.collections[0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [[-1.25, -0.75], [0.5, 1.5], [2, 2]]
    assert "PGD-10" in figure.get_suptitle() and "3 seeds" in figure.get_suptitle()


@pytest.mark.parametrize("doses", [None, {}, {"ELU": {"missing": 1}}])
def test_a_table_without_curves_has_no_figure_of_them(doses):
    assert report.draw_doses(table_of(rows_of(relu=(0.0, 0.0)), doses)) is None
