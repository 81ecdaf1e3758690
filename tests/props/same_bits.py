"""The same bits with 1, 2 and 4 threads, with and without --threads, and again: trained weights, results of every call."""
import os

from common import HERE, expect, must, points_csv, same_checkpoint, stem


def train(env, program, name, data, *options):
    out = os.path.join(env.folder('same_bits'), name)
    must([program, 'train', '--data', data, '--out', out, '--quiet', '--seed', '3', *options], timeout=600)
    return os.path.join(out, 'checkpoint.safetensors')


def data_of(env, source):
    if os.path.dirname(source) == HERE:
        return points_csv(os.path.join(env.folder('same_bits'), 'points.csv'))
    return os.path.join(os.path.dirname(source), 'digits.csv')


def trained(env):
    """Models with a train block whose data lies beside them."""
    own = [os.path.join(HERE, 'points.mxl')]
    return own + [m for m in env.samples if stem(m) == 'digits' and os.path.exists(data_of(env, m))]


def cases(env):
    def threads(source, flags):
        data, program = data_of(env, source), env.program(source, *flags)
        steps = ['--epochs', '1', '--steps', '12']
        name = stem(source) + str(len(flags))
        first = train_steps(program, name + '-1', data, '--threads', '1', *steps)
        for n in (1, 2, 4):
            other = train_steps(program, '%s-%d-again' % (name, n), data, '--threads', str(n), *steps)
            complaint = same_checkpoint(first, other)
            expect(complaint is None, '%d threads: %s', n, complaint)
        return first

    def train_steps(program, name, data, *options):
        out = os.path.join(env.folder('same_bits'), name)
        r = must_stop([program, 'train', '--data', data, '--out', out, '--quiet', '--seed', '3', *options])
        expect(r, 'stopped wrongly')
        return os.path.join(out, 'checkpoint.safetensors')

    def must_stop(argv):
        from common import sh
        r = sh(argv, timeout=600)
        expect(r.status in (0, 130), '%s', r)
        return True

    def same_everywhere(source):
        a, b = threads(source, ('--threads',)), threads(source, ())
        complaint = same_checkpoint(a, b)
        expect(complaint is None, 'with the pool and without: %s', complaint)

    for m in trained(env):
        yield 'threads of ' + stem(m), lambda m=m: same_everywhere(m)
