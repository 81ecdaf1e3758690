#!/usr/bin/env python3
"""Speed and memory on a GPU beside PyTorch, if that is installed: `./run bench gpu [--json FILE]`, under 8 minutes.

    gpu.py [--mxcc build/mxcc] [--json FILE] [--seconds 450] [--only MODEL]... [--emulated]

Training steps of ResNet-50 (batch 64), the LSTM language model and GPT-2 (batch 8, 1,024 tokens); prefill of 4,096 tokens and decoding at
batch 1 of a decoder of LLaMA's kind. Each as it is compiled by default, with --cublas, and in bf16 where mxcc has --precision; beside it
PyTorch, eager and torch.compile, of the same layers and sizes. A row has the fastest and the median time of a step behind the first
ones, and the bytes of the GPU that an instance takes. --emulated runs tiny sizes in the emulation, to see that all this works.
Without a GPU it says so and ends with 77.
"""
import argparse
import json
import os
import re
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, 'tests', 'cuda'))
from machine import Failure, Machine, NoGpu, Report, Skipped, command, no_gpu, positive  # noqa: E402

ZOO = os.path.join(ROOT, 'samples', 'zoo')
FIRST = 4  # steps that are not counted: the first launches kernels one by one, the second captures them, PyTorch compiles

# of a training step: shapes and classes of x and y, whether the batch is an argument, what is replaced, and the same for a tiny one
IMAGES = [('const batch = 8', 'const batch = 2'), ('const image = 224', 'const image = 64'), ('const classes = 1000', 'const classes = 10')]
TEXTS = [('const batch = 20', 'const batch = 3'), ('const length = 35', 'const length = 5'), ('const words = 10000', 'const words = 30'),
         ('const units = 650', 'const units = 24')]
GPT = [('const batch = 8', 'const batch = 2'), ('const length = 1024', 'const length = 8'), ('const words = 50257', 'const words = 60'),
       ('const units = 768', 'const units = 32'), ('const heads = 12', 'const heads = 4'), ('const layers = 12', 'const layers = 2')]
TRAIN = {
    'resnet50': {'batch': 64, 'full': ((64, 3, 224, 224), 0, (64,), 1000, [('const batch = 8', 'const batch = 64')]), 'tiny': ((2, 3, 64, 64), 0, (2,), 10, IMAGES + [('resnet50(classes)', 'resnet50(classes, width = 4)')]),
                 'n': True},
    'lstm_lm': {'batch': 20, 'full': ((35, 20), 10000, (35, 20), 10000, []), 'tiny': ((5, 3), 30, (5, 3), 30, TEXTS), 'n': False},
    'gpt2': {'batch': 8, 'full': ((8, 1024), 50257, (8, 1024), 50257, []), 'tiny': ((2, 8), 60, (2, 8), 60, GPT), 'n': True},
}
# of writing: the vocabulary, tokens at once, tokens behind them
WRITE = {'llama': {'full': (128256, 4096, 64, []),
                   'tiny': (60, 9, 5, [('const context = 8192', 'const context = 16'), ('const words = 128256', 'const words = 60'), ('const units = 2048', 'const units = 32'),
                                       ('const layers = 16', 'const layers = 2'), ('const heads = 32', 'const heads = 4'), ('const kv_heads = 8', 'const kv_heads = 2'),
                                       ('const hidden = 8192', 'const hidden = 48')])}}


def product(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def model_text(name, changes):
    path = os.path.join(ZOO, name + '.mxl')
    if not os.path.exists(path):
        raise Skipped('there is no samples/zoo/%s.mxl' % name)
    with open(path, encoding='utf-8') as f:
        text = f.read()
    for old, new in changes:
        if old not in text:
            raise Failure('samples/zoo/%s.mxl has no `%s` any more' % (name, old))
        text = text.replace(old, new)
    return text


def build(o, machine, name, size, flags, main, defines):
    """The program around the model's unit; its bytes on the device."""
    folder = tempfile.mkdtemp(dir=o.folder)
    for f in os.listdir(ZOO):
        if f.endswith('.mxl'):
            os.symlink(os.path.join(ZOO, f), os.path.join(folder, f))
    model = os.path.join(folder, name + '.mxl')
    text = model_text(name, size[-1])
    os.remove(model)
    with open(model, 'w', encoding='utf-8') as f:
        f.write(text)
    unit = os.path.join(folder, name + '.cu')
    command([o.mxcc, model, '-o', unit, *flags])
    compiled = machine.compile(unit)
    header = command([o.mxcc, '--cflags']).split()
    command(['cc', '-O2', '-I' + folder, '-include', name + '.h', *defines, *header, '-c', os.path.join(HERE, main), '-o', folder + '/main.o'])
    with open(os.path.join(folder, name + '.h'), encoding='utf-8') as f:
        facts = {m[1].lower(): int(m[2]) for m in re.finditer(r'#define %s_((?:DEVICE|PINNED|ARENA|WEIGHTS)_BYTES) (\d+)' % name.upper(), f.read())}
    return machine.link(os.path.join(folder, name), folder + '/main.o', compiled, flags=flags), facts


def times(ms):
    counted = ms[FIRST:] if len(ms) > FIRST else ms[-1:]
    return {'fastest_ms': min(counted), 'median_ms': statistics.median(counted), 'first_ms': ms[0], 'steps': len(counted)}


def train(o, machine, name, flags):
    m = TRAIN[name]
    size = m['tiny' if machine.emulated else 'full']
    x, x_classes, y, y_classes = size[:4]
    defines = ['-DMODEL=' + name, '-DX_COUNT=%d' % product(x), '-DX_CLASSES=%d' % x_classes, '-DY_COUNT=%d' % product(y), '-DY_CLASSES=%d' % y_classes]
    defines += ['-DSTEP_N=%d' % x[0]] if m['n'] else []
    program, facts = build(o, machine, name, size, flags, 'step_main.c', defines)
    got = json.loads(command([program, 6 if machine.emulated else 24, 5, 0.01], timeout=120))
    if not all(v == v and abs(v) < 1e6 for v in got['losses']):
        raise Failure('the losses are %s' % got['losses'])
    return {**times(got['ms']), **facts, 'losses': got['losses'][:3]}


def write(o, machine, name, flags):
    size = WRITE[name]['tiny' if machine.emulated else 'full']
    words, prefill, decode = size[:3]
    program, facts = build(o, machine, name, size, flags, 'decode_main.c', ['-DMODEL=' + name, '-DWORDS=%d' % words, '-DPREFILL=%d' % prefill, '-DDECODE=%d' % decode])
    got = json.loads(command([program, 5], timeout=120))
    token = times(got['decode_ms'])
    return {**token, 'prefill_ms': min(got['prefill_ms']), **facts, 'weights_gb_per_s': facts['weights_bytes'] / token['median_ms'] / 1e6}


def torch_row(o, name, mode, precision):
    python = os.environ.get('TORCH_PYTHON', sys.executable)
    if command([python, '-c', 'import importlib.util as u; print(u.find_spec("torch") is not None)']).strip() != 'True':
        raise Skipped('PyTorch is not installed for %s; $TORCH_PYTHON may name another' % python)
    count, size = (64, 4096) if name == 'llama' else (24, TRAIN[name]['batch'])
    got = json.loads(command([python, os.path.join(HERE, 'gpu_torch.py'), name, mode, precision, count, size], timeout=150).strip().splitlines()[-1])
    row = {**times(got.get('ms') or got['decode_ms']), 'device_bytes': got['peak_bytes'], 'version': got['version']}
    if 'prefill_ms' in got:
        row['prefill_ms'] = min(got['prefill_ms'])
    return row


def summary(report):
    """A table in Markdown, for docs/performance.md."""
    print('\n| | median, ms | fastest, ms | prefill, ms | MiB of the GPU |\n| --- | --- | --- | --- | --- |')
    for r in report.content['rows']:
        if r['status'] == 'ok':
            print('| %s | %.2f | %.2f | %s | %.0f |' % (r['name'], r['median_ms'], r['fastest_ms'], '%.1f' % r['prefill_ms'] if 'prefill_ms' in r else '', r['device_bytes'] / 2 ** 20))
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.path.join(ROOT, os.environ.get('BUILD', 'build'), 'mxcc'))
    parser.add_argument('--json', help='where the results go; default: gpu_bench.json beside mxcc')
    parser.add_argument('--seconds', type=positive, default=450)
    parser.add_argument('--only', action='append', choices=[*TRAIN, *WRITE])
    parser.add_argument('--emulated', action='store_true')
    o = parser.parse_args()
    o.mxcc = os.path.abspath(o.mxcc)
    o.json = o.json or os.path.join(os.path.dirname(o.mxcc), 'gpu_bench.json')
    with tempfile.TemporaryDirectory(prefix='mxcc-gpu-') as o.folder:
        try:
            machine = Machine(o.folder, o.emulated)
        except NoGpu as e:
            return no_gpu(e)
        report = Report(machine.facts, o.seconds, o.json)
        print('%(device)s, driver %(driver)s, %(cuda)s' % machine.facts, flush=True)
        precisions = ['f32'] + (['bf16'] if '--precision' in command([o.mxcc, '--help']) else [])
        for name in o.only or [*TRAIN, *WRITE]:
            for precision in precisions:
                for flags in ([], ['--cublas']):
                    given = flags + (['--precision', precision] if precision != 'f32' else [])
                    report.row(' '.join(['mxcc', name, precision, *flags]), lambda: (train if name in TRAIN else write)(o, machine, name, given))
                for mode in () if o.emulated else ('eager', 'compile'):
                    report.row(' '.join(['PyTorch', mode, name, precision]), lambda: torch_row(o, name, mode, precision))
        summary(report)
        return report.end_status()


if __name__ == '__main__':
    sys.exit(main())
