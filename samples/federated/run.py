#!/usr/bin/env python3
"""Ten clients train samples/digits.mxl together, by Flower, and one program trains it alone; both accuracies and their ratio.

    run.py [--clients 10] [--rounds 20] [--folder build/federated] [--mxcc build/mxcc]

Everything runs on this machine, in processes of its own that talk over loopback: Flower's SuperLink, which runs the server, a
SuperNode for each client, and `flwr run`, which hands them the app (federated/). The folder holds what is made: a virtual
environment with flwr and numpy from PyPI, the module and shared library of the model, and the processes' logs. Only Python's
standard library is needed. Exit status 0 where the federated model reaches 95% of the other's accuracy (or --target), 1 where
it does not or something fails, 77 where flwr cannot be had.
"""
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LR, EPOCHS, CENTRAL_EPOCHS = 3e-3, 2, 30
CANNOT = 77


def fail(words, status=1):
    print("federated: " + words, file=sys.stderr)
    sys.exit(status)


def environment(folder):
    """The bin folder of a virtual environment with flwr and numpy, made once."""
    home = os.path.join(folder, "venv")
    bin_ = os.path.join(home, "bin")
    python = os.path.join(bin_, "python")
    good = [python, "-c", "import numpy, flwr.clientapp, flwr.serverapp"]
    if os.path.exists(python) and subprocess.run(good, capture_output=True).returncode == 0:
        return bin_
    print("making %s with flwr and numpy" % home, flush=True)
    for command in ([sys.executable, "-m", "venv", "--clear", home],
                    [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "flwr>=1.42,<2", "numpy"], good):
        try:
            p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except OSError as e:
            fail("%s: %s" % (command[0], e), CANNOT)
        if p.returncode != 0:
            fail("flwr and numpy cannot be had: `%s` gave status %d\n%s" % (" ".join(command), p.returncode, p.stdout[-1500:]), CANNOT)
    return bin_


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Processes:
    """Processes that end with this one, each with a log."""

    def __init__(self, folder, env):
        self.folder, self.env, self.all = folder, env, []

    def start(self, name, *command):
        with open(os.path.join(self.folder, name + ".log"), "w") as log:
            p = subprocess.Popen([str(c) for c in command], cwd=self.folder, env=self.env, stdout=log, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        self.all.append(p)
        return p

    def end(self):
        for p in self.all:
            try:
                os.killpg(p.pid, signal.SIGTERM)  # with the processes that it started
            except ProcessLookupError:
                pass
        for p in self.all:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)


def tail(path, lines=15):
    with open(path, errors="replace") as f:
        return "".join(f.readlines()[-lines:])


def wait_for_port(port, process, log, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    fail("the SuperLink does not answer:\n" + tail(log))


def federated(o, bin_, env, data):
    """Accuracies on the held-out images before the first round and after each."""
    result = os.path.join(o.folder, "result.json")
    if os.path.exists(result):
        os.remove(result)
    ports = free_ports(o.clients + 1)
    home = os.path.join(o.folder, "flwr")
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "config.toml"), "w") as f:
        f.write('[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:%d"\ninsecure = true\n' % ports[0])
    processes = Processes(o.folder, dict(env, FLWR_HOME=home))
    try:
        link = processes.start("superlink", os.path.join(bin_, "flower-superlink"), "--insecure", "--port", ports[0],
                               "--disable-runtime-dependency-installation")
        wait_for_port(ports[0], link, os.path.join(o.folder, "superlink.log"))
        for i in range(o.clients):
            processes.start("client%d" % i, os.path.join(bin_, "flower-supernode"), "--insecure", "--superlink",
                            "127.0.0.1:%d" % ports[0], "--port", ports[i + 1], "--node-config", "partition=%d" % i)
        config = 'clients=%d rounds=%d epochs=%d lr=%g data="%s" result="%s"' % (o.clients, o.rounds, EPOCHS, LR, data, result)
        run = processes.start("run", os.path.join(bin_, "flwr"), "run", HERE, "--stream", "--run-config", config)
        end = time.monotonic() + o.minutes * 60
        while run.poll() is None and not os.path.exists(result):
            if time.monotonic() > end:
                fail("no result within %g minutes; %s has the logs:\n%s" % (o.minutes, o.folder, tail(os.path.join(o.folder, "run.log"))))
            if link.poll() is not None:
                fail("the SuperLink ended:\n" + tail(os.path.join(o.folder, "superlink.log")))
            time.sleep(0.5)
        if not os.path.exists(result):
            fail("the run ended without a result; %s has the logs:\n%s" % (o.folder, tail(os.path.join(o.folder, "run.log"), 40)))
    finally:
        processes.end()
    with open(result) as f:
        return json.load(f)["accuracy"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clients", type=int, default=10)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--target", type=float, default=0.95, help="the ratio to reach")
    p.add_argument("--minutes", type=float, default=30, help="when to give up")
    p.add_argument("--folder", default=os.path.join(ROOT, "build", "federated"))
    p.add_argument("--mxcc", default=os.path.join(ROOT, "build", "mxcc"))
    o = p.parse_args()
    o.folder = os.path.abspath(o.folder)
    os.makedirs(o.folder, exist_ok=True)
    bin_ = environment(o.folder)
    build = [o.mxcc, "build", os.path.join(ROOT, "samples", "digits.mxl"), "--cpu", "native", "--python", "-o",
             os.path.join(o.folder, "libdigits.so")]
    if subprocess.run(build).returncode != 0:
        fail("`%s` failed" % " ".join(build))
    data = os.path.join(ROOT, "samples", "digits.csv")
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([o.folder, HERE]), PATH=bin_ + os.pathsep + os.environ["PATH"],
               PYTHONDONTWRITEBYTECODE="1", FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    python = os.path.join(bin_, "python")
    sizes = subprocess.run([python, "-c", "from federated import digits_data as d; import sys\n"
                            "print(*(len(p) for p in d.split(d.load(sys.argv[1])[0][1], int(sys.argv[2]))))", data, str(o.clients)],
                           env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print("%d clients, with %s images" % (o.clients, sizes), flush=True)
    began = time.monotonic()
    accuracies = federated(o, bin_, env, data)
    print("accuracy before the first round and after each: " + " ".join("%.3f" % a for a in accuracies))
    print("%d rounds of %d epochs took %.0f s" % (o.rounds, EPOCHS, time.monotonic() - began))
    central = json.loads(subprocess.run([python, "-m", "federated.central", data, str(CENTRAL_EPOCHS), str(LR)], env=env,
                                        stdout=subprocess.PIPE, text=True, check=True).stdout)["accuracy"]
    ratio = accuracies[-1] / central
    print("federated %.2f%%, central %.2f%%, ratio %.3f" % (100 * accuracies[-1], 100 * central, ratio))
    if ratio < o.target:
        fail("the ratio is below %g" % o.target)


if __name__ == "__main__":
    main()
