#!/usr/bin/env python3
"""Mixed precision (--precision bf16, f16), on the host and in the emulation of CUDA.

    run.py --mxcc build/mxcc [--only NAME]... [--cuda]

ir        NAME.mxir through the pass: lines `// bf16: TEXT` are lines of the IR that it gives, in this order; `…` stands for anything, `// bf16
          not: TEXT` for what no line has
steps     steps.mxl with infinities, nans and values too large for f16: what a step changes, how the scale moves, checkpoints (steps.c)
programs  the same as a training program: in C, eagerly, over virtual ranks; stopped and resumed to the same bits
zoo       small models of samples/zoo: loss, gradients and training against f32 within bounds, C against eager; lstm_lm and transformer unless
          --only names others
digits    the sample's training against f32's, loss by loss
memory    arenas of the samples against f32's
options   what is refused

With --cuda, `steps`, `digits` and `zoo` are units of CUDA, checked access by access, instead. Only Python's standard library is needed."""
import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, os.path.join(ROOT, 'tests', path))
    m = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(os.path.join(ROOT, 'tests', path)))
    spec.loader.exec_module(m)
    sys.path.pop(0)
    return m


samples = module('cuda_samples', 'cuda/samples.py')
zoo = samples.zoo
sh, expect, Failure = zoo.sh, zoo.expect, zoo.Failure


# ---- the pass ---------------------------------------------------------------------------------------------------------

def ir(env):
    for name in sorted(os.listdir(HERE)):
        if not name.endswith('.mxir'):
            continue
        path = os.path.join(HERE, name)
        with open(path, encoding='utf-8') as f:
            wanted = re.findall(r'^// (bf16|f16)( not)?: (.*)$', f.read(), re.M)
        expect(wanted, name, 'expects nothing')
        for precision in sorted({w[0] for w in wanted}):
            got = sh(env.mxcc, path, '--precision', precision, '--stop-after', 'precision', '--emit', 'ir', '--verify').split('\n')
            at = 0
            for which, unwanted, text in wanted:
                if which != precision:
                    continue
                pattern = '.*?'.join(re.escape(part) for part in text.strip().split('…'))
                found = [i for i, line in enumerate(got) if re.fullmatch(pattern, line.strip())]
                if unwanted:
                    expect(not found, name, 'with', precision, 'gives', text)
                    continue
                later = [i for i in found if i >= at]
                expect(later, name, 'with', precision, 'does not give', text, 'behind line', at, '\n' + '\n'.join(got))
                at = later[0] + 1
            back = os.path.join(env.folder, 'back.mxir')
            with open(back, 'w', encoding='utf-8') as f:
                f.write('\n'.join(got))
            expect(sh(env.mxcc, back, '--name', name[:-5], '--emit', 'ir').split('\n') == got, name, 'does not parse back to the same text')


# ---- steps that change nothing ----------------------------------------------------------------------------------------

CALLS = '..i...nl....'  # see steps.c


def expected_steps(first, until):
    scale, good, lines = first, 0, []
    for call in CALLS:
        fine = call == '.'
        good = good + 1 if fine else 0
        if not fine:
            scale /= 2
        elif good == until:
            scale, good = 2 * scale, 0
        lines.append('%s %s scale %g good %d %s' % (call, 'finite' if fine else 'not finite', scale, good, 'changed changed' if fine else 'same same'))
    return lines + ['loaded scale values', 'reset scale %g good 0' % first]


def steps(env):
    folder = os.path.join(env.folder, 'steps')
    os.mkdir(folder)
    unit, program = os.path.join(folder, 'unit.' + ('cu' if env.cuda else 'c')), os.path.join(folder, 'steps')
    main = [os.path.join(HERE, 'steps.c'), '-I' + folder, *sh(env.mxcc, '--cflags').split()]
    for first, until in ((1024, 3), (65536, 2000)):
        flags = ['--loss-scale', '%d:%d' % (first, until)] if until != 2000 else []
        sh(env.mxcc, os.path.join(HERE, 'steps.mxl'), '--precision', 'f16', '--verify', *flags, '-o', unit)
        if env.cuda:
            compiled = env.machine.compile(unit)
            sh('cc', '-O1', '-c', *main, '-o', program + '.o')
            env.machine.link(program, program + '.o', compiled)
        else:
            sh('cc', '-O1', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', *main, unit, '-lm', '-o', program)
        p = subprocess.run([program, CALLS], cwd=folder, capture_output=True, text=True)
        expect(p.returncode == 0, 'steps gives', p.returncode, p.stdout, p.stderr)
        got, wanted = p.stdout.strip().split('\n'), expected_steps(first, until)
        expect(got == wanted, 'steps are\n' + p.stdout, 'expected\n' + '\n'.join(wanted))


# ---- training programs ------------------------------------------------------------------------------------------------

def tensors(path):
    """{name: values} of a safetensors file."""
    codes = {'F32': 'f', 'F64': 'd', 'I64': 'q', 'I32': 'i'}
    with open(path, 'rb') as f:
        raw = f.read()
    n = struct.unpack('<Q', raw[:8])[0]
    found = {}
    for name, v in json.loads(raw[8:8 + n]).items():
        if name != '__metadata__':
            at, end = (8 + n + k for k in v['data_offsets'])
            code = codes[v['dtype']]
            found[name] = struct.unpack('<%d%s' % ((end - at) // struct.calcsize(code), code), raw[at:end])
    return found


def trained(command, out, *arguments):
    shutil.rmtree(out, ignore_errors=True)
    sh(*command, '--quiet', '--out', out, '--seed', 3, *arguments)
    return tensors(os.path.join(out, 'checkpoint.safetensors'))


def programs(env):
    """16 rows, one of them so heavy that its gradients leave f16, in batches of 4: of each epoch's four steps one changes nothing."""
    folder = os.path.join(env.folder, 'programs')
    os.mkdir(folder)
    model, out = os.path.join(folder, 'steps.mxl'), os.path.join(folder, 'out')
    shutil.copy(os.path.join(HERE, 'steps.mxl'), model)
    rows = [[0.25 * (i % 4), 1.0 * (i % 3), 0.5, -1.0, 1e9 if i == 5 else 1, i % 3] for i in range(16)]
    with open(os.path.join(folder, 'rows.csv'), 'w') as f:
        f.writelines(','.join('%g' % v for v in row) + '\n' for row in rows)
    options = ['--precision', 'f16', '--loss-scale', '1024:5']
    program, single = os.path.join(folder, 'program'), os.path.join(folder, 'single')
    sh(env.mxcc, 'build', model, '--main', *options, '-O', '1', '-o', program)
    sh(env.mxcc, 'build', model, '--main', '--no-ranks', *options, '-O', '1', '-o', single)
    eager = [env.mxcc, 'run', *options, model]
    runs = {'C': trained([program], out, '--epochs', 3), 'C in one process': trained([single], out, '--epochs', 3),
            'eager': trained(eager, out, '--epochs', 3)}
    for ranks in (2, 3):
        runs['%d ranks' % ranks] = trained([program], out, '--epochs', 3, '--virtual-ranks', ranks)
    runs['2 ranks, sharded'] = trained([program], out, '--epochs', 3, '--virtual-ranks', 2, '--shard')
    for name, t in runs.items():
        expect(t['opt.t'] == (9,), name, 'counts', t['opt.t'], 'steps; 9 of 12 are good')
        expect(t['seen'] == (9,), name, 'counts', t['seen'], 'steps by itself')
        expect(all(math.isfinite(v) for k in t for v in t[k]), name, 'leaves numbers that are not finite')
        expect(t['mx.loss_scale'][0] in (128.0, 256.0), name, 'leaves a scale of', t['mx.loss_scale'])
        for k, v in runs['C'].items():
            near = all(abs(a - b) <= 2e-2 * max(map(abs, v)) + 2e-2 for a, b in zip(v, t[k]))
            # Ranks normalize their own part of a batch; and in a program for ranks a running statistic follows bad steps, too.
            expect(near or 'ranks' in name or 'running' in k, name, 'leaves', k, t[k], 'and C', v)
    # The same order of rows everywhere, so the same steps are bad.
    for name in ('C in one process', 'eager', '2 ranks'):
        for key in ('mx.loss_scale', 'mx.loss_scale_steps'):
            expect(runs[name][key] == runs['C'][key], name, 'leaves', key, runs[name][key], 'and C', runs['C'][key])
    for k, v in runs['eager'].items():
        expect(all(abs(a - b) <= 2e-2 * max(map(abs, v)) + 2e-2 for a, b in zip(v, runs['C in one process'][k])), 'eager leaves', k, v)
    whole = runs['C']
    shutil.rmtree(out)
    stopped = subprocess.run([program, '--quiet', '--out', out, '--seed', '3', '--epochs', '3', '--steps', '5'], capture_output=True)
    expect(stopped.returncode == 130, '--steps gives', stopped.returncode, stopped.stderr)  # stopped before the end
    sh(program, '--quiet', '--out', out, '--seed', 3, '--epochs', 3, '--resume')
    expect(tensors(os.path.join(out, 'checkpoint.safetensors')) == whole, 'resuming leaves other values, or another scale')
    servers = subprocess.run([program, '--virtual-ranks', '2', '--servers', '1', '--quiet', '--out', out], capture_output=True, text=True)
    expect(servers.returncode != 0 and 'gradient' in servers.stderr, '--servers is not refused:', servers.stderr)
    # bf16 has the range of f32: nothing is scaled, and no state is added.
    sh(env.mxcc, 'build', model, '--main', '--precision', 'bf16', '-O', '1', '-o', program)
    plain = trained([program], out, '--epochs', 1)
    expect('mx.loss_scale' not in plain and plain['opt.t'] == (4,), 'bf16 counts', plain.get('opt.t'))
    # A checkpoint belongs to a model, not to a precision.
    kept = os.path.join(folder, 'kept.safetensors')
    shutil.copy(os.path.join(out, 'checkpoint.safetensors'), kept)
    after = trained([single], out, '--epochs', 1, '--weights', kept)
    expect(after['opt.t'] == (4 + 3,) and after['mx.loss_scale'] == (512.0,), 'from weights of bf16:', after['opt.t'], after['mx.loss_scale'])
    shutil.copy(os.path.join(out, 'checkpoint.safetensors'), kept)
    after = trained([program], out, '--epochs', 1, '--weights', kept)
    expect(after['opt.t'] == (4 + 3 + 4,) and 'mx.loss_scale' not in after, 'from weights of f16:', after['opt.t'])


# ---- models -----------------------------------------------------------------------------------------------------------

def cosine(a, b):
    return sum(v * w for v, w in zip(a, b)) / math.sqrt(sum(v * v for v in a) * sum(w * w for w in b))


# (the largest distance of a loss from f32's after some steps, as a part of it, the least cosine of all gradients with f32's, the same where two
# images are normalized by themselves: there rounding the factors of products alone takes gradients as far)
BOUNDS = {'bf16': (0.05, 0.98, 0.85), 'f16': (0.02, 0.995, 0.95)}
STEPS = 8


def precision_flags(precision):
    return ['--precision', precision, *(['--loss-scale', '256'] if precision == 'f16' else [])]


def unit_of(env, name, folder, model, precision):
    """A program of bench/step_main.c: under ASan and UBSan, or emulated."""
    if env.cuda:
        return samples.emulate(env, name, folder, model, env.gradients, precision_flags(precision))
    unit, program = os.path.join(folder, name + '.c'), os.path.join(folder, name + '-' + precision)
    sh(env.mxcc, model, '-o', unit, '--verify', *precision_flags(precision))
    sh('cc', '-O0', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-ffp-contract=off',
       *zoo.step_main(env, name, folder, env.gradients), unit, '-lm', '-o', program)
    return program


def model(env, name):
    folder = os.path.join(env.folder, name)
    os.mkdir(folder)
    path, saved, rate = zoo.small(name, folder, zoo.MODELS[name][1]), os.path.join(folder, 'saved'), zoo.MODELS[name][-1]
    data = zoo.data_of(name, folder)

    def eagerly(precision):
        return zoo.eager_gradients(env, path, data, folder, precision_flags(precision))

    exact = eagerly('f32')
    env.gradients = len(exact) - 1
    was, env.cuda = env.cuda, False
    plain = json.loads(sh(unit_of(env, name, folder, path, 'f32'), STEPS, 5, rate, saved))['losses']
    env.cuda = was
    for precision, (far, smooth, normalized) in BOUNDS.items():
        aligned = normalized if 'net' in name else smooth
        eager = eagerly(precision)
        losses = json.loads(sh(unit_of(env, name, folder, path, precision), STEPS, 5, rate, saved))['losses']
        with open(saved, 'rb') as f:
            got = struct.unpack('<%df' % len(exact), f.read())
        expect(abs(got[0] - exact[0]) <= far * abs(exact[0]), name, precision, 'has a loss of', got[0], 'and f32', exact[0])
        expect(abs(got[0] - eager[0]) <= far / 4 * abs(exact[0]), name, precision, 'has a loss of', got[0], 'and eager', eager[0])
        for what, other in (('f32', exact), ('eager', eager)):
            expect(cosine(got[1:], other[1:]) >= aligned, name, precision, 'has gradients', cosine(got[1:], other[1:]), 'along those of', what)
        slack = 0.1 if aligned == normalized else far / 4
        for v, w in zip(losses, plain):
            expect(abs(v - w) <= far * abs(w) + slack * abs(plain[0]), name, precision, 'has losses', losses, 'and f32', plain)
        expect(losses[-1] < losses[0], name, precision, 'does not learn:', losses)
        expect(got[1:] != exact[1:], name, precision, 'rounds nothing')


def digits(env):
    """samples/digits.mxl, a convnet with batch norm and dropout, as a program: four epochs on a part of its data."""
    folder = os.path.join(env.folder, 'digits')
    os.mkdir(folder)
    path, losses = os.path.join(folder, 'digits.mxl'), {}
    shutil.copy(os.path.join(ROOT, 'samples', 'digits.mxl'), path)
    with open(os.path.join(ROOT, 'samples', 'digits.csv')) as f, open(os.path.join(folder, 'digits.csv'), 'w') as g:
        g.writelines(f.readlines()[:120 if env.cuda else 600])
    for precision in ('f32', 'bf16', 'f16'):
        out, program, flags = os.path.join(folder, precision), os.path.join(folder, 'train-' + precision), precision_flags(precision)
        if env.cuda:
            program = samples.emulate_program(env, os.path.join(folder, 'digits.cu'), path, flags)
        else:
            sh(env.mxcc, 'build', '--main', *flags, '-O', 1, path, '-o', program, '--verify')
        sh(program, '--epochs', 1 if env.cuda else 4, '--seed', 3, '--quiet', '--out', out)
        with open(os.path.join(out, 'metrics.csv')) as f:
            losses[precision] = [float(line.split(',')[3]) for line in f.readlines()[1:]]
    for precision, (far, _, _) in BOUNDS.items():
        for v, w in zip(losses[precision], losses['f32']):
            expect(abs(v - w) <= far * losses['f32'][0] and v != w, 'digits has losses', losses)


# ---- memory and options -----------------------------------------------------------------------------------------------

# (the largest part of f32's arena that a step may take, without recomputation)
MEMORY = {'samples/digits.mxl': 0.8, 'samples/fashion.mxl': 0.7, 'samples/chars.mxl': 0.7, 'samples/gpt.mxl': 0.6,
          'samples/zoo/resnet50.mxl': 0.6}


def report(env, path, precision, *options):
    whole = json.loads(sh(env.mxcc, 'report', os.path.join(ROOT, path), '--json', '--precision', precision, *options))
    return whole, next(f for f in whole['functions'] if f['name'] == 'step')


def memory(env):
    for path, part in MEMORY.items():
        exact = report(env, path, 'f32', '--no-recompute')[1]
        expect(exact['low_precision'] == {'products': 0, 'rounded': 0, 'stored': 0, 'stored_bytes': 0}, path, exact['low_precision'])
        for precision in ('bf16', 'f16'):
            whole, f = report(env, path, precision, '--no-recompute')
            print('%-26s %-4s %6.1f MiB of %6.1f' % (path, precision, f['arena_bytes'] / 2 ** 20, exact['arena_bytes'] / 2 ** 20))
            expect(f['arena_bytes'] <= part * exact['arena_bytes'], path, precision, 'takes', f['arena_bytes'], 'bytes, f32', exact['arena_bytes'])
            expect(whole['precision'] == precision and f['low_precision']['products'] > 2 and f['low_precision']['stored'] > 2, path, f['low_precision'])


def refused(env, words, *arguments):
    p = subprocess.run([env.mxcc, *arguments], capture_output=True, text=True, cwd=env.folder)
    expect(p.returncode in (1, 2) and words in p.stderr, arguments, 'gives', p.returncode, p.stderr)


def options(env):
    model, out = os.path.join(HERE, 'steps.mxl'), os.path.join(env.folder, 'x.c')
    refused(env, 'expected f32, tf32, bf16 or f16', model, '--precision', 'fp16', '-o', out)
    refused(env, 'belongs to --target cuda', model, '--precision', 'tf32', '-o', out)
    refused(env, 'belongs to --target cuda', 'run', '--precision', 'tf32', model)
    refused(env, 'belongs to --precision f16', model, '--precision', 'bf16', '--loss-scale', '2', '-o', out)
    for bad in ('0', '-4', '3', 'x', '4:', '4:0', '4:2x', '1e20', 'nan', '4;2'):
        refused(env, 'expected a power of two', model, '--precision', 'f16', '--loss-scale', bad, '-o', out)
    inner = os.path.join(env.folder, 'inner.mxl')
    with open(inner, 'w') as f:
        f.write('use nn\nuse optim\nnet = nn.Dense(3, 2)\nopt = optim.SGD(net)\n'
                'export train fn fit(x: f32[N <= 8, 3], n: i64) {\n    for i in 0..n <= 4 { opt.update(grad(mean(net(x)), net)) }\n}\n')
    refused(env, 'E0559', inner, '--precision', 'f16', '-o', out)
    sh(env.mxcc, inner, '--precision', 'bf16', '--verify', '-o', out)
    # tf32 changes no IR.
    flags = ['--target', 'cuda', '--stop-after', 'precision', '--emit', 'ir', model]
    expect(sh(env.mxcc, *flags, '--precision', 'tf32') == sh(env.mxcc, *flags), 'tf32 changes the IR')
    # Names of the model come first.
    named = os.path.join(env.folder, 'named.mxl')
    with open(model) as f, open(named, 'w') as g:
        g.write(f.read().replace('state seen', 'block Own() { state loss_scale: f32 = 3 }\nmx = Own()\nstate seen').replace('seen += 1', 'seen += 1\n    mx.loss_scale += 1'))
    text = sh(env.mxcc, named, '--precision', 'f16', '--stop-after', 'loss_scale', '--emit', 'ir', '--verify')
    expect('state @mx.loss_scale_: f32' in text and 'state @mx.loss_scale: f32' in text, 'the scale takes the name of a state')
    # Initial values are the same bits, whatever the precision.
    for where in ('source', 'file'):
        saved = []
        for precision in ('f32', 'f16'):
            unit = os.path.join(env.folder, 'w.c')
            sh(env.mxcc, model, '--precision', precision, '--weights', where, '-o', unit)
            if where == 'file':
                t = tensors(unit[:-2] + '.safetensors')
                expect((t.pop('mx.loss_scale', None), t.pop('mx.loss_scale_steps', None)) == (((65536.0,), (0,)) if precision == 'f16' else (None, None)),
                       'the weights hold another scale')
                saved.append(t)
        expect(where == 'source' or saved[0] == saved[1], 'initial values depend on the precision')


ZOO = ['lstm_lm', 'transformer']
ALL = {'ir': ir, 'steps': steps, 'programs': programs, 'memory': memory, 'options': options, 'digits': digits}


class Env:
    pass


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--mxcc', required=True)
    p.add_argument('--only', action='append')
    p.add_argument('--cuda', action='store_true')
    env = p.parse_args(namespace=Env())
    env.mxcc = os.path.abspath(env.mxcc)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix='mxcc-precision-') as env.folder:
        if env.cuda:
            env.machine = samples.Machine(env.folder, True)
        for name in env.only or (['steps', *ZOO] if env.cuda else [*ALL, *ZOO]):
            try:
                ALL[name](env) if name in ALL else model(env, name)
                passed += 1
            except Failure as e:
                failed += 1
                print('FAIL %s: %s' % (name, e), flush=True)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
