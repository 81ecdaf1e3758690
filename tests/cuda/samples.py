#!/usr/bin/env python3
"""The samples as CUDA units in the emulation, against eager and C.

    samples.py --mxcc build/mxcc [--only NAME]...

For each small variant of samples/zoo (tests/zoo/run.py): the loss and all gradients are eager's up to rounding, the losses of the steps
after that are those of the C unit, and all of it is the same to the bit when threads run in the opposite order and streams in another; decoders
are held to the reference of tests/zoo, with their caches. samples/digits.mxl and a language model train an epoch as programs (--main), in one process
and over ranks: the weights are those of the C program up to rounding. The other samples, small, are called function by function beside the
C unit, and once eagerly: results are equal to 1e-4 of the largest entry, integers exactly.
"""
import argparse
import importlib.util
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'zoo')]
import checks  # noqa: E402
from machine import Machine  # noqa: E402

spec = importlib.util.spec_from_file_location('zoo', os.path.join(HERE, '..', 'zoo', 'run.py'))
zoo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zoo)
behaviour = zoo.behaviour
sh, expect, Failure = zoo.sh, zoo.expect, zoo.Failure


def emulate(env, name, folder, model, gradients, flags=()):
    """The program of bench/step_main.c around a CUDA unit."""
    unit, program = os.path.join(folder, name + '.cu'), os.path.join(folder, name + '-cuda')
    main = os.path.join(folder, 'main.o')
    sh(env.mxcc, model, '-o', unit, '--verify', *flags)
    compiled = env.machine.compile(unit)
    sh('cc', '-O1', *zoo.step_main(env, name, folder, gradients), '-c', '-o', main)
    return env.machine.link(program, main, compiled)


def zoo_model(env, name, folder):
    model, rate = zoo.small(name, folder, zoo.MODELS[name][1]), zoo.MODELS[name][-1]
    eager = zoo.eager_gradients(env, model, zoo.data_of(name, folder), folder)
    program, saved = emulate(env, name, folder, model, len(eager) - 1), os.path.join(folder, 'saved')
    losses = training(program, rate, saved)
    with open(saved, 'rb') as f:
        got = f.read()
    zoo.compare(name, eager, struct.unpack('<%df' % len(eager), got))
    again = training(program, rate, saved, {'EMULATED_REVERSED': '1', 'EMULATED_STREAMS': 'first'})
    with open(saved, 'rb') as f:
        expect(f.read() == got and again == losses, name, 'gives other bits when threads and streams run in the opposite order')
    unit, plain = os.path.join(folder, name + '.c'), os.path.join(folder, name + '-c')
    sh(env.mxcc, model, '-o', unit)
    sh('cc', '-O1', '-ffp-contract=off', *zoo.step_main(env, name, folder, len(eager) - 1), unit, '-lm', '-o', plain)
    expected = training(plain, rate, saved)
    bound = 1e-4 if env.machine.emulated else 2e-3  # exp and others are not the host's
    expect(all(abs(v - w) <= bound * max(expected) for v, w in zip(losses, expected)), name, 'losses are', losses, 'and those of C', expected)


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
    compiled = env.machine.compile(unit, *sh(env.mxcc, '--cflags').split())
    return env.machine.link(program, compiled, library, '-lz', '-lpthread', '-ldl')


def sample(env, name, folder):
    """The sample as a program: a short training in the emulation and in C leaves the same weights, up to rounding, in one process and over
    ranks; over ranks the bits depend on their number alone."""
    text, arguments = SAMPLES[name](folder)
    model = os.path.join(folder, name + '.mxl')
    with open(model, 'w') as f:
        f.write(text)
    program = emulate_program(env, os.path.join(folder, name + '.cu'), model)
    plain = os.path.join(folder, name + '-c')
    sh(env.mxcc, 'build', '--main', '-O', '1', '--name', name, model, '-o', plain)

    def trained(path, *options):
        out = path + '-'.join(str(o) for o in ('-out', *options)).replace('--', '')
        sh(path, 'train', '--epochs', 1, '--seed', 3, '--quiet', '--out', out, *arguments, *options, env={'EMULATED_TRACE': path + '.trace'})
        if path == program and not options:  # x and y of all batches, but perhaps for some of the first
            with open(path + '.trace') as f:
                text = f.read()
            within = re.search(r'(\d+) copies within the device', text)
            expect(within and int(within[1]) >= 6, name, 'brings nothing to the device ahead of a step:', text)
        return os.path.join(out, 'checkpoint.safetensors')

    compare_files(name, trained(program), trained(plain), 0.05)
    ranks = trained(program, '--virtual-ranks', 3)
    compare_files(name + ' over ranks', ranks, trained(plain, '--virtual-ranks', 3), 0.05)
    refused = subprocess.run([program, 'train', '--quiet', *arguments, '--virtual-ranks', '2', '--shard'], capture_output=True, text=True)
    expect(refused.returncode == 1 and 'averaged by all-reduce' in refused.stderr, name, 'with --shard gives', refused.returncode, refused.stderr)
    with open(ranks, 'rb') as a, open(trained(program, '--virtual-ranks', 3, '--bucket', 1000), 'rb') as b:
        expect(a.read() == b.read(), name, 'has other bits with other buckets')


def digits(folder):
    """A tenth of the data, one epoch."""
    with open(os.path.join(ROOT, 'samples', 'digits.csv')) as f:
        lines = f.readlines()
    with open(os.path.join(folder, 'digits.csv'), 'w') as f:
        f.writelines(lines[:200])
    with open(os.path.join(ROOT, 'samples', 'digits.mxl')) as f:
        return f.read(), []


def lines(folder):
    """Texts that go on from batch to batch: states that each rank has for itself; the norm of all gradients."""
    data = os.path.join(folder, 'lines.txt')
    with open(data, 'w') as f:
        f.writelines('the quick brown fox %d jumps over lazy dogs and %d cats\n' % (i, i * 7919 % 101) for i in range(40))
    with open(os.path.join(ROOT, 'tests', 'ranks', 'lines.mxl')) as f:
        return f.read(), ['--data', data, '--batch', '6']


SAMPLES = {'digits': digits, 'lines': lines}

# The other samples: (file, what to replace for a small variant, calls in their order: a function and its arguments).
# An argument is (type, shape, integers below): real numbers if that is 0, else a number itself.
TEXT = {'x': ('i32', [2, 6], 80), 'y': ('i32', [2, 6], 80)}
IMAGES = {'x': ('f32', [2, 1, 28, 28], 0), 'y': ('i32', [2], 10)}
PICTURES = {'x': ('f32', [3, 1, 8, 8], 0)}
CALLED = {
    'fashion': ('fashion.mxl', [('Unit(1, 32)', 'Unit(1, 4)'), ('Unit(32, 64)', 'Unit(4, 6)'), ('Unit(64, 64)', 'Unit(6, 6)'),
                                ('Dense(64 * 3 * 3, 128)', 'Dense(6 * 3 * 3, 16)'), ('Dense(128, classes)', 'Dense(16, classes)')],
                [('step', {**IMAGES, 'lr': 1e-3})] * 3 + [('predict', {'x': IMAGES['x']}), ('score', IMAGES)]),
    'chars': ('chars.mxl', [('const length = 96', 'const length = 6'), ('const units = 256', 'const units = 16'), ('-> i32[512]', '-> i32[12]'),
                            ('zeros(i32[512])', 'zeros(i32[12])'), ('P <= 256', 'P <= 6'), ('0..511', '0..11')],
              [('step', {**TEXT, 'lr': 1e-3})] * 3 + [('score', TEXT), ('generate', {'prompt': ('i32', [3], 80), 'temperature': 0.7})]),
    'gpt': ('gpt.mxl', [('const length = 128', 'const length = 6'), ('dim = 128, heads = 4, depth = 4', 'dim = 16, heads = 2, depth = 2')],
            [('step', {**TEXT, 'lr': 1e-3})] * 3 + [('score', TEXT), ('generate', {'prompt': ('i32', [3], 80), 'temperature': 0.7})]),
    'novelty': ('embed/novelty.mxl', [], [('step', {'x': ('f32', [5, 64], 0), 'lr': 1e-2})] * 3 + [('distance', {'x': ('f32', [5, 64], 0)})]),
    'online': ('incremental/online.mxl', [], [('pretrain', {**PICTURES, 'odd': ('i32', [3], 2)})] * 2 + [('score', PICTURES)] +
               [('learn', {'h': ('f32', [3, 128], 0), 'y': ('i32', [3], 10)}), ('score', PICTURES)]),
}


def argument(spec, seed, types):
    if not isinstance(spec, tuple):
        return behaviour.Array(types, [], [spec])
    dtype, shape, below = spec
    return behaviour.Array(dtype, shape, zoo.numbers(math.prod(shape), below, seed)[0])


def called(env, name, folder):
    path, changes, calls = CALLED[name]
    with open(os.path.join(ROOT, 'samples', path)) as f:
        text = zoo.replaced(f.read(), changes)
    model, sides = os.path.join(folder, 'model.mxl'), []
    with open(model, 'w') as f:
        f.write(text)
    for emulated in (True, False):
        own = os.path.join(folder, 'cuda' if emulated else 'c')
        os.mkdir(own)
        os.environ.pop('MXCC_EMULATION', None)
        if emulated:
            os.environ['MXCC_EMULATION'] = env.emulation
        compiled = behaviour.Model(env.mxcc, model, own, [] if emulated else ['-O', '1'])
        sides.append((compiled, compiled.instance()))
    seen = set()
    for i, (function, arguments) in enumerate(calls):
        signature = sides[0][0].signatures[function]
        inputs = {n: argument(arguments[n], 3 * i + k, t) for k, (n, t, _, _) in enumerate(signature.params)}
        got = []
        for compiled, m in sides:
            status, found = compiled.call(m, function, inputs)
            expect(status == 0, name, function, 'gives', status, found)
            got.append(found[0])
        others = [('C', got[1])]
        if not seen: # a new instance, as eager's
            status, direct = behaviour.eager(env.mxcc, model, function, inputs, folder, signature)
            expect(status == 0, name, function, 'fails eagerly:', direct)
            others.append(('eager', direct))
        seen.add(function)
        for side, results in others:
            for r, a, b in zip(signature.results, got[0], results):
                bound = 0 if a.dtype[0] in 'iub' else 1e-4 * max(map(abs, b.data)) + 1e-7
                apart = max(abs(v - w) for v, w in zip(a.data, b.data))
                expect(apart <= bound, name, 'call', i, 'of', function, r[0], 'is', apart, 'from that of', side, a, b)
    expect(len(seen) > 1, name, 'is called by', seen)
    for compiled, m in sides:
        compiled.free(m)


def decoder(env, name, folder):
    zoo_model(env, name, folder)
    if name in zoo.SCORES:
        os.environ['MXCC_EMULATION'] = env.emulation
        zoo.decoding(env, name, folder)


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
        env.machine = Machine(env.folder, True)
        env.emulation = env.machine.emulation
        for name in env.only or [*SAMPLES, *CALLED, *zoo.MODELS]:
            folder = os.path.join(env.folder, name)
            os.mkdir(folder)
            try:
                (sample if name in SAMPLES else called if name in CALLED else decoder)(env, name, folder)
                passed += 1
            except (Failure, behaviour.Failure, checks.Failure) as e:
                failed += 1
                print('FAIL %s: %s' % (name, e), flush=True)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
