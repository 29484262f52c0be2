# %% [markdown]
# # Your own Keras model, made robust by `fit`
#
# A small classifier is trained as usual, and a second copy of it adversarially: with smooth activations, by Keras' own
# `fit`. Both are then attacked. Two cores need some minutes.

# %%
import keras
import matplotlib.pyplot as plt

import sat_tf
from sat_tf import data

EPOCHS = 4
ATTACKED = 300  # test images
EPSILON = 8 / 255  # of the range: how far an attacker may change every pixel

keras.utils.set_random_seed(0)

# %% [markdown]
# ## The data
#
# Any arrays will do: images `[n, height, width, 3]` with values in a range of your own, and a label each. Here they are
# Fashion-MNIST, which comes along, in 0..255.


# %%
def arrays(split):
    batches = data.evaluation_batches(split, batch_size=split.size, image_size=32)
    images, labels, _ = next(batches.as_numpy_iterator())
    return 255 * images, labels


fashion = data.load("fashion_mnist_12k")
(x_train, y_train), (x_val, y_val) = arrays(fashion.train), arrays(fashion.validation)
x_test, y_test = (part[:ATTACKED] for part in arrays(fashion.test))
print(x_train.shape, x_val.shape, x_train.max(), fashion.classes)

# %% [markdown]
# ## A model of your own
#
# Its first layer scales the images, its last is a softmax; nothing in it knows of attacks.


# %%
def build():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Conv2D(64, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ],
        name="classifier",
    )


plain = build()
plain.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
plain.fit(x_train, y_train, validation_data=(x_val, y_val), epochs=EPOCHS, batch_size=100, verbose=2)

# %% [markdown]
# ## How robust is it?
#
# One call attacks the test images, and checks whether the numbers can be believed. A radius is a fraction of
# `value_range`, so 8/255 means the same for images in 0..1 and in 0..255.

# %%
before = sat_tf.benchmark(plain, (x_test, y_test), ["clean", "pgd-20"], EPSILON, value_range=(0, 255), checks=10)
before  # noqa: B018

# %% [markdown]
# ## Smooth, and adversarially trained
#
# `smooth` puts a smooth activation in the place of every ReLU. `AdversarialModel` is a `keras.Model` around the model:
# `fit` attacks each batch before it learns from it. Metrics of training are those of the attacked images,
# `val_accuracy` of clean ones, `val_robust_accuracy` of validation images under an attack of their own.

# %%
smooth = sat_tf.smooth(build(), "swish")
robust = sat_tf.AdversarialModel(
    smooth,
    method="sat",
    attack="pgd-1",
    epsilon=EPSILON,
    value_range=(0, 255),
    validation_attack="pgd-10",
    validation_share=0.5,
)
robust.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
best = keras.callbacks.ModelCheckpoint("best.keras", monitor="val_robust_accuracy", mode="max", save_best_only=True)
history = robust.fit(
    x_train, y_train, validation_data=(x_val, y_val), epochs=EPOCHS, batch_size=100, verbose=2, callbacks=[best]
).history

# %%
for name, label in (("accuracy", "training, attacked"), ("val_accuracy", "clean"), ("val_robust_accuracy", "PGD-10")):
    plt.plot(range(1, len(history[name]) + 1), history[name], marker="o", label=label)
plt.xlabel("epoch")
plt.ylabel("accuracy")
plt.legend()
plt.show()

# %%
after = sat_tf.benchmark(smooth, (x_test, y_test), ["clean", "pgd-20"], EPSILON, value_range=(0, 255), checks=10)
after  # noqa: B018

# %% [markdown]
# ## What the attack did
#
# The first images of the test set, clean and as PGD-20 leaves them for the model that was trained as usual.

# %%
attacked = before.results["pgd-20"].attacked(before.examples.images)[:6]
figure, rows = plt.subplots(2, 6, figsize=(12, 4))
for row, images in zip(rows, (before.examples.images[:6], attacked), strict=True):
    for axis, image, label in zip(row, images, plain.predict(255 * images, verbose=0).argmax(-1), strict=True):
        axis.imshow(image)
        axis.set_title(fashion.classes[label])
        axis.axis("off")
plt.show()

# %% [markdown]
# ## Keep it
#
# The file is your model's alone, of Keras' layers: it opens where this package is not installed. A report of the
# evaluation is a folder.

# %%
smooth.save("mine.keras")
again = keras.saving.load_model("best.keras")
print(again.evaluate(x_val, y_val, verbose=0))
print(sorted(after.report("report")))
