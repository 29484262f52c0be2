"""Training images from JPEG files: decode, crop, flip, and an augmentation, on one core.

    python benchmarks/input.py
    python benchmarks/input.py --library=sat_tf,torchvision --policy=none,autoaugment,randaugment --compare=library
    python benchmarks/input.py --data_dir=DIR

Images are the JPEG files below --data_dir, or else matplotlib's sample photograph at 400 x 468 pixels. Every pipeline
has a single thread. Libraries: sat_tf; torchvision, on Pillow's images as ImageNet is read there.
"""

import io
import pathlib

import contest

OPTIONS = {
    "policy": "none,autoaugment,randaugment",
    "library": "sat_tf",
    "image_size": "224",
    "images": "200",
    "data_dir": "",
}


def make(setting):
    """Return a side's work on some images."""
    size, count = int(setting["image_size"]), int(setting["images"])
    images = {"sat_tf": ours, "torchvision": theirs}[setting["library"]](setting, size)

    def run():
        for _ in range(count):
            next(images)

    for _ in range(20):
        next(images)
    return run


def photographs(data_dir):
    """Return encoded JPEG files, at most 256."""
    if data_dir:
        files = sorted(file for file in pathlib.Path(data_dir).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
        if not files:
            raise ValueError(f"Expected a folder with JPEG files. Received: data_dir={data_dir}.")
        return [file.read_bytes() for file in files[:256]]
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    photograph = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).resize((400, 468), Image.BICUBIC)
    photograph.save(encoded := io.BytesIO(), "JPEG", quality=90)
    return [encoded.getvalue()]


def ours(setting, size):
    """Return an endless iterator of uint8 `[size, size, 3]`: decode, crop, flip, then a row of `POLICIES`."""
    import tensorflow as tf

    from sat_tf.autoaugment import POLICIES
    from sat_tf.preprocess import random_resized_crop_flip, to_levels

    def prepare(seed, jpeg):
        seed = tf.stack([0, tf.cast(seed, tf.int32)])
        return POLICIES[setting["policy"]](to_levels(random_resized_crop_flip(jpeg, size, seed)), seed)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    data_set = tf.data.Dataset.from_tensor_slices(photographs(setting["data_dir"])).repeat().enumerate()
    return iter(data_set.map(prepare, num_parallel_calls=1).with_options(options))


def theirs(setting, size):
    """Return the same by torchvision's transforms."""
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    policy = {"none": [], "autoaugment": [transforms.AutoAugment()], "randaugment": [transforms.RandAugment()]}
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *policy[setting["policy"]]]
    change, encoded = transforms.Compose([*steps, transforms.PILToTensor()]), photographs(setting["data_dir"])
    while True:
        for jpeg in encoded:
            yield change(Image.open(io.BytesIO(jpeg)).convert("RGB"))


if __name__ == "__main__":
    contest.main(__doc__, make, OPTIONS, "policy")
