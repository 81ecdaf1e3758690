#!/usr/bin/env python3
"""The samples, as a user would run them: built with `mxcc build`, trained, asked for predictions or text.

    run.py --mxcc build/mxcc [--long] [--only NAME]... [--skip NAME]...

Without --long, digits trains fully and must pass its figure; of the others a stated few steps run, on a part of their data (fashion 20, chars 70,
gpt 52), after which the loss must have fallen, and three clients of `federated` train for two rounds. With --long all train to the figures that samples/README.md gives: more than 91% of Fashion-MNIST's test
images, and on the last tenth of the text a lower cross entropy than samples/kneser_ney.py reaches, and ten federated clients to 95% of what one program reaches. Times are never asserted. A sample
whose data is not installed is skipped, and says so. Only Python's standard library is needed.
"""
import argparse
import csv
import gzip
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLES = os.path.join(ROOT, 'samples')
FASHION = '/usr/share/datasets/fashion-mnist'


class Failure(Exception):
    pass


class Skipped(Exception):
    pass


def expect(condition, *words):
    if not condition:
        raise Failure(' '.join(str(w) for w in words))


def sh(*command, cwd=None):
    """Runs a command, which must succeed; its standard output."""
    p = subprocess.run([str(c) for c in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    expect(p.returncode == 0, ' '.join(map(str, command)), 'gave', p.returncode, '\n', p.stdout.decode(errors='replace')[-2000:],
           p.stderr.decode(errors='replace')[-2000:])
    return p.stdout.decode()


class Env:
    def __init__(self, mxcc, folder, long):
        self.mxcc, self.folder, self.long = os.path.abspath(mxcc), folder, long

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def program(self, name):
        sh(self.mxcc, 'build', os.path.join(SAMPLES, name + '.mxl'), '--cpu', 'native', '--threads', '--main', '-o', self.path(name))
        return self.path(name)

    def train(self, name, *options):
        """Rows of metrics.csv, numbers by column name; the run's folder is NAME-run."""
        program = self.program(name)
        sh(program, '--out', self.path(name + '-run'), '--quiet', *options)
        with open(self.path(name + '-run', 'metrics.csv')) as f:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]

    def bible(self):
        if not shutil.which('bible'):
            raise Skipped('bible-kjv is not installed')
        sh('sh', os.path.join(SAMPLES, 'text.sh'), self.path('bible.txt'))
        return self.path('bible.txt')


def write_npy(path, shape, floats):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % ', '.join(map(str, shape))
    header += ' ' * (-(len(header) + 11) % 64) + '\n'
    with open(path, 'wb') as f:
        f.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode() + struct.pack('<%df' % len(floats), *floats))


def read_npy(path):
    with open(path, 'rb') as f:
        data = f.read()
    begin = 10 + struct.unpack('<H', data[8:10])[0]
    return struct.unpack('<%df' % ((len(data) - begin) // 4), data[begin:])


def digits(env):
    rows = env.train('digits')
    accuracy = rows[-1]['test_accuracy']
    expect(accuracy > 98, 'digits: accuracy', accuracy, 'after', len(rows), 'epochs')
    with open(os.path.join(SAMPLES, 'digits.csv')) as f:
        lines = [[int(v) for v in line.split(',')] for line in f][:64]
    write_npy(env.path('x.npy'), [64, 1, 8, 8], [v / 16 for line in lines for v in line[:64]])
    sh(env.path('digits'), 'predict', '--weights', env.path('digits-run', 'checkpoint.safetensors'), '--in', 'x=' + env.path('x.npy'), '--out', env.path('predicted'))
    scores = read_npy(env.path('predicted', 'result.npy'))
    expect(len(scores) == 640, 'predict gave', len(scores), 'numbers')
    right = 0
    for i, line in enumerate(lines):
        own = scores[10 * i:10 * i + 10]
        expect(abs(sum(own) - 1) < 1e-5, 'the probabilities of image', i, 'have the sum', sum(own))
        right += own.index(max(own)) == line[64]
    expect(right >= 62, 'predict reads', right, 'of 64 digits right')
    # The C program of the demo reads what was trained; the loss curve is drawn.
    sh(env.mxcc, os.path.join(SAMPLES, 'digits.mxl'), '--no-runtime', '-o', env.path('digits.c'))
    sh('cc', '-std=c99', '-Wall', '-Wextra', '-Wpedantic', '-Werror', '-O1', '-I' + env.folder, os.path.join(SAMPLES, 'digits_predict.c'), env.path('digits.c'), '-lm',
       '-o', env.path('predict'))
    out = sh(env.path('predict'), env.path('digits-run', 'checkpoint.safetensors'), os.path.join(SAMPLES, 'digits.csv'), 12, 345, 1777)
    expect(len(re.findall(r'read as (\d) .* written as \1', out)) >= 2, 'digits_predict wrote', out)
    sh(sys.executable, os.path.join(SAMPLES, 'plot.py'), env.path('digits-run', 'metrics.csv'), '-o', env.path('loss.svg'))
    with open(env.path('loss.svg'), encoding='utf-8') as f:
        expect(f.read().count('<polyline') >= 3, 'plot.py drew too few curves')
    return 'accuracy %.2f%%, %d epochs' % (accuracy, len(rows))


def fashion(env):
    if not os.path.exists(FASHION):
        raise Skipped('dataset-fashion-mnist is not installed')
    if env.long:
        rows = env.train('fashion')
        expect(len(rows) <= 8 and rows[-1]['test_accuracy'] > 91, 'fashion: accuracy', rows[-1]['test_accuracy'], 'after', len(rows), 'epochs')
        return 'accuracy %.2f%%' % rows[-1]['test_accuracy']
    os.makedirs(env.path('part'))
    count = 1280
    for name, header, size in (('train-images-idx3-ubyte.gz', 16, 784), ('train-labels-idx1-ubyte.gz', 8, 1)):
        with gzip.open(os.path.join(FASHION, name)) as f:
            head, body = f.read(header), f.read(count * size)
        with gzip.open(env.path('part', name), 'wb', compresslevel=1) as f:
            f.write(head[:4] + struct.pack('>I', count) + head[8:] + body)
    rows = env.train('fashion', '--data', env.path('part'), '--epochs', '2')
    expect(rows[-1]['step'] == 20 and rows[1]['loss'] < rows[0]['loss'] < 5, 'fashion: losses', [r['loss'] for r in rows])
    return 'loss %.3f after 10 steps, %.3f after 20' % (rows[0]['loss'], rows[1]['loss'])


def text(env, name, part, prompt, length):
    """chars and gpt: both learn a text, and go on from a prompt."""
    whole = env.bible()
    if env.long:
        rows = env.train(name, '--data', whole)
        found = re.search(r'([0-9.]+) nats', sh(sys.executable, os.path.join(SAMPLES, 'kneser_ney.py'), whole, '--split', '0.9'))
        bound, loss = float(found.group(1)), rows[-1]['test_loss']
        expect(loss < bound, name, ': cross entropy', loss, ', Kneser-Ney', bound)
        message = 'cross entropy %.4f, 5-gram with Kneser-Ney smoothing %.4f' % (loss, bound)
    else:
        with open(whole) as f, open(env.path('part.txt'), 'w') as g:
            g.write(f.read(part))
        rows = env.train(name, '--data', env.path('part.txt'), '--epochs', '2')
        expect(rows[1]['loss'] < rows[0]['loss'] < 4.2 and rows[1]['test_loss'] < 3.5, name, ': losses', rows)
        message = 'loss %.3f, then %.3f, after %d steps' % (rows[0]['loss'], rows[1]['loss'], rows[1]['step'])
    call = [env.path(name), 'call', 'generate', '--weights', env.path(name + '-run', 'checkpoint.safetensors'), '--in', 'temperature=0.7', '--in', 'prompt=' + prompt]
    written = sh(*call)
    expect(written.startswith(prompt) and len(written) == length + 1, name, ': generate wrote', repr(written))
    expect(sh(*call) == written, name, ': generate wrote something else the second time')
    expect(sh(*call, '--seed', '7') != written, name, ': generate wrote the same with another seed')
    return message


def chars(env):
    return text(env, 'chars', 60000, 'In the beginning', 512)


def gpt(env):
    return text(env, 'gpt', 30000, 'And God said', 128)


def kneser_ney(env):
    """The baseline's distributions sum to 1, and longer contexts help."""
    whole = env.bible()
    with open(whole) as f, open(env.path('some.txt'), 'w') as g:
        g.write(f.read(200000))
    figures = [float(re.search(r'([0-9.]+) nats', sh(sys.executable, os.path.join(SAMPLES, 'kneser_ney.py'), env.path('some.txt'), '--check', '--order', n)).group(1))
               for n in (1, 2, 3, 5)]
    expect(figures == sorted(figures, reverse=True), 'orders 1, 2, 3, 5 gave', figures)
    return 'nats of orders 1, 2, 3 and 5: ' + ' '.join(map(str, figures))


def embed(env):
    if not shutil.which('make'):
        raise Skipped('make is not installed')
    for name in ('digits.mxl', 'digits.csv'):
        shutil.copy(os.path.join(SAMPLES, name), env.path(name))
    shutil.copytree(os.path.join(SAMPLES, 'embed'), env.path('embed'))
    out = sh('make', '-s', 'MXCC=' + env.mxcc, 'run', cwd=env.path('embed'))
    found = re.search(r'(\d+) of (\d+) new images look usual; digits reads (\d+) of them right; (\d+) of (\d+) images of noise', out)
    expect(found, 'embed wrote', out)
    usual, new, right, strange, noise = map(int, found.groups())
    expect(usual > 0.9 * new and right > 0.98 * usual and strange > 0.95 * noise, 'embed wrote', out)
    return out.strip().split('\n')[-1]


def incremental(env):
    """Only what depends on the head runs after a step of the head, and nothing without a change."""
    if not shutil.which('make'):
        raise Skipped('make is not installed')
    shutil.copy(os.path.join(SAMPLES, 'digits.csv'), env.path('digits.csv'))
    shutil.copytree(os.path.join(SAMPLES, 'incremental'), env.path('incremental'))
    out = sh('make', '-s', 'MXCC=' + env.mxcc, 'run', cwd=env.path('incremental'))
    whole, head, nothing = (int(re.search('score %s: *([0-9]+) operations' % words, out).group(1))
                            for words in ('after new pictures', 'after a step of the head', 'without a change'))
    expect(nothing == 0 < head < whole and whole - head >= 4, 'incremental wrote', out)
    good, total = map(int, re.search(r'new pictures: (\d+) of (\d+) right', out).groups())
    expect(good > 0.8 * total, 'incremental wrote', out)
    report = sh(env.mxcc, 'report', env.path('incremental', 'online.mxl'))
    for source, count in (('x', whole), ('parity.features.conv1.weight', whole), ('head.weight', head), ('head.bias', head)):
        expect(re.search(r'^ *%s  +%d$' % (re.escape(source), count), report, re.M), 'after a change of', source, 'the report says\n', report)
    return '%d operations after new pictures, %d after a step of the head; %s' % (
        whole, head, re.search(r'1/\d+ of the time', out).group(0))


def unrolled(env):
    flags = sh(env.mxcc, '--cflags', '--libs', cwd=env.path('')).split()
    sh('cc', '-std=gnu11', '-O2', os.path.join(SAMPLES, 'engine', 'unrolled.c'), *flags, '-lm', '-o', env.path('unrolled'), cwd=env.path(''))
    out = sh(env.path('unrolled'), cwd=env.path(''))
    found = re.search(r'300 iterations.*: (\d+) nodes ran, running everything would be (\d+)', out)
    expect(found, 'unrolled wrote', out)
    ran, everything = map(int, found.groups())
    expect(ran * 4 < everything, 'too many nodes ran:', out)
    return out.strip()


def federated(env):
    """A server and clients of Flower, in processes of their own. The virtual environment is kept beside the compiler."""
    folder = os.path.join(os.path.dirname(env.mxcc), 'federated')
    few = [] if env.long else ['--clients', '3', '--rounds', '2', '--target', '0.3']
    p = subprocess.run([sys.executable, os.path.join(SAMPLES, 'federated', 'run.py'), '--mxcc', env.mxcc, '--folder', folder, *few],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode == 77:
        raise Skipped(p.stderr.strip())
    expect(p.returncode == 0, 'federated gave', p.returncode, '\n', p.stdout[-2000:], p.stderr[-2000:])
    found = re.search(r'federated ([0-9.]+)%, central ([0-9.]+)%, ratio ([0-9.]+)', p.stdout)
    expect(found and float(found.group(2)) > 98, 'federated wrote', p.stdout)
    return found.group(0)


TESTS = [digits, embed, unrolled, incremental, kneser_ney, fashion, chars, gpt, federated]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--mxcc', default=os.path.join(ROOT, 'build', 'mxcc'))
    options.add_argument('--long', action='store_true')
    options.add_argument('--only', action='append')
    options.add_argument('--skip', action='append', default=[])
    o = options.parse_args()
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    for test in TESTS:
        name = test.__name__
        if (o.only and name not in o.only) or name in o.skip:
            continue
        with tempfile.TemporaryDirectory(prefix='mxcc-samples-') as folder:
            try:
                verdict, words = 'passed', test(Env(o.mxcc, folder, o.long))
            except Failure as e:
                verdict, words = 'failed', str(e)
            except Skipped as e:
                verdict, words = 'skipped', str(e)
        counts[verdict] += 1
        print('%s %s: %s' % (verdict, name, words), flush=True)
    print('%d passed, %d failed' % (counts['passed'], counts['failed']) + (', %d skipped' % counts['skipped'] if counts['skipped'] else ''))
    return counts['failed'] > 0


if __name__ == '__main__':
    sys.exit(main())
