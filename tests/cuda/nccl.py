#!/usr/bin/env python3
"""Averages over ranks on the devices (--nccl): in the emulation, where ranks are threads with a device each, and through nvcc and the real header.

    nccl.py --mxcc build/mxcc

Trained with --nccl, models have the bits that they have without it: whatever the number of ranks, the type of a parameter, buckets, and which of
several operations runs first. Every wait between the streams is needed: with any one left out, the emulation finds the race. A rank that
fails, breaks off or hangs ends all others with a message, and the last checkpoint stays. What cannot be is refused.
"""
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, 'tests', 'props')]
import nvcc  # noqa: E402
from checks import expect, main, sh  # noqa: E402
from common import floats, points_csv, read, same_checkpoint, tensors, write  # noqa: E402

# What is sent in parts and what whole; every type; states of ranks' own and the norm of all gradients: a result that needs averages.
MODELS = {'types': (os.path.join(HERE, 'types.mxl'), 'points.csv', ()),
          'digits': (os.path.join(ROOT, 'samples', 'digits.mxl'), 'digits.csv', ('--steps', '2')),
          'lines': (os.path.join(ROOT, 'tests', 'ranks', 'lines.mxl'), 'lines.txt', ('--batch', '6', '--steps', '3'))}
RACE = 'emulation: .*(an operation without an event between|which nothing wrote)'
# Left out: (its text in the unit, what stands in its place); each keeps one stream behind another.
WAITS = {
    'averages before they are used': (r'cudaStreamWaitEvent\(m->mx_stream\[0\], m->mx_nccl\.buckets\[bucket\]\.done, 0\)', 'cudaSuccess'),
    'a share before it is sent': (r'mx_nccl_cuda\(x, cudaStreamWaitEvent\(x->stream, ready, 0\)\)', 'MX_OK'),
    'a gradient before it is scaled': (r'MX_TRY\(types_mx_cuda\(m, cudaStreamWaitEvent\(m->mx_copies, m->mx_made, 0\), where\)\);', ''),
    'a gradient before the next one takes its place': (r'cudaStreamWaitEvent\(m->mx_stream\[0\], m->mx_out\[m->mx_last\], 0\)', 'cudaSuccess'),
    'an average before zeros take its place': (r'MX_TRY\(types_mx_cuda\(m, cudaStreamWaitEvent\(m->mx_copies, m->mx_made, 0\), "no samples"\)\);', ''),
}


def prepare(o):
    if os.path.exists(os.path.join(o.folder, 'points.csv')):
        return
    points_csv(os.path.join(o.folder, 'points.csv'), 100)
    write(os.path.join(o.folder, 'digits.csv'), ''.join(read(os.path.join(ROOT, 'samples', 'digits.csv')).splitlines(True)[:100]))
    write(os.path.join(o.folder, 'lines.txt'), ''.join('the quick brown fox %d jumps over lazy dogs and %d cats\n' % (i, i * 7919 % 101) for i in range(40)))


def build(o, name, *flags, change=lambda text: text, version=''):
    """The program; the unit has the model's name in a folder of its own, so that checkpoints can be compared."""
    folder = os.path.join(o.folder, name + version + ''.join(flags))
    program = os.path.join(folder, name)
    if os.path.exists(program) and not version:
        return program
    prepare(o)
    os.makedirs(folder, exist_ok=True)
    sh(o.mxcc, MODELS[name][0], '-o', program + '.cu', '--main', '--verify', *flags)
    write(program + '.cu', change(read(program + '.cu')))
    sh(*o.compiler, *(() if version else ('-Werror',)), *sh(o.mxcc, '--cflags').split(), '-I' + folder, '-x', 'c++', '-c', program + '.cu', '-o', program + '.o')
    sh(o.compiler[0], program + '.o', o.emulation, os.path.join(os.path.dirname(o.mxcc), 'libmxrt.a'), '-lm', '-lz', '-lpthread', '-ldl', '-o', program)
    return program


def train(o, program, ranks, *options, env=None, status=(0, 130), out='out', keep=False):
    """The checkpoint, and what was said."""
    name = os.path.basename(program)
    out = os.path.join(os.path.dirname(program), out)
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
    words = () if '--kvstore' in options else ('--virtual-ranks', str(ranks))
    p = subprocess.run([program, 'train', '--data', os.path.join(o.folder, MODELS[name][1]), '--seed', '3', '--quiet', '--out', out, *words,
                        *(MODELS[name][2] if not keep else ()), *options], capture_output=True, text=True, timeout=300,
                       env={**os.environ, 'EMULATED_DEVICE': str(ranks), **(env or {})})
    expect(status is None or p.returncode in status, name, 'over', ranks, 'ranks', *options, env or '', 'gave', p.returncode, '\n', p.stdout, p.stderr)
    return os.path.join(out, 'checkpoint.safetensors'), p.stdout + p.stderr


def same(a, b, *words):
    why = same_checkpoint(a, b)
    expect(not why, *words, ':', why)


def bits(o):
    """In parts and whole, with ranks that have no sample of the last batch (7), and trees of all shapes."""
    for name, counts in (('types', (2, 3, 4, 7)), ('digits', (3,)), ('lines', (2,))):
        host, device = build(o, name), build(o, name, '--nccl')
        for ranks in counts:
            expected, got = train(o, host, ranks)[0], train(o, device, ranks)[0]
            same(expected, got, name, 'over', ranks, 'ranks has other bits with --nccl')
    expected = train(o, build(o, 'types'), 3)[0]
    device = build(o, 'types', '--nccl')
    for options, env in ((('--bucket', '1000'), {}), (('--bucket', '100000000'), {}), (('--kvstore', 'device'), {}),
                         ((), {'EMULATED_STREAMS': 'first'}), ((), {'EMULATED_STREAMS': '7'}), ((), {'EMULATED_REVERSED': '1'})):
        same(expected, train(o, device, 3, *options, env=env)[0], 'types with', *options, env, 'has other bits')
    same(train(o, device, 1, '--kvstore', 'device')[0], train(o, build(o, 'types'), 1, '--kvstore', 'device', out='one')[0], 'one GPU')
    alone = build(o, 'types', '--nccl', version='no graphs', change=lambda text: '#define MX_CUDA_NO_GRAPHS\n' + text)
    same(expected, train(o, alone, 3)[0], 'types without graphs has other bits')


def fast(o):
    """NCCL's own order: f32 and f64 up to rounding, over two ranks to the bit."""
    device, host = build(o, 'lines', '--nccl'), build(o, 'lines')
    same(train(o, host, 2)[0], train(o, device, 2, '--reduction', 'fast')[0], 'over two ranks there is but one order')
    (a, _), (b, _) = (tensors(train(o, p, 4, *more)[0]) for p, more in ((host, ()), (device, ('--reduction', 'fast'))))
    for name in a:
        x, y = (floats(t[name]) for t in (a, b)) if name.startswith('net.') else ((), ())
        expect(all(abs(v - w) <= 1e-4 * max(map(abs, x)) for v, w in zip(x, y)), name, 'is far from that of the tree')


def missing_waits(o):
    for what, (pattern, instead) in WAITS.items():
        def leave_out(text):
            text, n = re.subn(pattern, instead, text)
            expect(n == 1, what, ':', n, 'places match', pattern)
            return text
        program = build(o, 'types', '--nccl', version='missing', change=leave_out)
        said = ''
        for order in ('last', 'first', '7'):
            said += train(o, program, 4, env={'EMULATED_STREAMS': order}, status=None)[1]
        expect(re.search(RACE, said), 'left out,', what, ', and nobody noticed:', said)


def lost(o):
    """After an epoch, so that there is a checkpoint to go on from."""
    program = build(o, 'types', '--nccl')
    whole = train(o, program, 3, '--epochs', '2', out='whole')[0]
    for env, pattern in (
            ({'EMULATED_NCCL': 'error:1:9'}, r'NCCL: remote process exited or there was a network error: connection closed by a peer'),
            ({'EMULATED_NCCL': 'hang:1:9'}, r'NCCL: average \d+ has kept rank \d for \d+\.\d seconds|rank 1 .*hangs'),
            ({'EMULATED_FAILURE': '300'}, r'rank \d \(.*\) gave up: .*was to fail')):
        kept = train(o, program, 3, '--epochs', '1', out='kept')[0]
        before = open(kept, 'rb').read()
        _, said = train(o, program, 3, '--epochs', '2', '--resume', '--rank-timeout', '4', env=env, status=(1,), out='kept', keep=True)
        expect(len(re.findall('^types: error: ', said, re.M)) == 3 and re.search(pattern, said), env, 'is told as', said)
        expect(open(kept, 'rb').read() == before, env, 'changed the checkpoint')
        same(whole, train(o, program, 3, '--epochs', '2', '--resume', out='kept', keep=True)[0], 'after', env, 'other bits')


def refused(o):
    program = build(o, 'types', '--nccl')
    for ranks, devices, options, pattern in (
            (3, 2, (), '3 ranks on .*, which has 2 GPUs: GPUs that average by NCCL have one rank each'),
            (2, 2, ('--shard',), '--shard: the model is on a GPU'), (2, 2, ('--servers', '1'), '--servers: the model is on a GPU'),
            (2, 2, ('--compression', 'bf16'), '--compression: GPUs send gradients whole')):
        said = train(o, program, ranks, *options, env={'EMULATED_DEVICE': str(devices)}, status=(1,))[1]
        expect(re.search(pattern, said), *options, 'is told as', said)
    sh(o.mxcc, MODELS['digits'][0], '-o', os.path.join(o.folder, 'limit.cu'), '--main', '--nccl', '--memory-limit', '3M', '--verify')
    for words, pattern in ((('--target', 'c', '--main'), '--nccl belongs to --target cuda'), (('--target', 'cuda'), '--nccl belongs to programs that train over ranks'),
                           (('--target', 'cuda', '--main', '--no-ranks'), '--nccl belongs to programs that train over ranks')):
        said = sh(o.mxcc, MODELS['types'][0], '-o', os.path.join(o.folder, 'no'), '--nccl', *words, status=2)
        expect(re.search(pattern, said), *words, 'is told as', said)


def real_header(o):
    compiler = nvcc.find_nvcc()
    include = compiler and os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(shutil.which(compiler)))), 'include')
    if not compiler or not any(os.path.exists(os.path.join(d, 'nccl.h')) for d in (include, '/usr/include')):
        print('nvcc or nccl.h is not installed: the real header is not tried')
        return
    for name in ('types', 'lines'):
        unit = os.path.join(o.folder, name + '_real.cu')
        sh(o.mxcc, MODELS[name][0], '-o', unit, '--main', '--nccl')
        sh(compiler, '-O1', '-fmad=false', '-Werror', 'all-warnings', '-arch=sm_80', *sh(o.mxcc, '--cflags').split(), '-c', unit, '-o', unit + '.o')


if __name__ == '__main__':
    sys.exit(main(__doc__, (bits, fast, missing_waits, lost, refused, real_header)))
