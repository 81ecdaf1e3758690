"""Hosts on one machine: a network namespace each, with a host name, joined by veth through a switch in another namespace. Both ends of a link
send at a limited rate (tc tbf); a delay is made by switch.c, without one the switch is the kernel's bridge.

Nothing of it has a name outside: namespaces live as long as the processes in them, and these are in a process namespace whose first
process is the benchmark itself (`enter`). So nothing is left behind, however it ends."""
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDED = ("ip", "tc", "unshare", "nsenter", "mount")
BURST = 1 << 18  # bytes that may leave at once: some frames as the kernel holds them, 64 KiB each

ROUND_TRIP = """
import socket, sys, time
times = []
for _ in range(20):
    s = socket.socket()
    start = time.perf_counter()
    s.connect_ex((sys.argv[1], 9))
    times.append(time.perf_counter() - start)
    s.close()
print(min(times) * 1e3)
"""


class Unavailable(Exception):
    pass


def enter(environment="BENCH_KVSTORE_INSIDE"):
    """Runs this program again as the first process of a process namespace with its own mounts, and does not return outside."""
    if environment in os.environ:
        for number in (signal.SIGINT, signal.SIGTERM):  # for a first process there are no defaults
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        return
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        raise Unavailable("this machine allows no new namespaces")
    os.environ[environment] = "1"
    os.execvp(command[0], [*command, sys.executable, *sys.argv])


def sh(*command):
    got = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if got.returncode != 0:
        raise Unavailable("%s: %s" % (" ".join(map(str, command)), (got.stderr or got.stdout).strip()))
    return got.stdout


class Host:
    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen(["unshare", "--net", "--uts", "sh", "-c", "hostname %s && echo READY && exec sleep infinity" % name],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        if self.process.stdout.readline().strip() != "READY":
            raise Unavailable(self.process.stderr.read().strip() or "no namespace for a host")
        self.pid = self.process.pid

    def command(self, *words):
        return ["nsenter", "-t", str(self.pid), "-n", "-u", "--", *map(str, words)]

    def run(self, *words):
        return sh(*self.command(*words))

    def popen(self, words, log, environment=None):
        process = subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(environment or {})}, start_new_session=True)
        try:  # its session's share of the processors, beside those of others on this machine
            with open("/proc/%d/autogroup" % process.pid, "w") as f:
                f.write("-15")
        except OSError:
            pass
        return process

    def counter(self, name, interface="eth0"):
        for line in self.run("cat", "/proc/net/dev").splitlines():
            if line.strip().startswith(interface + ":"):
                values = line.split(":")[1].split()
                return int(values[{"rx_bytes": 0, "tx_bytes": 8}[name]])
        raise Unavailable("no %s" % interface)

    def close(self):
        self.process.kill()
        self.process.wait()


class Network:
    """`count` hosts h0, h1, … with addresses 10.77.0.1, 10.77.0.2, …"""

    def __init__(self, count, gigabits, delay_us, folder):
        missing = [n for n in NEEDED if not any(os.access(os.path.join(d, n), os.X_OK) for d in os.environ["PATH"].split(":"))]
        if missing:
            raise Unavailable("%s: not found (Debian: iproute2, util-linux)" % ", ".join(missing))
        self.hosts, self.switch, self.cable = [], None, None
        try:
            self.build(count, gigabits, delay_us, folder)
        except Exception:
            self.close()
            raise

    def build(self, count, gigabits, delay_us, folder):
        self.switch = Host("switch")
        self.hosts = [Host("h%d" % i) for i in range(count)]
        names = os.path.join(folder, "hosts")
        with open(names, "w") as f:
            f.write("127.0.0.1 localhost\n" + "".join("%s %s\n" % (self.address(i), h.name) for i, h in enumerate(self.hosts)))
        sh("mount", "--bind", names, "/etc/hosts")
        limit = lambda host, interface: host.run("tc", "qdisc", "add", "dev", interface, "root", "tbf", "rate", "%gmbit" % (gigabits * 1000), "burst", BURST,
                                                 "limit", 1 << 22)
        for i, h in enumerate(self.hosts):
            port = "p%d" % i
            sh("ip", "link", "add", port, "netns", self.switch.pid, "type", "veth", "peer", "name", "eth0", "netns", h.pid)
            h.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:%02x" % i)
            h.run("ip", "address", "add", self.address(i) + "/24", "dev", "eth0")
            h.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno", "net.ipv6.conf.all.disable_ipv6=1")
            limit(h, "eth0")
            limit(self.switch, port)
            h.run("ip", "link", "set", "lo", "up")
            h.run("ip", "link", "set", "eth0", "up")
            self.switch.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            self.switch.run("ip", "link", "set", port, "up")
        ports = ["p%d" % i for i in range(count)]
        if delay_us:
            program = os.path.join(folder, "switch")
            sh("cc", "-O2", os.path.join(HERE, "switch.c"), "-o", program)
            self.cable = subprocess.Popen(self.switch.command(program, delay_us, *ports), stdout=subprocess.PIPE, text=True, start_new_session=True)
            if self.cable.stdout.readline().strip() != "READY":
                raise Unavailable("the switch does not start")
        else:
            self.switch.run("ip", "link", "add", "bridge", "type", "bridge")
            for p in ports:
                self.switch.run("ip", "link", "set", p, "master", "bridge")
            self.switch.run("ip", "link", "set", "bridge", "up")

    @staticmethod
    def address(i):
        return "10.77.0.%d" % (i + 1)

    def sent(self):
        return [h.counter("tx_bytes") for h in self.hosts]

    def round_trip_ms(self):
        """The least of some, between the first two hosts: how long a refusal takes to come back."""
        return float(self.hosts[0].run(sys.executable, "-c", ROUND_TRIP, self.address(1)))

    def agent(self, folder):
        """A program that stands for ssh: AGENT HOST COMMAND…, for mpirun."""
        path = os.path.join(folder, "agent")
        with open(path, "w") as f:
            f.write("#!/bin/sh\nhost=$1\nshift\ncase $host in\n" +
                    "".join("%s) pid=%d ;;\n" % (h.name, h.pid) for h in self.hosts) +
                    '*) echo "no host $host" >&2; exit 1 ;;\nesac\nexec nsenter -t $pid -n -u -- sh -c "$*"\n')
        os.chmod(path, 0o755)
        return path

    def close(self):
        if self.cable:
            self.cable.kill()
            self.cable.wait()
        for h in self.hosts + ([self.switch] if self.switch else []):
            h.close()
        subprocess.run(["umount", "/etc/hosts"], capture_output=True)
