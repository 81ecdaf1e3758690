#!/usr/bin/env python3
"""./run cluster: trains over ranks, and goes on by itself when one is lost.

    cluster.py [--hosts FILE] [--restarts R] N PROGRAM [arguments of the program…]

Starts N ranks of a generated program with mpirun, as root too, more than there are cores if need be, and so that the others live when one
is lost (--hosts: a host file, one machine a line; the folder of results must be one that all share). The results' folder is --out, or
PROGRAM-run.

When a rank is lost, or hangs, the job is started again from its last checkpoint, at most R times (3). An error of the program itself, as
bad options or a loss that is no number, ends it. Ctrl-C: the run stops after its step, and is saved; once more: at once.

Exit status: that of the ranks: 0, 1 (an error, or too many losses), 2 (usage), 130 (stopped, everything saved).

mpirun's own status is 0 when it lets survivors live. So a shell around each rank says how it ended."""
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

MPIRUN = ['mpirun', '--allow-run-as-root', '--oversubscribe', '--enable-recovery', '--bind-to', 'none']
# The program is a child in the background, so that the shell gets mpirun's signals: SIGUSR1 asks rank 0 to stop.
WRAPPER = r'''
rank=$OMPI_COMM_WORLD_RANK
trap 'test "$rank" != 0 || kill -INT "$child"' USR1
(trap "" USR1; exec "$@") </dev/null &
child=$!
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do # the wait was ended by a signal
    wait "$child"
    status=$?
done
echo "cluster: rank $rank ended: $status" >&2
exit "$status"
'''
ENDED = re.compile(r'cluster: rank (\d+) ended: (\d+)$')
LOSS = re.compile(r': error: (?:operation `[^`]*`: )?(?:rank \d+ \((?!.* gave up: )|the other ranks take this one for lost)')
NOT_STARTED = 'the job did not start'
NOISE = re.compile(r'PMIX ERROR: .* in file .*event_notification')


def say(text, *args):
    print('cluster: ' + (text % args if args else text), flush=True)


def fail(text, *args):
    print('cluster: error: ' + (text % args if args else text), file=sys.stderr, flush=True)
    sys.exit(2)


def option(arguments, name):
    """The value of an option of the program; the last one counts."""
    value = None
    for i, word in enumerate(arguments):
        if word == name and i + 1 < len(arguments):
            value = arguments[i + 1]
        elif word.startswith(name + '='):
            value = word[len(name) + 1:]
    return value


class Job:
    """One start of all ranks."""

    def __init__(self, hosts, ranks, program, arguments):
        self.ranks, self.ended, self.error, self.loss, self.began = ranks, {}, None, None, False
        self.changed = threading.Condition()
        command = MPIRUN + (['--hostfile', hosts] if hosts else []) + (['-x', 'MXRT_MPI'] if 'MXRT_MPI' in os.environ else []) + ['-n', str(ranks), 'sh', '-c', WRAPPER, 'sh', program, *arguments]
        # A session of its own: Ctrl-C is for the launcher, which asks rank 0.
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for raw in self.process.stderr:
            line = raw.decode('utf-8', 'replace').rstrip('\n')
            m = ENDED.search(line)
            with self.changed:
                if m:
                    self.ended[int(m.group(1))] = (int(m.group(2)), time.monotonic())
                elif LOSS.search(line):
                    self.loss = self.loss or line
                elif ': error: ' in line:
                    self.error = self.error or line
                self.began |= ' to train, ' in line
                self.changed.notify()
            if not m and not NOISE.search(line):
                print(line, file=sys.stderr, flush=True)

    def stop(self):
        """Asks the run to stop and save."""
        self.process.send_signal(signal.SIGUSR1)

    def kill(self):
        """mpirun ends all its processes on all hosts; then itself."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def wait(self, grace):
        """Until mpirun has ended; `grace` seconds behind the first rank that ended badly, what is left of them hangs, and is killed."""
        while self.process.poll() is None:
            bad = [at for status, at in self.ended.values() if status not in (0, 130)]
            if bad and time.monotonic() > min(bad) + grace:
                self.kill()
                break
            with self.changed:
                self.changed.wait(0.2)
        self.reader.join(5)

    def outcome(self):
        """(exit status, what happened); status None: ranks were lost."""
        statuses = {rank: status for rank, (status, _) in self.ended.items()}
        missing = sorted(set(range(self.ranks)) - set(statuses))
        dead = sorted(rank for rank, status in statuses.items() if status > 128 and status != 130)
        if len(statuses) == self.ranks and set(statuses.values()) <= {0, 130}:
            return (130, 'stopped') if 130 in statuses.values() else (0, 'done')
        if 2 in statuses.values():
            return 2, 'usage'
        if self.error:
            return 1, 'an error'
        if dead:
            return None, 'rank %s was killed by %s' % (dead[0], name_of(statuses[dead[0]] - 128))
        if missing and (self.loss or len(missing) < self.ranks):
            return None, 'rank %s hangs, or its machine is gone' % missing[0]
        if self.loss:
            return None, 'the ranks have lost each other'
        return 1, NOT_STARTED if missing else 'an error'


def name_of(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return 'signal %d' % number


def identity(path):
    try:
        s = os.stat(path)
        return s.st_ino, s.st_mtime_ns, s.st_size
    except OSError:
        return None


def parse(words):
    hosts, restarts = None, 3
    while words and words[0].startswith('-'):
        name, value = words[0], words[1] if len(words) > 1 else ''
        if '=' in name:
            name, value = name.split('=', 1)
            words = words[1:]
        elif name in ('-h', '--help'):
            print(__doc__)
            sys.exit(0)
        else:
            words = words[2:]
        if name == '--hosts':
            hosts = value
            if not os.path.isfile(hosts):
                fail('--hosts %s: there is no such file', value)
        elif name == '--restarts' and value.isdigit():
            restarts = int(value)
        else:
            fail('%s %s: expected --hosts FILE or --restarts NUMBER, then the number of ranks and the program', name, value)
    if len(words) < 2 or not words[0].isdigit() or not 1 <= int(words[0]) <= 65536:
        fail('expected [--hosts FILE] [--restarts R] N PROGRAM [arguments…], saw %s', ' '.join(words) or 'nothing')
    program = shutil.which(words[1]) or os.path.abspath(words[1])
    if not os.access(program, os.X_OK) or os.path.isdir(program):
        fail('%s: there is no such program; mxcc build MODEL.mxl --main -o %s makes one', words[1], words[1])
    return hosts, restarts, int(words[0]), program, words[2:]


def main():
    hosts, restarts, ranks, program, arguments = parse(sys.argv[1:])
    if option(arguments, '--virtual-ranks'):
        fail('--virtual-ranks: these ranks are processes; leave it out, or start %s without ./run cluster', os.path.basename(program))
    if not shutil.which('mpirun'):
        fail('there is no mpirun; Debian has it in openmpi-bin')
    if not option(arguments, '--out'):
        arguments = arguments + ['--out', os.path.basename(program) + '-run']
    if not option(arguments, '--kvstore'):
        arguments = arguments + ['--kvstore', 'dist_sync']
    out = option(arguments, '--out')
    checkpoint = os.path.join(out, 'checkpoint.safetensors')
    timeout = option(arguments, '--rank-timeout') or '10'
    grace = 2 * float(timeout) + 6 if re.fullmatch(r'\d+(\.\d+)?', timeout) else 26
    before, interrupts, job = identity(checkpoint), 0, None

    def interrupt(number, frame):
        nonlocal interrupts
        interrupts += 1
        if job and job.process.poll() is None:
            if interrupts == 1 and job.began:
                say('stopping after this step; once more to stop at once')
                job.stop()
            else:
                say('ending all ranks')
                job.process.terminate()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    say('%d ranks of %s%s; results in %s', ranks, os.path.basename(program), ' on the machines of ' + hosts if hosts else '', out)
    lost = 0
    while True:
        job = Job(hosts, ranks, program, arguments)
        job.wait(grace)
        status, what = job.outcome()
        if interrupts:
            sys.exit(130)
        if status is not None and not (lost and what == NOT_STARTED):  # a machine that is gone is not there for the next start either
            if status:
                say('%s; exit status %d', what, status)
            sys.exit(status)
        lost += 1
        if lost > restarts:
            say('%s; that is loss %d, and --restarts is %d: giving up', what, lost, restarts)
            sys.exit(1)
        saved = '--resume' in arguments or identity(checkpoint) != before
        arguments = [a for a in arguments if a != '--resume'] + (['--resume'] if saved and identity(checkpoint) else [])
        say('%s; start %d of at most %d, %s', what, lost + 1, restarts + 1, 'from ' + checkpoint if '--resume' in arguments else 'from the beginning: nothing was saved')
        end = time.monotonic() + min(2 ** lost / 2, 60)
        while time.monotonic() < end and not interrupts:
            time.sleep(0.1)
        if interrupts:
            sys.exit(130)


if __name__ == '__main__':
    main()
