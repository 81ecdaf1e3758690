"""What training over ranks computes: the same bits as the same number of ranks in one process, whatever the ways and sizes in which
tensors travel; what one process computes, but for rounding; the same bits after --resume."""
import os
import re
import shutil

from jobs import Ranks, checkpoint, close, distance, expect, metrics, same, sh, tensors


# Batches of 26 of 80 samples: not divisible by 4 or 8, and the last one of an epoch has two samples.
OPTIONS = {
    'digits': ('--batch', '26', '--epochs', '2'), 'plain': ('--batch', '26', '--epochs', '2'), 'two': ('--batch', '26', '--epochs', '2'),
    'lines': ('--batch', '10', '--epochs', '1', '--steps', '20'), 'tied': ('--batch', '15', '--epochs', '1', '--steps', '12'),
    'rows': ('--batch', '15', '--epochs', '1', '--steps', '12'),
}
STOPPED = (0, 130)  # --steps
EXACT = {'digits': False}  # batch norm: statistics are those of parts


def residuals(out):
    return sorted(f for f in os.listdir(out) if '.residual.' in f)


def cases(env):
    r = Ranks(env)
    done = {}

    def trained(name, virtual, *more):
        """One process, or ranks in one."""
        key = (name, virtual) + more
        if key not in done:
            done[key] = r.train(name, *OPTIONS[name], *more, virtual=virtual, status=STOPPED)
        return done[key]

    def processes(name, n):
        same(trained(name, n), r.train(name, *OPTIONS[name], mpi=n, status=STOPPED), '%d processes and virtual ranks' % n)

    def one(name):
        """The distance grows with the steps: what rounding changed goes on through Adam's square roots."""
        alone = trained(name, 0)
        for n in (1, 2, 4, 8):
            other = trained(name, n)
            if n == 1:
                expect(tensors(checkpoint(alone))[0] == tensors(checkpoint(other))[0], 'one rank and no ranks differ')
            elif EXACT.get(name, True):
                close(alone, other, '%d ranks and one process' % n)
            else:
                d, tensor = distance(alone, other)
                expect(d > 0, '%s: %d ranks normalise as one process does; the test looks at nothing', tensor, n)
            (a, b) = (metrics(x) for x in (alone, other))
            for row, row2 in zip(a, b):
                for k in row:
                    if re.search('loss|correct|accuracy|norm', k) and row[k] and EXACT.get(name, True):
                        x, y = float(row[k]), float(row2[k])
                        expect(abs(x - y) <= 1e-4 * abs(x), '%d ranks: %s is %s, not %s', n, k, row2[k], row[k])

    def ways(name, n):
        first = trained(name, n)
        for more in (('--shard',), ('--servers', '1'), ('--servers', str(n - 1)), ('--bucket', '1000'), ('--bucket', '100000000'), ('--threads', '1'), ('--threads', '2'), ('--node-ranks', '2')):
            if more[0] == '--servers' and name == 'lines':
                continue
            same(first, trained(name, n, *more), ' '.join(more))

    def ways_of_processes():
        for more in (('--shard',), ('--servers', '2'), ('--node-ranks', '2')):
            same(trained('plain', 4), r.train('plain', *OPTIONS['plain'], *more, mpi=4), ' '.join(more))

    def resumed(name, n, *more):
        """Stopped in the middle of an epoch, once and again."""
        out = r.folder(name)
        for steps in ('5', '6'):
            again = ('--resume',) if os.path.exists(checkpoint(out)) else ()
            r.train(name, *OPTIONS[name], '--steps', steps, *more, *again, virtual=n, out=out, status=(130,))
        r.train(name, *OPTIONS[name], *more, '--resume', virtual=n, out=out, status=STOPPED)
        same(trained(name, n), out, 'stopped and resumed')
        rows = [[row['step'] for row in metrics(o)] for o in (trained(name, n), out)] if metrics(out) and 'step' in metrics(out)[0] else [0, 0]
        expect(rows[0] == rows[1], 'metrics.csv has other rows: %s', rows)

    def resumed_by_others():
        """Other numbers of ranks, one process among them, go on: equal but for rounding."""
        for first, then in ((4, 2), (2, 5), (4, 0), (0, 3)):
            out = r.train('plain', *OPTIONS['plain'], '--steps', '5', virtual=first, status=(130,))
            r.train('plain', *OPTIONS['plain'], '--resume', virtual=then, out=out)
            close(trained('plain', 0), out, '%d ranks, then %d' % (first, then))

    def resumed_by_processes():
        out = r.train('plain', *OPTIONS['plain'], '--steps', '6', virtual=4, status=(130,))
        r.train('plain', *OPTIONS['plain'], '--resume', mpi=4, out=out)
        same(trained('plain', 4), out, 'begun in one process, ended by four')

    def fast():
        close(trained('plain', 4), r.train('plain', *OPTIONS['plain'], '--reduction', 'fast', mpi=4), '--reduction fast')

    def accuracy(*more, **which):
        out = r.train('plain', '--batch', '32', '--epochs', '3', *more, data='more.csv', **which)
        return float(metrics(out)[-1]['test_accuracy' if 'test_accuracy' in metrics(out)[-1] else 'accuracy'])

    def apart():
        sync = accuracy(virtual=4)
        for which in ({'virtual': 4}, {'mpi': 3}):
            reached = accuracy('--kvstore', 'dist_async', '--servers', '2', **which)
            expect(reached > sync - 0.08, 'dist_async reaches %g, dist_sync %g', reached, sync)

    def rows_apart():
        """dist_async with gradients that go as rows learns, too."""
        options = ('--batch', '24', '--epochs', '3')
        sync, apart = (float(metrics(r.train('rows', *options, *more, virtual=3))[-1]['loss'])
                       for more in ((), ('--kvstore', 'dist_async', '--servers', '2')))
        expect(apart < 1.1 * sync + 0.1, 'dist_async ends with a loss of %g, dist_sync with %g', apart, sync)

    def compressed(kind, part):
        """Lossy, but it learns: the loss of the last epoch is `part` of that of the first. One bit an element says little more than a sign."""
        out = r.train('plain', '--batch', '32', '--epochs', '3', '--compression', kind, virtual=3, data='more.csv')
        losses = [float(row['train_loss' if 'train_loss' in row else 'loss']) for row in metrics(out)]
        expect(losses[-1] < part * losses[0], '%s: losses %s', kind, losses)
        plain = r.train('plain', '--batch', '32', '--epochs', '3', virtual=3, data='more.csv')
        d, _ = distance(plain, out)
        expect(d > 0, '%s changes nothing', kind)

    def compressed_resumed(kind, *more, **which):
        """What compression left out goes on, too, in every rank's file; another kind begins with nothing left out."""
        options = ('--batch', '32', '--epochs', '2', '--compression', kind, *more)
        whole = r.train('plain', *options, data='more.csv', **which)
        out = r.train('plain', *options, '--steps', '9', data='more.csv', status=(130,), **which)
        n = max(which.values())
        expect(residuals(out) == ['checkpoint.residual.%d.9.safetensors' % k for k in range(n)], '%s', residuals(out))
        r.train('plain', *options, '--resume', out=out, data='more.csv', **which)
        same(whole, out, 'resumed with ' + kind)
        expect(len(residuals(out)) == n, '%s', residuals(out))

    def compressed_otherwise():
        out = r.train('plain', '--batch', '32', '--epochs', '2', '--compression', '2bit:0.02', '--steps', '9', data='more.csv', virtual=3, status=(130,))
        for options in (('--compression', 'bf16'), ('--compression', '2bit:0.02', '--virtual-ranks', '2')):
            other = r.folder('plain')
            shutil.copytree(out, other)
            command = r.command('plain', other, '--batch', '32', '--epochs', '2', '--virtual-ranks', '3', *options, '--resume', data='more.csv')
            result = sh(command)
            said = result.out + result.err
            expect('compression begins with nothing left out' in said and 'checkpoint.residual.0.9' in said, '%s', said)

    for name in OPTIONS:
        yield 'one process, and ranks: ' + name, lambda name=name: one(name)
    for name, ns in {'digits': (2, 4, 8), 'lines': (2, 4, 8), 'tied': (3,), 'two': (4,), 'plain': (5,)}.items():
        for n in ns:
            yield '%d processes: %s' % (n, name), lambda name=name, n=n: processes(name, n)
    for name in ('plain', 'lines', 'tied', 'rows', 'two'):
        yield 'ways and sizes: ' + name, lambda name=name: ways(name, 4 if name == 'plain' else 3)
    yield 'ways of processes', ways_of_processes
    for name in ('plain', 'digits', 'lines', 'two'):
        yield 'resumed: ' + name, lambda name=name: resumed(name, 4)
    for more in (('--shard',), ('--servers', '2')):
        yield 'resumed with ' + more[0], lambda more=more: resumed('plain', 4, *more)
    yield 'resumed by other numbers of ranks', resumed_by_others
    yield 'resumed by processes', resumed_by_processes
    yield 'the library\'s reduction', fast
    yield 'dist_async', apart
    yield 'dist_async with rows', rows_apart
    for kind, part in {'2bit:0.02': 0.85, '1bit:0': 0.99, 'bf16': 0.85, 'topk:0.1': 0.9}.items():
        yield 'compression ' + kind, lambda kind=kind, part=part: compressed(kind, part)
    for kind, more in {'2bit:0.02': (), 'bf16': (), '1bit:0': ('--servers', '2'), 'topk:0.1': ('--bucket', '4096')}.items():
        yield 'resumed with compression ' + kind, lambda kind=kind, more=more: compressed_resumed(kind, *more, virtual=3)
    yield 'resumed by processes with compression', lambda: compressed_resumed('2bit:0.02', mpi=2)
    yield 'resumed with other compression', compressed_otherwise
