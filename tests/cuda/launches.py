#!/usr/bin/env python3
"""How many kernels an operation is, and which: what is said to be one launch is one.

    launches.py --mxcc build/mxcc

Counted by `mxcc report`: a part of kernels that quietly falls back to several would still give the right numbers.
"""
import json
import os
import re
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

WIDE = {
    'fours': 'export fn fours(x: f32[64, 96], w: f32[96, 128]) -> (y: f32[64, 128]) = x @ w\n',
    'across': 'export fn across(x: f32[128, 96]) -> (y: f32[96, 128]) = tensor[i < 96, j < 128] x[j, i] + 1\n',
}
STEP = '''use nn
use optim
block Net() {
    a = nn.Dense(64, 48)
    n = nn.LayerNorm(48)
    b = nn.Dense(48, 10)
    fn forward(x: f32[N, 64]) -> f32[N, 10] = b(nn.relu(n(a(x))))
}
net = Net()
opt = optim.AdamW(net, lr = 0.05)
export train fn step(x: f32[N <= 64, 64], y: i32[N]) -> (loss: f32) {
    let loss = mean(nn.cross_entropy(net(x), y))
    opt.update(grad(loss, net))
    return loss
}
'''


def report(o, model):
    return json.loads(sh(o.mxcc, 'report', model, '--target', 'cuda', '--json'))


def launches(o, model):
    return {f['name']: sum(k['launches'] for k in f['kernels']) for f in report(o, model)['functions']}


def wide(o):
    """Tiles of products come by fours where they are aligned; a transposition goes through squares of shared memory."""
    model = os.path.join(o.folder, 'wide.mxl')
    for name, pattern in (('fours', 'mx_f32x4 elements'), ('across', r'__shared__ .* x_2\[1056\]')):
        with open(model, 'w', encoding='utf-8') as f:
            f.write(WIDE[name])
        sh(o.mxcc, model, '-o', os.path.join(o.folder, 'wide.cu'))
        with open(os.path.join(o.folder, 'wide.cu'), encoding='utf-8') as f:
            expect(re.search(pattern, f.read()), name, 'has no', pattern)


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


def updates(o):
    """All parameters of a small network, and their moments, are updated by one launch; so they are filled by one."""
    model = os.path.join(o.folder, 'step.mxl')
    with open(model, 'w', encoding='utf-8') as f:
        f.write(STEP)
    step = next(f for f in report(o, model)['functions'] if f['name'] == 'step')
    parameters = 4 * (64 * 48 + 48 + 2 * 48 + 48 * 10 + 10)
    large = [k for k in step['kernels'] if 'update' in k['name'] and k['bytes'] > 100]  # the others: powers of the betas
    expect(len(large) == 1 and large[0]['launches'] == 1, 'updates are', [(k['name'], k['launches']) for k in large])
    expect(large[0]['bytes'] > 6 * parameters, 'the update moves', large[0]['bytes'], 'bytes, of which parameters are', parameters)


def within_limits(o):
    """Under a limit updates wait for each other only where that takes nothing: the least that is enough is enough with them."""
    model, unit = os.path.join(o.folder, 'step.mxl'), os.path.join(o.folder, 'limited.cu')
    said = sh(o.mxcc, model, '-o', unit, '--memory-limit', 65536, status=None)
    least = re.search(r'--memory-limit (\d+) is enough', said)
    expect(least, 'no word of what is enough:', said)
    sh(o.mxcc, model, '-o', unit, '--memory-limit', least[1])
    with open(os.path.join(o.folder, 'limited.h'), encoding='utf-8') as f:
        device = int(re.search(r'_DEVICE_BYTES (\d+)', f.read())[1])
    expect(device <= int(least[1]), 'a limit of', least[1], 'bytes gives', device)


if __name__ == '__main__':
    sys.exit(main(__doc__, [rows, wide, no_memory, updates, within_limits], emulation=False))
