"""A process that has imported everything, and forks commands: a start costs a tenth of a second.

Reads lines of JSON from the standard input, and answers each with one. A line starts a command of eqprop, or code in
Python, in a ``directory``: {"arguments": [...]} or {"code": ..., "argv": [...]}, with its ``environment``, the files
``out`` and ``err`` of its streams and its ``umask``; the answer is the process id. {"wait": pid, "seconds": s} is
answered with the status of a process that has ended, and {"poll": pid} with null while it runs.
"""

import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from types import SimpleNamespace


def serve():
    import torch
    from lightning_fabric import Fabric

    import eqprop.cli.training
    import eqprop.cli.using  # noqa: F401
    from eqprop.tasks import load_images

    torch.set_num_threads(1)
    Fabric(accelerator="cpu")
    import datasets  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pyarrow.csv  # noqa: F401
    import torch.utils.tensorboard
    import torchmetrics  # noqa: F401
    from PIL import Image  # noqa: F401

    parameter = torch.nn.Parameter(torch.zeros(1))
    torch.optim.SGD([parameter], 0.1).step()  # imports the compiler of PyTorch, which takes a second
    load_images("digits")  # decoded here, for all processes
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "poll" in asked:
            print(json.dumps(ended(asked["poll"])), flush=True)
            continue
        if "wait" in asked:
            print(json.dumps(wait(asked["wait"], asked["seconds"])), flush=True)
            continue
        pid = os.fork()
        if not pid:
            run(asked)
        print(pid, flush=True)


def run(asked):
    """In the child: what ``python -m eqprop`` with these arguments does, or ``python -c`` with this code."""
    os.setsid()
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.umask(asked["umask"])
    for number, place in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False
    )
    sys.path[0] = asked["directory"]
    status = 99
    try:
        status = execute(asked) if "code" in asked else command(asked["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def execute(asked):
    sys.argv = ["-c", *asked["argv"]]
    exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
    return 0


def command(arguments):
    import torch.distributed
    from lightning_fabric.strategies.launchers import subprocess_script

    from eqprop import _start
    from eqprop.cli import main

    _start.begin()
    # for Fabric, which starts other processes with the command of this one
    sys.argv = [importlib.util.find_spec("eqprop.__main__").origin, *arguments]
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("eqprop.__main__")
    subprocess_script.subprocess = SimpleNamespace(Popen=Forked)
    status = main(arguments)
    if torch.distributed.is_initialized():  # as at the end of an interpreter
        torch.distributed.destroy_process_group()
    return status


class Forked:
    """What ``subprocess.Popen`` does for Fabric: another process of the same command, in another environment."""

    returncode = None

    def __init__(self, words, env, cwd=None):
        start = [sys.executable, "-m", "eqprop.__main__"]
        assert words[:3] == start, words
        assert cwd is None
        self.pid = os.fork()
        if not self.pid:
            os.environ.clear()
            os.environ.update(env)
            os._exit(command(words[3:]))

    def poll(self):
        if self.returncode is None:
            self.returncode = ended(self.pid)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


def ended(pid):
    """The status of a child, or ``None`` while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait(pid, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (status := ended(pid)) is not None:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


if __name__ == "__main__":
    serve()
