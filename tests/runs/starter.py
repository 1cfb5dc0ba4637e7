"""A process that has imported everything, and forks commands: a start costs a tenth of a second.

Reads lines of JSON from the standard input: {"arguments": [...], "directory": ..., "log": ...}; answers with the
process id, and with the status of each ended process when it is asked {"wait": pid, "seconds": s}.
"""

import contextlib
import json
import os
import signal
import sys
import time


def serve():
    import torch
    from lightning_fabric import Fabric

    import eqprop.cli.training
    import eqprop.cli.using  # noqa: F401

    torch.set_num_threads(1)
    Fabric(accelerator="cpu")
    import datasets  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pyarrow.csv  # noqa: F401
    import torch.utils.tensorboard
    import torchmetrics  # noqa: F401
    from PIL import Image  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(wait(asked["wait"], asked["seconds"]), flush=True)
            continue
        pid = os.fork()
        if not pid:
            run(asked)
        print(pid, flush=True)


def run(asked):
    from eqprop.cli import main

    os.setsid()
    os.chdir(asked["directory"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 99
    with contextlib.suppress(SystemExit):
        status = main(asked["arguments"])
    os._exit(status)


def wait(pid, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


if __name__ == "__main__":
    serve()
