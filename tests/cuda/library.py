#!/usr/bin/env python3
"""Products by cuBLASLt (--cublas) and convolutions by cuDNN (--cudnn), in the emulation (include/cublasLt.h, include/cudnn.h) and, where nvcc
and they are installed, through their real headers.

    library.py --mxcc build/mxcc

products.mxl gives the numbers of the C unit up to rounding, with the library and without it; the epilogues that the library has are in
its calls, and what it does not take is left to own kernels. convolutions.mxl, which is a behaviour test, makes the calls that it should and no other;
errors of the library are said with the line of the model. The options say no where they mean nothing.
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
    calls = [tuple(int(x) for x in m) for m in re.findall(r'mx_product\(m, m->mx_stream\[\d\], (\d), (\d), (\d), (\d+), ', text)]
    for what, call in (('a bias and max(…, 0)', (1, 1, 1, 3)), ('a bias and a residual', (1, 1, 1, 6)), ('f64', (0, 0, 0, 0)), ('a bias and GELU', (1, 1, 1, 10)), ('the gradient of GELU', (1, 1, 1, 16)), ('bf16 in f32', (3, 1, 1, 0))):
        expect(call in calls, 'no call with', what, 'among', calls)
    expect(re.search(r'mx_product\(m.*, 3, 20480, 21760, ', text), 'the batch is not one call')
    expect(sum(flags >= 8 for *_, flags in calls) == 2, 'GELU is in the calls', calls) # that by erf is not
    expect(len(re.findall(r'\n    MX_TRY\(products_mx_product\(', text)) == len(calls) == 22, len(calls), 'calls')


Y, X, W = 'output', 'input', 'kernel'
CALLS = {  # of each function of convolutions.mxl, which of the three tensors are made by the library
    'plain': [Y, X, W], 'uneven': [Y, X, W], 'strides': [Y, X, W], 'points': [Y, X, W], 'grouped': [Y, X, W], 'depthwise': [Y, X, W],
    'multiplied': [Y, X, W], 'alone': [Y, X, W], 'narrow': [Y, Y, X, W, W], 'whole': [Y, W], 'line': [Y, X, W], 'transposed': [X, Y, W],
    'followed': [Y, X], 'halves': [Y], 'small_floats': [Y], 'rectified': [Y], 'halves_back': [X, W]}


def convolutions(o):
    model, unit = os.path.join(HERE, 'convolutions.mxl'), os.path.join(o.folder, 'convolutions.cu')
    sh(o.mxcc, model, '-o', unit, '--cudnn', '--verify')
    with open(unit, encoding='utf-8') as f:
        text = f.read()
    parts = {m[1]: [(X, W, Y)[int(made)] for made in re.findall(r'mx_convolution\(m, m->mx_stream\[\d\], (\d), ', m[2])]
             for m in re.finditer(r'\nstatic mx_status convolutions_(mx_part_\d+)\([^;{]*{(.*?)\n}', text, re.S)}
    for m in re.finditer(r'\nstatic mx_status convolutions_mx_run_(\w+)\([^;{]*{(.*?)\n}', text, re.S):
        calls = [made for part in re.findall(r'convolutions_(mx_part_\d+)\b', m[2]) for made in parts[part]]
        expect(sorted(calls) == sorted(CALLS.get(m[1], [])), m[1], 'has the calls', calls)
    sh(o.mxcc, model, '-o', os.path.join(o.folder, 'own.cu'))
    with open(os.path.join(o.folder, 'own.cu'), encoding='utf-8') as f:
        expect('<cudnn.h>' not in f.read(), 'a unit without --cudnn includes cuDNN')


def errors(o):
    sh(o.mxcc, os.path.join(HERE, 'convolutions.mxl'), '-o', os.path.join(o.folder, 'convolutions.cu'), '--cudnn')
    sh('cc', '-O1', '-I' + o.folder, '-c', os.path.join(HERE, 'convolutions.c'), '-o', o.folder + '/main.o')
    program = o.folder + '/convolutions'
    sh(*o.compiler, '-Werror', '-I' + o.folder, '-x', 'c++', '-c', program + '.cu', '-o', program + '.o')
    sh(o.compiler[0], o.folder + '/main.o', program + '.o', o.emulation, '-lm', '-o', program)
    text = sh(program)
    expect(text.count('plain: status 0') == 4 and len(set(re.findall('numbers.*', text))) == 2, 'without an error:', text)
    text = sh(program, env={'EMULATED_LIBRARY_FAILURE': 'cudnnCreate'})
    expect('log: init: cuDNN: CUDNN_STATUS_NOT_SUPPORTED' in text and 'init: status 12' in text, 'without a handle:', text)
    places = {'cudnnConvolutionForward': '13 conv', 'cudnnConvolutionBackwardData': '7 product', 'cudnnConvolutionBackwardFilter': '7 product',
              'cudnnGetConvolutionBackwardDataAlgorithm_v7': '7 product', 'cudnnSetStream': '13 conv', 'cudnnCreateFilterDescriptor': '13 conv'}
    for function, place in places.items():
        text = sh(program, env={'EMULATED_LIBRARY_FAILURE': function})
        expect(text.count('plain: status 12 convolutions.mxl:%s: cuDNN: CUDNN_STATUS_NOT_SUPPORTED' % place) == 4, function, 'failed:', text)
    text = sh(program, env={'EMULATED_LIBRARY_FAILURE': 'algorithms'})
    expect('status 12 convolutions.mxl:13 conv: cuDNN: no algorithm gives the same bits in every run within 33554432 bytes' in text, 'without an algorithm:', text)
    for launch in range(1, 4):
        text = sh(program, env={'EMULATED_FAILURE': str(launch)})
        expect('status 12 convolutions.mxl:' in text and text.count('plain: status 0') == 3, 'launch', launch, 'failed:', text)


def training(o):
    """A step of a model, forward, backward and update, by the library and by C."""
    folder = os.path.join(o.folder, 'training')
    os.mkdir(folder)
    model = shutil.copy(os.path.join(HERE, 'convolution_step.mxl'), folder)
    sh(o.mxcc, model, '-o', os.path.join(folder, 'convolution_step.c'))
    source = os.path.join(HERE, 'convolution_step.c')
    sh('cc', '-O1', '-ffp-contract=off', '-I' + folder, source, os.path.join(folder, 'convolution_step.c'), '-lm', '-o', folder + '/c')
    expected = numbers(folder + '/c', folder + '/out')
    for flags, bound, least in ((['--precision', 'f32'], 1e-4, 11), (['--precision', 'tf32'], 1e-2, 11), (['--precision', 'bf16'], None, 1)):
        unit = os.path.join(folder, 'convolution_step.cu')
        sh(o.mxcc, model, '-o', unit, '--cudnn', '--verify', *flags)
        with open(unit, encoding='utf-8') as f:
            calls = re.findall(r'mx_convolution\(m, m->mx_stream\[\d\], \d, (\d), (\d)', f.read())
        expect(len(calls) >= least, len(calls), 'calls with', *flags)
        expect(set(tf32 for _, tf32 in calls) == {'1' if flags[1] == 'tf32' else '0'}, 'calls', calls, 'with', *flags)
        if not bound: # the emulation takes long over tensor cores
            continue
        sh('cc', '-O1', '-I' + folder, '-c', source, '-o', folder + '/main.o')
        sh(*o.compiler, '-Werror', '-I' + folder, '-x', 'c++', '-c', unit, '-o', unit + '.o')
        sh(o.compiler[0], folder + '/main.o', unit + '.o', o.emulation, '-lm', '-o', folder + '/cuda')
        got = numbers(folder + '/cuda', folder + '/out')
        worst = max(abs(a - b) for a, b in zip(got, expected))
        expect(len(got) == len(expected) and worst <= bound, 'the largest difference is', worst, 'with', *flags)
        if flags[1] == 'f32':
            expect(got == numbers(folder + '/cuda', folder + '/out', {'EMULATED_STREAMS': 'first', 'EMULATED_REVERSED': '1'}), 'other bits in another order')


def real_headers(o):
    compiler = nvcc.find_nvcc()
    for name, flag, header in (('products', '--cublas', 'cublasLt.h'), ('convolution_step', '--cudnn', 'cudnn.h')):
        if not compiler or not nvcc.has_header(compiler, header):
            print('%s is not installed: it is not tried' % (header if compiler else 'nvcc'))
            continue
        unit = os.path.join(o.folder, 'real.cu')
        sh(o.mxcc, os.path.join(HERE, name + '.mxl'), '-o', unit, flag)
        for arch in ('sm_80', 'sm_90a'):
            sh(compiler, '-O1', '-fmad=false', '-Werror', 'all-warnings', '-arch=' + arch, '-c', unit, '-o', unit + '.o')


def options(o):
    model = os.path.join(HERE, 'products.mxl')
    text = sh(o.mxcc, model, '-o', os.path.join(o.folder, 'no.c'), '--cublas', status=2)
    expect('--cublas belongs to --target cuda' in text, '--cublas with C:', text)
    text = sh(o.mxcc, model, '-o', os.path.join(o.folder, 'no.c'), '--cudnn', status=2)
    expect('--cudnn belongs to --target cuda' in text, '--cudnn with C:', text)
    text = sh(o.mxcc, model, '-o', os.path.join(o.folder, 'no.cu'), '--blas', 'openblas', status=2)
    expect('--blas does not go with --target cuda' in text, '--blas with CUDA:', text)


if __name__ == '__main__':
    sys.exit(main(__doc__, (results, convolutions, errors, training, real_headers, options)))
