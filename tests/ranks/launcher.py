"""./run cluster: losses are gone on from by themselves, to the same bytes; Ctrl-C saves; what is no loss ends it."""
import contextlib
import glob
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

from jobs import ROOT, Ranks, checkpoint, environ, expect, need_mpi, same, sh

CLUSTER = [sys.executable, os.path.join(ROOT, 'tools', 'cluster.py')]


class Launcher:
    def __init__(self, command):
        self.mark = '%d-%d' % (os.getpid(), time.monotonic_ns())
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True, env=dict(os.environ, MXCC_TEST_MARK=self.mark))
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip('\n'))

    def output(self):
        return '\n'.join(self.lines)

    def ranks(self, program):
        """{rank: pid} of what runs now; mpirun hands the environment on to ranks of this machine."""
        found = {}
        for path in glob.glob('/proc/[0-9]*'):
            try:
                if os.path.realpath(path + '/exe') != os.path.realpath(program):
                    continue
            except OSError:
                continue
            e = environ(int(path[6:]))
            if e.get('MXCC_TEST_MARK') == self.mark:
                found[int(e['OMPI_COMM_WORLD_RANK'])] = int(path[6:])
        return found

    def wait_lines(self, pattern, count, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [x for x in list(self.lines) if re.search(pattern, x)]
            if len(found) >= count:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        expect(False, 'expected %d lines with "%s"\n%s', count, pattern, self.output())

    def end(self, program, seconds=120):
        """Its exit status; nothing may be left of it."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        left, over = self.ranks(program), time.monotonic() + 2
        while left and time.monotonic() < over:  # on their way out
            time.sleep(0.05)
            left = self.ranks(program)
        for pid in left.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if status is None:
            self.process.kill()
        self.reader.join(5)
        expect(status is not None, 'it did not end\n%s', self.output())
        expect(not left, 'ranks %s were left\n%s', sorted(left), self.output())
        return status


def cases(env):
    r = Ranks(env)
    options = ('--epochs', '150', '--batch', '26')

    def command(out, *more, launcher=(), n=3):
        words = r.command('plain', out, *options, '--rank-timeout', '2', *more)
        return [*CLUSTER, *launcher, str(n), *words]

    def lost(number, more, times):
        """Ranks are lost, one after the other; the run ends as one that lost none."""
        need_mpi()
        program, out, chance = r.program('plain'), r.folder('launched'), random.Random(env.seed)
        long = ('--epochs', '800')  # seconds, of which each loss comes in the first
        job = Launcher(command(out, *long, *more))
        try:
            for k in range(times):
                job.wait_lines(' to train, ', k + 1)
                time.sleep(chance.uniform(0.1, 0.6))
                for _ in range(20):  # on a busy machine one may be lost by itself as this looks
                    pids = job.ranks(program)
                    with contextlib.suppress(ProcessLookupError):
                        if len(pids) == 3:
                            os.kill(pids[chance.randrange(3)], number)
                            break
                job.wait_lines('cluster: .*; start %d of at most 4' % (k + 2), 1)
        finally:
            status = job.end(program)
        expect(status == 0, 'seed %d: status %d\n%s', env.seed, status, job.output())
        same(r.train('plain', *options, *long, *more, virtual=3), out, 'seed %d, after %d losses\n%s' % (env.seed, times, job.output()))

    def gives_up():
        need_mpi()
        program, out = r.program('plain'), r.folder('launched')
        job = Launcher(command(out, '--epochs', '100000', launcher=('--restarts', '1')))
        for k in range(2):
            job.wait_lines(' to train, ', k + 1)
            time.sleep(0.3)
            os.kill(job.ranks(program)[1], signal.SIGKILL)
        status = job.end(program)
        expect(status == 1 and any('giving up' in x for x in job.lines), 'status %d\n%s', status, job.output())
        expect(os.path.exists(checkpoint(out)), 'nothing was saved\n%s', job.output())

    def interrupted():
        need_mpi()
        program, out = r.program('plain'), r.folder('launched')
        job = Launcher(command(out))
        job.wait_lines('^epoch ', 1)
        os.kill(job.process.pid, signal.SIGINT)
        status = job.end(program)
        expect(status == 130 and any('--resume goes on' in x for x in job.lines), 'status %d\n%s', status, job.output())
        p = sh(command(out, '--resume'), timeout=300)
        expect(p.status == 0, '%s', p)
        same(r.train('plain', *options, virtual=3), out, 'stopped by Ctrl-C and resumed')

    def no_loss():
        """What a restart would not mend."""
        need_mpi()
        for more, status, words in ((('--nothing', '1'), 2, 'no option'), (('--data', '/nowhere.csv'), 1, '/nowhere.csv'), (('--lr', '1'), 2, 'no option')):
            p = sh(command(r.folder('launched'), *more), timeout=120)
            expect(p.status == status and words in p.err and '; start ' not in p.out, '%s', p)

    def usage():
        for words, told in (((), 'expected'), (('x', 'y'), 'expected'), (('2', '/nowhere'), 'mxcc build'), (('--hosts', '/nowhere', '2', 'x'), 'no such file'),
                            (('--restarts', 'x', '2', 'y'), '--restarts'), (('2', r.program('plain'), '--virtual-ranks', '2'), 'processes')):
            p = sh([*CLUSTER, *words])
            expect(p.status == 2 and told in p.err, '%s', p)

    yield 'killed twice', lambda: lost(signal.SIGKILL, (), 2)
    yield 'stopped', lambda: lost(signal.SIGSTOP, (), 1)
    yield 'killed, with --shard', lambda: lost(signal.SIGKILL, ('--shard',), 1)
    yield 'gives up', gives_up
    yield 'Ctrl-C', interrupted
    yield 'no loss', no_loss
    yield 'usage', usage
