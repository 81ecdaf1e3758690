"""`./run bench scaling`: what the model of tools/scaling says of ResNet-50 on up to 1,024 GPUs, and how far it is from real runs of 2 to 8 ranks.

A real run is the generated program over Open MPI, on hosts with limited links (bench/kvstore/hosts.py), with computation replaced by sleep at the times the compiler's
tables imply (bench/kvstore/worker_mxcc.c). The model gets what was measured beforehand and nothing of the run itself: the time of a message, the rate of a large
sum by itself, the rate at which runtime/net adds. What the numbers mean: docs/scaling.md."""
import math
import os
import shutil
import sys
import tempfile

from common import BUILD, HERE, MXCC, ROOT, Skipped, run
from kvstore import hosts
from kvstore import suite as kvstore

sys.path.insert(0, os.path.join(ROOT, "tools", "scaling"))
import chart
from network import Cluster
from schedule import load
from simulation import simulate

FOLDER = os.path.join(HERE, "scaling")
PICTURE = os.path.join(ROOT, "docs", "pictures", "scaling.svg")

# Real runs: model, seconds of computation, Gbit/s, microseconds one way.
CHECKS = [("resnet50", 4, 0.2, 1000), ("resnet50", 8, 0.2, 1000), ("lstm_lm", 3, 0.2, 1000)]
RANKS = [2, 4, 8]
CHECK_STEPS, HOPS, SUM_MB, SUMS = 2, 100, 64, 2

# Seconds of a ResNet-50 step of one GPU, and where they are from (docs/scaling.md).
GPUS = {
    "K80, batch 32": 32 / 49.48,
    "V100, FP32, batch 32": 32 / 298.51,
    "V100, FP32, batch 96": 96 / 384,
    "V100, mixed precision, batch 192": 192 / 1376,
    "A100, mixed precision, batch 256": 256 / 2180,
}
# Of a node, bytes/s of a GPU in each direction within it: PCIe 3 x16, NVLink 2 (6 links of 25 GB/s, 8 of 10 used), NVLink 3.
BUSES = {"K80": 8e9, "V100": 120e9, "A100": 240e9}
ADDS = {"K80": 60e9, "V100": 300e9, "A100": 500e9}  # bytes of summands a second: a third of the memory's rate
NICS = [25, 100]  # Gbit/s of a node
WORKERS = [1, 8, 16, 64, 256, 1024]
JITTERS = [0, 1, 2, 5]  # percent
REACHES = [1.0, 0.7, 0.5]  # of a NIC's rate that sums get
STEPS = 8  # simulated; half of them only warm up


# ---- programs ------------------------------------------------------------------------------------------------------------------


def program(model):
    """The worker and the table of what it sends. Not optimised: it is to sleep."""
    folder = os.path.join(BUILD, "bench-scaling")
    os.makedirs(folder, exist_ok=True)
    source, worker = os.path.join(HERE, "models", model + "_ranks.mxl"), os.path.join(HERE, "kvstore", "worker_mxcc.c")
    target = os.path.join(folder, model + "_ranks")
    table = target + ".json"
    made_of = [source, worker, MXCC, os.path.join(BUILD, "libmxrt.a")]
    if not os.path.exists(table) or any(os.path.getmtime(p) > os.path.getmtime(table) for p in made_of):
        run(MXCC, source, "--main", "-o", target + ".c")
        flags, libraries = run(MXCC, "--cflags").stdout.split(), run(MXCC, "--libs").stdout.split()
        run("cc", "-O0", "-w", *flags, "-Wl,--wrap=mxrt_main", target + ".c", worker, *libraries, "-o", target)
        text = run(target, "exchange").stdout
        with open(table, "w") as f:
            f.write(text)
    return target, table


def net_program():
    """A worker that waits at barriers or sums (net.c)."""
    target = os.path.join(BUILD, "bench-scaling", "net")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    run("cc", "-O2", *run(MXCC, "--cflags").stdout.split(), os.path.join(FOLDER, "net.c"), *run(MXCC, "--libs").stdout.split(), "-ldl", "-o", target)
    return target


def adding_rate():
    """Bytes of summands a second, as runtime/net adds those of eight ranks."""
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "add")
        run("cc", "-O2", "-I", ROOT, *run(MXCC, "--cflags").stdout.split(), os.path.join(FOLDER, "add.c"), *run(MXCC, "--libs").stdout.split(), "-o", target)
        return float(run(target).stdout)


# ---- real runs -----------------------------------------------------------------------------------------------------------------

def measure_net(count, gigabits, delay, model, folder):
    """Seconds of a message, and bytes/s that a host sends in a large sum over `count` hosts by itself, while this machine is as busy as it is."""
    network = hosts.Network(count, gigabits, delay, folder)
    job = None
    try:
        job = kvstore.Job("mxcc", network, folder, (net_program(), ""), model, "sleep")
        rounds = math.ceil(math.log2(count))  # of a barrier, one message after the other
        return job.turn(HOPS, 0)[0] / rounds, 2 * (count - 1) / count * SUM_MB * 1e6 / job.turn(SUMS, SUM_MB)[0]
    finally:
        if job:
            job.close()
        network.close()


def with_bucket(worker, bucket, folder):
    """The worker with its buckets of this size: it would choose by the time of its first step, in which it waits for the driver."""
    path = os.path.join(folder, "worker")
    with open(path, "w") as f:
        f.write('#!/bin/sh\nexec "%s" "$@" --bucket %d\n' % (worker, bucket))
    os.chmod(path, 0o755)
    return path


def check_row(model, seconds, gigabits, delay, count, cluster, folder):
    worker, table = program(model)
    schedule = load(table)
    network = hosts.Network(count, gigabits, delay, folder)
    job = None
    try:
        bucket = schedule.choose(seconds, count, *cluster.measured(count))
        job = kvstore.Job("mxcc", network, folder, (with_bucket(worker, bucket, folder), table), model, "sleep")
        job.turn(1, seconds)
        real, sent = job.turn(CHECK_STEPS, seconds)
        silent, _ = job.turn(1, 0)
    finally:
        if job:
            job.close()
        network.close()
    said = simulate(schedule, cluster, count, seconds, bucket)
    return {"model": model, "compute": seconds, "gigabits": gigabits, "ranks": count, "bucket": bucket, "bandwidth": cluster.nic, "latency": cluster.latency,
            "real": real, "said": said.step, "error": said.step / real - 1, "real_communicate": silent, "said_communicate": said.communicate,
            "error_communicate": said.communicate / silent - 1, "real_bytes": sent / count, "said_bytes": said.nic_bytes}


def check(options):
    rows, skipped = [], []
    add = adding_rate()
    print("runtime/net adds %.1f GB/s of summands on this machine\n\nreal runs with computation asleep, beside the model\n" % (add / 1e9))
    print("%-9s %5s %9s %8s %9s   %26s   %26s   %17s" % ("model", "ranks", "link", "one way", "compute", "step, s: real, said, error", "no computation: the same", "MB sent by a rank"))
    with tempfile.TemporaryDirectory() as folder:
        written, clusters = set(), {}
        for model, seconds, gigabits, delay in CHECKS:
            if options.only and model not in options.only:
                continue
            if model not in written:
                kvstore.write_data(model, folder)
                written.add(model)
            for count in RANKS:
                try:
                    part = tempfile.mkdtemp(dir=folder)
                    if (gigabits, delay, count) not in clusters:
                        latency, rate = measure_net(count, gigabits, delay, model, part)
                        clusters[gigabits, delay, count] = Cluster(nic=rate, latency=latency, add=add)
                    r = check_row(model, seconds, gigabits, delay, count, clusters[gigabits, delay, count], tempfile.mkdtemp(dir=folder))
                except (hosts.Unavailable, Skipped) as why:
                    skipped.append("%s, %d ranks: %s" % (model, count, why))
                    print("%-9s %5d skipped: %s" % (model, count, why), flush=True)
                    continue
                rows.append(r)
                print("%-9s %5d %5.1f MB/s %5.2f ms %7.1f s   %8.2f %8.2f %+7.1f%%   %8.2f %8.2f %+7.1f%%   %8.1f %8.1f" %
                      (model, count, r["bandwidth"] / 1e6, r["latency"] * 1e3, seconds, r["real"], r["said"], 100 * r["error"], r["real_communicate"],
                       r["said_communicate"], 100 * r["error_communicate"], r["real_bytes"] / 1e6, r["said_bytes"] / 1e6), flush=True)
    if rows:
        errors = [abs(r["error"]) for r in rows]
        print("\nerror of a step's time: %.1f%% on average, %.1f%% at most, over %d runs\n" % (100 * sum(errors) / len(errors), 100 * max(errors), len(rows)))
    return {"add": add, "rows": rows, "skipped": skipped}


# ---- what it says ----------------------------------------------------------------------------------------------------------------


def cluster(gpu, gigabits, algorithm, reach=1.0):
    kind = gpu.split(",")[0]
    return Cluster(nic=reach * gigabits * 1e9 / 8, latency=10e-6, gpus=8, bus=BUSES[kind], bus_latency=3e-6, add=ADDS[kind], message=1e-6, algorithm=algorithm)


def predict():
    schedule = load(program("resnet50")[1])
    rows = []
    print("ResNet-50, %.1f MB of gradients, nodes of 8 GPUs: efficiency in percent of linear (share of communication hidden)\n" % (schedule.bytes / 1e6))
    print("%-34s %5s  %-13s" % ("GPU", "Gbit", "algorithm") + "".join("%13d" % n for n in WORKERS))
    for gpu, seconds in GPUS.items():
        for gigabits in NICS:
            for algorithm in ("hierarchical", "flat"):
                cells = []
                for n in WORKERS:
                    o = simulate(schedule, cluster(gpu, gigabits, algorithm), n, seconds, steps=STEPS)
                    rows.append({"gpu": gpu, "gigabits": gigabits, "algorithm": algorithm, "ranks": n, "step": o.step, "efficiency": o.efficiency, "hidden": o.hidden})
                    cells.append("%5.1f (%3.0f)" % (100 * o.efficiency, 100 * o.hidden))
                print("%-34s %5d  %-13s" % (gpu, gigabits, algorithm) + "".join("%13s" % c for c in cells), flush=True)
    return schedule, rows


HARSH = [8, 64, 256, 1024]  # workers


def reach(schedule):
    """Where the NIC's rate is not reached."""
    rows = []
    print("\nhierarchical, where sums get a part of the NIC's rate\n")
    print("%-34s %5s  %-13s" % ("GPU", "Gbit", "of its rate") + "".join("%11d" % n for n in HARSH))
    for gpu in ("V100, FP32, batch 32", "V100, mixed precision, batch 192", "A100, mixed precision, batch 256"):
        for part in REACHES:
            cells = []
            for n in HARSH:
                o = simulate(schedule, cluster(gpu, 25, "hierarchical", part), n, GPUS[gpu], steps=STEPS)
                rows.append({"gpu": gpu, "reach": part, "ranks": n, "efficiency": o.efficiency})
                cells.append("%.1f" % (100 * o.efficiency))
            print("%-34s %5d  %-13s" % (gpu, 25, "%d%%" % (100 * part)) + "".join("%11s" % c for c in cells), flush=True)
    return rows


def jitter(schedule):
    """Where ranks differ from step to step."""
    rows, gpu = [], "V100, FP32, batch 32"
    print("\nhierarchical, where a rank's step varies by so much of its time (coefficient of variation)\n")
    print("%-34s %5s  %-13s" % ("GPU", "Gbit", "variation") + "".join("%11d" % n for n in HARSH))
    for percent in JITTERS:
        cells = []
        for n in HARSH:
            o = simulate(schedule, cluster(gpu, 25, "hierarchical"), n, GPUS[gpu], jitter=percent / 100, steps=16)
            rows.append({"jitter": percent, "ranks": n, "efficiency": o.efficiency})
            cells.append("%.1f" % (100 * o.efficiency))
        print("%-34s %5d  %-13s" % (gpu, 25, "%d%%" % percent) + "".join("%11s" % c for c in cells), flush=True)
    return rows


def write_picture(results):
    """V100 at batch 32, the hardest of the GPUs: as the network is, where it gives less, where ranks differ; and the flat sum."""
    gpu, lines = "V100, FP32, batch 32", []

    def add(name, rows, is_flat=False):
        lines.append((name, [(r["ranks"], 100 * r["efficiency"]) for r in rows], is_flat))

    def predicted(gpu, gigabits, algorithm):
        return [r for r in results["predicted"] if (r["gpu"], r["gigabits"], r["algorithm"]) == (gpu, gigabits, algorithm)]

    add("25 Gbit/s", predicted(gpu, 25, "hierarchical"))
    for part in REACHES[1:]:
        add("… %d%% of its rate reached" % (100 * part), [r for r in results["reach"] if r["gpu"] == gpu and r["reach"] == part])
    for percent in JITTERS[1:]:
        add("… steps vary by %d%%" % percent, [r for r in results["jitter"] if r["jitter"] == percent])
    for gigabits in NICS:
        add("flat, %d Gbit/s" % gigabits, predicted(gpu, gigabits, "flat"), True)
    add("flat, 25 Gbit/s, K80", predicted("K80, batch 32", 25, "flat"), True)
    with open(PICTURE, "w") as f:
        f.write(chart.draw("ResNet-50, V100 in FP32 at batch 32, nodes of 8: efficiency by simulation", lines, target=("MXNet's report for 256 GPUs: 90%", 90)))
    print("\n%s is written" % os.path.relpath(PICTURE, ROOT))


def scaling(options):
    results = {}
    try:
        hosts.enter("BENCH_SCALING_INSIDE")
        if not shutil.which("mpirun"):
            raise hosts.Unavailable("no mpirun (Debian: openmpi-bin)")
        if not os.path.exists(os.path.join(BUILD, "libmxrt-mpi.so")):
            raise hosts.Unavailable("no libmxrt-mpi.so: install libopenmpi-dev, then meson setup --reconfigure %s && ninja -C %s" % ((os.path.relpath(BUILD, ROOT),) * 2))
        results["check"] = check(options)
    except hosts.Unavailable as why:
        print("scaling: the check is skipped: %s\n" % why)
    schedule, results["predicted"] = predict()
    results["reach"] = reach(schedule)
    results["jitter"] = jitter(schedule)
    write_picture(results)
    return results
