#!/usr/bin/env python3
"""The CUDA target on a real GPU, in one run of less than 8 minutes: `./run test gpu`.

    gpu.py --mxcc build/mxcc [--json FILE] [--seconds 450] [--only NAME]... [--emulated]

Programs of tests/cuda print what the C units print, up to rounding, and the same bits with graphs, without, and again; products with and
without cuBLASLt; the small variants of the zoo give eager's losses and gradients; behaviour tests; and the tools of compute-sanitizer,
where they are installed, find nothing. --emulated runs what the emulation can. Without a GPU it says so and ends with 77.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import samples  # noqa: E402
from checks import Failure, expect  # noqa: E402
from machine import Machine, NoGpu, Report, Skipped, command, no_gpu, positive  # noqa: E402

TOOLS = ('memcheck', 'racecheck', 'initcheck', 'synccheck')


def words(text):
    return re.findall(r'-?\d+\.?\d*(?:e[-+]\d+)?|[^\s\d]+', text)


def agree(name, got, expected, bound):
    """The same words, and numbers up to a bound."""
    a, b = words(got), words(expected)
    expect(len(a) == len(b), name, 'prints\n', got, '\nexpected\n', expected)
    for x, y in zip(a, b):
        try:
            same = abs(float(x) - float(y)) <= bound * max(1, abs(float(y)))
        except ValueError:
            same = x == y
        expect(same, name, 'prints', x, 'where', y, 'is expected, in\n', got)


class Programs:
    """The programs of this folder, built for the machine, each once."""

    def __init__(self, o, machine):
        self.o, self.machine, self.built = o, machine, {}

    def build(self, name, flags=(), defines=()):
        key = (name, flags, defines)
        if key not in self.built:
            folder = tempfile.mkdtemp(dir=self.o.folder)
            unit = os.path.join(folder, name + '.cu')
            model = shutil.copy(os.path.join(HERE, name + '.mxl'), folder)
            command([self.o.mxcc, model, '-o', unit, *flags])
            compiled = self.machine.compile(unit, *defines)
            main = os.path.join(folder, 'main.o')
            command(['cc', '-O1', '-I' + folder, '-c', os.path.join(HERE, name + '.c'), '-o', main])
            self.built[key] = self.machine.link(os.path.join(folder, name), main, compiled, flags=flags)
        return self.built[key]

    def plain(self, name):
        if name not in self.built:
            folder = tempfile.mkdtemp(dir=self.o.folder)
            model = shutil.copy(os.path.join(HERE, name + '.mxl'), folder)
            command([self.o.mxcc, model, '-o', os.path.join(folder, name + '.c')])
            self.built[name] = os.path.join(folder, name)
            command(['cc', '-O1', '-ffp-contract=off', '-I' + folder, os.path.join(HERE, name + '.c'), os.path.join(folder, name + '.c'), '-lm', '-o', self.built[name]])
        return self.built[name]

    def output(self, path, *arguments):
        folder = os.path.dirname(path)
        p = subprocess.run([path, *arguments], capture_output=True, text=True, cwd=folder, timeout=200)
        expect(p.returncode == 0, path, 'gave', p.returncode, p.stdout[-1500:], p.stderr[-1500:])
        return p.stdout.replace(folder, '')


def interface(p):
    agree('interface', p.output(p.build('interface')), p.output(p.plain('interface')), 2e-3)


def parts(p):
    text = p.output(p.build('parts'))
    agree('parts', text, p.output(p.plain('parts')), 1e-4)
    expect(p.output(p.build('parts')) == text, 'the second run gives other bits')
    for define in ('-DMX_CUDA_NO_GRAPHS', '-DMX_CUDA_SYNC'):
        expect(p.output(p.build('parts', (), (define,))) == text, define, 'gives other bits')


def numbers(p, path):
    to = path + '.out'
    p.output(path, to)
    with open(to, 'rb') as f:
        return memoryview(f.read()).cast('d').tolist()


def by_library(p, name, library):
    """With own kernels and by a library the numbers of C, and the same bits in every run."""
    expected = numbers(p, p.plain(name))
    for flags in ((), (library,)):
        got = numbers(p, p.build(name, flags))
        expect(len(got) == len(expected), 'other results with', *flags)
        worst = max(abs(a - b) / max(1, abs(b)) for a, b in zip(got, expected))
        expect(worst <= 3e-2, 'the largest difference is', worst, *flags)  # of bf16
        expect(got == numbers(p, p.build(name, flags)), 'the second run gives other bits', *flags)


def convolutions(p):
    if not p.machine.has_cudnn():
        raise Skipped('cuDNN is not installed')
    by_library(p, 'convolution_step', '--cudnn')


def behaviour(p, report):
    """tests/run on the device, as many as fit: one file a compilation of nvcc, so many at a time."""
    runner = os.path.join(HERE, '..', 'run', 'run.py')
    files = [os.path.join(HERE, 'schedules.mxl'), os.path.join(HERE, 'rows.mxl')]
    if p.machine.has_cudnn() and not p.machine.emulated:
        files.append(os.path.join(HERE, 'convolutions.mxl'))
    for folder in ('run', 'stdlib'):
        here = os.path.join(HERE, '..', folder)
        files += sorted(os.path.join(here, f) for f in os.listdir(here) if f.endswith('.mxl'))
    if p.machine.emulated:
        files = files[:1]
        env = {'MXCC_EMULATION': p.machine.emulation}
    else:
        env = {'MXCC_TARGET': 'cuda', 'NVCC': p.machine.compiler[0]}
    passed = failed = left = 0
    wrong = []

    def one(path):
        if report.left() < 60:
            return None
        return subprocess.run([sys.executable, runner, '--mxcc', p.o.mxcc, path], capture_output=True, text=True, env={**os.environ, **env})

    with concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1)) as pool:
        for path, done in zip(files, pool.map(one, files)):
            m = done and re.search(r'(\d+) passed, (\d+) failed', done.stdout)
            left += not m
            passed, failed = passed + (int(m[1]) if m else 0), failed + (int(m[2]) if m else 0)
            if m and int(m[2]):
                wrong.append('%s: %s' % (os.path.basename(path), done.stdout[-400:]))
    expect(not failed and passed, passed, 'passed,', failed, 'failed:', *wrong[:5])
    return {'passed': passed, 'files_left_for_want_of_time': left}


def zoo(p, name):
    env = samples.Env()
    env.mxcc, env.folder, env.machine = p.o.mxcc, p.o.folder, p.machine
    folder = os.path.join(p.o.folder, 'zoo-' + name)
    os.mkdir(folder)
    try:
        samples.zoo_model(env, name, folder)
    except samples.Failure as e:
        raise Failure(str(e)) from e


def sanitizer(p, tool, name):
    found = shutil.which('compute-sanitizer') or '/usr/local/cuda/bin/compute-sanitizer'
    if p.machine.emulated or not os.path.exists(found):
        raise Skipped('compute-sanitizer is not installed' if not p.machine.emulated else 'the emulation checks by itself')
    program = p.build(name)
    done = subprocess.run([found, '--tool', tool, '--error-exitcode', '9', program, *([program + '.out'] if name == 'products' else [])], capture_output=True,
                          text=True, cwd=os.path.dirname(program), timeout=240)
    expect(done.returncode == 0, tool, 'of', name, 'gave', done.returncode, (done.stdout + done.stderr)[-2500:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--json', help='where the results go; default: gpu_test.json beside mxcc')
    parser.add_argument('--seconds', type=positive, default=450)
    parser.add_argument('--only', action='append', help='interface, parts, products, convolutions, behaviour, zoo, sanitizer')
    parser.add_argument('--emulated', action='store_true')
    o = parser.parse_args()
    groups = ('interface', 'parts', 'products', 'convolutions', 'zoo', 'sanitizer', 'behaviour')
    for name in o.only or ():
        if name not in groups:
            parser.error('--only %s: one of %s' % (name, ', '.join(groups)))
    o.mxcc = os.path.abspath(o.mxcc)
    o.json = o.json or os.path.join(os.path.dirname(o.mxcc), 'gpu_test.json')
    with tempfile.TemporaryDirectory(prefix='mxcc-gpu-') as o.folder:
        try:
            machine = Machine(o.folder, o.emulated)
        except NoGpu as e:
            return no_gpu(e)
        report, p = Report(machine.facts, o.seconds, o.json), Programs(o, machine)
        print('%(device)s, driver %(driver)s, %(cuda)s' % machine.facts, flush=True)
        rows = {'interface': [('interface', lambda: interface(p))], 'parts': [('parts', lambda: parts(p))], 'products': [('products', lambda: by_library(p, 'products', '--cublas'))],
                'convolutions': [('convolutions', lambda: convolutions(p))],
                'zoo': [('zoo ' + n, lambda n=n: zoo(p, n)) for n in samples.zoo.MODELS],
                'sanitizer': [('%s %s' % (t, n), lambda t=t, n=n: sanitizer(p, t, n)) for n in ('parts', 'interface', 'products') for t in TOOLS],
                'behaviour': [('behaviour', lambda: behaviour(p, report))]}
        for group in groups:
            for name, run in rows[group] if not o.only or group in o.only else ():
                report.row(name, run)
        return report.end_status()


if __name__ == '__main__':
    sys.exit(main())
