"""Jobs of several ranks: programs built once, their data, MPI jobs whose ranks can be killed, stopped and watched."""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, 'tests', 'props'))
from common import Failure, Skip, expect, floats, must, points_csv, read, same_checkpoint, sh, tensors, write  # noqa: E402,F401

# As root too, more ranks than cores, and survivors live (docs/distributed.md).
MPIRUN = ['mpirun', '--allow-run-as-root', '--oversubscribe', '--enable-recovery', '--mca', 'btl_vader_single_copy_mechanism', 'none']


def need_mpi():
    if not shutil.which('mpirun'):
        raise Skip('there is no mpirun (Debian: openmpi-bin)')


class Ranks:
    """Builds models and trains them: env is that of tests/props."""

    def __init__(self, env):
        self.env = env
        self.data = env.folder('data')
        digits = read(os.path.join(ROOT, 'samples', 'digits.csv')).splitlines(True)
        write(os.path.join(self.data, 'digits.csv'), ''.join(digits[:100]))
        write(os.path.join(self.data, 'more.csv'), ''.join(digits[:700]))
        points_csv(os.path.join(self.data, 'points.csv'), 120)
        write(os.path.join(self.data, 'lines.txt'), text(1500))
        self.numbers = {}

    def source(self, name):
        path = os.path.join(HERE, name + '.mxl')
        return path if os.path.exists(path) else os.path.join(ROOT, 'samples', name + '.mxl')

    def program(self, name, *flags):
        return self.env.program(self.source(name), *flags)

    def folder(self, name):
        """A new one."""
        n = self.numbers[name] = self.numbers.get(name, 0) + 1
        path = os.path.join(self.env.folder('runs'), '%s-%d' % (name, n))
        shutil.rmtree(path, ignore_errors=True)
        return path

    def command(self, name, out, *options, flags=(), data=None):
        default = {'digits': 'digits.csv', 'plain': 'digits.csv', 'two': 'points.csv'}.get(name, 'lines.txt')
        return [self.program(name, *flags), 'train', '--data', os.path.join(self.data, data or default), '--out', out, '--seed', '3', *options]

    def train(self, name, *options, virtual=0, mpi=0, out=None, status=(0,), flags=(), data=None):
        """The run's folder; `virtual` ranks in one process, `mpi` processes, or neither."""
        out = out or self.folder(name)
        command = self.command(name, out, '--quiet', *options, flags=flags, data=data)
        if virtual:
            command += ['--virtual-ranks', str(virtual)]
        if mpi:
            need_mpi()
            store = () if '--kvstore' in options else ('--kvstore', 'dist_sync')
            Job([*command, *store, '--rank-timeout', '60', '--threads', '1'], mpi).succeed(status)
            return out
        r = sh(command, timeout=300)
        expect(r.status in status, '%s', r)
        return out

    def fails(self, name, *options, words, virtual=2, **more):
        command = self.command(name, self.folder(name), '--quiet', '--virtual-ranks', str(virtual), *options, **more)
        r = sh(command, timeout=300)
        expect(r.status == 1 and all(w in r.err for w in words), 'expected a failure that says %s\n%s', words, r)


def text(words):
    """Lines of a small vocabulary, by a fixed linear congruential generator, that something can be learnt from."""
    known = 'the quick brown fox jumps over a lazy dog while seven grey cats sleep under old trees'.split()
    state, out = 7, []
    for i in range(words):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2 ** 64
        out.append(known[(i % 5 + (state >> 40) % 3 * 5) % len(known)])
    return ' '.join(out) + '\n'


def checkpoint(out):
    return os.path.join(out, 'checkpoint.safetensors')


def same(a, b, what):
    complaint = same_checkpoint(checkpoint(a), checkpoint(b))
    expect(complaint is None, '%s: %s', what, complaint)


def distance(a, b):
    """The largest relative difference in norm of a tensor, and its name."""
    (ta, _), (tb, _) = tensors(checkpoint(a)), tensors(checkpoint(b))
    worst = (0.0, '')
    for name in ta:
        x, y = floats(ta[name]), floats(tb[name])
        if x is None:
            expect(ta[name] == tb[name], '%s differs', name)
            continue
        norm = sum(v * v for v in x) ** 0.5
        worst = max(worst, (sum((v - w) ** 2 for v, w in zip(x, y)) ** 0.5 / (norm or 1), name))
    return worst


def close(a, b, what, limit=1e-5):
    d, name = distance(a, b)
    expect(d <= limit, '%s: %s differs by %.3g of its norm', what, name, d)


def metrics(out):
    """The rows of metrics.csv as dictionaries."""
    lines = read(os.path.join(out, 'metrics.csv')).splitlines()
    return [dict(zip(lines[0].split(','), row.split(','))) for row in lines[1:]]


# ---- jobs that lose a rank


def environ(pid):
    try:
        return dict(x.split('=', 1) for x in read('/proc/%d/environ' % pid).split('\0') if '=' in x)
    except (OSError, ValueError):
        return {}


class Job:
    """An MPI job under way. `ranks` finds its processes by a mark in their environment."""

    def __init__(self, command, ranks, prefix=(), env=None):
        self.mark = '%d-%d' % (os.getpid(), time.monotonic_ns())
        self.program = os.path.realpath(next(c for c in command if os.path.isabs(c)))
        self.size, self.lines, self.at = ranks, [], []
        # Each rank's exit status is a line of its own.
        shell = ['sh', '-c', '"$@"; echo "exit $OMPI_COMM_WORLD_RANK $?" >&2', 'sh']
        argv = [*prefix, *(MPIRUN if not prefix else []), '-x', 'MXCC_TEST_MARK', '-n', str(ranks), *shell, *command]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True, env=dict(os.environ, MXCC_TEST_MARK=self.mark, **(env or {})))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.at.append(time.monotonic())
            self.lines.append(line.rstrip('\n'))

    def output(self):
        return '\n'.join(self.lines)

    def ranks(self):
        """{rank: pid} of the programs that live."""
        found = {}
        for path in glob.glob('/proc/[0-9]*'):
            pid = int(path[6:])
            try:
                if os.path.realpath(path + '/exe') != self.program:
                    continue
            except OSError:
                continue
            e = environ(pid)
            if e.get('MXCC_TEST_MARK') == self.mark:
                found[int(e['OMPI_COMM_WORLD_RANK'])] = pid
        return found

    def wait_for(self, pattern, count, seconds):
        """[(match, when)] of lines; at least `count` unless time is over or the job is."""
        end = time.monotonic() + seconds
        while True:
            over = not self.reader.is_alive() or time.monotonic() > end
            found = [(m, t) for m, t in zip([re.search(pattern, x) for x in list(self.lines)], list(self.at)) if m]
            if len(found) >= count or over:
                return found
            time.sleep(0.01)

    def exits(self):
        """{rank: (status, when)}"""
        return {int(m.group(1)): (int(m.group(2)), t) for m, t in self.wait_for(r'^exit (\d+) (\d+)$', 0, 0)}

    def succeed(self, statuses=(0,), seconds=300):
        """Waits for the end of all ranks; mpirun's own status is 0 whatever they do, since it lets survivors live."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise Failure('%d ranks did not end\n%s' % (self.size, self.output())) from None
        self.reader.join(5)
        exits = self.exits()
        expect(len(exits) == self.size and all(s in statuses for s, _ in exits.values()), 'exit statuses %s\n%s', exits, self.output()[-1500:])

    def end(self):
        """Ends what is left of it, by pids."""
        for pid in self.ranks().values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.reader.join(5)
