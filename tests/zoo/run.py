#!/usr/bin/env python3
"""The models of samples/zoo.

    run.py --mxcc build/mxcc [--only NAME]...

For each: the number of parameters is the published one; mxcc compiles it at its full size; a small variant (other constants, the same
text) gives the same loss and gradients eagerly and compiled, and trains some steps under ASan with a falling loss. For some, training with
recomputation, by default and under --memory-limit, leaves the same bits as without.

GPT-2, LLaMA and the UNet are held to reference.py, the same networks in numpy and f64: the loss to 1e-5 of it, each parameter's gradient
to finite differences of the reference, to 3e-4 of its norm, and its update to AdamW's of that gradient, to 1e-5. What the decoders compute with their caches, in parts and token by
token, is what they compute for whole sequences, and what they write at temperature 0 is what the reference would.
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

try:
    import numpy as np
except ImportError:  # another python3 than the one that the distribution's package is for
    if sys.executable == '/usr/bin/python3' or not os.path.exists('/usr/bin/python3'):
        sys.exit('numpy is needed: apt-get install python3-numpy')
    os.execv('/usr/bin/python3', ['/usr/bin/python3', *sys.argv])

import reference

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
spec = importlib.util.spec_from_file_location('behaviour', os.path.join(ROOT, 'tests', 'run', 'run.py'))
behaviour = importlib.util.module_from_spec(spec)
spec.loader.exec_module(behaviour)
ZOO = os.path.join(ROOT, 'samples', 'zoo')

# (parameters, what to replace for a small variant, classes of x (0: real numbers), shapes of the small x and y, classes of y, has N, rate)
IMAGES = [('const batch = 8', 'const batch = 2'), ('const image = 224', 'const image = 64'), ('const classes = 1000', 'const classes = 10')]
MODELS = {
    'resnet18': (11689512, IMAGES + [('resnet18(classes)', 'resnet18(classes, width = 8)')], 0, [2, 3, 64, 64], [2], 10, True, 0.02),
    'resnet50': (25557032, IMAGES + [('resnet50(classes)', 'resnet50(classes, width = 4)')], 0, [2, 3, 64, 64], [2], 10, True, 0.02),
    'resnet50_head': (25557032, IMAGES + [('resnet50(classes)', 'resnet50(classes, width = 4)')], 0, [2, 3, 64, 64], [2], 10, True, 0.1),
    'mobilenet_v2': (3504872, IMAGES + [(', [6, 32, 3, 2], [6, 64, 4, 2]', ', [4, 64, 1, 2]'), ('[6, 160, 3, 2]', '[6, 160, 1, 2]')], 0, [2, 3, 64, 64], [2], 10, True, 0.02),
    'lstm_lm': (19775200, [('const batch = 20', 'const batch = 3'), ('const length = 35', 'const length = 5'),
                           ('const words = 10000', 'const words = 30'), ('const units = 650', 'const units = 24')],
                30, [5, 3], [5, 3], 30, False, 0.3),
    'transformer': (124439808, [('const length = 512', 'const length = 9'), ('const words = 50257', 'const words = 60'),
                                ('const units = 768', 'const units = 32'), ('const heads = 12', 'const heads = 4'),
                                ('words, 1024, units', 'words, 16, units'), ('const layers = 12', 'const layers = 2')], 60, [1, 9], [1, 9], 60, True, 1e-3),
    'gpt2': (124439808, [('const batch = 8', 'const batch = 2'), ('const length = 1024', 'const length = 9'), ('const words = 50257', 'const words = 60'),
                         ('const units = 768', 'const units = 32'), ('const heads = 12', 'const heads = 4'), ('const layers = 12', 'const layers = 2')],
             60, [2, 9], [2, 9], 60, True, 1e-3),
    'llama': (1235814400, [('const batch = 1', 'const batch = 2'), ('const length = 2048', 'const length = 9'), ('const context = 8192', 'const context = 9'),
                           ('const words = 128256', 'const words = 60'), ('const units = 2048', 'const units = 32'), ('const layers = 16', 'const layers = 2'),
                           ('const heads = 32', 'const heads = 4'), ('const kv_heads = 8', 'const kv_heads = 2'), ('const hidden = 8192', 'const hidden = 48'),
                           ('const window = 0', 'const window = 5')],
              60, [2, 9], [2, 9], 60, True, 1e-3),
    'unet': (859520964, [('const batch = 1', 'const batch = 2'), ('const side = 64', 'const side = 4'), ('const units = 320', 'const units = 8'),
                         ('const groups = 32', 'const groups = 4'), ('const heads = 8', 'const heads = 2'), ('const tokens = 77', 'const tokens = 3'),
                         ('const words = 768', 'const words = 6'), ('UNet([units, 2 * units, 4 * units, 4 * units])', 'UNet([units, 2 * units], depth = 1)')],
             0, [2, 4, 4, 4], [2, 3, 6], 0, True, 3e-3),
}


STEPS = {'unet': 60}  # its losses are of noise that each step draws

# name: (parameters of `judged` beside x and y, with inputs; what it calls the loss; the reference's)
SCORES = {'gpt2': lambda p, x: reference.gpt2_scores(p, x, 4), 'llama': lambda p, x: reference.llama_scores(p, x, 4, 2, 500000, window=5)}
DECAY = {'gpt2': 0.1, 'llama': 0.1, 'unet': 0.01}
REFERENCE = {
    'gpt2': ({}, 'gpt.loss_of(net(x), y)', lambda p, x, y: reference.cross_entropy(SCORES['gpt2'](p, x), y)),
    'llama': ({}, 'loss_of(x, y)', lambda p, x, y: reference.cross_entropy(SCORES['llama'](p, x), y)),
    'unet': ({'t': ('i32[N]', [2], 1000), 'noise': ('f32[N, latents, side, side]', [2, 4, 4, 4], 0)}, 'loss_of(x, y, t, noise)',
             lambda p, x, y, t, noise: reference.unet_loss(p, x, y, t, noise, 4, 2)),
}


class Failure(Exception):
    pass


def expect(condition, *words):
    if not condition:
        raise Failure(' '.join(str(w) for w in words))


def sh(*command, env=None):
    p = subprocess.run([str(c) for c in command], capture_output=True, env={**os.environ, **(env or {})})
    expect(p.returncode == 0, ' '.join(map(str, command)), 'gave', p.returncode, '\n', p.stdout.decode(errors='replace')[-2000:],
           p.stderr.decode(errors='replace')[-2000:])
    return p.stdout.decode()


def numbers(count, classes, s=1):
    """As bench/step_main.c draws them; also the generator's state behind them."""
    out = []
    for _ in range(count):
        s = (s * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((s >> 8) % classes if classes else (s >> 8) / 16777216.0 - 0.5)
    return out, s


def write_npy(path, shape, values, integer):
    header = "{'descr': '<%s', 'fortran_order': False, 'shape': (%s,), }" % ('i4' if integer else 'f4', ', '.join(map(str, shape)))
    header += ' ' * (-(len(header) + 11) % 64) + '\n'
    with open(path, 'wb') as f:
        f.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode())
        f.write(struct.pack('<%d%s' % (len(values), 'i' if integer else 'f'), *values))


def read_npy(path):
    with open(path, 'rb') as f:
        data = f.read()
    begin = 10 + struct.unpack('<H', data[8:10])[0]
    return struct.unpack('<%df' % ((len(data) - begin) // 4), data[begin:])


def replaced(text, changes):
    for old, new in changes:
        expect(text.count(old) == 1, repr(old), 'stands', text.count(old), 'times')
        text = text.replace(old, new)
    return text


def small(name, folder, changes):
    """The model with other constants and two functions more: all gradients, one after the other, and the loss."""
    with open(os.path.join(ZOO, name + '.mxl')) as f:
        text = replaced(f.read(), changes)
    for shared, other in (('resnet', [('[3, 4, 6, 3]', '[1, 2, 1, 1]')]), ('gpt', [])):
        with open(os.path.join(ZOO, shared + '.mxl')) as f, open(os.path.join(folder, shared + '.mxl'), 'w') as out:
            out.write(replaced(f.read(), other))
    step = re.search(r'export train fn step\((.*), lr: f32\) -> \(loss: f32\) \{\n(.*\n)    opt\.update\((.*), lr = lr\)\n', text)
    expect(step, name, 'has no step')
    arguments, loss, gradients = step.groups()
    text += '\nexport train fn gradients(%s) {\n%s    let gs = %s\n    return loss, concat([reshape(g, [prod(g.shape)]) for g in gs], axis = 0)\n}\n' % (arguments, loss, gradients)
    path = os.path.join(folder, name + '.mxl')
    with open(path, 'w') as f:
        f.write(text)
    return path


def parameters(env, model):
    """{name: shape}, in the order of params(net)."""
    found = {}
    for line in sh(env.mxcc, model, '--emit', 'ir', '--stop-after', 'differentiate').splitlines():
        m = re.match(r'param @(\S+): \w+(?:\[([\d, ]*)\])?$', line)
        if m:
            found[m[1]] = [int(d) for d in m[2].split(',')] if m[2] else []
    return found


def size(env, name, folder):
    model = os.path.join(ZOO, name + '.mxl')
    total = sum(math.prod(s) for s in parameters(env, model).values())
    expect(total == MODELS[name][0], name, 'has', total, 'parameters, published are', MODELS[name][0])
    sh(env.mxcc, model, '-o', os.path.join(folder, name + '.c'))


def data_of(name, folder):
    """The small variant's x and y as files, and the options of `mxcc run` that name them."""
    _, _, x_classes, x_shape, y_shape, y_classes, _, _ = MODELS[name]
    x, s = numbers(math.prod(x_shape), x_classes)
    y, _ = numbers(math.prod(y_shape), y_classes, s)
    options = []
    for key, shape, values, integer in (('x', x_shape, x, x_classes > 0), ('y', y_shape, y, y_classes > 0)):
        write_npy(os.path.join(folder, key + '.npy'), shape, values, integer)
        options += ['--in', '%s=%s' % (key, os.path.join(folder, key + '.npy'))]
    return options


def eager_gradients(env, model, data, folder, flags=()):
    """Loss and all gradients of a model that `small` made."""
    sh(env.mxcc, 'run', *flags, model, '--call', 'gradients', *data, '--out', folder, '--seed', '5')
    return read_npy(os.path.join(folder, 'result0.npy')) + read_npy(os.path.join(folder, 'result1.npy'))


def step_main(env, name, folder, gradients=None):
    """What a C compiler needs to make bench/step_main.c the main program of the small variant; gradients: how many `gradients` gives, if it is there."""
    _, _, x_classes, x_shape, y_shape, y_classes, has_n, _ = MODELS[name]
    defines = {'MODEL': name, 'X_COUNT': math.prod(x_shape), 'X_CLASSES': x_classes, 'Y_COUNT': math.prod(y_shape), 'Y_CLASSES': y_classes}
    if has_n:
        defines['STEP_N'] = x_shape[0]
    if gradients:
        defines['GRADIENTS'] = gradients
    return ['-I' + folder, '-include', name + '.h', *('-D%s=%s' % d for d in defines.items()), *sh(env.mxcc, '--cflags').split(),
            os.path.join(ROOT, 'bench', 'step_main.c')]


def build(env, name, folder, model, gradients=None, flags=()):
    """Compiled under ASan: the program, a file for what it saves, and the bytes of its arena."""
    unit, program, saved = (os.path.join(folder, name + end) for end in ('.c', '', '.saved'))
    sh(env.mxcc, model, '-o', unit, '--verify', *flags)
    sh('cc', '-O0', '-g', '-fsanitize=address', '-ffp-contract=off', *step_main(env, name, folder, gradients), unit, '-lm', '-o', program)
    with open(os.path.join(folder, name + '.h')) as f:
        return program, saved, int(re.search(r'_ARENA_BYTES (\d+)', f.read())[1])


# (the largest part of the memory without recomputation that the default may take, the part that a limit asks for)
RECOMPUTED = {'resnet50': (0.9, 0.7), 'transformer': (1, 0.7)}


def recomputation(env, name, folder):
    model = small(name, folder, MODELS[name][1])
    with open(model) as f:
        text = f.read()
    with open(model, 'w') as f: # the step alone
        f.write(text[:text.index('export train fn gradients')])
    at_most, part = RECOMPUTED[name]

    def trained(*flags):
        program, saved, arena = build(env, name, folder, model, flags=flags)
        sh(program, 3, 5, MODELS[name][-1], saved)
        with open(saved, 'rb') as f:
            return arena, f.read()

    kept, expected = trained('--no-recompute')
    limit = int(kept * part)
    for flags, most in (((), kept * at_most), (('--memory-limit', limit), limit)):
        arena, got = trained(*flags)
        expect(arena <= most, name, *flags, 'needs', arena, 'bytes of', kept)
        expect(got == expected, name, *flags, 'trains to other bits than without recomputation')


def training(env, name, folder):
    """The compiled program runs under ASan: it writes loss and gradients, and then trains."""
    model = small(name, folder, MODELS[name][1])
    eager = eager_gradients(env, model, data_of(name, folder), folder)
    program, saved, _ = build(env, name, folder, model, len(eager) - 1)
    steps = STEPS.get(name, 6)
    losses = json.loads(sh(program, steps, 5, MODELS[name][-1], saved))['losses']
    expect(all(math.isfinite(v) for v in losses) and sum(losses[-steps // 3:]) < sum(losses[:steps // 3]), name, 'losses', losses)
    with open(saved, 'rb') as f:
        compiled = struct.unpack('<%df' % len(eager), f.read())
    compare(name, eager, compiled)


def compare(name, a, b):
    """Loss first, then the gradients: equal up to rounding."""
    expect(abs(a[0] - b[0]) <= 1e-5 * abs(a[0]), name, 'loss is', a[0], 'and', b[0])
    norm = math.sqrt(sum(v * v for v in b[1:]))
    apart = math.sqrt(sum((v - w) ** 2 for v, w in zip(a[1:], b[1:])))
    expect(math.isfinite(norm) and apart <= 1e-4 * norm, name, 'gradients are', apart, 'apart, their norm is', norm)


# ---- the reference -------------------------------------------------------------------------------------------------------------

def call(env, model, function, inputs, folder):
    """Eagerly: {result: array}, those without a name as result0, …"""
    out, command = os.path.join(folder, 'out'), []
    for name, a in inputs.items():
        path = os.path.join(folder, name + '.npy')
        np.save(path, a)
        command += ['--in', '%s=%s' % (name, path)]
    sh(env.mxcc, 'run', model, '--call', function, *command, '--out', out, '--seed', '5')
    return {os.path.splitext(f)[0]: np.load(os.path.join(out, f)) for f in os.listdir(out)}


def array(shape, classes, seed):
    values, _ = numbers(math.prod(shape), classes, seed)
    return np.array(values, np.int32 if classes else np.float32).reshape(shape)


def by_name(shapes, flat):
    ends = np.cumsum([math.prod(s) for s in shapes.values()])
    return {k: part.reshape(s).astype(np.float64) for (k, s), part in zip(shapes.items(), np.split(flat, ends[:-1]))}


def judged(env, name, folder):
    """Loss and gradients of the model against the reference."""
    _, changes, x_classes, x_shape, y_shape, y_classes, _, _ = MODELS[name]
    more, expression, loss_of = REFERENCE[name]
    model = small(name, folder, changes)
    with open(model) as f:
        text = f.read()
    step = re.search(r'export train fn step\((.*), lr: f32\)', text)[1]
    with open(model, 'w') as f:
        f.write(text + """
export train fn judged(%s) {
    let loss = %s
    let gs = grad(loss, net)
    let before = flat(params(net))
    opt.update(gs, lr = 0.01)
    return loss, flat(gs), before, flat(params(net))
}
fn flat(xs) = concat([reshape(x, [prod(x.shape)]) for x in xs], axis = 0)
""" % (', '.join([step] + ['%s: %s' % (k, v[0]) for k, v in more.items()]), expression))
    shapes = parameters(env, model)
    inputs = {'x': array(x_shape, x_classes, 1), 'y': array(y_shape, y_classes, 2)}
    inputs.update({k: array(v[1], v[2], 3 + i) for i, (k, v) in enumerate(more.items())})
    got = call(env, model, 'judged', inputs, folder)
    loss, gradients, weights, updated = (float(got['result0']), *(by_name(shapes, got['result%d' % i]) for i in (1, 2, 3)))
    inputs = {k: a.astype(np.float64 if a.dtype == np.float32 else int) for k, a in inputs.items()}
    expected = loss_of(weights, *inputs.values())
    expect(abs(loss - expected) <= 1e-5 * abs(expected), name, 'has the loss', loss, 'and the reference', expected)
    draw = np.random.default_rng(7)
    for key, g in gradients.items():
        norm = np.sqrt((g * g).sum())
        way = draw.standard_normal(g.shape)
        way = way / np.sqrt((way * way).sum()) + g / max(norm, 1e-30)
        ends = [loss_of({**weights, key: weights[key] + h * way}, *inputs.values()) for h in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        expect(abs(slope - (g * way).sum()) <= 3e-4 * norm + 1e-7, name, 'the gradient of', key, 'gives the slope', (g * way).sum(), 'and the reference', slope)
        # AdamW's first step: the moving means are those of g and its square alone. Where g is nothing but rounding, so is its direction.
        step = 0.01 * (g / (np.abs(g) + 1e-8) + (DECAY[name] * weights[key] if g.ndim > 1 else 0))
        apart = np.abs(weights[key] - step - updated[key])[np.abs(g) > 1e-5 * np.abs(g).max()]
        expect(apart.size == 0 or apart.max() < 1e-5, name, 'an update of', key, 'is', apart.max() if apart.size else 0, 'from AdamW')


def decoding(env, name, folder):
    """Compiled (C, or CUDA with MXCC_EMULATION): scores with caches against the reference's of whole sequences, and what it writes."""
    model = small(name, folder, MODELS[name][1])
    with open(model, 'a') as f:
        f.write('\nexport fn weights() = concat([reshape(p, [prod(p.shape)]) for p in params(net)], axis = 0)\n')
    shapes = parameters(env, model)
    compiled = behaviour.Model(env.mxcc, model, folder, [])
    m = compiled.instance()

    def run(function, **inputs):
        given = {k: behaviour.Array(str(a.dtype).replace('int', 'i').replace('float', 'f'), a.shape, a.reshape(-1).tolist()) for k, a in inputs.items()}
        status, found = compiled.call(m, function, given)
        expect(status == 0, name, function, 'gives', status, found)
        return np.array(found[0][0].data)

    weights = by_name(shapes, run('weights'))
    ids = array([9], 60, 11)
    whole = SCORES[name](weights, ids[None].astype(int))[0]
    for first in (4, 1, 7):
        for at in range(first - 1, 9):
            got = run('prefill', ids=ids[:first]) if at == first - 1 else run('decode', id=ids[at], pos=np.int32(at))
            apart = np.abs(got - whole[at]).max()
            expect(apart <= 1e-5 * np.abs(whole[at]).max() + 1e-6, name, 'position', at, 'behind a prompt of', first, 'is', apart, 'from the reference')
    written = ids[:3].astype(int)
    while len(written) < 9:
        written = np.append(written, SCORES[name](weights, written[None])[0, -1].argmax())
    got = run('generate', prompt=ids[:3], temperature=np.float32(0))
    expect(list(got) == list(written), name, 'writes', list(got), 'and the reference', list(written))
    warm = {tuple(run('generate', prompt=ids[:3], temperature=np.float32(4))) for _ in range(4)}
    expect(len(warm) > 1 and all(w[:3] == tuple(ids[:3]) and 0 <= min(w) and max(w) < 60 for w in warm), name, 'draws', warm)
    compiled.free(m)


class Env:
    pass


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--mxcc', required=True)
    p.add_argument('--only', action='append', choices=sorted(MODELS))
    env = p.parse_args(namespace=Env())
    env.mxcc = os.path.abspath(env.mxcc)
    passed = failed = 0
    with tempfile.TemporaryDirectory() as env.folder:
        for name in env.only or MODELS:
            folder = os.path.join(env.folder, name + '-small')
            os.mkdir(folder)
            for check in (size, training) + ((recomputation,) if name in RECOMPUTED else ()) + ((judged,) if name in REFERENCE else ()) + ((decoding,) if name in SCORES else ()):
                try:
                    check(env, name, folder)
                    passed += 1
                except Failure as e:
                    failed += 1
                    print('FAIL %s %s: %s' % (name, check.__name__, e), flush=True)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
