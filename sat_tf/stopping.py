"""Which validation is the best so far, and whether a training should go on."""

from typing import Any

Row = dict[str, Any]  # of a history

ONE_STEP, MULTI_STEP = "validation/one_step_accuracy", "validation/multi_step_accuracy"
GAP, SHARE = 0.2, 0.5  # see `overfitted`


def best_of(history: list[Row], best_by: str) -> dict[str, Any] | None:
    """Return `{"step", "score"}` of the best row of a history, the earliest of equals; None without rows.

    `best_by`: the accuracy that counts first, "robust" or "clean".
    """
    first, second = ("robust", "clean") if best_by == "robust" else ("clean", "robust")
    scores = [[row[f"validation/{first}_accuracy"], row[f"validation/{second}_accuracy"]] for row in history]
    if not scores:
        return None
    return {"step": history[scores.index(max(scores))]["step"], "score": max(scores)}


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
      patience: validations without a better one after which to stop; None for any number.
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
    best = best_of(history, best_by)["step"]
    waited = sum(row["step"] > best for row in history)
    if patience and waited >= patience and not at_end:
        return f"No better validation in {waited} since step {best}"
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
