"""The 24 checkpoints that the authors published: what each is, its published accuracy, and where it lies."""

import dataclasses
from collections.abc import Iterable

from sat_tf.hparams.choosing import get
from sat_tf.hparams.recipe import Recipe
from sat_tf.names import unknown

ATTACKS = ("clean", "pgd-10", "pgd-20", "pgd-50")  # of the published tables; epsilon 4/255, step size 1/255
SUFFIXES = ("index", "data-00000-of-00001", "meta")  # the three files of a TF1 checkpoint


@dataclasses.dataclass(frozen=True)
class Release:
    """One published checkpoint.

    recipe: which recipe trained it; it says model, input size, batch normalisation, and whether the averaged weights
      are the ones to evaluate. act: its activation, as `--act` names it (the release's gelu is the tanh approximation).
    accuracies: top-1 % on the ImageNet validation set under `ATTACKS`, as far as published.
    drive_ids: on Google Drive, of the files `SUFFIXES`.
    """

    recipe: str
    act: str
    accuracies: tuple[float, ...]
    drive_ids: tuple[str, str, str]

    def make_recipe(self) -> Recipe:
        """Return the recipe as this checkpoint is evaluated: the attacks of the published tables."""
        return get(self.recipe).replace(act=self.act, eval_attacks=ATTACKS)

    @property
    def published(self) -> dict[str, float]:
        """`{attack: accuracy in [0, 1]}` as the release's tables have it (they head the columns "error rate")."""
        return {attack: round(number / 100, 4) for attack, number in zip(ATTACKS, self.accuracies, strict=False)}

    @property
    def words(self) -> str:
        """What it is, in a few words for a list."""
        numbers = ", ".join(f"{100 * number:.1f} {attack}" for attack, number in self.published.items())
        return f"{self.recipe}, {self.act}; {numbers or 'no published accuracy'}"

    @property
    def ids(self) -> dict[str, str]:
        """`{suffix of the file: Google Drive id}`."""
        return dict(zip(SUFFIXES, self.drive_ids, strict=True))


RELEASES = {
    "Res50-relu": Release(
        "resnet50",
        "relu",
        (68.7, 35.3, 33.7, 33.1),
        ("1cohW6FAE7dTaC7RARiqP3fVbiE5AVX4f", "1f03RpPMF6_OyVnL7F8RnbkPT4uitnucX", "132lC0k7EWjT371NZRY7OzULA-AshcDqc"),
    ),
    "Res50-silu": Release(
        "resnet50",
        "swish",
        (69.7, 43.0, 42.2, 41.9),
        ("1VvnMZyrntlLfWnQAdY9wfuCAGJ4fMU3x", "1y3yAKrXgyGF7pnXoZg7R6Ge6N3LsXa_B", "1NEDQyTYKTd4aw8lpWe4LsLC9EVf3Uat3"),
    ),
    "Res50-smoothrelu": Release(
        "resnet50",
        "smoothrelu",
        (69.3, 41.3, 40.4, 40.1),
        ("18FizqadONHUAgysO8EoNyxFAzxpjJq_V", "1mtm-QspciqS-_AXHNGgy-sqwtAAgtiw_", "1oibs4xXh6tZCezYaalJ4jyFFF55hzao7"),
    ),
    "Res50-gelu": Release(
        "resnet50",
        "gelu_tanh",
        (69.9, 42.6, 41.8, 41.5),
        ("1WXZNTAZwZ_JsgXN6mNwm3CMwyFTfknkb", "1bNkq7B_oq6AWoUQb74GlERRPTX8wQuFY", "1DzBg4N40f9Lm8hH9oLEIaocy-tOf5edW"),
    ),
    "Res50-elu": Release(
        "resnet50",
        "elu",
        (69.0, 41.6, 40.9, 40.7),
        ("11PCXlx7XNs7bkg2LH6RiCysJf5J2sgRq", "1eymHm21mkxm5aL24Uca8aFqj6FPLqBcw", "12ebpFW5eJC0_V5GfwRf_7Xf4Epdqm4QZ"),
    ),
    "Res50-softplus": Release(
        "resnet50",
        "softplus",
        (),
        ("1HnBSIWV4w8o2cD8fwb-WbHQZ5nxz7YSS", "16SLoDVJWK5w_69f8PoOHrxZZNakKaCXW", "15kJvWfYNlgm3lIfKbQSfgV-bEyPoND8t"),
    ),
    "Res50-mish": Release(
        "resnet50",
        "mish",
        (),
        ("1W-4IR9IbJI-qBFlBfFlChp1OekjpQoGK", "1yhHDRwbVA4okcGtJ4Y9pz0DbfvmH4zEg", "1I0ObFU__xnC2RLo99JVsHT29_JhwLIpA"),
    ),
    "Res50-silu-299": Release(
        "resnet50-299",
        "swish",
        (70.7, 44.6, 43.8, 43.6),
        ("12lpRIpz7hRN7bMHEkZAMqrZr2euirKOA", "1Qlbet7k8_0RmHPzfaZvBpRv-c3R2cjCr", "1PkArMefesGXqX7PGLI2ibKoMy31AndNK"),
    ),
    "Res50-silu-380": Release(
        "resnet50-380",
        "swish",
        (71.6, 44.9, 44.1, 43.8),
        ("16bPLGP6Ltamtcjji2WV63RDxhRU2hoPU", "1tnHuq7t6PpyeSCeolEQHG7ZWKye4hAY6", "1AdjhY9FQa8dLA2Z5RT_3o9L570Nqh5Z_"),
    ),
    "ResX50-silu-32x4d": Release(
        "resnext50-32x4d",
        "swish",
        (71.1, 43.3, 42.5, 42.2),
        ("1K4KHECxGM8H-QoY7N1XvS6_dxx6Ej87k", "1jIMgBg5VjPp8mToRNvTpKs5jzUFbOceY", "1oUh6B-0TynxRf7B-4INgDdKbvgzlihY7"),
    ),
    "ResX50-silu-32x8d": Release(
        "resnext50-32x8d",
        "swish",
        (73.3, 46.3, 45.2, 44.8),
        ("1-QZmB4eUDPQ2Pyx651gKI5CRamcOmBHk", "1_tbqY26jFp5TPIXDHQu1qyC2Rx_5ZrcW", "1c9vGl81tyaN6W-p3E_ogOw6ZJtorv4V4"),
    ),
    "Res101-silu": Release(
        "resnet101",
        "swish",
        (72.9, 46.4, 45.5, 45.2),
        ("1-95fYvBaCFoHWnM0USEOWeLORDdS48ek", "1r_IM4JXR1hmummpTbzHj1gb2BwrAZbi8", "1mSI36SYH2axrV_9vVeVdTFk0H9BWlLxn"),
    ),
    "Res152-silu": Release(
        "resnet152",
        "swish",
        (74.0, 47.3, 46.2, 45.8),
        ("17V5SS8zeYEb-WEHk0_U_8T_20uujR3T9", "1D44_MDY0aylpHi7iJ3xqRHsQNCb-TFcX", "1H1fMjSzgey41FbVmTbWXpbB0d8IVg8OD"),
    ),
    "ResX152-silu-380-32x8d": Release(
        "resnext152-32x8d-380",
        "swish",
        (78.0, 53.0, 51.7, 51.0),
        ("1kk5QS8n8iVvisdtBu0-SyRR4WVRCYpE0", "1tpr3XLzM4s5HlQu7AloGnrMxDOFCDKAx", "1hzFZ1BhBYdTlBuLK1tahww0hIKP-eZ4L"),
    ),
    "efficientnet-b0": Release(
        "efficientnet-b0",
        "swish",
        (65.2,),
        ("1ZTFo5RHQYy9zCKghFrQyACFQOsg4srr4", "1NVEtGO0l15r2Dc5FBzOKlWr2lqJ11WQD", "1UgwnDU7kAlPd5l2Hp0AvKoYc-LD5jpAY"),
    ),
    "efficientnet-b1": Release(
        "efficientnet-b1",
        "swish",
        (68.6,),
        ("1Z5oKE9oYLMcl16uK_FOWjY_sbeFhljRp", "12EWVkLi0_4Ep6Du933MV1vCwIKAActzT", "1izecRKPEWbZcaNnfAud7AS3REZldvHDQ"),
    ),
    "efficientnet-b2": Release(
        "efficientnet-b2",
        "swish",
        (70.3,),
        ("1-_GlLOlIhwnhu1lnT1rv9aleTR1VmXAs", "1QkDEm6OSgeeRwYd9suXtQbu-3yC9ebmu", "1wgWGtZqOMq0LPR4FDelT1G64tbQu-pO0"),
    ),
    "efficientnet-b3": Release(
        "efficientnet-b3",
        "swish",
        (73.1,),
        ("1BeyzyFYA43CwGvlXyNNG-2EswH4DLQNt", "1zlCLPKaX4i9_ikuJzusY4aV9kTGzXLqF", "1rq2Tx4qif5mQdY1e52usvv4LP4hb8gIb"),
    ),
    "efficientnet-b4": Release(
        "efficientnet-b4",
        "swish",
        (75.9,),
        ("1O5N_WD-ofuSG5n5OOiNiZRpcBIhh0Ykg", "17cMDXEqNjzXpPcvhSWAA7pDfTxGl3I9Q", "1XXrDvIILllqouDwygEI095arHhytvuY_"),
    ),
    "efficientnet-b5": Release(
        "efficientnet-b5",
        "swish",
        (77.8,),
        ("1QG81MOXKF1MpUYV9nTECfOimmGCQuiH2", "1EWF0H_26zj6_kvdxQD1mYjjLzW9K7qHz", "1dOy6lnfrmPp861rLcl-pJ1s9wlgZi9rd"),
    ),
    "efficientnet-b6": Release(
        "efficientnet-b6",
        "swish",
        (79.2,),
        ("14y9VCC7mHSE6cX10hkof5-vFA2bkjd31", "1iA-XyCRmXzyvHr-IP21xvHxD2y4lesyK", "1x9wIeges7c9acxEV-ZrL1zIUkrqCQjmm"),
    ),
    "efficientnet-b7": Release(
        "efficientnet-b7",
        "swish",
        (79.8,),
        ("1SAZt2Ald7MVWsxz_Hpe7F1bTEZW7nQdF", "1koh9au89VJR6sB1b4ep2azbUmNiDmblj", "1l2iSHdISRu19WwBRMtv--wtEV_Ra6Zp8"),
    ),
    "efficientnet-bL1": Release(
        "efficientnet-l1",
        "swish",
        (80.7,),
        ("1MZr3Vx1E7qICamwpV_CFs1i2BZ40O6oq", "1jGniWU77jQtjxjRqnd4GRoefCaJ9dnzr", "1xDI4Rg1r56gq9SKLg8DstezwLgKmMWfV"),
    ),
    "efficientnet-bL1-enhanced": Release(
        "efficientnet-l1-enhanced",
        "swish",
        (82.2,),
        ("1CJvhOkKaEaPvNqe_ZZelsMzJpuitysAv", "1ceFsUZYWYh2usgVZV9uDnn9zc6NgWFty", "1kepUwuVvENHT16ukAq6Wln_x2rVR2BEi"),
    ),
}


def release(name: str, also: Iterable[str] = ()) -> Release:
    """Return the release of a name of `RELEASES`; a ValueError names the nearest one, those of `also` included."""
    if name not in RELEASES:
        known = [f"released:{each}" for each in (*RELEASES, *also)]
        raise unknown("a released checkpoint", "checkpoint", f"released:{name}", known)
    return RELEASES[name]
