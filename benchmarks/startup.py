"""From the command to the first result: imports, `--help`, tracing and the first training step.

    python benchmarks/startup.py
    python benchmarks/startup.py --library=sat_tf,torch,torch.compile --work=first_step --model=resnet20

Every run is a new process. Work: import; help, of main.py; first_step, from the process' start to the end of the first
step of `train_step.py`, with all that is traced and compiled for it. Where several kinds of work contend, by --compare,
ratios are of their times.
"""

import json
import subprocess
import sys

import contest
import train_step

OPTIONS = {**train_step.OPTIONS, "library": "sat_tf,torch", "work": "import,first_step"}
IMPORTS = {"sat_tf": "import sat_tf.experiment", "torch": "import torch", "torch.compile": "import torch"}


def make(setting):
    """Return the start of a process that does a side's work."""
    if setting["library"].startswith("torch"):
        import torch  # noqa: F401 - or the side is left out
    words = {
        "import": ["-c", IMPORTS[setting["library"]]],
        "help": [str(contest.ROOT / "main.py"), "--help"],
        "first_step": [__file__, f"--first_step={json.dumps(setting)}"],
    }[setting["work"]]
    if setting["work"] == "help" and setting["library"] != "sat_tf":
        raise ImportError("there is no command")
    return lambda: subprocess.run([sys.executable, *words], cwd=contest.ROOT, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("--first_step="):
        train_step.make(json.loads(sys.argv[1].partition("=")[2]), rehearsals=0)()
    else:
        contest.main(__doc__, make, OPTIONS, "library")
