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
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
MXCC = os.path.join(BUILD, "mxcc")


class Skipped(Exception):
    pass


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


def peer_python(name):
    folder = os.path.join(BUILD, "bench-env")
    python = os.path.join(folder, name, "bin", "python")
    if os.path.exists(python):
        return python
    reason = os.path.join(folder, name + ".missing")
    raise Skipped(open(reason).read().strip() if os.path.exists(reason) else "not installed: sh bench/peers.sh build/bench-env")


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


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


# ---- memory ----------------------------------------------------------------------------------------------------------------


def memory(options):
    import memory as suite  # imports this module
    return suite.memory(options)


# ---- over ranks --------------------------------------------------------------------------------------------------------------


def kvstore(options):
    from kvstore import suite  # imports this module
    return suite.kvstore(options)


def scaling(options):
    from scaling import suite  # imports this module
    return suite.scaling(options)


# ---- the engine --------------------------------------------------------------------------------------------------------------

# What a peer is compiled with: C or C++ sources of bench/engine, pkg-config packages, further flags.
ENGINE_PEERS = {
    "mxcc": (["main.c", "push_mxrt.c"], [], ["-lpthread"]),
    "MXNet": (["main.c", "push_mxnet.c"], [], ["-ldl"]),
    "OpenMP": (["main.c", "push_openmp.c"], [], ["-fopenmp", "-Dmain=engine_main"]),
    "StarPU": (["main.c", "push_starpu.c"], ["starpu-1.3"], []),
    "mxcc graph": (["graph_mxrt.c"], [], ["-lpthread"]),
    "oneTBB": (["graph_tbb.cpp"], ["tbb"], []),
}
ENGINE_SIZES = {"MXNet": [100000, 1000000], "mxcc": [100000, 1000000], "OpenMP": [100000, 1000000], "StarPU": [100000],
                "mxcc graph": [100000], "oneTBB": [100000]}


def engine_build(name, folder):
    sources, packages, flags = ENGINE_PEERS[name]
    target = os.path.join(folder, name.replace(" ", "-"))
    cpp = sources[0].endswith(".cpp")
    compiler = "g++" if cpp else "gcc"
    if not shutil.which(compiler):
        raise Skipped("no " + compiler)
    include = ["-I" + os.path.join(ROOT, "runtime", "include")]
    link = [os.path.join(BUILD, "libmxrt.a")] if name.startswith("mxcc") else []
    for package in packages:
        got = subprocess.run(["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True)
        if got.returncode != 0:
            raise Skipped("pkg-config finds no %s (Debian: libstarpu-dev, libtbb-dev)" % package)
        link += got.stdout.split()
    objects = []
    for source in sources: # only main.c is to have another main
        objects.append(os.path.join(folder, name.replace(" ", "-") + source + ".o"))
        own = [f for f in flags if f != "-Dmain=engine_main" or source == "main.c"]
        run(compiler, "-O2", *include, *[f for f in own if not f.startswith("-l")], *[f for f in link if f.startswith("-I")], "-c",
            os.path.join(HERE, "engine", source), "-o", objects[-1])
    run(compiler, *objects, *[f for f in flags if f != "-Dmain=engine_main"], *link, "-o", target)
    return target


def engine_once(program, environment, *arguments):
    """Nanoseconds an operation, by the clock and (0: not known) of processor time, or a reason."""
    try:
        got = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=30, env={**os.environ, **environment})
    except subprocess.TimeoutExpired:
        return None, "over half a minute"
    values = [tuple(map(float, (line + " 0").split()[:2])) for line in got.stdout.split("\n") if re.fullmatch(r"[0-9. ]+", line)]
    if got.returncode != 0 or not values:
        return None, ((got.stderr or "failed").strip().split("\n"))[-1][:100]
    return tuple(map(min, zip(*values))), None


def engine(options):
    """Each turn is a process of its own that runs a case twice (a graph six times) and gives the best; systems take turns, a row shows the median over the
    turns and, in brackets, the fastest."""
    rows, built, environment = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ENGINE_PEERS:
            try:
                built[name] = engine_build(name, folder)
                if name == "MXNet":
                    found = run(peer_python("mxnet"), "-c", "import importlib.util as u; print(u.find_spec('mxnet').submodule_search_locations[0])")
                    environment["MXNET_LIBRARY"] = os.path.join(found.stdout.strip(), "libmxnet.so")
            except (Skipped, subprocess.CalledProcessError) as why:
                built.pop(name, None)
                print("%s: skipped: %s" % (name, getattr(why, "stderr", None) or why))
        print("push to completion of an empty operation, ns (median; in brackets the fastest, and the least processor time of all threads)\n")
        for layer, names, cases in (("push", [n for n in built if n not in ("mxcc graph", "oneTBB")], ["independent", "chain", "random", "random-held"]),
                                    ("graph", [n for n in built if n in ("mxcc graph", "oneTBB")], ["chain", "random"])):
            for case in cases:
                for threads in options.threads:
                    for size in (100000, 1000000):
                        wanted = [n for n in names if size in ENGINE_SIZES[n]]
                        values, reasons = {n: [] for n in wanted}, {}
                        for _ in range(max(2, options.rounds // 2)):
                            for n in wanted:
                                if n not in reasons:
                                    value, why = engine_once(built[n], environment, case, threads, size, 2 if layer == "push" else 6)
                                    if why:
                                        reasons[n] = why
                                    else:
                                        values[n].append(value)
                        row = {"layer": layer, "case": case, "threads": threads, "operations": size, "reasons": reasons,
                               "ns": {n: {"median": statistics.median(w for w, _ in v), "min": min(w for w, _ in v), "processor": min(p for _, p in v)}
                                      for n, v in values.items() if v}}
                        if wanted and row["ns"]:
                            rows.append(row)
                            engine_show(row)
    return rows


def engine_show(row):
    ours = next((r for n, r in row["ns"].items() if n.startswith("mxcc")), None)
    cells = []
    for name, r in row["ns"].items():
        cells.append("%s %.0f (%.0f%s)" % (name, r["median"], r["min"], ", cpu %.0f" % r["processor"] if r["processor"] else "") + ("" if not ours or ours is r else " %.1fx" % (r["min"] / ours["min"])))
    cells += ["%s: %s" % item for item in row["reasons"].items() if "hold" not in item[1]]
    print("%-6s %-12s %d thread%s %8d operations   %s" %
          (row["layer"], row["case"], row["threads"], " " if row["threads"] == 1 else "s", row["operations"], "   ".join(cells)), flush=True)


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
