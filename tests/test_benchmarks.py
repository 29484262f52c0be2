"""The benchmarks run and write what they promise (their numbers are for a quiet machine)."""

import json
import pathlib
import runpy
import sys

import forks
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SMALL = ("--model=resnet8-w8", "--image_size=16", "--batch_size=4")


def run(tmp_path, name, *words, rounds=2):
    """Run a benchmark; return what it wrote as JSON, and its Markdown."""
    status, out, err = forks.run(
        BENCHMARKS / name, *words, f"--rounds={rounds}", "--threads=1", cwd=tmp_path, folder=tmp_path
    )
    assert status == 0, err + out
    folder = tmp_path / "runs" / "benchmarks"
    text = (folder / name).with_suffix(".md").read_text(encoding="utf-8")
    return json.loads((folder / name).with_suffix(".json").read_text(encoding="utf-8")), text


def test_sides_run_in_turn_and_what_is_missing_is_left_out(tmp_path):
    words = "--library=sat_tf,foolbox", "--model=resnet8-w8", "--image_size=16", "--images=4"
    found, text = run(tmp_path, "attack.py", *words, "--attack=apgd-2", rounds=3)
    assert found["command"].startswith("python benchmarks/attack.py --library=sat_tf,foolbox")
    assert found["versions"]["tensorflow"] and found["machine"]["cores"] and found["threads"] == 1
    (contest,) = found["contests"]
    assert contest["setting"]["attack"] == "apgd-2" and "not here" in contest["sides"]["foolbox"]  # it has no Auto-PGD
    ours = contest["sides"]["sat_tf"]
    assert len(ours["seconds"]) == len(ours["cpu"]) == 3 and ours["versions"]["keras"] and ours["peak_mib"] > 100
    assert 0 <= ours["right"] <= 1 and ours["farthest"] < 8.001
    assert "| foolbox | left out: " in text and "| sat_tf | " in text and found["command"] in text


@pytest.mark.parametrize(
    "name, words, sides",
    [
        ("train_step.py", [*SMALL, "--library=sat_tf", "--act=smoothrelu", "--compare=act"], ["smoothrelu"]),
        ("input.py", ["--images=4", "--image_size=64", "--policy=none,randaugment"], ["none", "randaugment"]),
        ("startup.py", ["--work=help", "--library=sat_tf"], ["sat_tf"]),
        ("scaling.py", [*SMALL, "--accumulate_steps=2"], ["resnet8-w8"]),
    ],
)
def test_benchmarks_run(name, words, sides, tmp_path):
    found, _ = run(tmp_path, name, *words, rounds=1)
    (contest,) = found["contests"]
    assert list(contest["sides"]) == sides and all(side["seconds"][0] > 0 for side in contest["sides"].values())


def test_a_step_is_told_operation_by_operation(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import operations

    shape = {"model": "resnet8-w8", "image_size": "16", "batch_size": "4"}
    step = operations.make({**operations.OPTIONS, **shape, "method": "standard"})
    step()
    facts = step.facts()
    shares = {name.removesuffix(" (%)"): share for name, share in facts.items() if not name.startswith(("GF", "of a"))}
    assert (
        facts["GFLOP/s"] > 0 and facts["of a matrix product's (%)"] > 0 and set(shares) <= {*operations.KINDS, "other"}
    )
    assert sum(shares.values()) == pytest.approx(100) and shares["convolutions"] > 5
    assert shares.get("other", 0) < 60 and shares["elementwise"] > 0
    side = {"seconds": [0.3, 0.1, 0.2], **facts}
    found = {
        "compare": "method",
        "contests": [{"setting": {**operations.OPTIONS, "model": "a"}, "sides": {"standard": side, "sat": side}}],
    }
    (axes,) = operations.draw(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{m}\n200 ms a step" for m in ("standard", "sat")
    ]
    widths = np.sum([[bar.get_width() for bar in bars] for bars in axes.containers], axis=0)
    np.testing.assert_allclose(widths, 100)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("_MklNativeConv2DBackpropInput", "convolutions"),
        ("DepthwiseConv2dNative", "convolutions"),
        ("_FusedMatMul", "matrix products, 1x1 convolutions"),
        ("_MklNativeFusedBatchNormGradV3", "normalisation"),
        ("_MklSwish", "elementwise"),
        ("SigmoidGrad", "elementwise"),
        ("StridedSliceGrad", "copies and casts"),
        ("AssignAddVariableOp", "updates"),
        ("AddN", "elementwise"),
        ("While", "other"),
    ],
)
def test_every_operation_has_its_kind(name, kind, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import operations

    assert operations.kind_of(name) == kind


def test_ratios_are_of_rounds_and_begin_with_the_first_that_is_here(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import contest

    sides = {"a": {"not here": "no"}, "b": {"seconds": [1.0, 2.0, 4.0]}, "c": {"seconds": [2.0, 2.0, 2.0]}}
    assert contest.ratios({"sides": sides}, "c") == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("name", ["resnet8-w8", "efficientnet-b0"])
def test_the_network_in_pytorch_gives_the_same_logits(name, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import train_step

    from sat_tf import models

    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    train_step.torch_network(train_step.weighted(models.build(name, "swish", 10)), images)  # raises where they differ


def test_head_curvature_has_a_usage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["head_curvature.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "results" / "head_curvature.py"), run_name="__main__")
    assert "usage" in capsys.readouterr().out
