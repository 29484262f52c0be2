"""The folder of a run that the user did not name: it tells whatever makes the run another one."""

import hashlib
import os
import pathlib
import re
from typing import Any

from sat_tf import hparams
from sat_tf.hparams import networks, stored

RUNS = pathlib.Path("runs")
FIELDS = ("model", "act", "method", "dataset", "seed")  # that every name has
OWN = ("folder", "shards")  # data of the user's own, of which the name says which
EVALUATED = ("image_size", "validation", "strategy", "cache", "seed")  # an evaluation may change them, too
DEVICES = ("strategy", "jit_compile")  # a run may go on with others
MOST = 80  # letters for what a run has changed; more are cut off, and eight of a digest stand for them


def default_model_dir(recipe: hparams.Recipe, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Return the folder of a run by its recipe: the same command always means the same folder.

    Whatever the recipe has changed is part of the name, but for epochs where more of them go on with the same run. A
    run that lies in the folder without changes, and has this recipe, keeps it: older versions named it so.

    Args:
      recipe: with all changes.
      data_dir: whose name tells data of the user's own apart.
    """
    own = [_plain(os.path.basename(os.path.abspath(data_dir)))] if data_dir and recipe.dataset in OWN else []
    plain, changes = _named(recipe, []), _changes(recipe)
    if (changes or own) and not _differences(plain, recipe):
        return plain
    return _named(recipe, own, _cut(changes))


def evaluated_model_dir(changes: dict[str, Any], data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Return the folder of the run that an evaluation without a name means, by what it says of the training."""
    skipped = {*EVALUATED, *hparams.EVALUATION_FIELDS} - set(FIELDS)
    recipe = hparams.choose({name: value for name, value in changes.items() if name not in skipped})
    folder = default_model_dir(recipe, data_dir)
    found = [folder] if folder.is_dir() else sorted(RUNS.glob(_named(recipe, ["*"], _cut(_changes(recipe))).name))
    return found[0] if len(found) == 1 else folder


def chosen(changes: dict[str, Any], name: str | None, model_dir: pathlib.Path | None) -> hparams.Recipe:
    """Return the recipe that a user asks for; a run that was begun knows what its weights said, should they be no more.

    Args:
      changes, name: as `hparams.choose` takes them.
      model_dir: the run's folder where the user names it; else it is looked for among `RUNS`.
    """
    try:
        return hparams.choose(changes, name)
    except FileNotFoundError:
        for file in [model_dir / stored.FILE] if model_dir else sorted(RUNS.glob(f"*/{stored.FILE}")):
            if (begun := _begun(file)) is not None and begun.init == changes.get("init"):
                return hparams.choose(changes, name, _taken(begun))
        raise


def _begun(file):
    """Return the recipe of a run; None where there is none, or it can't be read."""
    try:
        return hparams.Recipe.from_dict(stored.read_file(str(file)))
    except (OSError, ValueError, TypeError):
        return None


def why_anew(recipe: hparams.Recipe, folder: pathlib.Path) -> str | None:
    """Return why a training does not go on with a run that has other epochs and nothing else; None: there is none."""
    if not recipe.tied_to_epochs or (folder / stored.FILE).exists():
        return None
    for other in sorted(RUNS.glob(f"{_start(recipe)}-*/{stored.FILE}")):
        lines = _differences(other.parent, recipe)
        if len(lines) == 1 and lines[0].startswith("epochs: "):
            return (
                f"A run of other epochs lies in {other.parent} ({lines[0]}). Since {recipe.tied_to_epochs} depends on "
                f"their number, this one begins anew in {folder}."
            )
    return None


def _named(recipe, own, changes=()):
    return RUNS / "-".join([_start(recipe), recipe.method, recipe.dataset, *own, f"seed{recipe.seed}", *changes])


def _start(recipe):
    """Return how a name begins: efficientnet-b0-enhanced-swish, table1-both-relu, resnet20-swish."""
    named = recipe.name.startswith(recipe.model) or recipe.name in hparams.ROWS
    start = recipe.name if named else hparams.title(recipe.model)
    return f"{start}{'-finetuned' if recipe.init else ''}-{recipe.act.replace(':', '_')}"


def _changes(recipe):
    """Return "field_value" of every field that the rest of the name does not tell."""
    values = recipe.to_dict()
    told = {name: values[name] for name in (*FIELDS, "init")}
    implied = _implied(recipe)
    base = hparams.choose(told, recipe.name if recipe.name in hparams.RECIPES else None, implied)
    changed = _differing(base, recipe)
    if "attack" in changed:  # what goes with an attack need not be said
        with_attack = hparams.choose({**told, "attack": recipe.attack}, base.name, implied)
        changed = ["attack", *_differing(with_attack, recipe)]
    if not recipe.tied_to_epochs and "epochs" in changed:
        changed.remove("epochs")
    if recipe.init not in (None, recipe.model, hparams.get("finetune").init):
        changed.insert(0, "init")
    return [f"{name}_{_plain(hparams.show(name, values[name]).lower())}" for name in changed]


def _implied(recipe):
    """Return what the weights that a recipe starts from say, by the recipe itself where they are no more."""
    try:
        return networks.implied(recipe.init) if recipe.init else None
    except OSError:
        return _taken(recipe)


def _taken(recipe):
    values = recipe.to_dict()
    return {name: values[name] for name in networks.TAKEN if values[name] is not None}


def _differing(base, recipe):
    mine, theirs = recipe.to_dict(), base.to_dict()
    told = ("name", *DEVICES, *hparams.EVALUATION_FIELDS)
    return [name for name in mine if name not in told and mine[name] != theirs[name]]


def _cut(changes):
    """Return the changes, or as many as fit and a digest of all."""
    if len("-".join(changes)) <= MOST:
        return changes
    kept = []
    while changes and len("-".join([*kept, changes[len(kept)]])) <= MOST - 9:
        kept.append(changes[len(kept)])
    return [*kept, hashlib.sha256("-".join(changes).encode()).hexdigest()[:8]]


def _differences(folder, recipe):
    """Return what tells the recipe of the run in a folder from another one; a line for what is no run."""
    try:
        return hparams.Recipe.from_dict(stored.read_file(str(folder))).differences(recipe)
    except (OSError, ValueError, TypeError) as error:
        return [str(error)]


def _plain(text):
    """Return a text as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "_", text)
