"""A training that is killed or interrupted at any moment goes on from its last checkpoint to the same bits as one that was not."""
import os
import random
import shutil
import signal
import subprocess
import time

from common import Failure, expect, must, read, same_checkpoint, sh, stem
from same_bits import data_of, trained

EPOCHS = {'points': 6}  # of the others, 2


def cases(env):
    folder = env.folder('resume')

    def command(program, out, data, *more):
        return [program, 'train', '--data', data, '--out', out, '--epochs', str(EPOCHS.get(stem(program.rsplit('-', 1)[0]), 2)), '--seed', '5', *more]

    def straight(source):
        out = os.path.join(folder, stem(source) + '-straight')
        program, data = env.program(source), data_of(env, source)
        began = time.monotonic()
        must(command(program, out, data, '--quiet'), timeout=600)
        return program, data, out, time.monotonic() - began

    def checkpoint(out):
        return os.path.join(out, 'checkpoint.safetensors')

    def stopped(source, number):
        """Signals at random moments, from a printed seed; each next run goes on, until one ends by itself."""
        program, data, reference, seconds = straight(source)
        seed = random.SystemRandom().randrange(10 ** 6)
        chance, out, kills = random.Random(seed), os.path.join(folder, '%s-%d' % (stem(source), number)), 0
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(40):
            resume = ['--resume'] if os.path.exists(checkpoint(out)) else []
            p = subprocess.Popen(command(program, out, data, *resume), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            time.sleep(chance.uniform(0, seconds) if kills < 6 else 2 * seconds + 1)
            if p.poll() is None:
                p.send_signal(number)
            text = p.communicate(timeout=300)[0].decode('utf-8', 'replace')
            if p.returncode == 0:
                break
            kills += 1
            allowed = (130,) if number == signal.SIGINT else (-number,)
            if number == signal.SIGINT and not os.path.exists(checkpoint(out)):
                allowed += (-number,)  # before training began there is nothing to save
            expect(p.returncode in allowed or p.returncode == -number, 'seed %d: status %d\n%s', seed, p.returncode, text)
        else:
            raise Failure('seed %d: it never ended' % seed)
        complaint = same_checkpoint(checkpoint(reference), checkpoint(out))
        expect(complaint is None, 'seed %d, %d kills: %s', seed, kills, complaint)
        rows = [[r.split(',')[k] for r in read(os.path.join(o, 'metrics.csv')).splitlines() for k in (0, 1)] for o in (reference, out)]
        expect(rows[0] == rows[1], 'seed %d: metrics.csv has other rows: %s', seed, rows[1])

    def every_step(source):
        """Stopped after each of the first steps, resumed once."""
        program, data, reference, _ = straight(source)
        for step in (1, 2, 7, 8, 9):
            out = os.path.join(folder, '%s-step-%d' % (stem(source), step))
            shutil.rmtree(out, ignore_errors=True)
            r = sh(command(program, out, data, '--quiet', '--steps', str(step)))
            expect(r.status in (0, 130), '%s', r)
            must(command(program, out, data, '--quiet', '--resume'))
            complaint = same_checkpoint(checkpoint(reference), checkpoint(out))
            expect(complaint is None, 'stopped after step %d: %s', step, complaint)

    def other_batch(source):
        program, data, reference, _ = straight(source)
        before = read(checkpoint(reference), 'rb')
        r = sh(command(program, reference, data, '--resume', '--batch', '7'))
        expect(r.status == 1 and 'batches of' in r.err, '%s', r)
        r = sh([program, 'train', '--data', data, '--out', reference, '--resume', '--seed', '6'])
        expect(r.status == 1 and 'seed 5' in r.err, '%s', r)
        expect(read(checkpoint(reference), 'rb') == before, 'the checkpoint was changed')

    small = trained(env)[0]
    for m in trained(env):
        yield 'killed: ' + stem(m), lambda m=m: stopped(m, signal.SIGKILL)
    yield 'Ctrl-C', lambda: stopped(small, signal.SIGINT)
    yield 'after any step', lambda: every_step(small)
    yield 'other options on resumption', lambda: other_batch(small)
