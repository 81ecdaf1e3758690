"""What the benchmark's workers share. A worker is a process that holds one model of one system and waits: for each line
`SECONDS` on its standard input it runs steps for that long and answers with one line of JSON. Between such bursts the driver
stops it, so that its threads disturb nobody. Runs with Python 3.8 for MXNet's sake."""
import json
import os
import sys
import time


def arguments():
    """MODEL THREADS [VARIANT]; sets the limits that libraries read when they are imported."""
    model, threads = sys.argv[1], int(sys.argv[2])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    return model, threads, sys.argv[3] if len(sys.argv) > 3 else ""


def status_kib(key):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1])
    return 0


# The data are the same for all systems: inputs (uniform in -0.5 .. 0.5) and labels 0 .. 9.
def inputs(count):
    return draws(count, 0)[0]


def labels(count):
    return [i % 10 for i in range(count)]


def draws(*pairs):
    """Lists of random numbers for COUNT, CLASSES, COUNT, CLASSES, …: integers below CLASSES, or as `inputs` if that is 0. bench/step_main.c
    draws the same."""
    lists, s = [], 1
    for count, classes in zip(pairs[::2], pairs[1::2]):
        values = []
        for _ in range(count):
            s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
            values.append((s >> 8) % classes if classes else (s >> 8) / 16777216.0 - 0.5)
        lists.append(values)
    return lists


def serve(step, **facts):
    answer = sys.stdout
    facts["first_loss"] = step()
    step()
    print("READY " + json.dumps(facts), file=answer, flush=True)
    for line in sys.stdin:
        limit = float(line)
        step()  # wakes what slept
        times, start = [], time.perf_counter()
        while not times or time.perf_counter() - start < limit:
            t = time.perf_counter()
            step()
            times.append((time.perf_counter() - t) * 1e3)
        print(json.dumps({"ms": times, "peak_kib": status_kib("VmHWM")}), file=answer, flush=True)
