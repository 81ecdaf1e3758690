"""`./run bench kvstore`: training steps over several hosts, beside MXNet's dist_sync, PyTorch's DistributedDataParallel on gloo and Horovod.

Hosts are network namespaces with limited links (hosts.py). All systems of a row run at once, a process a host, or --per-host of
them (MXNet: and a server a host, the scheduler on the first), and take turns: who has none is stopped. What is measured and how to read it: docs/performance.md."""
import json
import os
import random
import shutil
import signal
import socket
import statistics
import struct
import tempfile
import time

from common import BUILD, HERE, MXCC, Skipped, peer_python, run
from kvstore import hosts

FOLDER = os.path.join(HERE, "kvstore")
# Seconds of a step without communication where computation is a sleep, and the batch of a rank where it is not.
MODELS = {"resnet50": ("ResNet-50", 0.3, 4), "lstm_lm": ("LSTM language model", 0.1, 20)}
LINKS = {"1gbit": (1, 1000), "10gbit": (10, 0)}  # Gbit/s, microseconds one way
START_SECONDS, TURN_SECONDS = 240, 60


# ---- programs and data -----------------------------------------------------------------------------------------------------


def npy(path, kind, shape, data):
    head = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (kind, tuple(shape))
    head += " " * (-(len(head) + 11) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data)


def write_data(model, folder):
    r = random.Random(1)
    if model == "resnet50":
        count = 512
        npy(os.path.join(folder, "images.npy"), "|u1", (count, 3, 224, 224), r.randbytes(count * 3 * 224 * 224))
        npy(os.path.join(folder, "labels.npy"), "<i4", (count,), struct.pack("<%di" % count, *[r.randrange(1000) for _ in range(count)]))
    else:
        count = 1 << 19
        npy(os.path.join(folder, "words.npy"), "<i4", (count,), struct.pack("<%di" % count, *[r.randrange(10000) for _ in range(count)]))


def program(model):
    """The generated program with the worker around it, and the table of its tensors; a minute's work, so they are kept."""
    name = model + "_ranks"
    folder = os.path.join(BUILD, "bench-kvstore")
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, name)
    table = target + ".json"
    parts = [os.path.join(HERE, "models", name + ".mxl"), os.path.join(FOLDER, "worker_mxcc.c")]
    made_of = [*parts, MXCC, os.path.join(BUILD, "libmxrt.a")]
    if not os.path.exists(table) or any(os.path.getmtime(p) > os.path.getmtime(table) for p in made_of):
        worker = target + "_worker.o"
        run("cc", "-O2", *run(MXCC, "--cflags").stdout.split(), "-c", parts[1], "-o", worker)
        run(MXCC, "build", parts[0], "--cpu", "native", "--threads", "--main", "-o", target, env={**os.environ, "CFLAGS": worker + " -Wl,--wrap=mxrt_main"})
        run(target, env={**os.environ, "BENCH_WRITE_TABLE": table})
    return target, table


# ---- a system at work ------------------------------------------------------------------------------------------------------


class Job:
    """The processes of one system, `per_host` neighbouring ranks a host; `alone`: each trains for itself."""

    def __init__(self, system, network, folder, built, model, kind, alone=False, per_host=1):
        self.system, self.network, self.folder, self.kind = system, network, folder, kind
        self.per_host, self.count = per_host, per_host * len(network.hosts)
        self.processes, self.ranks = [], {}
        self.data = os.path.join(folder, "..", "" if model == "resnet50" else "words.npy")
        self.batch = MODELS[model][2] if kind == "real" else 1
        self.path = os.path.join(folder, "%s-%s-%s.socket" % (system, kind, "alone" if alone else "ranks"))
        self.log = open(self.path + ".log", "w+")
        self.environment = {"BENCH_CONTROL": self.path, "BENCH_SIZE": "1" if alone else str(self.count), "BENCH_TABLE": built[1]}
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(64)
        listener.settimeout(1)
        try:
            getattr(self, "start_" + system.lower())(model, built[0], alone)
            self.accept(listener)
        except Exception:
            self.close()
            raise
        finally:
            listener.close()
        self.stop()

    def accept(self, listener):
        end, connections = time.monotonic() + START_SECONDS, 0
        while connections < self.count:
            try:
                s, _ = listener.accept()
            except socket.timeout:
                if time.monotonic() > end or any(p.poll() is not None for p in self.processes):
                    raise Skipped(self.last_words())
                continue
            s.settimeout(TURN_SECONDS)
            f = s.makefile("rw")
            json.loads(f.readline())
            self.ranks[connections] = f
            connections += 1

    def last_words(self):
        self.log.seek(0)
        lines = [line for line in self.log.read().splitlines() if line.strip()]
        telling = [line for line in lines if "rror" in line] or lines or ["did not start within %d seconds" % START_SECONDS]
        return telling[-1][:160]

    def launch(self, host, words, **environment):
        self.processes.append(self.network.hosts[host].popen(words, self.log, {**self.environment, **environment}))

    # mxcc: the program's own training loop; data of which no epoch is finished.
    def start_mxcc(self, model, built, alone):
        words = [built, "--kvstore", "dist_sync", "--quiet", "--threads", "1", "--rank-timeout", "100000", "--data", self.data, "--batch"]
        if alone:
            for i in range(self.count):
                self.launch(i // self.per_host, [*words, self.batch, "--virtual-ranks", 1, "--out", os.path.join(self.folder, "alone%d" % i)], BENCH_RANK="0")
            return
        nodes = ["--node-ranks", self.per_host] if self.per_host > 1 else []
        self.mpirun('exec "$@" --out "%s"' % os.path.join(self.folder, "out$BENCH_RANK"), [*words, self.batch * self.count, *nodes])

    def mpirun(self, script, words):
        """Through Open MPI: TCP between hosts, shared memory within one; `script` runs the words there."""
        command = ["mpirun", "--allow-run-as-root", "--enable-recovery", "--bind-to", "none", "--map-by", "slot", "-n", self.count,
                   "--host", ",".join("%s:%d" % (h.name, self.per_host) for h in self.network.hosts), "--mca", "plm_rsh_agent", self.network.agent(self.folder),
                   "--mca", "btl", "tcp,self" + (",vader" if self.per_host > 1 else ""), "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "pml", "ob1", "--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0"]
        for name in self.environment:
            command += ["-x", name]
        self.launch(0, [*command, "sh", "-c", "export BENCH_RANK=$OMPI_COMM_WORLD_RANK; " + script, "sh", *words])

    def start_torch(self, model, _, alone):
        for i in range(self.count):
            host = i // self.per_host
            self.launch(host, [peer_python("torch"), os.path.join(FOLDER, "worker_torch.py"), model, self.kind, self.batch], MASTER_ADDR=self.network.address(host if alone else 0),
                        MASTER_PORT=str(29500 + i if alone else 29500), GLOO_SOCKET_IFNAME="eth0", BENCH_RANK="0" if alone else str(i))

    def start_mxnet(self, model, _, alone):
        words = [peer_python("mxnet"), os.path.join(FOLDER, "worker_mxnet.py"), model, self.kind, self.batch]
        servers = len(self.network.hosts)
        parts = [] if alone else [(0, "scheduler", "0")] + [(i, "server", str(i)) for i in range(servers)]
        for host, role, rank in parts + [(i // self.per_host, "worker", str(i)) for i in range(self.count)]:
            roles = {} if alone else {"DMLC_ROLE": role, "DMLC_PS_ROOT_URI": self.network.address(0), "DMLC_PS_ROOT_PORT": "29600",
                                      "DMLC_NUM_WORKER": str(self.count), "DMLC_NUM_SERVER": str(servers), "DMLC_INTERFACE": "eth0",
                                      "DMLC_NODE_HOST": self.network.address(host)}
            self.launch(host, words, BENCH_RANK="0" if alone else rank, **roles)

    def start_horovod(self, model, _, alone):
        words = [peer_python("horovod"), os.path.join(FOLDER, "worker_mxnet.py"), model, self.kind, self.batch]
        if alone:
            for i in range(self.count):
                self.launch(i // self.per_host, words, BENCH_RANK="0")
        else:
            self.mpirun('exec "$@"', [*words, "horovod"])

    # ---- turns

    def pids(self):
        """All that descends from what was started here: they carry the path of the socket in their environment. Not the launcher, which would
        pass signals on."""
        mark, found = ("BENCH_CONTROL=" + self.path).encode(), []
        for name in os.listdir("/proc"):
            try:
                with open("/proc/%s/environ" % name, "rb") as f:
                    carries = mark in f.read().split(b"\0")
                with open("/proc/%s/comm" % name) as f:
                    if carries and name.isdigit() and f.read().strip() not in ("mpirun", "orted"):
                        found.append(int(name))
            except OSError:
                pass
        return found

    def signal(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def stop(self):
        self.signal(signal.SIGSTOP)

    def turn(self, steps, seconds):
        """Seconds a step, and bytes that left the hosts for each."""
        self.signal(signal.SIGCONT)
        before = sum(self.network.sent())
        for f in self.ranks.values():
            f.write("%d %g\n" % (steps, seconds))
            f.flush()
        try:
            times = [json.loads(f.readline() or "{}")["seconds"] for f in self.ranks.values()]
        except (KeyError, OSError):
            raise Skipped(self.last_words())
        sent = (self.settled() - before) / (steps + 1)
        self.stop()
        return max(times), sent

    def settled(self):
        """What the hosts have sent when what the last step sends has arrived, too."""
        sent, quiet = sum(self.network.sent()), 0
        end = time.monotonic() + 3
        while quiet < 3 and time.monotonic() < end:
            time.sleep(0.05)
            before, sent = sent, sum(self.network.sent())
            quiet = quiet + 1 if sent - before < 500000 else 0  # Horovod talks on
        return sent

    def close(self):
        self.signal(signal.SIGKILL)
        for p in self.processes:
            p.kill()
            p.wait()
        for f in self.ranks.values():
            f.close()
        self.log.close()


# ---- rows --------------------------------------------------------------------------------------------------------------------


def open_jobs(row, network, folder, built, model, kind, options, alone=False):
    jobs = {}
    for system in options.systems:
        if system in row["skipped"]:
            continue
        try:
            jobs[system] = Job(system, network, folder, built, model, kind, alone, options.per_host)
        except Skipped as why:
            row["skipped"][system] = str(why)
    return jobs


def take_turns(row, jobs, options, seconds):
    """Of each system all it measured, [(seconds, bytes)]."""
    results = {name: [] for name in jobs}
    for k in range(options.rounds + 1):
        for name in list(jobs):
            try:
                got = jobs[name].turn(options.steps if k else 1, seconds)
            except Skipped as why:
                row["skipped"][name] = str(why)
                jobs.pop(name).close()
                continue
            if k:  # before the first round caches are cold, and mxcc chooses its buckets
                results[name].append(got)
    return results


def close_jobs(jobs):
    for job in jobs.values():
        job.close()


def summary(measured):
    times = [s for s, _ in measured]
    return {"step_ms": statistics.median(times) * 1e3, "least_ms": min(times) * 1e3, "bytes": statistics.median(b for _, b in measured)}


def hidden(system):
    """The share of communication, or of computation where that is less, that was not seen in the time of a step."""
    shorter = min(system["compute_ms"], system["communicate_ms"])
    return max(0.0, min(1.0, (system["compute_ms"] + system["communicate_ms"] - system["step_ms"]) / shorter))


def measure(model, link, count, kind, built, folder, options):
    title, seconds, _ = MODELS[model]
    gigabits, delay = LINKS[link]
    row = {"model": model, "title": title, "link": link, "ranks": count, "per_host": options.per_host, "kind": kind, "systems": {}, "skipped": {}}
    with open(built[1]) as f:
        keys = [k for k in json.load(f) if k["trained"]]
    row["gradient_bytes"] = 4 * sum(k["elements"] for k in keys)
    row["bound_bytes"] = 2 * (count - 1) * row["gradient_bytes"]  # of all hosts together
    network = hosts.Network(count, gigabits, delay, folder)
    try:
        row["round_trip_ms"] = network.round_trip_ms()
        jobs = open_jobs(row, network, folder, built, model, kind, options)
        steps = take_turns(row, jobs, options, seconds if kind == "sleep" else -1)
        communicate = take_turns(row, jobs, options, 0) if kind == "sleep" else {}
        close_jobs(jobs)
        compute = {}
        if kind == "real":
            alone = open_jobs(row, network, folder, built, model, kind, options, alone=True)
            compute = take_turns(row, alone, options, -1)
            close_jobs(alone)
    finally:
        network.close()
    for name in steps:
        if name in row["skipped"]:
            continue
        s = row["systems"][name] = summary(steps[name])
        s["compute_ms"] = seconds * 1e3 if kind == "sleep" else summary(compute[name])["step_ms"]
        s["exposed_ms"] = s["step_ms"] - s["compute_ms"]
        if kind == "sleep":
            s["communicate_ms"] = summary(communicate[name])["step_ms"]
            s["hidden"] = hidden(s)
        s["of_bound"] = s["bytes"] / row["bound_bytes"]
    return row


def show(row, first):
    if first:
        print("a step of training over hosts, ms (median of turns; in brackets the fastest); alone: computation without communication, and the reverse;\n"
              "hidden: share of the shorter of both that the step does not show; sent: by a host, MB, and its ratio to 2 (n - 1) / n of the gradients\n")
        print("%-34s %-8s %18s %8s %8s %8s %14s %8s" % ("", "", "step", "compute", "comm.", "hidden", "sent", "mxcc is"))
    gigabits, delay = LINKS[row["link"]]
    texts = [row["title"], "%d hosts, %g Gbit/s, %.1f ms" % (row["ranks"], gigabits, row["round_trip_ms"] / 2),
             ("real steps" if row["kind"] == "real" else "sleeps") + (", %d ranks a host" % row["per_host"] if row["per_host"] > 1 else "")]
    ours = row["systems"].get("mxcc")
    lines = []
    for name, s in row["systems"].items():
        lines.append("%-8s %9.1f (%6.1f) %8.1f %8s %8s %7.1f %5.2fx %8s" %
                     (name, s["step_ms"], s["least_ms"], s["compute_ms"], "%.1f" % s["communicate_ms"] if "communicate_ms" in s else "",
                      "%.0f%%" % (100 * s["hidden"]) if "hidden" in s else "", s["bytes"] / row["ranks"] / 1e6, s["of_bound"],
                      "%.2fx" % (s["step_ms"] / ours["step_ms"]) if ours and s is not ours else ""))
    lines += ["%-8s skipped: %s" % item for item in row["skipped"].items()]
    for i in range(max(len(lines), len(texts))):
        print("%-34s %s" % (texts[i] if i < len(texts) else "", lines[i] if i < len(lines) else ""))
    print(flush=True)


def kvstore(options):
    try:
        hosts.enter()
    except hosts.Unavailable as why:
        print("kvstore: skipped: %s" % why)
        return None
    if not shutil.which("mpirun"):
        print("kvstore: skipped: no mpirun (Debian: openmpi-bin)")
        return None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            if options.only and model not in options.only:
                continue
            built = program(model)
            write_data(model, folder)
            os.environ["OMP_NUM_THREADS"] = "1"
            wanted = [(link, n, "sleep") for link in options.links for n in options.ranks] + [(link, 2, "real") for link in options.links]
            for link, count, kind in wanted:
                if kind not in options.kinds:
                    continue
                part = tempfile.mkdtemp(dir=folder)
                try:
                    rows.append(measure(model, link, count, kind, built, part, options))
                except hosts.Unavailable as why:
                    print("kvstore: %s, %d hosts, %s: skipped: %s\n" % (model, count, link, why), flush=True)
                    continue
                show(rows[-1], first=len(rows) == 1)
    return rows
