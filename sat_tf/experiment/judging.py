"""The evaluation of a model on the test images, and its report."""

import pathlib
import shutil

import numpy as np

import hparams
from sat_tf import attacks, evaluate, losses
from sat_tf.experiment import assembly, evaluating, reporting


def evaluate_trained(recipe, model, dataset, batches, strategy, folder, facts, history, model_dir):
    """Evaluate a model on the test images under the recipe's attacks, write the report, print the last lines.

    PGD is evaluated by its final iterate, as in the paper, unless the recipe asks for an active set.
    """
    plain = [name for name in recipe.eval_attacks if is_plain(name, recipe)]
    rows, curve, evaluators = measure(recipe, model, batches, dataset.test.size, strategy, plain)
    if len(plain) < len(recipe.eval_attacks):
        others = [name for name in recipe.eval_attacks if name not in plain]
        run = evaluating.Evaluation(recipe.replace(eval_attacks=others), model, dataset, batches, strategy, folder)
        found, by_step = run.run()
        rows = sorted(rows + found, key=lambda row: recipe.eval_attacks.index(row["attack"]))
        curve = curve or by_step
        panel = run.panel(dataset.classes)
        del run
        shutil.rmtree(pathlib.Path(folder) / "work", ignore_errors=True)
    else:
        strongest = max(evaluators, key=lambda name: getattr(evaluators[name].attack, "steps", 0))
        panel = make_panel(evaluators[strongest], strongest, batches, dataset.classes)
    full = reporting.header(recipe, model, dataset, batches, strategy) | {"evaluations": rows, "curve": curve, **facts}
    return reporting.conclude(full, history, panel, folder, model_dir)


def is_plain(name, recipe):
    """Say whether an attack is one whole pass over every image, of which the last iterate counts."""
    plain = hparams.split_attack(name)[0] in attacks.ATTACKS
    ball = recipe.eval_norm == "linf" and recipe.eval_restarts == 1 and not recipe.eval_active_set
    return name == "clean" or (plain and ball)


def measure(recipe, model, batches, size, strategy, names):
    """Count the correct images under each attack of `names`; `size` is their number.

    Returns:
      The report's rows, the accuracy by steps of the longest attack (None without one), `{name: Evaluator}`.
    """
    rows, curve, evaluators = [], None, {}
    for name in names:
        epsilon = recipe.evaluated_epsilon
        attack = assembly.make_attack(name, epsilon, recipe.eval_step_size)
        evaluators[name] = evaluate.Evaluator(
            model,
            attack,
            losses.cross_entropy,
            strategy=strategy,
            seed=recipe.seed,
            attacked=assembly.attacked_view(recipe, model),
        )
        with assembly.make_progress(size, name, "image") as progress:
            counts, total, seconds = evaluators[name].count(batches, progress.update)
        correct = counts[max(counts)]
        backward = {"backward": recipe.eval_backward} if recipe.eval_backward and name != "clean" else {}
        rows.append(
            {
                "attack": name,
                **assembly.attack_facts(attack),
                **backward,
                **({} if name == "clean" else {"iterates": "final"}),
                **reporting.counted(correct, total, recipe, seconds),
            }
        )
        if len(counts) > 1 and (curve is None or max(counts) > curve["steps"][-1]):
            curve = {
                "attack": name,
                "epsilon": attack.epsilon,
                "step_size": attack.step_size,
                "count": total,
                "steps": list(counts),
                "accuracy": [value / total for value in counts.values()],
            }
    clean = [row["accuracy"] for row in rows if row["attack"] == "clean"]
    if curve and clean:
        curve["steps"], curve["accuracy"] = [0, *curve["steps"]], [clean[0], *curve["accuracy"]]
    return rows, curve, evaluators


def make_panel(evaluator, name, batches, classes, most=8):
    """Return the first image of each of the first `most` classes, clean and attacked, with predictions."""
    firsts = {}
    for number, batch in enumerate(batches.as_numpy_iterator()):
        for row, (image, label, real) in enumerate(zip(*batch, strict=True)):
            if real and label not in firsts:
                firsts[label] = (image, number * len(batch[1]) + row)
        if len(firsts) == len(classes):
            break
    labels = np.array(sorted(firsts)[:most], np.int32)
    images, places = (np.array(values) for values in zip(*(firsts[label] for label in labels), strict=True))
    attacked = evaluator.adversarial(images, labels, places)
    return {
        "clean": images,
        "adversarial": attacked,
        "labels": labels,
        "clean_predictions": evaluator.predict(images),
        "adversarial_predictions": evaluator.predict(attacked),
        "classes": list(classes),
        "attack": name,
        "epsilon": getattr(evaluator.attack, "epsilon", 0.0),
    }
