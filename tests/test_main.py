"""The real command line: instant answers, one line for every mistake, the commands of its help, Ctrl-C."""

import multiprocessing
import os
import pathlib
import re
import runpy
import shlex
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "--model=resnet8-w8",
    "--dataset=synthetic",
    "--epochs=1",
    "--set",
    "validation=40",
    "--eval_attacks=clean,pgd-2",
]


def run(*flags, cwd, **kwargs):
    """Run main.py in a process of its own; return its exit status, stdout and stderr."""
    done = subprocess.run([sys.executable, ROOT / "main.py", *flags], cwd=cwd, capture_output=True, text=True, **kwargs)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Return `run` in processes that are forked from one which has imported TensorFlow, and done nothing with it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sat_tf.experiment"])
    folder = tmp_path_factory.mktemp("warm")

    def run_warm(*flags, cwd):
        process = context.Process(target=run_here, args=(flags, cwd, folder))
        process.start()
        process.join()
        return process.exitcode, (folder / "1").read_text(), (folder / "2").read_text()

    return run_warm


def run_here(flags, cwd, folder):
    """Be main.py with its stdout and stderr in files."""
    for number in (1, 2):
        os.dup2(os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [str(ROOT / "main.py"), *flags]
    os.chdir(cwd)
    runpy.run_path(sys.argv[0], run_name="__main__")


def assert_one_line(status, err, wanted_status, says):
    assert status == wanted_status, err
    assert len(err.strip().splitlines()) == 1, err
    assert says in err and "Traceback" not in err


@pytest.fixture(scope="module")
def instant(tmp_path_factory):
    """Return an environment in which whatever takes seconds to import can't be imported."""
    folder = tmp_path_factory.mktemp("instant")
    for name in ("tensorflow", "keras", "numpy", "matplotlib"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("flag,says", [("--help", "--eval_attacks"), ("-h", "main.py"), ("--list", "smoothrelu")])
def test_help_and_list_answer_at_once(flag, says, tmp_path, instant):
    status, out, err = run(flag, cwd=tmp_path, env=instant)
    assert (status, err) == (0, "") and says in out


def test_list_names_everything(tmp_path):
    import hparams

    _, out, _ = run("--list", cwd=tmp_path)
    for kind in hparams.TABLES:
        assert all(f"  {name}" in out for name in hparams.names(kind)), kind
    assert all(f"  {name}" in out for name in [*hparams.RECIPES, *hparams.fields_help()])


@pytest.mark.parametrize(
    "flags,says",
    [
        (["--model=resnet51"], "Did you mean resnet50"),
        (["--act=swich"], "Did you mean swish"),
        (["--dataset=cifar"], "Did you mean cifar10"),
        (["--set", "epoch=3"], "Did you mean epochs"),
        (["--epsilon=8"], "write 8/255"),
        (["--epochs=-1"], "epochs=-1"),
        (["--batch_size=0"], "batch_size=0"),
        (["--modle=x"], "Did you mean"),
        (["train"], "Received: train"),
        (["--mode=trian"], "train|eval|verify"),
        (["--set", "epochs"], "field=value"),
        (["--recipe=fasion"], "Did you mean fashion"),
        (["--checkpoint=x"], "--mode=eval"),
        (["--plan", "--mode=eval"], "--mode=train"),
        (["--images_per_second=3"], "--plan"),
        (["--mode=eval", "--set", "epoch=3"], "Did you mean epochs"),
        (["--mode=eval", "--eval_weights=ema"], "one of raw"),
        (["--eval_attacks=pgd"], "pgd-k"),
        (["--mode=verify"], "--adversarial=FILE"),
        (["--mode=merge"], "--parts"),
        (["--parts=a"], "--mode=merge"),
        (["--mode=eval", "--shard=5/4"], "1/4"),
        (["--subset=x"], "--mode=eval"),
        (["--mode=eval", "--norm=l3"], "linf"),
        (["--mode=eval", "--eval_attacks=autoatack"], "Did you mean autoattack"),
        (["--set", "validation_attack=square"], "known attack"),
        (["--seed=1.5"], "whole number"),
    ],
)
def test_usage_errors_are_one_line_at_once(flags, says, tmp_path, instant):
    status, out, err = run(*flags, cwd=tmp_path, env=instant)
    assert_one_line(status, err, 2, says)
    assert out == "" and list(tmp_path.iterdir()) == []


def test_failures_are_one_line(tmp_path, warm):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases = [
        (["--dataset=folder", "--data_dir=none"], 1, "none"),
        (["--dataset=folder", "--data_dir=empty"], None, "empty"),
        (["--dataset=cifar10", "--data_dir=empty"], 1, "cifar10"),
        (["--dataset=synthetic", "--model_dir=file/run"], 1, "model_dir=file/run"),
        (["--dataset=synthetic", "--batch_size=5000"], 2, "batch_size=5000"),
        (["--mode=eval", "--model_dir=none"], 1, "looked for"),
    ]
    for flags, wanted, says in cases:
        status, _, err = warm(*flags, cwd=tmp_path)
        assert_one_line(status, err, wanted or status, says)
        assert status in (1, 2)


def test_train_interrupt_resume_eval_export(tmp_path, warm):
    """A first epoch is stopped by Ctrl-C; the same command goes on, says so, and its last lines name every result."""
    flags = [*TINY, "--model_dir=run", "--set", "steps_per_call=1", "--epochs=3"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "main.py", *flags],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    seen = ""
    while "training:" not in seen:  # from here on Ctrl-C is a request to stop
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in err
    assert "Stopped at step" in err.strip().splitlines()[-1] and "same command" in err

    status, out, err = run(*flags, cwd=tmp_path)
    assert status == 0, err
    assert "Going on from step" in err
    lines = out.strip().splitlines()
    assert lines[0].startswith("clean accuracy: ") and lines[1].startswith("PGD-2 accuracy (epsilon 8/255")
    for line, name in zip(lines[2:], ("report", "images", "checkpoint", "TensorBoard logs"), strict=True):
        assert line.startswith(f"{name}: ") and (tmp_path / line.partition(": ")[2]).exists()
    for noise in ("oneDNN", "cuda", "retracing", "Sharding"):
        assert noise not in err

    evaluate = ["--mode=eval", "--model_dir=run", "--eval_attacks=clean,fgsm", "--epsilon=4/255"]
    status, out, err = warm(*evaluate, cwd=tmp_path)
    assert status == 0 and "FGSM accuracy (epsilon 4/255" in out, err
    status, out, err = warm("--mode=export", "--model_dir=run", cwd=tmp_path)
    assert status == 0 and "saved_model: run/export/step-" in out, err
    assert_one_line(*warm("--mode=export", "--model_dir=run", cwd=tmp_path)[::2], 1, "exists")
    assert_one_line(*warm(*flags, "--act=relu", cwd=tmp_path)[::2], 2, "act: swish there, relu here")
    assert_one_line(*warm("--mode=eval", "--model_dir=run", "--act=relu", cwd=tmp_path)[::2], 2, "relu here")


def test_averaged_weights_from_the_command_line(tmp_path, warm):
    """Evaluation and export take what the run keeps, without its recipe being repeated."""
    flags = [*TINY, "--model_dir=run", "--set", "average_decay=0.9", "--set", "policy=randaugment:10"]
    status, _, err = warm(*flags, cwd=tmp_path)
    assert status == 0, err
    for mode in ("eval", "export"):
        status, out, err = warm(f"--mode={mode}", "--model_dir=run", "--eval_weights=averaged", cwd=tmp_path)
        assert status == 0, err
    assert "weights: averaged (decay 0.9)" in out
    status, out, err = warm("--plan", *TINY, "--images_per_second=100", cwd=tmp_path)
    assert status == 0 and "accelerator-hours:" in out and sorted(p.name for p in tmp_path.iterdir()) == ["run"], err


def documented_commands():
    """Return the flags of every `python main.py` line in the help text; `test_docs` has those of the documentation."""
    text = (ROOT / "main.py").read_text(encoding="utf-8")
    found = re.findall(r"python main\.py((?: --?[\w=./,:-]+(?: \w+=[^\s`]+)?)*)", text)
    return sorted({command.strip() for command in found if command.strip()})


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_parse(command):
    """Every command that the help shows makes a recipe; those of the main job run in the other tests."""
    code = (
        "import main, sys; main.FLAGS(['main.py', *sys.argv[1:]]); import hparams; c = main.changes_from_flags(); "
        "hparams.choose(c, main.FLAGS.recipe) if main.FLAGS.mode == 'train' else hparams.read(c)"
    )
    subprocess.run([sys.executable, "-c", code, *shlex.split(command)], check=True, cwd=ROOT)
