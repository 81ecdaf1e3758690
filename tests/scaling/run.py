#!/usr/bin/env python3
"""The model of tools/scaling: run.py --mxcc build/mxcc [--only WORDS].

Against closed forms where there are any, against laws that hold for any input, and its buckets against those that runtime/program/rank_buckets.c
cuts for the same program (buckets.c). The last line is `N passed, N failed`; exit status 1 if any failed."""
import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOL = os.path.join(ROOT, "tools", "scaling")
sys.dont_write_bytecode = True
sys.path.insert(0, TOOL)
import network
import ways
from network import Cluster
from schedule import SIZES, BadInput, Schedule
from simulation import simulate

WHOLE = 1 << 40  # a bucket that holds everything
MXCC = None


class Failed(Exception):
    pass


def near(what, got, expected, part=1e-9):
    if not abs(got - expected) <= max(part * max(abs(got), abs(expected)), 1e-12):
        raise Failed("%s: expected %.12g, got %.12g" % (what, expected, got))


def holds(what, condition):
    if not condition:
        raise Failed(what)


def table(sizes, work=3e9, rows=0, row_elements=1):
    """A net with one tensor a layer: forward a third of the work, layers alike; the last layer's gradient is final first."""
    n = len(sizes)
    tensors = [{"name": "t%d" % i, "dtype": "f32", "elements": b // 4, "bytes": b, "row_elements": row_elements, "rows_touched": rows, "group": n - 1 - i,
                "flops_before": work / 3 + (i + 1) * 2 * work / 3 / n} for i, b in enumerate(sizes)]
    groups = [{"group": g, "tensors": ["t%d" % (n - 1 - g)], "flops_before_need": work / 3 * g / n} for g in range(n)]
    return {"model": "net", "report": False, "tensors": tensors, "groups": groups}


def net(layers=20, size=1 << 20):
    return Schedule(table([size] * layers))


def bare(table):
    """Without the status of a step, which is a few bytes in a bucket of its own."""
    s = Schedule(table)
    s.tensors.pop()
    return s


def bytes_in_one(schedule):
    """Of a bucket with everything: tensors are aligned."""
    return schedule.cut(WHOLE, 2)[0].bytes


# ---- closed forms


def one_worker():
    for algorithm in ("flat", "hierarchical"):
        o = simulate(net(), Cluster(nic=1e6, latency=1, algorithm=algorithm), 1, 0.25)
        near("a step", o.step, 0.25)
        near("efficiency", o.efficiency, 1)


def bare_links(cluster, ranks):
    """The time of a sum in stages by itself: per stage an offer, a grant and the part, each way."""
    def seconds(size, radices):
        total, stride, left = size / cluster.add, 1, size
        for k, radix in enumerate(radices):
            left /= radix
            is_far = stride * radix > cluster.gpus
            rate, latency, sharing = (cluster.nic, cluster.latency, min(cluster.gpus, ranks)) if is_far else (cluster.bus, cluster.bus_latency, 1)
            frames = 3 + int(left / network.PIECE_BYTES)
            total += 2 * (2 * (radix - 1) * frames * cluster.message + 3 * latency + (radix - 1) * left * sharing / rate)
            total += left * radix / cluster.add if k else 0
            stride *= radix
        return total
    return seconds


def one_bucket():
    """Nothing overlaps: the whole bucket is sent behind the step, and the next one begins with it. One chunk, in parts that are offered and leave at once."""
    size = 1 << 17
    s = bare(table([size]))
    b, kinds, most = bytes_in_one(s), set(), ways.MOST_CHUNKS
    ways.MOST_CHUNKS = 1
    for n, gpus in ((2, 1), (3, 1), (8, 1), (8, 2), (8, 4), (16, 2)):
        c = Cluster(nic=1e9, latency=1e-6, gpus=gpus, bus=1e10, bus_latency=1e-7, add=1e9, message=1e-6, algorithm="hierarchical")
        way = c.way(n, b // 4)
        holds("in stages, one chunk: %s" % (way,), way.kind == "stages" and way.chunk * 4 >= b and b / n > network.EAGER_BYTES)
        kinds.add(len(way.radix))
        o = simulate(s, c, n, 0.5, bucket=WHOLE)
        seconds = bare_links(c, n)(b, way.radix)
        near("%d ranks, %d a node" % (n, gpus), o.step, 0.5 + seconds)
        near("%d ranks, bytes" % n, o.nic_bytes, 2 * (n // gpus - 1) / (n // gpus) * b)
        near("%d ranks, communication alone" % n, o.communicate, o.step - 0.5)
        near("%d ranks, hidden" % n, o.hidden, 0)
    ways.MOST_CHUNKS = most
    ways.choose.cache_clear()
    holds("one stage, and more", 1 in kinds and len(kinds) > 1)


def long_wire():
    """So little bandwidth that the wire never rests: a step takes as long as its bytes."""
    s = net(16, 1 << 20)
    o = simulate(s, Cluster(nic=1e6, latency=0), 4, 0.01, bucket=1 << 20, steps=24)
    near("a step", o.step, o.nic_bytes / 1e6, 0.01)


def half_hidden():
    """Two layers, a bucket each. The first to be sent is hidden behind the other layer's backward pass, the other is needed at once; what is left of it shows."""
    size = 1 << 16
    s = bare(table([size, size // 2]))
    c = Cluster(nic=size / 0.1, latency=0)
    buckets = s.cut(size, 2)
    holds("two buckets", len(buckets) == 2)
    o = simulate(s, c, 2, 3, bucket=size, steps=20)
    near("a step", o.step, 3 + buckets[1].bytes / c.nic)
    near("communication alone", o.communicate, (buckets[0].bytes + buckets[1].bytes) / c.nic)


def report():
    """A step that reports averages hides nothing behind the next one, only behind itself."""
    size = 1 << 16
    t = table([size, size // 2])
    t["report"] = True
    s, c = bare(t), Cluster(nic=size / 0.1, latency=0)
    o = simulate(s, c, 2, 3, bucket=size)
    near("a step", o.step, 3 + s.cut(size, 2)[1].bytes / c.nic)
    long = simulate(s, c, 2, 1e-3, bucket=size)
    near("a short step", long.step, long.communicate + 1e-3, 1e-2)


def no_limit():
    for algorithm in ("flat", "hierarchical"):
        for n in (8, 64, 1024):
            o = simulate(net(), Cluster(nic=math.inf, latency=0, gpus=8, algorithm=algorithm), n, 0.1)
            near("%s, %d workers" % (algorithm, n), o.efficiency, 1)


# ---- laws


def bytes_kept():
    """What goes over a node's wire is at least what each node's sum needs, and at most what all its ranks' do, whatever the ways."""
    r = random.Random(3)
    for _ in range(30):
        s = Schedule(table([4 * r.randrange(1, 1 << 16) * 16 for _ in range(r.randrange(1, 30))]))  # whole lines: nothing is aligned
        total = s.bytes + s.tensors[-1].bytes
        n, gpus = r.choice([2, 3, 4, 8, 16]), r.choice([1, 4])
        if n > gpus and n % gpus:
            continue
        c = dict(nic=10 ** r.uniform(6, 10), latency=10 ** r.uniform(-6, -2), gpus=gpus, bus=1e9, add=1e9, message=1e-6)
        bucket = 1 << r.randrange(14, 24)
        inside = min(gpus, n)
        for algorithm in ("flat", "hierarchical"):
            sent = simulate(s, Cluster(**c, algorithm=algorithm), n, 10 ** r.uniform(-3, 0), bucket).nic_bytes
            least, most = 2 * total * (1 - inside / n), 2 * total * (1 - inside / n) * inside
            holds("%s, %d ranks, %d a node: %g is not from %g to %g" % (algorithm, n, gpus, sent, least, most), least * (1 - 1e-6) <= sent <= most * (1 + 1e-6))
            if gpus == 1:
                near("nodes of one rank", sent, least, 1e-6)


def bounds():
    """No step is shorter than its computation, or than its bytes on the busiest link; none is longer than both one after the other, by more than latencies."""
    r = random.Random(4)
    for _ in range(40):
        s = net(r.randrange(2, 40), 4 * r.randrange(1 << 12, 1 << 18))
        n = r.choice([2, 4, 8, 32])
        c = Cluster(nic=10 ** r.uniform(7, 10), latency=10 ** r.uniform(-6, -3), gpus=r.choice([1, 2]), bus=1e11, algorithm=r.choice(["flat", "hierarchical"]))
        seconds = 10 ** r.uniform(-2, 0)
        o = simulate(s, c, n, seconds)
        holds("shorter than its computation", o.step >= seconds * (1 - 1e-9))
        holds("shorter than its bytes", o.step >= o.nic_bytes / c.nic * (1 - 0.02))
        holds("longer than one after the other: %g, %g and %g" % (o.step, seconds, o.communicate), o.step <= (seconds + o.communicate) * 1.05)
        holds("the NIC is busy for more than the time", o.nic_busy <= 1.02)
        holds("hidden is a share", 0 <= o.hidden <= 1)


def monotone():
    s = net(30, 1 << 18)
    base = dict(nic=1e9, latency=2e-5, gpus=4, bus=1e10, bus_latency=2e-6, add=1e10, message=1e-6)
    for algorithm in ("flat", "hierarchical"):
        base["gpus"] = 1 if algorithm == "flat" else 4  # who does not know of nodes may choose well by chance

        def step(n=32, **change):
            return simulate(s, Cluster(**{**base, **change}, algorithm=algorithm), n, 0.02, bucket=1 << 20).step
        for name, worse in (("nic", 0.5), ("bus", 0.1), ("add", 0.01), ("latency", 20), ("message", 50), ("bus_latency", 20)):
            got = step(**{name: base[name] * worse})
            holds("%s: a worse %s makes steps shorter: %g, %g" % (algorithm, name, got, step()), got >= step() * (1 - 1e-9))
        steps = [step(n) for n in (4, 8, 16, 32, 64, 128)]
        holds("%s: more workers make steps shorter: %s" % (algorithm, steps), all(b >= a / ways.STAGES_WORSE for a, b in zip(steps, steps[1:])))  # a better way is taken when it promises so much


def jitter():
    s, c = net(), Cluster(nic=1e12, latency=0)
    efficiency = [simulate(s, c, 64, 0.1, jitter=j, steps=40).efficiency for j in (0, 0.01, 0.03, 0.1)]
    near("without", efficiency[0], 1, 1e-3)
    holds("more jitter, more efficiency: %s" % efficiency, all(b < a for a, b in zip(efficiency, efficiency[1:])))
    # A step ends with the slowest of 64: 2.39 deviations above the mean, on average over normal factors.
    near("3%", efficiency[2], 1 / (1 + 0.03 * 2.39), 0.01)


def deterministic():
    s, c = net(), Cluster(nic=1e9, latency=1e-5, gpus=4, bus=1e10)
    run = lambda seed: simulate(s, c, 16, 0.05, jitter=0.05, seed=seed)
    holds("twice the same seed", run(7) == run(7))
    holds("another seed", run(7).step != run(8).step)


def priority():
    """A bucket that is needed first goes first: with one of all layers waiting, the step is not delayed by the others."""
    s = net(8, 1 << 20)
    c = Cluster(nic=1.2e8, latency=0)
    first = simulate(s, c, 2, 0.1, bucket=1 << 20, steps=20)
    for g in s.groups:
        g.priority = s.priority[g.number] = 1
    same = simulate(s, c, 2, 0.1, bucket=1 << 20, steps=20)
    holds("priorities make steps longer: %g, %g" % (first.step, same.step), first.step <= same.step * (1 + 1e-9))


# ---- input


def bad_input():
    for wrong in ({}, {"model": "m", "report": False, "tensors": 3, "groups": []}, {"model": "m", "report": False, "tensors": [{}], "groups": []}, []):
        try:
            Schedule(wrong)
        except BadInput as why:
            holds("says what was expected: %s" % why, "exchange" in str(why))
        else:
            raise Failed("took %r" % (wrong,))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.json")
        with open(path, "w") as f:
            json.dump(table([4096, 4096]), f)
        tool = lambda *words: subprocess.run([sys.executable, "-B", TOOL, *words], capture_output=True, text=True)
        for words, text in (((path + "x", "--step", "1", "--nic", "1"), "cannot read"), ((path, "--step", "0", "--nic", "1"), "above zero"),
                            ((TOOL + "/chart.py", "--step", "1", "--nic", "1"), "no JSON"), ((path, "--step", "1", "--nic", "1", "--workers", "12", "--gpus", "8"), "whole number of nodes"),
                            ((path, "--step", "1", "--nic", "1", "--workers", "x"), "--workers")):
            got = tool(*words)
            holds("status of %s" % (words,), got.returncode in (1, 2))
            holds("%s: %s" % (words, got.stderr), text in got.stderr and "Traceback" not in got.stderr)
        svg = os.path.join(folder, "c.svg")
        got = tool(path, "--step", "0.01", "--nic", "1", "--workers", "1,2,4", "--svg", svg, "--json", svg + ".json")
        holds("status: %s" % got.stderr, got.returncode == 0)
        with open(svg) as f, open(svg + ".json") as g:
            holds("a picture", f.read().startswith("<svg "))
            holds("rows", [r["ranks"] for r in json.load(g)["rows"]] == [1, 2, 4])


# ---- beside the runtime


def with_internals(libraries):
    """The same, with the names that libmxrt's files share among themselves (meson.build)."""
    return [word.replace("-lmxrt", "-lmxrt_parts") for word in libraries]


def buckets_of_runtime():
    source = "use nn\nuse optim\nblock Net() {\n    a = nn.Embedding(5000, 32)\n    b = nn.Dense(320, 64)\n    c = nn.BatchNorm(64)\n    d = nn.Dense(64, 300)\n" \
             "    fn forward(x: i32[N, 10]) = d(nn.relu(c(b(reshape(a(x), [N, 320])))))\n}\nnet = Net()\nopt = optim.SGD(net, lr = 0.1)\n" \
             "export train fn step(x: i32[N <= 16, 10], y: i32[N], lr: f32) -> (loss: f32) {\n    let loss = mean(nn.cross_entropy(net(x), y))\n" \
             "    opt.update(grad(loss, net), lr = lr)\n    return loss\n}\n" \
             'train {\n    data = npy(x = file("x.npy"), y = file("y.npy"))\n    batch = 16\n    epochs = 1\n    lr = 0.1\n    step = step\n}\n'
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        with open(path("embedded.mxl"), "w") as f:
            f.write(source)
        sh = lambda *words: subprocess.run(words, check=True, capture_output=True, text=True).stdout
        flags = sh(MXCC, "--cflags").split()
        libraries = sh(MXCC, "--libs").split()
        sh(MXCC, path("embedded.mxl"), "--main", "-o", path("embedded.c"))
        cc = [os.environ.get("CC", "cc"), "-O1", "-w", *flags]
        sh(*cc, path("embedded.c"), *libraries, "-o", path("embedded"))
        sh(*cc, "-I", os.path.join(ROOT, "runtime"), "-I", os.path.join(ROOT, "runtime/program"), "-Wl,--wrap=mxrt_main", path("embedded.c"), os.path.join(HERE, "buckets.c"),
           *with_internals(libraries), "-o", path("buckets"))
        s = Schedule(json.loads(sh(path("embedded"), "exchange")))
        holds("a sparse gradient", any(t.is_sparse(2) for t in s.tensors))
        for ranks, latency, bandwidth, seconds in ((2, 1e-4, 1e8, 0.01), (8, 1e-5, 1e9, 0.3), (4, 1e-2, 1e7, 0), (16, 1e-6, 1e10, 1e-3)):
            got = json.loads(sh(path("buckets"), str(ranks), repr(latency), repr(bandwidth), repr(seconds)))
            for size, step in zip(SIZES, got["step"]):
                near("a step with %d" % size, s.step(size, seconds, ranks, latency, bandwidth), step, 1e-6)
            for size, cut in zip(SIZES, got["cut"]):
                mine = [[len(b.tensors), sum(s.tensors[i].bytes for i in b.tensors) if b.is_sparse else b.bytes, b.priority, b.is_sparse] for b in s.cut(size, ranks)]
                holds("buckets of %d bytes over %d ranks: the runtime %s, here %s" % (size, ranks, cut, mine), mine == cut)
    text = "".join(open(os.path.join(ROOT, "runtime/net", f)).read() for f in ("stages.c", "wire.c"))
    for words in ("LIVE_CHUNKS = %d" % network.LIVE_CHUNKS, "SUM_MEMORY = 1 << %d" % math.log2(network.SUM_MEMORY), "WINDOW = %d" % network.WINDOW):
        holds("runtime/net no longer says %s: tools/scaling/network.py is to follow" % words, words in text)


def ways_of_runtime():
    """The same choice for any costs."""
    r, questions, mine = random.Random(5), [], []
    for _ in range(400):
        n = r.choice([2, 3, 4, 6, 8, 12, 16, 24, 60, 64, 100, 128, 256, 1000, 1024])
        nodes = ways.node_ranks(r.choice([0, 2, 4, 8, 16]), n)
        elements = int(10 ** r.uniform(0, 7.5))
        links = [ways.Link(10 ** r.uniform(-7, -2), 10 ** r.uniform(7, 11), 10 ** r.uniform(-7, -4)) for _ in range(2)]
        questions.append("%d %d %d %s" % (n, nodes, elements, " ".join(repr(x) for link in links for x in (link.latency, link.bandwidth, link.message))))
        way = ways.choose(n, nodes, *links, elements)
        mine.append(" ".join(map(str, (way.kind, way.chunk, *way.radix))))
    holds("all kinds, and several stages", len({m.split()[0] for m in mine}) == 3 and max(len(m.split()) for m in mine) > 6)
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "ways")
        sh = lambda *words, **more: subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout
        sh(os.environ.get("CC", "cc"), "-O1", "-I", os.path.join(ROOT, "runtime"), os.path.join(HERE, "ways.c"), *with_internals(sh(MXCC, "--libs").split()), "-o", program)
        for question, here, there in zip(questions, mine, sh(program, input="\n".join(questions) + "\n").splitlines()):
            holds("%s: the runtime goes by %s, the model by %s" % (question, there, here), here == there)


CASES = [one_worker, one_bucket, long_wire, half_hidden, report, no_limit, bytes_kept, bounds, monotone, jitter, deterministic, priority, bad_input, buckets_of_runtime, ways_of_runtime]


def main():
    global MXCC
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mxcc", required=True)
    p.add_argument("--only", type=lambda s: s.split(","))
    o = p.parse_args()
    MXCC = os.path.abspath(o.mxcc)
    passed = failed = 0
    for case in CASES:
        if o.only and case.__name__ not in o.only:
            continue
        try:
            case()
            passed += 1
        except (Failed, subprocess.CalledProcessError) as why:
            failed += 1
            print("%s: %s%s" % (case.__name__, why, "\n" + (why.stderr or "")[-2000:] if isinstance(why, subprocess.CalledProcessError) else ""))
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
