"""The architecture of a model as text, so that a checkpoint is complete without the file that it came from."""

import keras

from sat_tf import models


def settled(model: keras.Model) -> tuple[keras.Model, str | None]:
    """Return a model and its architecture as text, from which `rebuilt` makes the same with variables in their order.

    Where the architecture can't be written down, because a class is the user's own, it is None.
    """
    try:
        text = model.to_json()
        twin = rebuilt(text)
    except Exception:  # Keras raises whatever a class without a configuration raises
        return model, None
    values = {variable.path: variable for variable in model.variables}
    paths = [variable.path for variable in twin.variables]
    if len(values) == len(model.variables) and sorted(paths) == sorted(values):
        chosen = [values[path] for path in paths]
    else:  # layers of a name, in several networks within one
        chosen = model.variables
    if [variable.shape for variable in twin.variables] != [variable.shape for variable in chosen]:
        return model, None
    for variable, value in zip(twin.variables, chosen, strict=True):
        variable.assign(value)
    return twin, text


def rebuilt(architecture: str) -> keras.Model:
    """Return the model of an architecture, with fresh weights; nothing in it is executed.

    Raises:
      ValueError: it needs a layer of someone else's.
    """
    with models.pinned():
        return keras.models.model_from_json(architecture)
