"""The judgement of a model on the test pictures, and its report."""

import datetime
import math
import pathlib

import numpy as np

from sat_tf import evaluate, losses, report
from sat_tf.experiment import assembly


def judge(recipe, model, dataset, batches, strategy, folder, facts, history, model_dir):
    """Evaluate a model on the test pictures under the recipe's attacks, write the report, print the last lines."""
    rows, curve, evaluators = measure(recipe, model, batches, dataset.test.size, strategy)
    full = {
        "schema_version": report.SCHEMA_VERSION,
        "created": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
        "model": recipe.model, "act": recipe.act, "method": recipe.method,
        "dataset": {"name": dataset.name, "source": dataset.source, "train": dataset.train.size,
                    "held_out": dataset.held_out.size, "test": dataset.test.size, "notes": list(dataset.notes),
                    "preprocess": assembly.preprocess(recipe), "image_size": batches.element_spec[0].shape[1],
                    "classes": list(dataset.classes)},
        "parameters": {"trainable": count(model.trainable_variables), "total": count(model.variables)},
        "versions": assembly.versions(), "machine": assembly.machine(strategy),
        "evaluations": rows, "curve": curve, **facts,
    }
    strongest = max(evaluators, key=lambda name: getattr(evaluators[name].attack, "steps", 0))
    panel = make_panel(evaluators[strongest], strongest, batches, dataset.classes)
    paths = report.write(folder, full, history, panel)
    logs = pathlib.Path(model_dir) / "tensorboard"
    places = {"report": paths["report.md"], "pictures": str(pathlib.Path(folder) / "pictures"),
              "checkpoint": facts["checkpoint"]["path"],
              "TensorBoard logs": str(logs) if logs.is_dir() else ""}
    print("\n".join(report.summary_lines(full, places)), flush=True)
    return full


def measure(recipe, model, batches, size, strategy):
    """Count the correct pictures under each attack of the recipe; `size` is their number.

    Returns:
      The report's rows, the accuracy by steps of the longest attack (None without one), `{name: Evaluator}`.
    """
    rows, curve, evaluators = [], None, {}
    for name in recipe.eval_attacks:
        epsilon = recipe.epsilon if recipe.eval_epsilon is None else recipe.eval_epsilon
        attack = assembly.make_attack(name, epsilon, recipe.eval_step_size)
        evaluators[name] = evaluate.Evaluator(
            model, attack, losses.cross_entropy, strategy=strategy, seed=recipe.seed,
            attacked=assembly.attacked_view(recipe, model),
        )
        with assembly.make_progress(size, name, "picture") as progress:
            counts, total, seconds = evaluators[name].count(batches, progress.update)
        correct = counts[max(counts)]
        backward = {"backward": recipe.eval_backward} if recipe.eval_backward and name != "clean" else {}
        rows.append({"attack": name, **assembly.attack_facts(attack), **backward, "seed": recipe.seed, "split": "test",
                     "count": total, "correct": correct, "accuracy": correct / total, "wall_time_seconds": seconds})
        if len(counts) > 1 and (curve is None or max(counts) > curve["steps"][-1]):
            curve = {"attack": name, "epsilon": attack.epsilon, "step_size": attack.step_size, "count": total,
                     "steps": list(counts), "accuracy": [value / total for value in counts.values()]}
    clean = [row["accuracy"] for row in rows if row["attack"] == "clean"]
    if curve and clean:
        curve["steps"], curve["accuracy"] = [0, *curve["steps"]], [clean[0], *curve["accuracy"]]
    return rows, curve, evaluators


def make_panel(evaluator, name, batches, classes, most=8):
    """Return the first picture of each of the first `most` classes, clean and attacked, with predictions."""
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
    return {"clean": images, "adversarial": attacked, "labels": labels, "clean_predictions": evaluator.predict(images),
            "adversarial_predictions": evaluator.predict(attacked), "classes": list(classes), "attack": name,
            "epsilon": getattr(evaluator.attack, "epsilon", 0.0)}


def count(variables):
    """Return the number of values in some variables."""
    return sum(math.prod(variable.shape) for variable in variables)
