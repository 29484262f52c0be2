"""Any model as a function from images to logits."""

import inspect

import tensorflow as tf


def predictor(model):
    """Return `images -> logits` of a Keras model, a SavedModel (loaded, or its folder), or a function."""
    import keras

    if isinstance(model, (str, bytes)) or hasattr(model, "__fspath__"):
        path = str(model)
        model = keras.saving.load_model(path) if path.endswith(".keras") else tf.saved_model.load(path)
    if isinstance(model, keras.Model):
        return lambda images: model(images, training=False)
    if hasattr(model, "signatures"):
        return _signature(model)
    if "training" in inspect.signature(model).parameters:
        return lambda images: model(images, training=False)
    return model


def _signature(loaded):
    """Return the function behind the serving signature of a SavedModel; it keeps the model alive."""
    if "serving_default" not in loaded.signatures:
        raise ValueError(
            f"Expected a SavedModel with the signature serving_default. Received: signatures of "
            f"{', '.join(loaded.signatures) or 'no name'}."
        )
    function = loaded.signatures["serving_default"]
    inputs, outputs = sorted(function.structured_input_signature[1]), sorted(function.structured_outputs)
    output = "logits" if "logits" in outputs else outputs[0]
    if len(inputs) != 1 or (len(outputs) > 1 and output != "logits"):
        raise ValueError(
            "Expected a signature serving_default with one input and one output, or one called logits. "
            f"Received: inputs {', '.join(inputs)}, outputs {', '.join(outputs)}."
        )
    return lambda images, kept=loaded: function(**{inputs[0]: images})[output]
