"""What a user may name as a checkpoint: a run of ours, a released one, a file that was converted from either."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import keras
from absl import logging

from sat_tf import assembly, data, hparams, models, networks, pointers, released, saving
from sat_tf.released import fetch
from sat_tf.runs import folders

EVALUATING_FIELDS = (*hparams.EVALUATION_FIELDS, "dataset", "image_size", "validation", "seed", "strategy", "cache")
PUBLISHED_FIELDS = ("model", "act", "norm_momentum", "norm_epsilon")  # what is known of weights that others trained
# ... and of the authors' own, from their paper
RELEASED_FIELDS = (*PUBLISHED_FIELDS, "method", "dataset", "image_size", "epochs", "epsilon", "step_size", "attack")
OWN_FIELDS = ("model", "act", "value_range")  # what is known of a user's own network
STATE = ("recipe", "data", "history", "best", "seconds", "sums", "summed")  # what a run's holds beside variables
RELEASED = "released:"  # begins the name of published weights
FORMAT = 1  # of the file beside a converted model
STATE_KEYS = ("recipe", "data", "step", "history")  # what it takes over from the checkpoint
AVERAGE_DECAY = 0.9999  # of the one release that was trained with an average


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights, and what is known of them.

    path: of a checkpoint's folder, a file, or the prefix of TF1's files. source: a key of `_LOADERS`. label: names it
    to people. state: its recipe, classes, image size, step, history. recipe: the same with the user's changes.
    published: `{attack: accuracy}` of the release it is, else empty.
    """

    path: pathlib.Path
    source: str
    label: str
    state: dict
    recipe: hparams.Recipe
    published: dict = dataclasses.field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The names of its classes, in the order of its logits."""
        return self.state["data"]["classes"]

    @property
    def image_size(self) -> int:
        """Pixels a side that it is evaluated at: the user's, or those it was trained at."""
        return self.recipe.image_size or self.state["data"]["image_size"]

    @property
    def known(self) -> dict:
        """The fields of its recipe that are known."""
        names = self.state["recipe"] if self.source == "run" else self.state.get("known", PUBLISHED_FIELDS)
        return {name: self.state["recipe"][name] for name in names}

    @property
    def weights(self) -> str:
        """Which of its weights a report or an export is about."""
        if "weights" in self.state:
            return self.state["weights"]
        if self.source in ("torch", "tf1"):
            return f"as published, {self.recipe.evaluated_weights}"
        if self.recipe.evaluated_weights == "averaged":
            return f"averaged (decay {self.recipe.average_decay})"
        return "raw" if self.recipe.average_decay else "raw (the run keeps no average)"

    @property
    def name(self) -> str:
        """What its exports and converted files are called: the label, and that it is the average where it is."""
        averaged = self.recipe.evaluated_weights == "averaged" and not self.label.endswith("-averaged")
        return f"{self.label}-averaged" if averaged else self.label

    @property
    def published_facts(self) -> dict | None:
        """What the release publishes of it, None where that is nothing."""
        if not self.published:
            return None
        return {
            "name": self.label.removesuffix("-averaged"),
            "dataset": "ImageNet validation set",
            "image_size": self.state["recipe"]["image_size"] or self.state["data"]["image_size"],
            "epsilon": 4 / 255,
            "step_size": 1 / 255,
            "accuracies": self.published,
        }

    def recorded(self, dataset: str) -> tuple[float | None, int | None]:
        """Return the clean accuracy on record for a data set, of its run or published, and of how many images it is.

        None stands for what is not known.
        """
        if dataset == "imagenet2012" and "clean" in self.published:
            return self.published["clean"], None
        if self.source != "run" or dataset != self.state["recipe"]["dataset"]:
            return None, None
        try:
            first = json.loads((folders.run_of(self.path) / "report.json").read_text())
            same = pathlib.Path(first["checkpoint"]["path"]).name == self.path.name
            rows = [row for row in first["evaluations"] if row["attack"] == "clean"]
            known = same and first["checkpoint"]["weights"] == self.weights and rows
            return (rows[0]["accuracy"], rows[0]["count"]) if known else (None, None)
        except (OSError, ValueError, KeyError, TypeError):
            return None, None

    @property
    def facts(self) -> dict:
        """What a report says of it."""
        return {
            "path": str(self.path),
            "name": self.label,
            "kind": folders.kind_of(self.path) if self.source == "run" else self.source,
            "step": self.state["step"],
            "weights": self.weights,
        }

    @property
    def folder(self) -> pathlib.Path:
        """Where its reports go: its run; beside a converted file; for published weights, a folder among the runs."""
        if self.source == "keras" or self.path.suffix == ".keras":
            return self.path.with_suffix("")
        if self.source == "own":
            return pathlib.Path("runs") / f"{self.label}-own"
        return folders.run_of(self.path) if self.source == "run" else pathlib.Path("runs") / f"{self.label}-released"

    def load(self, classes: Sequence[str] | None = None) -> keras.Model:
        """Return its model; a data set's `classes` must be those it was trained on."""
        if classes is not None and list(classes) != self.classes:
            raise ValueError(
                f"Expected the {len(self.classes)} classes that {self.path} was trained on: "
                f"{', '.join(self.classes[:5])}, ... Received: dataset={self.recipe.dataset} with "
                f"{len(classes)}: {', '.join(classes[:5])}, ..."
            )
        return _LOADERS[self.source](self)


def read_state(path: pathlib.Path) -> dict:
    """Return what a checkpoint of ours holds beside variables, that of an older version in today's words."""
    state = saving.read_state(path, STATE)
    if isinstance(state["sums"], list):
        state["sums"] = dict(zip(("loss", "accuracy"), state["sums"], strict=True))
    state["history"] = [
        {name.replace("held_out/", "validation/"): value for name, value in row.items()} for row in state["history"]
    ]
    return state


def open_checkpoint(
    place: str | pathlib.Path, changes: dict, checkpoint_dir: str | pathlib.Path | None = None
) -> Checkpoint:
    """Return the `Checkpoint` that a user names; `changes` to how it is evaluated are made, others refused.

    Args:
      place: "released:NAME", the path of published files (TF1's by their prefix, .pth), of a converted .keras file, of
        a run's folder or one of its checkpoints; or a user's own network, FILE.keras, FILE.py:FUNCTION, keras:NAME.
      changes: `{field: value}` of the recipe, as `hparams.read` returns them.
      checkpoint_dir: where the files of released checkpoints lie.
    """
    changes = {**changes}
    found = _open(str(place), changes, checkpoint_dir)
    stored = found.recipe
    if found.source == "tf1" and "act" in changes:
        changes["act"] = released.tf1.ACTS.get(changes["act"], changes["act"])
    if changes.get("eval_weights") == "averaged" and not stored.average_decay:
        raise ValueError(f"Expected --eval_weights=raw. Received: {found.path}, which holds no averages.")
    if found.source == "keras" and changes.get("eval_weights") not in (None, stored.evaluated_weights):
        raise ValueError(
            f"Expected the weights that {found.path} was converted from: {found.weights}. "
            f"Received: eval_weights={changes['eval_weights']}."
        )
    recipe = stored.replace(**changes)
    trained = [name for name in stored.to_dict() if name not in EVALUATING_FIELDS]
    lines = stored.differences(recipe, fields=trained)
    if lines:
        raise ValueError(f"Expected what the checkpoint {found.path} was trained with. Received: {'; '.join(lines)}.")
    return dataclasses.replace(found, recipe=recipe)


def _open(place, changes, checkpoint_dir):
    if place.startswith(RELEASED):
        name = place.removeprefix(RELEASED)
        if name in released.lite.PACKAGES:
            return _open_torch(released.lite.packaged(name))
        return _open_tf1(released_prefix(name, checkpoint_dir), name, changes)
    if released.is_torch(place):
        return _open_torch(released.find(place))
    if place.endswith(".keras") and pathlib.Path(place).expanduser().with_suffix(".json").is_file():
        return _open_keras(pathlib.Path(place).expanduser())
    if hparams.kind(place):
        return _open_own(place, changes)
    if released.is_released(place):
        prefix = released.find(place)
        return _open_tf1(prefix, prefix.name, changes)
    path = pointers.find(pathlib.Path(place), "best")
    state = read_state(path)
    return Checkpoint(
        path=path, source="run", label=path.name, state=state, recipe=hparams.Recipe.from_dict(state["recipe"])
    )


def released_prefix(name: str, checkpoint_dir: str | pathlib.Path) -> pathlib.Path:
    """Return the prefix of a release's files, which lie in `checkpoint_dir` or in a folder of that name there."""
    hparams.release(name, also=released.lite.PACKAGES)
    folder = pathlib.Path(checkpoint_dir).expanduser()
    for place in (folder / name, folder / name / name):
        if place.with_name(f"{name}.index").is_file():
            return place
    raise FileNotFoundError(
        f"There is no {folder / name}.index. Get the files of {name} first: python main.py "
        f"--mode=download --checkpoint={RELEASED}{name} --checkpoint_dir={checkpoint_dir}"
    )


def _open_tf1(prefix, name, changes):
    fetch.verify(prefix.name, prefix.parent)
    held = released.tf1.contents(prefix)
    release = hparams.RELEASES.get(name)
    if release:
        recipe = release.make_recipe()
    elif not (held.model or changes.get("model")):
        raise ValueError(f"Expected a network of the release. Received: {prefix}, which holds {held.words}.")
    else:
        model = held.model or changes["model"]
        act = held.act or changes.get("act") or ("swish" if model.startswith("efficientnet") else None)
        if act is None:
            raise ValueError(f"Expected --act: the variables of {prefix} do not tell its activation. Received: none.")
        recipe = hparams.get(model).replace(act=released.tf1.ACTS.get(act, act), eval_attacks=hparams.ATTACKS)
    if held.averages and not recipe.average_decay:
        recipe = recipe.replace(average_decay=AVERAGE_DECAY)
    found = _published("tf1", prefix, name, recipe, data.imagenet_classes(), release.published if release else {})
    found.state["known"] = RELEASED_FIELDS if release else PUBLISHED_FIELDS
    return found


def _open_torch(path):
    model = released.lite.variant_of(path)
    norm = {f"norm_{name}": value for name, value in released.lite.NORM.items()}
    return _published(
        "torch", path, model, hparams.get(model).replace(method="standard", **norm), data.imagenet_classes()
    )


def _published(source, path, label, recipe, classes, published=None):
    """Return published weights as a checkpoint of ours would have them; nothing need be set aside for choosing them."""
    recipe = recipe.replace(validation=None)
    about = {"classes": list(classes), "image_size": models.image_size(recipe.model)}
    state = {"recipe": recipe.to_dict(), "data": about, "step": None, "history": []}
    return Checkpoint(path=path, source=source, label=label, state=state, recipe=recipe, published=published or {})


def _open_keras(path):
    file = path.with_suffix(".json")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        state = json.loads(file.read_text())
        missing = [key for key in ("format", *STATE_KEYS, "label", "known", "weights", "published") if key not in state]
        if missing or state["format"] > FORMAT:
            raise ValueError(f"it lacks {', '.join(missing)}" if missing else f"its format is {state['format']}")
        recipe = hparams.Recipe.from_dict(state["recipe"])
    except FileNotFoundError:
        raise OSError(f"There is no {file}, the recipe of {path}, which --mode=convert writes beside it.") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise OSError(f"{file} is damaged: {error}. Convert again.") from error
    return Checkpoint(
        path=path, source="keras", label=state["label"], state=state, recipe=recipe, published=state["published"]
    )


def _open_own(place, changes):
    """Return a user's own network with the weights that it comes with; of its training nothing is known."""
    described = {name: changes[name] for name in OWN_FIELDS if name in changes}
    recipe = hparams.choose({"model": place, "init": "none", "method": "standard", **described}, "finetune")
    about = {"classes": [], "image_size": None, "named": False}
    if hparams.kind(place) == "file":
        about["image_size"] = networks.side_of(networks.read(place))
    if hparams.kind(place) == "application":
        about = {"classes": list(data.imagenet_classes()), "image_size": networks.SIDE}
    state = {"recipe": recipe.to_dict(), "data": about, "step": None, "history": [], "known": OWN_FIELDS}
    state["weights"] = f"as {place} has them"
    path, label = pathlib.Path(place).expanduser(), hparams.title(place)
    return Checkpoint(path=path, source="own", label=label, state=state, recipe=recipe)


def fitted(found: Checkpoint, dataset: data.Data) -> Checkpoint:
    """Return a checkpoint with what a user's own network does not say, the data's: names of classes, size of images."""
    if found.state["data"].get("named", True):
        return found
    logging.info(
        "%s does not name its classes; its outputs are taken for those of the data in their order: %s.",
        found.path,
        ", ".join([*dataset.classes[:5], *(["..."] if len(dataset.classes) > 5 else [])]),
    )
    size = found.state["data"]["image_size"] or dataset.image_size or networks.SIDE
    about = {"classes": list(dataset.classes), "image_size": size}
    return dataclasses.replace(found, state={**found.state, "data": about})


def _load_own(found):
    if hparams.kind(found.recipe.model) == "application":
        name = found.recipe.model.partition(":")[2]
        return networks.application(name, classes=None, image_size=found.image_size, weights=True)
    if not found.classes:
        raise ValueError(
            f"Expected the data set that {found.path} classifies. Received: dataset=none, to name classes."
        )
    made = assembly.own_network(found.recipe, len(found.classes), found.image_size)
    for note in made.notes:
        logging.info("%s: %s.", found.path, note)
    check_size(made.model, found.image_size, found.path)
    return made.model


def _load_run(found):
    size, kept = found.state["data"]["image_size"], found.state.get("network") or {}
    model = assembly.build_model(found.recipe, len(found.classes), size, kept.get("architecture"))
    check_size(model, found.image_size, found.path)
    restore_weights(found.path, model, found.recipe)
    return model


def _load_tf1(found):
    weights = "ema" if found.recipe.evaluated_weights == "averaged" else "raw"
    model = released.tf1.load(found.path, found.recipe.model, found.recipe.act, weights)
    if model.output_shape[-1] != len(found.classes):
        raise ValueError(
            f"Expected the {len(found.classes)} classes of ImageNet. Received: {found.path} with "
            f"{model.output_shape[-1]}. released.load in Python takes it."
        )
    return model


def _load_torch(found):
    return released.lite.load(found.path, found.recipe.model, found.recipe.act)


def _load_keras(found):
    try:
        model = models.load(found.path)
    except OSError as error:
        raise OSError(f"{found.path} is damaged: {error} Convert again.") from error
    if (model.name, model.output_shape[-1]) != (found.recipe.model, len(found.classes)):
        raise OSError(
            f"{found.path} holds {model.name} with {model.output_shape[-1]} classes, its recipe beside it is "
            f"that of {found.recipe.model} with {len(found.classes)}. Convert again."
        )
    return model


_LOADERS = {"run": _load_run, "own": _load_own, "tf1": _load_tf1, "torch": _load_torch, "keras": _load_keras}


def restore_weights(path: pathlib.Path, model: keras.Model, recipe: hparams.Recipe) -> None:
    """Read the weights that the recipe evaluates, raw or averaged, into a model."""
    group = "average" if recipe.evaluated_weights == "averaged" else "model"
    saving.restore(path, {group: assembly.variables(recipe, model)})


def check_size(model: keras.Model, size: int, place: str | pathlib.Path) -> None:
    """Refuse images of another side than a model takes; `place` names the model to people."""
    side = model.input_shape[1]
    if side not in (None, size):
        raise ValueError(f"Expected image_size={side}, which {place} takes. Received: image_size={size}.")
