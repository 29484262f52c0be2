"""The benchmarks run and print what they promise (their numbers are for a quiet machine)."""

import pathlib

import forks
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    "command,says",
    [
        (["adversarial_step.py", "--model=resnet8-w8", "--image_size=16", "--batch_size=4", "--rounds=2"], "ratio  "),
        (
            [
                "activation_step.py",
                "--model=resnet8-w8",
                "--acts=relu,smoothrelu",
                "--image_size=8",
                "--batch_size=2",
                "--rounds=2",
            ],
            "smoothrelu  ",
        ),
        (
            ["attack_libraries.py", "--model=resnet8-w8", "--image_size=16", "--images=4", "--steps=2", "--rounds=1"],
            "sat_tf, active set ",
        ),
        (["active_set.py", "--help"], "usage"),
        (["grouped_conv.py", "--help"], "usage"),
        (["head_curvature.py", "--help"], "usage"),
        (["replicas.py", "--help"], "usage"),
        (["augmentation.py", "--rounds=1", "--images=4", "--size=64"], "share median"),
    ],
)
def test_benchmarks_run(command, says, tmp_path):
    status, out, err = forks.run(BENCHMARKS / command[0], *command[1:], cwd=tmp_path, folder=tmp_path)
    assert status == 0 and says in out, err
