"""`bench.py engine`: push to completion of empty operations in libmxrt's engine, MXNet's, OpenMP and StarPU, and its graph layer beside oneTBB."""
import os
import re
import shutil
import statistics
import subprocess
import tempfile

from common import BUILD, HERE, ROOT, Skipped, peer_python, run

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
