#!/usr/bin/env python3
"""The net between processes: run_mpi.py --program mpi_rank [--times N] [--tcp] [--flood] [--only NAME].

  bits    1 to 8 processes do the same random work as as many threads, and have the same results
  loss    a random one of 2 to 6 processes is killed, or stopped, in the middle of sums: every other one ends with a message that names
          it, within its time-out and a second, and can close; N times. --flood: always killed, in large sums, so that writes to it are put off
  pause   a process that was stopped for half of a time-out and more, and goes on, is not lost, nor takes another one for that
  measure latency and bandwidth
  fast    sums by MPI itself

Prints a seed that repeats a run. Exit status 77 (skipped) where there is no mpirun."""
import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

MPIRUN = ['mpirun', '--allow-run-as-root', '--oversubscribe', '--enable-recovery']
TIMEOUT = 2.0


def fail(*words):
    print('FAILED:', *words)
    sys.exit(1)


class Stalls:
    """How late this machine runs what should run every 10 ms, at worst: other programs on it are not the net's fault."""

    def __enter__(self):
        self.worst, self.on = 0.0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.on:
            start = time.time()
            time.sleep(0.01)
            self.worst = max(self.worst, time.time() - start - 0.01)

    def __exit__(self, *_):
        self.on = False
        self.thread.join()


class Job:
    """mpirun with its output read as it comes."""

    def __init__(self, ranks, *args, tcp=False):
        command = MPIRUN + (['--mca', 'btl', 'tcp,self'] if tcp else []) + ['-n', str(ranks)] + list(args)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.lines = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip('\n'))

    def found(self, pattern):
        return [m for m in (re.match(pattern, line) for line in list(self.lines)) if m]

    def wait_for(self, pattern, count, seconds):
        end = time.time() + seconds
        while time.time() < end:
            found = self.found(pattern)
            if len(found) >= count:
                return found
            if self.process.poll() is not None and not self.reader.is_alive():
                return self.found(pattern)
            time.sleep(0.01)
        return self.found(pattern)

    def end(self, pids=()):
        for pid in pids:
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


def bits(args):
    for ranks in range(1, 9):
        work = ['77', '2' if ranks < 5 else '1', '150001' if ranks < 5 else '33333']
        threads = subprocess.run([args.program, 'group', str(ranks)] + work, capture_output=True, text=True, timeout=300)
        for node in (0, 2, 4):
            if node and (ranks % node or ranks == node):
                continue
            job = Job(ranks, args.program, 'exercise', *work, str(node), tcp=args.tcp)
            job.process.wait(300)
            job.reader.join()
            expected = sorted(threads.stdout.split('\n')[:-1])
            got = sorted(m.group(0) for m in job.found(r'rank \d+ hash [0-9a-f]{16}$'))
            if threads.returncode != 0 or len(expected) != ranks or got != expected or job.process.returncode != 0:
                fail('%d ranks, %d a node: threads %s, MPI %s (status %d)\n' % (ranks, node, expected, got, job.process.returncode), '\n'.join(job.lines), threads.stderr)
    print('bits: 1 to 8 processes and threads agree, with nodes and without')


def one_loss(args, rng, k):
    ranks, how = rng.randint(2, 6), 'KILL' if args.flood else rng.choice(['KILL', 'STOP'])
    elements = 1500000 if args.flood else rng.choice([1, 500, 40000, 1500000])
    victim, delay, node = rng.randrange(ranks), rng.random() * 0.5, rng.choice([0, 2])
    what = 'run %d: %s rank %d of %d, %d a node, %d elements' % (k, how, victim, ranks, node, elements)
    job = Job(ranks, args.program, 'loss', str(TIMEOUT), str(elements), str(node), tcp=args.tcp)
    pids = {int(m.group(1)): int(m.group(2)) for m in job.wait_for(r'rank (\d+) pid (\d+)$', ranks, 60)}
    started = job.wait_for(r'rank \d+ sums$', ranks, 60)
    if len(pids) != ranks or len(started) != ranks:
        job.end(pids.values())
        fail(what, 'did not start\n', '\n'.join(job.lines))
    time.sleep(delay)
    os.kill(pids[victim], getattr(signal, 'SIG' + how))
    at = time.time()
    pattern = r'rank (\d+) lost (\d+) after ([0-9.]+) close ([0-9.]+): (.*)'
    with Stalls() as stalls:
        ended = job.wait_for(pattern, ranks - 1, TIMEOUT + 15)
    seconds = time.time() - at
    job.end(pids.values())
    survivors = {int(m.group(1)) for m in ended}
    if survivors != set(range(ranks)) - {victim}:
        fail(what, 'survivors that ended:', sorted(survivors), '\n', '\n'.join(job.lines))
    slowest = 0.0
    for m in ended:
        lost, after, close, text = int(m.group(2)), float(m.group(3)), float(m.group(4)), m.group(5)
        slowest = max(slowest, after)
        if lost != victim or 'rank %d (' % victim not in text or 'pid %d' % pids[victim] not in text:
            fail(what, 'wrong message:', m.group(0))
        if close > 1 + 10 * stalls.worst:
            fail(what, 'close took %.2f s' % close)
    if slowest > TIMEOUT + 1 + 10 * stalls.worst:
        fail(what, 'noticed after %.2f s; the machine stalled for %.2f s' % (slowest, stalls.worst))
    print('%s: noticed after %.2f s (%.2f)' % (what, slowest, seconds), flush=True)


def loss(args):
    rng = random.Random(args.seed)
    for k in range(args.times):
        one_loss(args, rng, k)


def pause(args):
    """Silence and calls of MPI that do not come back were on its own side."""
    ranks, timeout = 3, 4.0
    job = Job(ranks, args.program, 'loss', str(timeout), '40000', '0', tcp=args.tcp)
    pids = {int(m.group(1)): int(m.group(2)) for m in job.wait_for(r'rank (\d+) pid (\d+)$', ranks, 60)}
    try:
        if len(pids) != ranks or len(job.wait_for(r'rank \d+ sums$', ranks, 60)) != ranks:
            fail('pause: did not start\n', '\n'.join(job.lines))
        for k in range(3):
            os.kill(pids[k % ranks], signal.SIGSTOP)
            time.sleep(0.65 * timeout)
            os.kill(pids[k % ranks], signal.SIGCONT)
            time.sleep(0.3)
        if job.found(r'rank \d+ lost') or job.process.poll() is not None:
            fail('pause: a rank was lost\n', '\n'.join(job.lines))
    finally:
        job.end(pids.values())
    print('pause: 3 processes')


def measure(args):
    job = Job(3, args.program, 'measure', tcp=args.tcp)
    job.process.wait(120)
    job.reader.join()
    if job.process.returncode != 0 or not job.found(r'latency [0-9.]+ us, bandwidth \d+ MB/s$'):
        fail('measure\n', '\n'.join(job.lines))
    print('measure:', job.found('latency.*')[0].group(0))


def fast(args):
    job = Job(4, args.program, 'fast', tcp=args.tcp)
    job.process.wait(120)
    job.reader.join()
    if job.process.returncode != 0 or len(job.found(r'rank \d fast$')) != 4:
        fail('fast\n', '\n'.join(job.lines))
    print('fast: 4 processes')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--program', required=True)
    p.add_argument('--times', type=int, default=4)
    p.add_argument('--seed', type=int, default=None)
    p.add_argument('--tcp', action='store_true')
    p.add_argument('--flood', action='store_true')
    p.add_argument('--only', choices=['bits', 'loss', 'pause', 'measure', 'fast'])
    args = p.parse_args()
    if not shutil.which('mpirun'):
        print('skipped: no mpirun (Debian: libopenmpi-dev openmpi-bin)')
        sys.exit(77)
    args.seed = int.from_bytes(os.urandom(3), 'big') if args.seed is None else args.seed
    print('seed', args.seed, flush=True)
    for name, f in (('bits', bits), ('measure', measure), ('fast', fast), ('pause', pause), ('loss', loss)):
        if args.only in (None, name):
            f(args)


main()
