#!/usr/bin/env python3
"""Measures mxcc beside its peers. `bench.py` lists the suites, `bench.py SUITE [--json FILE]` runs one.

Two systems are compared only within one run: all workers of a row are alive at once, take short turns, and are stopped
(SIGSTOP) while another has its turn; a row shows the median over all turns. Differences under 15% are noise on a shared machine.
"""
import argparse
import json
import os
import random
import re
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from common import BUILD, HERE, MXCC, ROOT, Skipped, peer_python, run


# ---- workers -------------------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, name, command, environment=None):
        self.name, self.ms, self.peak_kib = name, [], 0
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, **(environment or {})}, start_new_session=True)
        line = self.process.stdout.readline()
        while line and not line.startswith("READY "):
            line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise Skipped((self.log.read().strip().splitlines() or ["ended without a word"])[-1][:120])
        self.facts = json.loads(line[6:])
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def turn(self, seconds):
        self.signal(signal.SIGCONT)
        self.process.stdin.write("%g\n" % seconds)
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.signal(signal.SIGSTOP)
        self.ms += answer["ms"]
        self.peak_kib = answer["peak_kib"]

    def close(self):
        self.signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()

    def result(self):
        return {"median_ms": statistics.median(self.ms), "min_ms": min(self.ms), "steps": len(self.ms),
                "peak_mib": self.peak_kib / 1024, **self.facts}


def cpu_name():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    return "%d x %s" % (len(names), names[0] if names else "unknown")


# ---- training steps --------------------------------------------------------------------------------------------------------

STEPS = {"mlp": "MLP 784-512-512-10, batch 64", "lenet": "LeNet, batch 64"}


def library(model, folder, cpu="native"):
    target = os.path.join(folder, "lib%s.so" % model)
    run(MXCC, "build", os.path.join(HERE, "models", model + ".mxl"), "--cpu", cpu, "--threads", "-o", target)
    return target


def steps(options):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in STEPS:
            if options.only and model not in options.only:
                continue
            built = library(model, folder)
            for threads in options.threads:
                script = lambda kind: os.path.join(HERE, "worker_%s.py" % kind)
                wanted = [("mxcc", lambda: [sys.executable, script("mxcc"), model, str(threads), built]),
                          ("MXNet", lambda: [peer_python("mxnet"), script("mxnet"), model, str(threads)]),
                          ("torch", lambda: [peer_python("torch"), script("torch"), model, str(threads), "eager"])]
                if options.compile:
                    wanted.append(("torch.compile", lambda: [peer_python("torch"), script("torch"), model, str(threads), "compile"]))
                workers, row = [], {"workload": model, "title": STEPS[model], "threads": threads, "systems": {}, "skipped": {}}
                for name, command in wanted:
                    try:
                        workers.append(Worker(name, command()))
                    except Skipped as why:
                        row["skipped"][name] = str(why)
                for _ in range(options.rounds):
                    for w in workers:
                        w.turn(options.burst)
                for w in workers:
                    row["systems"][w.name] = w.result()
                    w.close()
                peers = {n: r["median_ms"] for n, r in row["systems"].items() if n != "mxcc"}
                if peers and "mxcc" in row["systems"]:
                    row["best_peer"] = min(peers, key=peers.get)
                    row["ratio_to_best_peer"] = row["systems"]["mxcc"]["median_ms"] / peers[row["best_peer"]]
                rows.append(row)
                show_step(row, first=len(rows) == 1)
    return rows


def show_step(row, first):
    if first:
        print("training step, ms (median; in brackets the fastest)    f32, forward + loss + backward + SGD\n")
        print("%-30s %7s  %-14s %17s %9s %9s" % ("", "threads", "", "ms", "MiB", "mxcc is"))
    ours = row["systems"].get("mxcc")
    for i, (name, r) in enumerate(row["systems"].items()):
        ratio = "" if name == "mxcc" or not ours else "%.2fx" % (r["median_ms"] / ours["median_ms"])
        print("%-30s %7s  %-14s %8.2f (%6.2f) %9.0f %9s" % (row["title"] if i == 0 else "", row["threads"] if i == 0 else "", name,
                                                            r["median_ms"], r["min_ms"], r["peak_mib"], ratio))
    for name, why in row["skipped"].items():
        print("%-30s %7s  %-14s skipped: %s" % ("", "", name, why))
    print(flush=True)


# ---- the compiler itself ---------------------------------------------------------------------------------------------------


def compile_time(options):
    source = os.path.join(ROOT, "samples", "digits.mxl")
    if not os.path.exists(source):
        print("compile time: skipped, no samples/digits.mxl")
        return None
    times = []
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "digits.c")
        for _ in range(9):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(MXCC, source, "-o", target, "--main", "--threads", cwd=os.path.dirname(source))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        size = os.path.getsize(target)
    result = {"median_s": statistics.median(times), "min_s": min(times), "target_s": 0.2, "bytes": size}
    print("mxcc compiles digits in %.3f s of processor time (target 0.2) to %d KiB of C\n" % (result["median_s"], size // 1024), flush=True)
    return result


# ---- eager beside compiled -----------------------------------------------------------------------------------------------------


def idx_files(folder, name, count):
    """Random images and labels in the IDX format; only their number matters."""
    images, labels = os.path.join(folder, name + "-images"), os.path.join(folder, name + "-labels")
    with open(images, "wb") as f:
        f.write(struct.pack(">IIII", 0x803, count, 28, 28) + random.Random(1).randbytes(count * 784))
    with open(labels, "wb") as f:
        f.write(struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)))
    return images, labels


def eager(options):
    """The time of a training step, eagerly and compiled, as the difference of two runs of different length: starting up, loading data
    and evaluation drop out."""
    source = os.path.join(ROOT, "samples", "fashion.mxl")
    if not os.path.exists(source):
        print("eager: skipped, no samples/fashion.mxl\n")
        return None
    batch = 64
    result = {}
    with tempfile.TemporaryDirectory() as folder:

        def model(name, steps):
            text = open(source).read()
            for part, count in (("train", steps * batch), ("t10k", batch)):
                for kind, path in zip(("images-idx3", "labels-idx1"), idx_files(folder, name + part, count)):
                    text = re.sub(r'"[^"]*%s-%s-ubyte(\.gz)?"' % (part, kind), json.dumps(path), text)
            target = os.path.join(folder, name + ".mxl")
            open(target, "w").write(text)
            return target

        def seconds(how, steps):
            path = model("fashion", steps)
            command = [MXCC, "run", path]
            if how == "compiled":
                command = [os.path.join(folder, "fashion")]
                run(MXCC, "build", path, "--cpu", "native", "--threads", "--main", "-o", command[0])
            best = None
            for _ in range(3):
                with tempfile.TemporaryDirectory() as out:
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    run(*command, "--epochs", "1", "--batch", str(batch), "--threads", "1", cwd=out)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                t = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                best = t if best is None else min(best, t)
            return best

        try:
            for how, (few, many) in {"eager": (1, 4), "compiled": (2, 32)}.items():
                result[how + "_step_s"] = (seconds(how, many) - seconds(how, few)) / (many - few)
        except subprocess.CalledProcessError as e:
            print("eager: skipped: %s\n" % ((e.stderr or e.stdout).strip().splitlines() or ["failed"])[-1])
            return None
    result["ratio"] = result["eager_step_s"] / result["compiled_step_s"]
    print("fashion, a step of training, one thread: eager %.1f ms, compiled %.1f ms of processor time: %.1fx (target 30)\n" %
          (result["eager_step_s"] * 1e3, result["compiled_step_s"] * 1e3, result["ratio"]), flush=True)
    return result


# ---- sizes -----------------------------------------------------------------------------------------------------------------


def text_bytes(path):
    """Code and constants of an object file or of an archive's members."""
    total = 0
    for line in run("size", path).stdout.splitlines()[1:]:
        total += int(line.split()[0])
    return total


def sizes(options):
    source = os.path.join(ROOT, "samples", "digits.mxl")
    if not os.path.exists(source):
        print("sizes: skipped, no samples/digits.mxl")
        return None
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        only = os.path.join(folder, "digits.mxl")
        text = open(source).read()
        # The inference unit exports `predict` alone; what nothing reaches is not generated.
        text = re.sub(r"(?m)^export (train )?fn (?!predict\b)", r"\1fn ", text)
        text = re.sub(r"(?m)^train fn ", "fn ", text)
        text = re.sub(r"(?ms)^train \{.*?^\}\n", "", text)
        open(only, "w").write(text)
        unit, obj = os.path.join(folder, "digits.c"), os.path.join(folder, "digits.o")
        run(MXCC, only, "--no-runtime", "-o", unit)
        run("cc", "-std=c99", "-Os", "-ffunction-sections", "-c", unit, "-o", obj)
        result["digits_inference_bytes"] = text_bytes(obj)
        run("cc", "-std=c99", "-Os", "-DDIGITS_NO_STDIO", "-c", unit, "-o", obj)
        result["digits_inference_no_stdio_bytes"] = text_bytes(obj)
        main, threads = os.path.join(folder, "pool.c"), os.path.join(folder, "pool")
        open(main, "w").write('#include "mxrt/pool.h"\nstatic void f(void *c, int64_t i) { (void)c; (void)i; }\n'
                              "int main(void) { struct mxrt_pool *p = mxrt_pool_acquire(2); mxrt_parallel(p, 2, f, 0);"
                              " mxrt_pool_release(p); return 0; }\n")
        flags = run(MXCC, "--cflags").stdout.split()
        chart = os.path.join(folder, "map")
        run("cc", "-O2", *flags, main, os.path.join(BUILD, "libmxrt.a"), "-lpthread", "-o", threads, "-Wl,-Map=" + chart)
        mapped = open(chart).read()
        members = sorted(set(re.findall(r"libmxrt\.a\(([^)]+)\)", mapped)))
        total = 0
        for line in run("size", os.path.join(BUILD, "libmxrt.a")).stdout.splitlines()[1:]:
            parts = line.split()
            if any(m in line for m in members):
                total += int(parts[0])
        result["mxrt_threads_members"] = members
        result["mxrt_threads_bytes"] = total
    print("digits, inference only, portable, -Os: %.1f KiB, without file access %.1f KiB (target 16)" %
          (result["digits_inference_bytes"] / 1024, result["digits_inference_no_stdio_bytes"] / 1024))
    print("libmxrt linked for threads: %.1f KiB (target 24): %s\n" % (total / 1024, " ".join(members)), flush=True)
    return result


# ---- suites in files of their own --------------------------------------------------------------------------------------------


def engine(options):
    from engine import suite
    return suite.engine(options)


def memory(options):
    import memory as suite
    return suite.memory(options)


def kvstore(options):
    from kvstore import suite
    return suite.kvstore(options)


def scaling(options):
    from scaling import suite
    return suite.scaling(options)


# ---- suites ----------------------------------------------------------------------------------------------------------------

SUITES = {
    "small": ("training steps of an MLP and LeNet beside PyTorch and MXNet, compile time, eager against compiled, sizes",
              [("steps", steps), ("compile", compile_time), ("eager", eager), ("sizes", sizes)]),
    "engine": ("the dependency engine beside MXNet's, OpenMP, StarPU; its graph layer beside oneTBB", [("engine", engine)]),
    "steps": ("only the training steps", [("steps", steps)]),
    "memory": ("the memory of a training step of each network of samples/zoo beside PyTorch and MXNet", [("memory", memory)]),
    "kvstore": ("training over 2 and 4 hosts with limited links beside MXNet's dist_sync, PyTorch's DistributedDataParallel and Horovod (as root)",
                [("kvstore", kvstore)]),
    "scaling": ("training on up to 1,024 GPUs by simulation, and the model's error against real runs of 2 to 8 ranks (these as root)", [("scaling", scaling)]),
    "own": ("only what needs no peer: compile time, eager against compiled, sizes",
            [("compile", compile_time), ("eager", eager), ("sizes", sizes)]),
}


def main():
    p = argparse.ArgumentParser(description="speed of mxcc beside its peers")
    p.add_argument("suite", nargs="?", choices=sorted(SUITES))
    p.add_argument("--json", metavar="FILE", help="also write the results there (- : standard output, and no tables)")
    p.add_argument("--threads", type=lambda s: [int(t) for t in s.split(",")], default=[1, 2], metavar="1,2")
    p.add_argument("--only", type=lambda s: s.split(","), metavar="mlp,lenet")
    p.add_argument("--rounds", type=int, default=8, help="turns of each system")
    p.add_argument("--burst", type=float, default=0.3, metavar="SECONDS", help="length of a turn")
    p.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    words = lambda s: s.split(",")
    p.add_argument("--ranks", type=lambda s: [int(n) for n in s.split(",")], default=[2, 4], metavar="2,4", help="kvstore: hosts")
    p.add_argument("--per-host", type=int, default=1, metavar="N", help="kvstore: ranks of each")
    p.add_argument("--links", type=words, default=["1gbit", "10gbit"], metavar="1gbit,10gbit", help="kvstore: between them")
    p.add_argument("--systems", type=words, default=["mxcc", "MXNet", "torch", "Horovod"], metavar="mxcc,…", help="kvstore: which")
    p.add_argument("--kinds", type=words, default=["sleep", "real"], metavar="sleep,real", help="kvstore: how steps compute")
    p.add_argument("--steps", type=int, default=4, help="kvstore: steps of a turn")
    options = p.parse_args()
    if not options.suite:
        for name, (text, _) in SUITES.items():
            print("./run bench %-8s %s" % (name, text))
        return 0
    if not os.path.exists(MXCC):
        sys.exit("bench: %s is missing: ./run build" % MXCC)
    out = sys.stdout
    if options.json == "-":
        sys.stdout = open(os.devnull, "w")
    if "BENCH_KVSTORE_INSIDE" not in os.environ:  # started again, kvstore/hosts.py
        print("%s, %s, %s\n" % (time.strftime("%Y-%m-%d"), cpu_name(), run(MXCC, "--version").stdout.split("\n")[0]), flush=True)
    results = {"date": time.strftime("%Y-%m-%dT%H:%M:%S"), "machine": cpu_name(), "suite": options.suite}
    for name, section in SUITES[options.suite][1]:
        results[name] = section(options)
    if options.json == "-":
        json.dump(results, out, indent=1)
        out.write("\n")
    elif options.json:
        with open(options.json, "w") as f:
            json.dump(results, f, indent=1)
            f.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
