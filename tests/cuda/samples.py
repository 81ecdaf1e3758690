#!/usr/bin/env python3
"""The samples as CUDA units in the emulation, against eager and C.

    samples.py --mxcc build/mxcc [--only NAME]...

For each small variant of samples/zoo (tests/zoo/run.py): the loss and all gradients are eager's up to rounding, the losses of the steps
after that are those of the C unit, and all of it is the same to the bit when threads run in the opposite order. samples/digits.mxl
trains an epoch on a tenth of its data as a program (--main): the weights are those of the C program up to rounding. Only Python's
standard library is needed.
"""
import argparse
import importlib.util
import json
import math
import os
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'zoo')]
import run as cuda  # noqa: E402  (this folder's)

spec = importlib.util.spec_from_file_location('zoo', os.path.join(HERE, '..', 'zoo', 'run.py'))
zoo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zoo)
sh, expect, Failure = zoo.sh, zoo.expect, zoo.Failure


def emulate(env, name, folder, model, defines, flags=()):
    """The program of bench/step_main.c around a CUDA unit."""
    unit, program = os.path.join(folder, name + '.cu'), os.path.join(folder, name + '-cuda')
    main = os.path.join(folder, 'main.o')
    sh(env.mxcc, model, '-o', unit, '--verify', *flags)
    sh(*env.compiler, '-I' + folder, '-x', 'c++', '-c', unit, '-o', unit + '.o')
    sh('cc', '-O1', '-I' + folder, '-include', name + '.h', *defines, *sh(env.mxcc, '--cflags').split(), '-c',
       os.path.join(ROOT, 'bench', 'step_main.c'), '-o', main)
    sh(env.compiler[0], main, unit + '.o', env.emulation, '-lm', '-o', program)
    return program


def zoo_model(env, name, folder):
    _, changes, x_classes, x_shape, y_shape, y_classes, has_n, rate = zoo.MODELS[name]
    model = zoo.small(name, folder, changes)
    x, s = zoo.numbers(math.prod(x_shape), x_classes)
    y, _ = zoo.numbers(math.prod(y_shape), y_classes, s)
    data = []
    for key, shape, values, integer in (('x', x_shape, x, x_classes > 0), ('y', y_shape, y, True)):
        zoo.write_npy(os.path.join(folder, key + '.npy'), shape, values, integer)
        data += ['--in', '%s=%s' % (key, os.path.join(folder, key + '.npy'))]
    sh(env.mxcc, 'run', model, '--call', 'gradients', *data, '--out', folder, '--seed', '5')
    eager = zoo.read_npy(os.path.join(folder, 'result0.npy')) + zoo.read_npy(os.path.join(folder, 'result1.npy'))
    defines = ['-DMODEL=' + name, '-DX_COUNT=%d' % math.prod(x_shape), '-DX_CLASSES=%d' % x_classes,
               '-DY_COUNT=%d' % math.prod(y_shape), '-DY_CLASSES=%d' % y_classes, '-DGRADIENTS=%d' % (len(eager) - 1)]
    defines += ['-DSTEP_N=%d' % x_shape[0]] if has_n else []
    program, saved = emulate(env, name, folder, model, defines), os.path.join(folder, 'saved')
    losses = training(program, rate, saved)
    with open(saved, 'rb') as f:
        got = f.read()
    zoo.compare(name, eager, struct.unpack('<%df' % len(eager), got))
    again = training(program, rate, saved, {'EMULATED_REVERSED': '1'})
    with open(saved, 'rb') as f:
        expect(f.read() == got and again == losses, name, 'gives other bits when threads run in the opposite order')
    unit, plain = os.path.join(folder, name + '.c'), os.path.join(folder, name + '-c')
    sh(env.mxcc, model, '-o', unit)
    sh('cc', '-O1', '-ffp-contract=off', '-I' + folder, '-include', name + '.h', *defines, *sh(env.mxcc, '--cflags').split(),
       os.path.join(ROOT, 'bench', 'step_main.c'), unit, '-lm', '-o', plain)
    expected = training(plain, rate, saved)
    expect(all(abs(v - w) <= 1e-4 * abs(w) for v, w in zip(losses, expected)), name, 'losses are', losses, 'and those of C', expected)


def training(program, rate, saved, env=None):
    """Losses of a few steps: the later ones are those of updated weights."""
    return json.loads(sh(program, 3, 5, rate, saved, env=env))['losses']


def tensors(path):
    """{name: values} of the floats of a safetensors file."""
    with open(path, 'rb') as f:
        raw = f.read()
    n = struct.unpack('<Q', raw[:8])[0]
    found = {}
    for name, v in json.loads(raw[8:8 + n]).items():
        code = {'F32': 'f', 'F64': 'd'}.get(v.get('dtype')) if name != '__metadata__' else None
        if code:
            at, end = (8 + n + k for k in v['data_offsets'])
            found[name] = struct.unpack('<%d%s' % ((end - at) // struct.calcsize(code), code), raw[at:end])
    return found


def compare_files(name, a, b, moved):
    """Up to rounding, all weights together; and one by one no further apart than steps can move them, for where a gradient is zero but
    for rounding Adam divides rounding by rounding."""
    one, other = tensors(a), tensors(b)
    expect(one and sorted(one) == sorted(other), name, 'saves other tensors')
    square = norm = 0.0
    for key in one:
        scale = max([abs(v) for v in other[key]] + [0])
        apart = max([abs(v - w) for v, w in zip(one[key], other[key])] + [0])
        expect(apart <= 1e-3 * scale + moved, name, key, 'is', apart, 'from that of C, its largest entry is', scale)
        square += sum((v - w) ** 2 for v, w in zip(one[key], other[key]))
        norm += sum(v * v for v in other[key])
    expect(math.sqrt(square) <= 5e-3 * math.sqrt(norm), name, 'weights are', math.sqrt(square), 'from those of C, their norm is', math.sqrt(norm))


def emulate_program(env, unit, model, flags=()):
    """The model as a program (--main) around a CUDA unit."""
    program, library = unit[:-3] + '-cuda', os.path.join(os.path.dirname(env.mxcc), 'libmxrt.a')
    sh(env.mxcc, model, '--main', '-o', unit, '--verify', *flags)
    sh(*env.compiler, *sh(env.mxcc, '--cflags').split(), '-I' + os.path.dirname(unit), '-x', 'c++', '-c', unit, '-o', unit + '.o')
    sh(env.compiler[0], unit + '.o', env.emulation, library, '-lz', '-lm', '-lpthread', '-o', program)
    return program


def sample(env, name, folder):
    """The sample as a program: one short epoch of training in the emulation and in C leaves the same weights, up to rounding."""
    text, arguments = SAMPLES[name](folder)
    model = os.path.join(folder, name + '.mxl')
    with open(model, 'w') as f:
        f.write(text)
    program = emulate_program(env, os.path.join(folder, name + '.cu'), model)
    plain = os.path.join(folder, name + '-c')
    sh(env.mxcc, 'build', '--main', '-O', '1', '--name', name, model, '-o', plain)
    saved = []
    for path in (program, plain):
        sh(path, 'train', '--epochs', 1, '--seed', 3, '--out', path + '-out', *arguments)
        saved.append(os.path.join(path + '-out', 'checkpoint.safetensors'))
    compare_files(name, *saved, 0.05)


def digits(folder):
    """A tenth of the data, one epoch."""
    with open(os.path.join(ROOT, 'samples', 'digits.csv')) as f:
        lines = f.readlines()
    with open(os.path.join(folder, 'digits.csv'), 'w') as f:
        f.writelines(lines[:200])
    with open(os.path.join(ROOT, 'samples', 'digits.mxl')) as f:
        return f.read(), []


SAMPLES = {'digits': digits}


class Env:
    pass


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--mxcc', required=True)
    p.add_argument('--only', action='append')
    env = p.parse_args(namespace=Env())
    env.mxcc = os.path.abspath(env.mxcc)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix='mxcc-cuda-') as env.folder:
        env.emulation = cuda.build_emulation(env.folder)
        with open(env.emulation + '.flags') as f:
            env.compiler = f.read().split('\n')
        for name in env.only or [*SAMPLES, *zoo.MODELS]:
            folder = os.path.join(env.folder, name)
            os.mkdir(folder)
            try:
                (sample if name in SAMPLES else zoo_model)(env, name, folder)
                passed += 1
            except Failure as e:
                failed += 1
                print('FAIL %s: %s' % (name, e), flush=True)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
