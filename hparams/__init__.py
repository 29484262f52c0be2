"""What was run: recipes as Python, one function a published setting. Standard library only."""

from sat_tf.hparams import networks
from sat_tf.hparams.catalogue import TABLES, names
from sat_tf.hparams.choosing import RECIPES, choose, get
from sat_tf.hparams.fields import radius, split_attack
from sat_tf.hparams.networks import kind, title
from sat_tf.hparams.paper import DRAWN, EXPERIMENTS, ROWS, SCALES, row_recipe, rows_of, run_name
from sat_tf.hparams.recipe import EVALUATION_FIELDS, Recipe, fields_help, read, show
from sat_tf.hparams.releases import ATTACKS, RELEASES, release
from sat_tf.names import format_radius

__all__ = [
    "ATTACKS",
    "DRAWN",
    "EVALUATION_FIELDS",
    "EXPERIMENTS",
    "RECIPES",
    "RELEASES",
    "ROWS",
    "SCALES",
    "TABLES",
    "Recipe",
    "choose",
    "fields_help",
    "format_radius",
    "get",
    "kind",
    "names",
    "networks",
    "radius",
    "read",
    "release",
    "row_recipe",
    "rows_of",
    "run_name",
    "show",
    "split_attack",
    "title",
]
