"""How the family is scaled: from a variant's factors to the sizes of its blocks, in plain Python.

Source: Tan & Le 2019 (B0 to B7); Xie et al. 2020, "Self-training with Noisy Student" (L2); the SAT release (its L1 is
wider than theirs: 3.9, 3.7); EfficientNet-Lite (no squeeze-excite, stem and head as they are in B0).
"""

import dataclasses
import math

STEM, HEAD, SQUEEZE = 32, 1280, 0.25  # SQUEEZE: of a block's input channels


@dataclasses.dataclass(frozen=True)
class Variant:
    """What tells one network of the family from another.

    width, depth: factors. image_size: pixels a side. dropout: before the classifier. about: what it is, with parameters
    for 1,000 classes. lite: of the Lite family. preprocess, rates: as `models.MODELS` says.
    """

    width: float
    depth: float
    image_size: int
    dropout: float
    about: str = dataclasses.field(kw_only=True)
    lite: bool = False
    preprocess: str = "crop_resize"
    rates: tuple[str, ...] = ("dropout", "stochastic_depth", "zero_gamma")


VARIANTS = {
    "efficientnet-b0": Variant(1.0, 1.0, 224, 0.2, about="5.3 million parameters, 224 pixels (Tan & Le 2019)."),
    "efficientnet-b1": Variant(1.0, 1.1, 240, 0.2, about="7.8 million parameters, 240 pixels (Tan & Le 2019)."),
    "efficientnet-b2": Variant(1.1, 1.2, 260, 0.3, about="9.1 million parameters, 260 pixels (Tan & Le 2019)."),
    "efficientnet-b3": Variant(1.2, 1.4, 300, 0.3, about="12.2 million parameters, 300 pixels (Tan & Le 2019)."),
    "efficientnet-b4": Variant(1.4, 1.8, 380, 0.4, about="19.3 million parameters, 380 pixels (Tan & Le 2019)."),
    "efficientnet-b5": Variant(1.6, 2.2, 456, 0.4, about="30.4 million parameters, 456 pixels (Tan & Le 2019)."),
    "efficientnet-b6": Variant(1.8, 2.6, 528, 0.5, about="43.0 million parameters, 528 pixels (Tan & Le 2019)."),
    "efficientnet-b7": Variant(2.0, 3.1, 600, 0.5, about="66.3 million parameters, 600 pixels (Tan & Le 2019)."),
    "efficientnet-b8": Variant(2.2, 3.6, 672, 0.5, about="87.4 million parameters, 672 pixels."),
    "efficientnet-l1": Variant(3.9, 3.7, 600, 0.5, about="272.6 million parameters, 600 pixels (the SAT release)."),
    "efficientnet-l2": Variant(4.3, 5.3, 800, 0.5, about="480.3 million parameters, 800 pixels (Xie et al. 2020)."),
    "efficientnet-lite0": Variant(1.0, 1.0, 224, 0.2, lite=True, about="4.7 million parameters, 224 pixels, Lite."),
    "efficientnet-lite1": Variant(1.0, 1.1, 240, 0.2, lite=True, about="5.4 million parameters, 240 pixels, Lite."),
    "efficientnet-lite2": Variant(1.1, 1.2, 260, 0.3, lite=True, about="6.1 million parameters, 260 pixels, Lite."),
    "efficientnet-lite3": Variant(1.2, 1.4, 280, 0.3, lite=True, about="8.2 million parameters, 280 pixels, Lite."),
    "efficientnet-lite4": Variant(1.4, 1.8, 300, 0.3, lite=True, about="13.0 million parameters, 300 pixels, Lite."),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """An inverted bottleneck: a 1x1 expansion, a depthwise kernel, squeeze-excite, a 1x1 projection."""

    kernel_size: int
    strides: int
    expansion: int
    inputs: int
    outputs: int
    squeezed: int  # channels between the two layers of squeeze-excite, 0 without

    @property
    def expanded(self) -> int:
        """Channels of the depthwise convolution."""
        return self.inputs * self.expansion

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.strides == 1 and self.inputs == self.outputs


_STAGES = (  # repeats, kernel size, strides, expansion, output channels; of B0
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def channels(number: int, width: float) -> int:
    """Return a number of channels scaled by `width` and rounded to a multiple of 8, never below 90 % of it."""
    scaled = number * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def sizes(name: str) -> tuple[int, tuple[Block, ...], int]:
    """Return channels of the stem, the tuple of `Block`s, and channels of the head of a variant."""
    variant = VARIANTS[name]
    ends = (lambda number: number) if variant.lite else (lambda number: channels(number, variant.width))
    blocks, inputs = [], ends(STEM)
    for stage, (repeats, kernel_size, strides, expansion, outputs) in enumerate(_STAGES):
        if not (variant.lite and stage in (0, len(_STAGES) - 1)):
            repeats = math.ceil(variant.depth * repeats)
        for repeat in range(repeats):
            squeezed = 0 if variant.lite else max(1, int(inputs * SQUEEZE))
            blocks.append(
                Block(
                    kernel_size,
                    strides if repeat == 0 else 1,
                    expansion,
                    inputs,
                    channels(outputs, variant.width),
                    squeezed,
                )
            )
            inputs = blocks[-1].outputs
    return ends(STEM), tuple(blocks), ends(HEAD)
