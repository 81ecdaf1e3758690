"""What the peers' workers share: the driver's commands (see worker_mxcc.c) and, for steps without computation, when each tensor is final and
each parameter needed. Runs with Python 3.8 for MXNet's sake."""
import json
import os
import socket
import time

RANK, SIZE = int(os.environ["BENCH_RANK"]), int(os.environ["BENCH_SIZE"])


def table():
    """The trained tensors in the order in which they become final."""
    with open(os.environ["BENCH_TABLE"]) as f:
        return [k for k in json.load(f) if k["trained"]]


def serve(step):
    """Calls step(seconds) as the driver says."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["BENCH_CONTROL"])
    f = s.makefile("rw")

    def say(**facts):
        f.write(json.dumps(facts) + "\n")
        f.flush()

    say(rank=RANK, pid=os.getpid())
    for line in f:
        steps, seconds = int(line.split()[0]), float(line.split()[1])
        step(seconds)  # to warm up
        start = time.monotonic()
        for _ in range(steps):
            step(seconds)
        say(seconds=(time.monotonic() - start) / steps)
    os._exit(0)


class Clock:
    """The time of a step without computation: only waiting delays it."""

    def __init__(self):
        self.base, self.seconds = time.monotonic(), 0.0

    def start(self, seconds):
        self.base, self.seconds = time.monotonic(), seconds

    def until(self, part):
        left = self.base + part * self.seconds - time.monotonic()
        if left > 0:
            time.sleep(left)

    def wait(self, f):
        before = time.monotonic()
        f()
        self.base += time.monotonic() - before
