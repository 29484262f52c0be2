"""What a row of an experiment is: the changes that make it, and what its paper says comes out."""

import dataclasses

from sat_tf.hparams import curricula, recipes, small
from sat_tf.hparams.recipe import Recipe

SCALES = ("paper", *small.SETTINGS)
SUBSTITUTE = "parametric_softplus:10"  # whose gradient the paper puts behind ReLU
BASES = {**recipes.RECIPES, **curricula.RECIPES}
ATTACKS = ("clean", "pgd-1", "pgd-10", "pgd-20", "pgd-200")  # the last is the paper's robustness: step size 1/255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table, or one point of a figure.

    label: what it is, for people. changes: `{field: value}` against its base. shares: `{field: (factor, other field)}`,
    further changes: so many times what the base has there. base: the recipe it starts from at the paper's scale. paper:
    `{quantity: number}` as the paper has it: clean and robust accuracy in %, train_loss; under another attack than
    PGD-200 the quantity is that attack's name. source: where in the paper. small: whether it makes sense on the small
    base, with the same changes. origin: which paper.
    without: what is said where the paper has no number.
    """

    label: str
    source: str
    paper: dict
    changes: dict = dataclasses.field(default_factory=dict)
    shares: dict = dataclasses.field(default_factory=dict)
    base: str = "resnet50"
    small: bool = True
    note: str = ""
    origin: str = "SAT paper"
    without: str = "only drawn"

    def make_recipe(self, name: str, setting: dict | None = None) -> Recipe:
        """Return the row's recipe at the paper's scale, with what is the same for all rows."""
        recipe = BASES[self.base]().replace(**{"eval_attacks": ATTACKS, **(setting or {})})
        return dataclasses.replace(recipe.replace(**self.changes_to(recipe)), name=name)

    def changes_to(self, base: Recipe) -> dict:
        """Return `{field: value}` of what makes the row of a base."""
        return {**self.changes, **{name: part * getattr(base, of) for name, (part, of) in self.shares.items()}}

    @property
    def words(self) -> str:
        """What the paper says comes out."""
        names = {
            "clean": "{} clean",
            "robust": "{} under PGD-200",
            "autoattack": "{} under AutoAttack",
            "train_loss": "training loss {}",
        }
        listed = [
            names.get(quantity, f"{{}} under {quantity.upper()}").format(number)
            for quantity, number in self.paper.items()
        ]
        return ", ".join(listed) or self.without


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or figure: its title, its rows by name, the row that differences are taken to.

    connected: names of rows that its figure joins by a line. settings: `{scale: {field: value}}`, what all rows have in
    common beside the scale's own setting, or a function of that setting that returns it. family: a word in its runs'
    names at the scales with settings, where rows of others would be called alike. doses: `{title: {row: number}}`,
    curves of robustness over a number; a title is `name: what the number is`. choices: `{title: rows}`, of which the
    one that is best on held-out images stands for all. measured: what else is measured of each run, a key of
    `grid.runs.MEASURED`.
    """

    title: str
    rows: dict
    baseline: str
    connected: tuple = ()
    settings: dict = dataclasses.field(default_factory=dict)
    family: str = ""
    doses: dict = dataclasses.field(default_factory=dict)
    choices: dict = dataclasses.field(default_factory=dict)
    measured: str = ""

    def setting(self, scale: str, recipe: Recipe | None = None) -> dict:
        """Return `{field: value}` that all rows have in common at a scale whose own setting is `recipe`."""
        found = self.settings.get(scale, {})
        return found(recipe) if callable(found) else found

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales at which there is a row to run."""
        return SCALES if any(row.small for row in self.rows.values()) else SCALES[:1]
