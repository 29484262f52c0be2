"""What was run: recipes as Python, one function a published setting. Standard library only."""

from sat_tf.hparams import networks
from sat_tf.hparams.catalogue import TABLES, names, settings
from sat_tf.hparams.choosing import RECIPES, choose, get
from sat_tf.hparams.consistency import check_extra
from sat_tf.hparams.fields import radius, split_attack
from sat_tf.hparams.networks import kind, title
from sat_tf.hparams.paper import DRAWN, EXPERIMENTS, ROWS, SCALES, row_recipe, rows_of, run_name
from sat_tf.hparams.recipe import EVALUATION_FIELDS, Recipe, fields_help, read, show
from sat_tf.hparams.releases import ATTACKS, RELEASES, release
from sat_tf.hparams.rows import SUBSTITUTE
from sat_tf.hparams.stored import DATA, data_of, place_of, read_file
from sat_tf.names import format_radius

__all__ = [
    "ATTACKS",
    "DATA",
    "DRAWN",
    "EVALUATION_FIELDS",
    "EXPERIMENTS",
    "RECIPES",
    "RELEASES",
    "ROWS",
    "SCALES",
    "SUBSTITUTE",
    "TABLES",
    "Recipe",
    "check_extra",
    "choose",
    "data_of",
    "fields_help",
    "format_radius",
    "get",
    "kind",
    "names",
    "place_of",
    "networks",
    "radius",
    "read",
    "read_file",
    "release",
    "row_recipe",
    "rows_of",
    "run_name",
    "settings",
    "show",
    "split_attack",
    "title",
]
