"""Five training steps of `mxcc run` and of the compiled program from the same seed leave the same weights and the same running
sums of gradients (the optimizer's momentum): to 1e-5 of a tensor's norm in f32, 1e-9 in f64, exactly for integers, with
the same call counter and position.

The optimizer is SGD here: Adam divides by the gradient's size, so a bias before a batch norm, whose gradient is nothing but
rounding, would take steps of full length in directions that no two evaluations share. For the same reason a gradient
below a thousandth of the whole gradient is held to the whole gradient's norm.

Batches are small: of ten million values before a ReLU or under a max pool a few lie closer to each other than f32 rounds, and
one that falls on the other side changes a gradient by more than rounding does.

Every sample with a train block takes part whose data is installed."""
import math
import os
import re
import shutil

from common import ROOT, expect, floats, must, read, sh, stem, tensors, write
from same_bits import data_of, trained

TOLERANCE = {'F32': 1e-5, 'F64': 1e-9}
FASHION = '/usr/share/datasets/fashion-mnist'


def norm(values):
    return math.sqrt(sum(x * x for x in values))


def cases(env):
    folder = env.folder('eager_steps')

    def checkpoint(argv, name, data):
        out = os.path.join(folder, name)
        shutil.rmtree(out, ignore_errors=True)
        where = ['--data', data] if data else []
        r = sh([*argv, *where, '--out', out, '--quiet', '--seed', '11', '--steps', '5'], timeout=600)
        expect(r.status in (0, 130), '%s', r)
        return tensors(os.path.join(out, 'checkpoint.safetensors'))

    def check(source, data):
        sgd = re.sub(r'optim\.Adam\w*\((\w+)[^)]*\)', r'optim.SGD(\1, momentum = 0.9)', read(source))
        sgd = re.sub(r'\bbatch( *)= \d+', r'batch\1= 8', sgd)
        source = write(os.path.join(folder, stem(source) + '.mxl'), sgd)
        eager, at = checkpoint([env.mxcc, 'run', source], stem(source) + '-eager', data)
        compiled, at_compiled = checkpoint([env.program(source), 'train'], stem(source) + '-compiled', data)
        expect(sorted(eager) == sorted(compiled), 'other tensors: %s', sorted(set(eager) ^ set(compiled)))
        for key in ('seed', 'calls', 'epoch', 'batch', 'step'):
            expect(at.get(key) == at_compiled.get(key), '%s is %s and %s', key, at.get(key), at_compiled.get(key))
        expect(at.get('step') == '5', '%s steps', at.get('step'))
        whole = {}
        for name, tensor in compiled.items():
            kind = name.split('.')[0]
            whole[kind] = max(whole.get(kind, 0), norm(floats(tensor) or []))
        for name, tensor in eager.items():
            a, b = floats(tensor), floats(compiled[name])
            if a is None:
                expect(tensor == compiled[name], '%s differs', name)
                continue
            size = norm(b)
            if size < 1e-3 * whole[name.split('.')[0]]:
                size = whole[name.split('.')[0]]
            apart = norm([x - y for x, y in zip(a, b)])
            expect(apart <= TOLERANCE[tensor[0]] * size, '%s is %.3g of its norm apart', name, apart / size)

    for m in trained(env):
        yield stem(m), lambda m=m: check(m, data_of(env, m))
    for m in env.samples:
        if stem(m) == 'fashion' and os.path.isdir(FASHION):
            yield 'fashion', lambda m=m: check(m, None)
        if re.search(r'\btext\("../build/bible.txt"', read(m)) and shutil.which('bible'):
            text = os.path.join(folder, 'bible.txt')
            must(['sh', os.path.join(ROOT, 'samples', 'text.sh'), text])
            yield stem(m), lambda m=m: check(m, text)
