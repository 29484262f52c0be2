"""The pages of README and documentation: their blocks, their commands, and what each does until its work begins."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from unittest import mock

from absl.testing import flagsaver

from sat_tf import cli, experiment, grid, hparams, pointers
from sat_tf.data import make_fashion_mnist_12k, make_shards
from sat_tf.distribute import channel
from sat_tf.serving import client, server

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md")
}


def blocks(page):
    """Return `(language, text)` of every fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", PAGES[page].read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page):
    """Return the commands of a page, each a line: those of its sh blocks, and its code spans that are one."""
    spans = re.sub(r"^```.*?^```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = [
        span
        for span in re.findall(r"`([^`]+)`", spans)
        if re.match(r"(python|sat-tf|pip|mkdocs|srun|TPU_LOAD_LIBRARY=0|\.) \S", span)
    ]
    fenced = [line for language, text in blocks(page) if language == "sh" for line in text.splitlines()]
    return [part for line in (*fenced, *spans) for part in line.split(" && ") if part]


def words_of(command):
    """Return a command as a shell would split it, without `.venv/bin/`."""
    return [word.removeprefix(".venv/bin/") for word in shlex.split(command, comments=True)]


# What a command does up to where its work begins.


def start_main(words, tmp_path):
    """Run the real command line with recorders in the place of what works; they refuse what the workers would."""
    whole = {"trusted": True, "forced": False}
    results = {"train": None, "evaluate": whole, "merge": whole, "compare": None, "verify": ([], {}), "plan": {}}
    results |= {"export": None, "convert": None, "download": None, "draw": tmp_path, "start": None}
    (tmp_path / "table.md").touch()
    (tmp_path / "RUN").mkdir(exist_ok=True)  # a run to start from
    (tmp_path / "RUN" / "recipe.json").write_text(json.dumps(hparams.get("resnet50").to_dict()))
    (tmp_path / "DIR").mkdir(exist_ok=True)  # a run, whose recipe may be taken
    (tmp_path / "DIR/recipe.json").write_text(json.dumps(hparams.choose({}).to_dict()))

    def planned(name, *, data_dir, jobs, command, **where):
        """Stand for a grid's runs, which are planned."""
        items, _ = grid.plan(name, **where)
        return {"rows": [], "failures": [], "planned": len(items)}, tmp_path

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(channel.Channel, "opened", lambda *_: contextlib.nullcontext()))
        workers = [
            stack.enter_context(mock.patch.object(experiment, name, autospec=True, return_value=result))
            for name, result in results.items()
        ]
        stack.enter_context(mock.patch.object(pointers, "find"))  # of a run that the reader has
        runs = stack.enter_context(mock.patch.object(grid, "run", autospec=True, side_effect=planned))
        status = run_main(words[words.index("main.py") :] if "main.py" in words else words)
    begun = [worker for worker in (*workers[:-1], runs) if worker.called]
    assert status == 0 and (begun or {"--list", "--help"} & set(words))


def start_slurm(words, tmp_path):
    """Run the real command line as the first of four tasks of Slurm's."""
    tasks = {"PROCID": 0, "NODEID": 0, "LOCALID": 0, "STEP_NODELIST": "node[1-4]", "STEP_TASKS_PER_NODE": "1(x4)"}
    assert words[1:3] == ["-N4", "--ntasks-per-node=1"]
    with mock.patch.dict(os.environ, {f"SLURM_{name}": str(value) for name, value in tasks.items()}):
        start_main(words, tmp_path)


def run_main(words):
    """Run the command line in this process; return its exit status."""
    with flagsaver.flagsaver():
        return cli.main([*words])


def start_script(module, worker, result, words, tmp_path):
    patched = mock.patch.object(module, worker, autospec=True, return_value=result)
    with patched as begun, mock.patch.object(sys, "argv", words[2:]):
        module.main()
    assert begun.called


def start_server(words, tmp_path):
    with mock.patch.object(server, "serve", autospec=True) as begun, mock.patch.object(server.signal, "signal"):
        server.main(words[3:])
    assert begun.called


def start_client(words, tmp_path):
    assert client._arguments(words[3:]).images


def start_benchmark(words, tmp_path):
    """Look for the file and its flags; `test_benchmarks` runs them."""
    text = "".join((ROOT / "benchmarks" / name).read_text("utf-8") for name in ("contest.py", "train_step.py"))
    text += (ROOT / words[1]).read_text("utf-8")
    flags = [word.partition("=")[0] for word in words[2:]]
    assert all(f'add_argument("{flag}"' in text or f'"{flag[2:]}": ' in text for flag in flags)


def start_pip(words, tmp_path):
    """Look for the extras in setup.py; packages of others are named in full."""
    extras = re.findall(r"^ {8}\"(\w+)\": ", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    asked = [extra for word in words if word.startswith(".[") for extra in word[2:-1].split(",")]
    assert set(asked) <= set(extras) and words[1] in ("install", "uninstall")


def start_curl(words, tmp_path):
    """Have a shell put the request together."""
    (tmp_path / "IMAGE.jpg").write_bytes(b"image")
    script = f'curl() {{ printf %s "$2"; }}; {words}'
    sent = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(sent) == {"signature_name": "image_bytes", "instances": [{"b64": "aW1hZ2U="}]}


def well_known(words, tmp_path):
    """A program of others, called as its own documentation says."""


RULES = {  # how a command begins: what is done with it
    r"(.venv/bin/|TPU_LOAD_LIBRARY=0 )?python main.py |sat-tf ": start_main,
    "srun ": start_slurm,
    "python -m sat_tf.data.make_shards ": functools.partial(
        start_script, make_shards, "make", ({"train": 1, "validation": 1}, ())
    ),
    "python -m sat_tf.data.make_fashion_mnist_12k ": functools.partial(
        start_script, make_fashion_mnist_12k, "make", ""
    ),
    "python -m sat_tf.serving.server ": start_server,
    "python -m sat_tf.serving.client ": start_client,
    "python (benchmarks|results)/": start_benchmark,
    "(.venv/bin/)?pip ": start_pip,
    "curl ": start_curl,
    r"python3 -m venv |\. .venv/bin/activate|docker run |mkdocs serve|.venv/bin/pytest|tensorboard ": well_known,
}
