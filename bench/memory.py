"""`bench.py memory`: the memory of one training step of each network of samples/zoo, beside PyTorch and MXNet with the same batch.

Each system runs three steps in a process of its own (bench/step_main.c around what mxcc generated, bench/worker_zoo.py for the peers). `process` is
the largest resident memory of the whole process, `above idle` what that is more than the process had before it made the
network: libraries loaded, one operation done. The ratios hold all of our process against the better peer: its process, and what it
has above idle. Where only the head is trained the weights are taken off both sides.

The networks of LIMITS are also built to keep everything (`--no-recompute`) and to stay within parts of the arena that takes (`--memory-limit`), and run in
turn right behind their peers. Losses and the hash of all weights after the steps must be those of the program that keeps everything."""
import hashlib
import json
import os
import re
import subprocess
import tempfile

from common import BUILD, HERE, MXCC, ROOT, Skipped, peer_python, run

IMAGES = {"x": 8 * 3 * 224 * 224, "x_classes": 0, "y": 8, "y_classes": 1000, "n": 8}
ZOO = {
    "resnet50": ("ResNet-50, batch 8", IMAGES),
    "resnet50_head": ("ResNet-50, batch 8, only the head", IMAGES),
    "resnet18": ("ResNet-18, batch 8", IMAGES),
    "mobilenet_v2": ("MobileNetV2, batch 8", IMAGES),
    "lstm_lm": ("LSTM language model, 20 x 35 words", {"x": 700, "x_classes": 10000, "y": 700, "y_classes": 10000}),
    "transformer": ("transformer, 12 layers, 512 tokens", {"x": 512, "x_classes": 50257, "y": 512, "y_classes": 50257, "n": 1}),
}
LIMITS = {"resnet50": (0.7, 0.5), "transformer": (0.7, 0.5)}  # of the arena without recomputation
STEPS = "3"
MIB = 1024.0


def build(name, folder, *flags):
    """The program of one model's steps: its path, and the constants of its header."""
    unit = os.path.join(folder, name + ".c")
    run(MXCC, os.path.join(ROOT, "samples", "zoo", name + ".mxl"), "--cpu", "native", "--threads", *flags, "-o", unit)
    with open(os.path.join(folder, name + ".h")) as f:
        constants = {k: int(v) for k, v in re.findall(r"#define [A-Z0-9_]*?_((?:MEMORY|ARENA|WEIGHTS)_BYTES|FLOPS_STEP) (\d+)", f.read())}
    shape = ZOO[name][1]
    defines = ["-DMODEL=" + name, "-DX_COUNT=%d" % shape["x"], "-DX_CLASSES=%d" % shape["x_classes"], "-DY_COUNT=%d" % shape["y"],
               "-DY_CLASSES=%d" % shape["y_classes"]] + (["-DSTEP_N=%d" % shape["n"]] if "n" in shape else [])
    program = os.path.join(folder, name)
    run("cc", "-O2", "-march=native", "-ffp-contract=off", "-I" + folder, "-include", name + ".h", *defines, *run(MXCC, "--cflags").stdout.split(),
        os.path.join(HERE, "step_main.c"), unit, os.path.join(BUILD, "libmxrt.a"), "-lz", "-lpthread", "-lm", "-o", program)
    return program, constants


def steps(program, threads, folder=None):
    """Facts of a run; with a folder also the hash of the weights it leaves."""
    weights = os.path.join(folder, "weights") if folder else None
    facts = measured([program, STEPS, "1", "0.01"] + ([weights] if weights else []), threads)
    if weights:
        h = hashlib.sha256()
        with open(weights, "rb") as f:
            for part in iter(lambda: f.read(1 << 24), b""):
                h.update(part)
        os.remove(weights)
        facts["weights_sha256"] = h.hexdigest()
    return facts


def measured(command, threads):
    p = subprocess.run(command, capture_output=True, text=True, cwd=HERE, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    lines = [line for line in p.stdout.splitlines() if line.startswith("{")]
    if p.returncode or not lines:
        raise Skipped(((p.stderr or p.stdout).strip().splitlines() or ["ended without a word"])[-1][:160])
    facts = json.loads(lines[-1])
    facts.update(process_mib=facts["peak_kib"] / MIB, above_idle_mib=(facts["peak_kib"] - facts["idle_kib"]) / MIB, step_ms=min(facts["ms"]))
    return facts


def measure_row(name, folder, threads):
    row = {"workload": name, "title": ZOO[name][0], "systems": {}, "skipped": {}}
    for system in ("mxcc", "torch", "MXNet"):
        try:
            if system == "mxcc":
                program, constants = build(name, folder)
                facts = steps(program, threads)
                facts.update(constants)
            else:
                facts = measured([peer_python(system.lower()), os.path.join(HERE, "worker_zoo.py"), name, str(threads), system.lower()], threads)
            row["systems"][system] = facts
        except Skipped as why:
            row["skipped"][system] = str(why)
        except subprocess.CalledProcessError as why:
            row["skipped"][system] = ((why.stderr or "").strip().splitlines() or ["failed"])[-1][:160]
    ours = row["systems"].get("mxcc")
    peers = [r for n, r in row["systems"].items() if n != "mxcc"]
    if ours and peers:
        process, above = min(r["process_mib"] for r in peers), min(r["above_idle_mib"] for r in peers)
        weights = ours["WEIGHTS_BYTES"] / MIB / MIB
        row["ratio_process"], row["ratio_above_idle"] = ours["process_mib"] / process, ours["process_mib"] / above
        row["ratio_beside_weights"] = (ours["process_mib"] - weights) / (above - weights)
    return row


def measure_limits(name, folder, threads):
    """The same steps with everything kept, by default, and within each limit."""
    rows = []
    for part in (None, 1, *LIMITS[name]):
        flags = ["--no-recompute"] if part is None else [] if part == 1 else ["--memory-limit", str(int(part * rows[0]["ARENA_BYTES"]))]
        program, constants = build(name, folder, *flags)
        facts = {"part": part, **constants, **steps(program, threads, folder)}
        facts["same"] = not rows or all(facts[k] == rows[0][k] for k in ("losses", "weights_sha256"))
        rows.append(facts)
    return rows


def show_limits(row):
    print("%-36s %9s %11s %9s %10s   %s" % ("  within a limit of the arena", "arena", "process", "step ms", "FLOPs", "loss and weights"))
    kept = row["limits"][0]
    for r in row["limits"]:
        what = "everything kept" if r["part"] is None else "default" if r["part"] == 1 else "within %d%%" % round(100 * r["part"])
        same = r["weights_sha256"][:12] if r is kept else "the same to the bit" if r["same"] else "DIFFERENT"
        print("    %-32s %9.1f %11.0f %9.0f %+9.1f%%   %s" % (what, r["ARENA_BYTES"] / MIB / MIB, r["process_mib"], r["step_ms"],
                                                          100 * (r["FLOPS_STEP"] / kept["FLOPS_STEP"] - 1), same))
    print(flush=True)


def show(row, first):
    if first:
        print("one training step: MiB at the peak; mxcc is: its whole process over the better peer's process, and over what that has above idle\n")
        print("%-36s %-7s %9s %11s %9s %10s %11s" % ("", "", "process", "above idle", "step ms", "of process", "above idle"))
    for i, (name, r) in enumerate(row["systems"].items()):
        ratios = "%9.2fx %10.2fx" % (row["ratio_process"], row["ratio_above_idle"]) if name == "mxcc" and "ratio_process" in row else ""
        print("%-36s %-7s %9.0f %11.0f %9.0f %s" % (row["title"] if i == 0 else "", name, r["process_mib"], r["above_idle_mib"], r["step_ms"], ratios))
    if row["workload"].endswith("_head") and "ratio_beside_weights" in row:
        print("%-36s %-7s %.2fx beside the weights" % ("", "", row["ratio_beside_weights"]))
    for name, why in row["skipped"].items():
        print("%-36s %-7s skipped: %s" % ("", name, why))
    print(flush=True)


def memory(options):
    rows = []
    for name in ZOO:
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure_row(name, folder, max(options.threads)))
            if name in LIMITS and "mxcc" in rows[-1]["systems"]:
                rows[-1]["limits"] = measure_limits(name, folder, max(options.threads))
        show(rows[-1], first=len(rows) == 1)
        if "limits" in rows[-1]:
            show_limits(rows[-1])
    return rows
