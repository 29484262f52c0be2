"""Curves over a number, and what is chosen of their points: rows of the experiments, figures, tables."""

import dataclasses

import pytest

from sat_tf import activations, hparams, report
from sat_tf.grid import table
from sat_tf.report import tables

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
        assert ": alpha" in title
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
    assert axes.get_xlabel() == "alpha"
    bars = axes.collections[0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [[-1.25, -0.75], [0.5, 1.5], [2, 2]]
    assert "PGD-10" in figure.get_suptitle() and "3 seeds" in figure.get_suptitle()


@pytest.mark.parametrize("doses", [None, {}, {"ELU": {"missing": 1}}])
def test_a_table_without_curves_has_no_figure_of_them(doses):
    assert report.draw_doses(table_of(rows_of(relu=(0.0, 0.0)), doses)) is None


def test_each_activation_has_the_same_candidates():
    content = hparams.EXPERIMENTS["rate"]
    assert sorted(row for rows in content.choices.values() for row in rows) == sorted(content.rows)
    for scale in content.scales:
        made = {row: hparams.row_recipe("rate", row, scale) for row in content.rows}
        pairs = {row: (recipe.learning_rate, recipe.warmup_epochs) for row, recipe in made.items()}
        tried = [[pairs[row] for row in rows] for rows in content.choices.values()]
        assert len(tried) >= 4 and all(each == tried[0] for each in tried) and len(set(tried[0])) == 5
        for rows in content.choices.values():
            assert len({dataclasses.replace(made[row], name="", learning_rate=1, warmup_epochs=0) for row in rows}) == 1
        own = made[content.baseline].learning_rate
        for curve in content.doses.values():
            assert all(pairs[row][0] == pytest.approx(number * own) for row, number in curve.items())


def measured(**numbers):
    """Return `{row: {seed: {quantity: number}}}`: held-out accuracies, and robust ones ten times as high."""
    return {
        row: {seed: {"held_out": number, "clean": 50.0, "robust": 10 * number} for seed, number in enumerate(found)}
        for row, found in numbers.items()
    }


def test_what_is_best_on_held_out_images_over_the_seeds_of_all_is_chosen_and_compared():
    choices = {"ReLU": ("a", "b"), "swish": ("c", "d"), "ELU": ("e", "f")}
    runs = measured(a=[3.0, 1.0, 9.0], b=[2.5, 2.0], c=[1.0, 1.0], d=[4.0, 3.0], e=[1.0])
    relu, swish, elu = table.choose(choices, runs)
    assert (relu["row"], relu["seeds"], relu["held_out"]) == ("b", [0, 1], {"a": 2.0, "b": 2.25})  # seed 2 is a's alone
    assert swish["row"] == "d" and swish["quantities"]["robust"]["difference"] == pytest.approx(12.5)
    assert swish["quantities"]["robust"]["pairs"] == 2
    assert elu["row"] is None and elu["quantities"] == {} and table.choose({}, runs) == []


def test_the_table_says_what_was_chosen_by_which_rule():
    runs = measured(a=[3.0, 1.0], b=[2.5, 2.0], c=[1.0, 1.0], d=[4.0, 3.0])
    choices = table.choose({"ReLU": ("a", "b"), "swish": ("c", "d")}, runs)
    rows = [{"row": row, "label": f"label {row}", "paper": {}} for row in runs]
    text = "\n".join(tables._choices({"choices": choices, "rows": rows, "attack": "pgd-10"}))
    assert "held out" in text and "no test image" in text and "difference to ReLU" in text
    assert "label b" in text and "label d" in text and "label a" not in text and "2.25 (others 2.00)" in text
    assert "+12.50" in text
    assert tables._choices({"choices": [], "rows": rows, "attack": "pgd-10"}) == []
    choices = table.choose({"ReLU": ("a", "z"), "swish": ("c", "d")}, runs)
    text = "\n".join(tables._choices({"choices": choices, "rows": rows, "attack": "pgd-10"}))
    assert "label d" in text and "no seed of all its rows has ended: ReLU" in text and "difference to ReLU" in text
    assert "+12.50" not in text
