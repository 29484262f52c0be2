"""Ask a served model, and serve one for trying out: TensorFlow Serving's REST protocol, from both ends."""
