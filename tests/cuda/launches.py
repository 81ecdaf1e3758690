#!/usr/bin/env python3
"""How many kernels an operation is: what is said to be one launch is one.

    launches.py --mxcc build/mxcc

Counted by `mxcc report`: a part of kernels that quietly falls back to several would still give the right numbers.
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from checks import expect, main, sh  # noqa: E402

# Of rows.mxl: launches of each function.
ROWS = {'soft_warps': 1, 'soft_blocks': 1, 'soft_threads': 1, 'soft_long': 1, 'soft_columns': 1, 'soft_gradient': 1, 'log_soft': 1,
        'classes': 2,  # and the check of the labels
        'residual': 1, 'two_axes': 1, 'rms': 1, 'halves': 1, 'nearest': 1, 'channels': 1,
        'norm': 2,  # and the sum down the columns
        'neighbours': 2}
ALONE = '''use nn
export fn soft(x: f32[64, 128]) -> (y: f32[64, 128]) = nn.softmax(x)
export fn norm(x: f32[64, 3000]) -> (y: f32[64, 3000]) = nn.layer_norm(x, [3000])
'''


def report(o, model):
    return json.loads(sh(o.mxcc, 'report', model, '--target', 'cuda', '--json'))


def launches(o, model):
    return {f['name']: sum(k['launches'] for k in f['kernels']) for f in report(o, model)['functions']}


def rows(o):
    """Softmax, norms and their gradients: one kernel goes over a row as often as must be."""
    found = launches(o, os.path.join(HERE, 'rows.mxl'))
    for name, count in ROWS.items():
        expect(found[name] == count, name, 'has', found[name], 'launches, not', count)


def no_memory(o):
    """What only the kernel itself reads has no place in the plan."""
    model = os.path.join(o.folder, 'alone.mxl')
    with open(model, 'w', encoding='utf-8') as f:
        f.write(ALONE)
    sh(o.mxcc, model, '-o', os.path.join(o.folder, 'alone.cu'))
    with open(os.path.join(o.folder, 'alone.h'), encoding='utf-8') as f:
        expect('#define ALONE_ARENA_BYTES 0 ' in f.read(), 'softmax and a norm of arguments need an arena')


if __name__ == '__main__':
    sys.exit(main(__doc__, [rows, no_memory], emulation=False))
