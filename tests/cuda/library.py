#!/usr/bin/env python3
"""Products by cuBLASLt (--cublas), in the emulation (include/cublasLt.h) and, where nvcc is installed, through its real header.

    library.py --mxcc build/mxcc

products.mxl gives the numbers of the C unit up to rounding, with the library and without it; the epilogues that the library has are in
its calls, and what it does not take is left to own kernels. The options say no where they mean nothing.
"""
import os
import re
import shutil
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import nvcc  # noqa: E402
from checks import expect, main, sh  # noqa: E402


def numbers(program, to, env=None):
    sh(program, to, env=env)
    with open(to, 'rb') as f:
        raw = f.read()
    return struct.unpack('<%dd' % (len(raw) // 8), raw)


def results(o):
    model = shutil.copy(os.path.join(HERE, 'products.mxl'), o.folder)
    plain = os.path.join(o.folder, 'c')
    os.mkdir(plain)
    sh(o.mxcc, model, '-o', os.path.join(plain, 'products.c'))
    sh('cc', '-O1', '-ffp-contract=off', '-I' + plain, os.path.join(HERE, 'products.c'), os.path.join(plain, 'products.c'), '-lm', '-o', plain + '/main')
    expected = numbers(plain + '/main', plain + '/out')
    for flags in ([], ['--cublas']):
        unit = os.path.join(o.folder, 'products.cu')
        sh(o.mxcc, model, '-o', unit, '--verify', *flags)
        sh('cc', '-O1', '-I' + o.folder, '-c', os.path.join(HERE, 'products.c'), '-o', o.folder + '/main.o')
        sh(*o.compiler, '-Werror', '-I' + o.folder, '-x', 'c++', '-c', unit, '-o', unit + '.o')
        sh(o.compiler[0], o.folder + '/main.o', unit + '.o', o.emulation, '-lm', '-o', o.folder + '/main')
        got = numbers(o.folder + '/main', o.folder + '/out')
        expect(len(got) == len(expected), 'other results with', *flags)
        for i, (a, b) in enumerate(zip(got, expected)):
            bound = 2e-2 if len(got) - 2 * 128 * 136 - 128 <= i < len(got) - 128 * 136 - 128 else 2e-4  # bf16
            expect(abs(a - b) <= bound * max(1, abs(b)), 'number', i, 'is', a, 'and that of C', b, 'with', *flags)
        expect(got == numbers(o.folder + '/main', o.folder + '/out', {'EMULATED_STREAMS': 'first', 'EMULATED_REVERSED': '1'}), 'other bits in another order', *flags)
    with open(unit, encoding='utf-8') as f:
        text = f.read()
    calls = [tuple(int(x) for x in m) for m in re.findall(r'mx_product\(m, m->mx_stream\[\d\], (\d), (\d), (\d), (\d), ', text)]
    for what, call in (('a bias and max(…, 0)', (1, 1, 1, 3)), ('a bias and a residual', (1, 1, 1, 6)), ('f64', (0, 0, 0, 0)), ('bf16 in f32', (3, 1, 1, 0))):
        expect(call in calls, 'no call with', what, 'among', calls)
    expect(re.search(r'mx_product\(m.*, 3, 20480, 21760, ', text), 'the batch is not one call')
    expect(len(re.findall(r'\n    MX_TRY\(products_mx_product\(', text)) == len(calls) == 14, len(calls), 'calls')


def real_header(o):
    compiler = nvcc.find_nvcc()
    if not compiler:
        print('nvcc is not installed: the real header is not tried')
        return
    unit = os.path.join(o.folder, 'real.cu')
    sh(o.mxcc, os.path.join(HERE, 'products.mxl'), '-o', unit, '--cublas')
    sh(compiler, '-O1', '-fmad=false', '-Werror', 'all-warnings', '-arch=sm_80', '-c', unit, '-o', unit + '.o')


def options(o):
    model = os.path.join(HERE, 'products.mxl')
    text = sh(o.mxcc, model, '-o', os.path.join(o.folder, 'no.c'), '--cublas', status=2)
    expect('--cublas belongs to --target cuda' in text, '--cublas with C:', text)
    text = sh(o.mxcc, model, '-o', os.path.join(o.folder, 'no.cu'), '--blas', 'openblas', status=2)
    expect('--blas does not go with --target cuda' in text, '--blas with CUDA:', text)


if __name__ == '__main__':
    sys.exit(main(__doc__, (results, real_header, options)))
