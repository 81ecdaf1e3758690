"""Predicts how training scales: `./MODEL exchange >MODEL.json`, then `python3 tools/scaling MODEL.json --step 0.107 --gpus 8 --nic 25`.

The model, its assumptions and how well it agrees with real runs: docs/scaling.md. Exit status 1: bad input."""
import argparse
import dataclasses
import json
import math
import sys

import chart
from network import Cluster
from schedule import BadInput, load
from simulation import simulate


def positive(text):
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("expected a number above zero, saw %s" % text)
    return value


def not_negative(text):
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("expected a number from zero on, saw %s" % text)
    return value


def counts(text):
    values = [int(n) for n in text.split(",")]
    if not all(1 <= n <= 65535 for n in values):
        raise argparse.ArgumentTypeError("expected numbers of workers from 1 to 65535, saw %s" % text)
    return sorted(set(values))


def options():
    p = argparse.ArgumentParser(prog="tools/scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", metavar="TABLE", help="what `./MODEL exchange` prints")
    p.add_argument("--step", type=positive, required=True, metavar="SECONDS", help="a step of one worker by itself: measure it")
    p.add_argument("--workers", type=counts, default=None, metavar="1,8,…", help="whole nodes (default: 1 to 1024)")
    p.add_argument("--gpus", type=int, default=1, metavar="N", help="workers of a node (default: 1)")
    p.add_argument("--nic", type=positive, required=True, metavar="GBIT", help="Gbit/s between nodes, in each direction")
    p.add_argument("--latency", type=not_negative, default=10, metavar="US", help="between nodes, one way, in microseconds (default: 10)")
    p.add_argument("--bus", type=positive, default=math.inf, metavar="GB", help="GB/s of a worker within the node, in each direction (default: no limit)")
    p.add_argument("--bus-latency", type=not_negative, default=3, metavar="US", help="within the node (default: 3)")
    p.add_argument("--add", type=positive, default=math.inf, metavar="GB", help="GB/s of gradients that a worker adds (default: no limit)")
    p.add_argument("--message", type=not_negative, default=1, metavar="US", help="a worker's time for a message, at each end (default: 1)")
    p.add_argument("--algorithm", choices=["flat", "hierarchical"], default="hierarchical",
                   help="hierarchical: ranks know their nodes; flat: they do not, or these are of no use (default: hierarchical)")
    p.add_argument("--bucket", type=int, default=0, metavar="BYTES", help="as the program's --bucket (default: as the program chooses)")
    p.add_argument("--jitter", type=not_negative, default=0, metavar="PERCENT", help="of a worker's computation from step to step: coefficient of variation")
    p.add_argument("--seed", type=int, default=1, help="of the jitter")
    p.add_argument("--steps", type=int, default=12, metavar="N", help="to simulate; the first four only warm up (default: 12)")
    p.add_argument("--json", metavar="FILE", help="write the results there, too")
    p.add_argument("--svg", metavar="FILE", help="draw efficiency over workers there")
    o = p.parse_args()
    for name in ("gpus", "steps"):
        if getattr(o, name) < 1:
            p.error("argument --%s: expected a number above zero, saw %d" % (name, getattr(o, name)))
    if o.bucket < 0:
        p.error("argument --bucket: expected bytes, saw %d" % o.bucket)
    return o


def cluster_of(o):
    return Cluster(nic=o.nic * 1e9 / 8, latency=o.latency * 1e-6, gpus=o.gpus, bus=o.bus * 1e9, bus_latency=o.bus_latency * 1e-6, add=o.add * 1e9,
                   message=o.message * 1e-6, algorithm=o.algorithm)


def row(outcome, cluster):
    values = dataclasses.asdict(outcome)
    values.update(nodes=cluster.nodes(outcome.ranks), efficiency=outcome.efficiency, hidden=outcome.hidden)
    return values


HEAD = "workers  nodes   step, ms  efficiency  hidden  sent by a node, MB  NIC busy  buckets"


def line(r):
    return "%7d %6d %10.2f %10.1f%% %6.0f%% %19.1f %8.0f%%  %s" % (
        r["ranks"], r["nodes"], r["step"] * 1e3, 100 * r["efficiency"], 100 * r["hidden"], r["nic_bytes"] / 1e6, 100 * r["nic_busy"],
        "%d from %d KiB" % (r["buckets"], r["bucket"] >> 10) if r["buckets"] else "-")


def main():
    o = options()
    schedule, cluster = load(o.table), cluster_of(o)
    workers = o.workers or sorted({1, *(n * o.gpus for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if n * o.gpus <= 1024)})
    rows = []
    print("%s: %.1f MB of gradients in %d tensors, %s" % (schedule.model, schedule.bytes / 1e6, len(schedule.tensors) - 1, o.algorithm))
    print(HEAD)
    for n in workers:
        rows.append(row(simulate(schedule, cluster, n, o.step, o.bucket, o.jitter / 100, o.seed, o.steps), cluster))
        print(line(rows[-1]), flush=True)
    if o.json:
        with open(o.json, "w") as f:
            json.dump({"model": schedule.model, "options": {k: v for k, v in vars(o).items() if v != math.inf}, "rows": rows}, f, indent=1)
            f.write("\n")
    if o.svg:
        with open(o.svg, "w") as f:
            f.write(chart.draw("%s: efficiency" % schedule.model, [(o.algorithm, [(r["ranks"], 100 * r["efficiency"]) for r in rows], False)]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BadInput, OSError) as why:
        print("tools/scaling: error: %s" % why, file=sys.stderr)
        sys.exit(1)
