"""Which validation is the best so far, and whether a training should go on."""

import math
from typing import Any

Row = dict[str, Any]  # of a history

ONE_STEP, MULTI_STEP = "validation/one_step_accuracy", "validation/multi_step_accuracy"
GAP, SHARE = 0.2, 0.5  # see `overfitted`


def best_of(history: list[Row], best_by: str, count: int) -> dict[str, Any] | None:
    """Return `{"step", "score"}` of the best row of a history by `better`, row after row; None without rows.

    Args:
      history: rows of validations, in order.
      best_by: the accuracy that counts first, "robust" or "clean".
      count: the number of validation images.
    """
    best = None
    for number in range(1, len(history) + 1):
        best = better(history[:number], best, best_by, count)
    return best


def better(history: list[Row], best: dict[str, Any] | None, best_by: str, count: int) -> dict[str, Any]:
    """Return the better of the best row so far and the last one of a history, as `best_of` does.

    A difference inside the noise of the validation images chooses nothing. Of the two rows that one counts as best

    1. that is less than a standard error below the highest first accuracy of the history,
    2. else, that is less than a standard error below the highest second accuracy among the rows of which 1 holds,
    3. else, the later one, which has trained longer.

    The highest is that of the whole history: many small falls one after the other do not add up to a large one. A row
    that shows catastrophic overfitting is never the better one. Where both miss 2 the higher second accuracy counts.

    Args:
      history: rows of validations, in order.
      best: `{"step", "score"}` of the best before the last row, None where there is none.
      best_by: the accuracy that counts first, "robust" or "clean"; the other one is the second.
      count: the number of validation images.

    Source: the rule of one standard error is Breiman et al. 1984, "Classification and regression trees", Section 3.4.3.
    """
    scores = {row["step"]: _score(row, best_by) for row in history}
    sound = [scores[row["step"]] for row in history if not overfitted(row)] or list(scores.values())
    first = _bound([score[0] for score in sound], count)
    second = _bound([score[1] for score in sound if score[0] >= first], count)
    last = history[-1]
    new = {"step": last["step"], "score": scores[last["step"]]}
    if best is None:
        return new
    collapsed = {row["step"] for row in history if overfitted(row)}
    ranks = [(each["step"] not in collapsed, *_rank(each["score"], first, second)) for each in (new, best)]
    if ranks[0] == ranks[1] and not all(ranks[0]):
        return new if new["score"][1] >= best["score"][1] else best
    return new if ranks[0] >= ranks[1] else best


def beside(history: list[Row], best: dict[str, Any], best_by: str) -> list[dict[str, Any]]:
    """Return what validation found of the best row and of the last one, and of the highest where neither is as high."""
    highest = _highest(history, best_by)
    steps = {"best": best["step"], "last": history[-1]["step"], "highest": highest["step"]}
    rows = {row["step"]: row for row in history}
    if _score(highest, best_by) in [_score(rows[steps[kind]], best_by) for kind in ("best", "last")]:
        del steps["highest"]
    return [
        {
            "checkpoint": kind,
            "step": step,
            "clean_accuracy": rows[step]["validation/clean_accuracy"],
            "robust_accuracy": rows[step]["validation/robust_accuracy"],
        }
        for kind, step in steps.items()
    ]


def _highest(history, best_by):
    """Return the row of the highest accuracies, the earliest of equals."""
    return max(history, key=lambda row: (_score(row, best_by), -row["step"]))


def standard_error(accuracy: float, count: int) -> float:
    """Return the binomial standard error of an accuracy on `count` images, sqrt(p (1 - p) / count), never 0.

    p is (correct + 1) / (count + 2), Laplace's rule of succession: all of 40 images right is no proof of 100 %.
    """
    p = (accuracy * count + 1) / (count + 2)
    return math.sqrt(p * (1 - p) / count)


def _score(row, best_by):
    first, second = ("robust", "clean") if best_by == "robust" else ("clean", "robust")
    return [row[f"validation/{first}_accuracy"], row[f"validation/{second}_accuracy"]]


def _bound(accuracies, count):
    """Return what is a standard error below the highest accuracy."""
    highest = max(accuracies, default=0.0)
    return highest - standard_error(highest, count)


def _rank(score, first, second):
    return score[0] >= first, score[0] >= first and score[1] >= second


def reason_to_stop(
    history: list[Row],
    best_by: str,
    *,
    patience: int | None = None,
    on_overfitting: bool = True,
    attack: str = "",
    at_end: bool = False,
) -> str | None:
    """Return why a run should stop after the last row of its history, None where it should go on.

    Args:
      history: rows of validations.
      best_by: as for `best_of`.
      patience: validations without a higher accuracy, noise or not, after which to stop; None for any number.
      on_overfitting: stop at catastrophic overfitting.
      attack: the name of the validation's, for the reason.
      at_end: it stops anyway, and only what the report has to say counts.
    """
    last = history[-1]
    if on_overfitting and overfitted(last):
        return (
            f"Catastrophic overfitting at step {last['step']}: {100 * last[ONE_STEP]:.1f} % of the validation "
            f"images withstand the training attack, {100 * last[MULTI_STEP]:.1f} % withstand "
            f"{attack}"
        )
    highest = _highest(history, best_by)["step"]
    waited = sum(row["step"] > highest for row in history)
    if patience and waited >= patience and not at_end:
        return f"No better validation in {waited} since step {highest}"
    return None


def overfitted(row: Row) -> bool:
    """Say whether a validation shows catastrophic overfitting (Wong et al. 2020): robust to the training attack only.

    It does where the accuracy under the training attack is at least `GAP` above that under the longer validation
    attack, and the latter is less than `SHARE` of the former. Healthy runs are far from it (82 against 81 % here, 42
    against 36 % at 16/255); a collapsed one has some 80 against 0.
    """
    if ONE_STEP not in row:
        return False
    one, many = row[ONE_STEP], row[MULTI_STEP]
    return one - many >= GAP and many < SHARE * one


def last_loss(history: list[Row], steps: int) -> float | None:
    """Return the mean training loss over the last so many steps, or a few more: validations divide them."""
    return means(history, steps).get("loss")


def means(history: list[Row], steps: int) -> dict[str, float]:
    """Return `{quantity: mean}` of what training reported over the last so many steps, or a few more."""
    before = [0, *(row["step"] for row in history)]
    total, covered = {}, 0
    for begin, row in zip(reversed(before[:-1]), reversed(history), strict=True):
        count = row["step"] - begin
        for name, value in row.items():
            if name.startswith("train/"):
                name = name.removeprefix("train/")
                total[name] = total.get(name, 0) + count * value
        covered = count + covered
        if covered >= steps:
            break
    return {name: value / covered for name, value in total.items()} if covered else {}
