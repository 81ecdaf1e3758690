"""Five training steps of `mxcc run` and of the compiled program from the same seed leave the same weights: to 1e-5 of a
tensor's norm in f32, 1e-9 in f64, exactly for integers, with the same call counter and position.

The optimizer is SGD here: Adam divides by the gradient's size, so a bias before a batch norm, whose gradient is nothing but
rounding, would take steps of full length in directions that no two evaluations share."""
import math
import os
import re
import shutil

from common import expect, floats, read, sh, stem, tensors, write
from same_bits import data_of, trained

TOLERANCE = {'F32': 1e-5, 'F64': 1e-9}


def cases(env):
    folder = env.folder('eager_steps')

    def checkpoint(argv, name, data):
        out = os.path.join(folder, name)
        shutil.rmtree(out, ignore_errors=True)
        r = sh([*argv, '--data', data, '--out', out, '--quiet', '--seed', '11', '--steps', '5'], timeout=600)
        expect(r.status in (0, 130), '%s', r)
        return tensors(os.path.join(out, 'checkpoint.safetensors'))

    def check(source):
        data = data_of(env, source)
        source = write(os.path.join(folder, stem(source) + '.mxl'), re.sub(r'optim\.Adam\w*\((\w+)[^)]*\)', r'optim.SGD(\1, lr = 0.05)', read(source)))
        eager, at = checkpoint([env.mxcc, 'run', source], stem(source) + '-eager', data)
        compiled, at_compiled = checkpoint([env.program(source), 'train'], stem(source) + '-compiled', data)
        expect(sorted(eager) == sorted(compiled), 'other tensors: %s', sorted(set(eager) ^ set(compiled)))
        for key in ('seed', 'calls', 'epoch', 'batch', 'step'):
            expect(at.get(key) == at_compiled.get(key), '%s is %s and %s', key, at.get(key), at_compiled.get(key))
        expect(at.get('step') == '5', '%s steps', at.get('step'))
        for name, tensor in eager.items():
            a, b = floats(tensor), floats(compiled[name])
            if a is None:
                expect(tensor == compiled[name], '%s differs', name)
                continue
            norm = math.sqrt(sum(x * x for x in b))
            apart = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))
            expect(apart <= TOLERANCE[tensor[0]] * max(norm, 1e-3), '%s is %.3g of its norm apart', name, apart / max(norm, 1e-3))

    for m in trained(env):
        yield stem(m), lambda m=m: check(m)
