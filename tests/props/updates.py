"""Each update of a parameter stands right behind the last operation that it has to wait for: its gradient, the parameter's last
reader in the backward pass, the last check. So a gradient lives no longer than its own update needs. Where all gradients are
clipped by their common norm, they wait for that; the trained functions of the samples and of the small programs make no copies."""
import glob
import json
import os
import re

from common import ROOT, expect, must, stem, write

SMALL = '''
use nn
a = nn.Dense(8, 16)
b = nn.Dense(16, 16)
c = nn.Dense(16, 4)
fn net(x: f32[N, 8]) -> f32[N, 4] = c(tanh(b(tanh(a(x)))))
export train fn step(x: f32[N <= 8, 8], y: f32[N, 4], lr: f32) -> (loss: f32) {
    let loss = mean((net(x) - y) ** 2)
    let ga, gb, gc = grad(loss, [a.weight, b.weight, c.weight])
    c.weight -= lr * gc
    a.weight -= lr * ga
    b.weight -= lr * gb
    return loss
}
'''


def waiting(env, path):
    """For each function: updates, and those that stand behind operations they need not wait for."""
    for f in json.loads(must([env.mxcc, path, '--emit', 'deps.json', '-Wnone']).out):
        params = {s['id'] for s in f['storages'] if s['kind'] == 'param'}
        ops = f['operations']
        updates = [o for o in ops if o['holder'] < 0 and o['code'] not in ('read', 'write') and any(r['storage'] in params for r in o['results'])]
        if f['function'] == 'init' or not updates:
            continue
        # A moment's new value is part of an update, too; among themselves they may go in any order.
        state = {s['id'] for s in f['storages'] if s['kind'] == 'buffer'}
        free = {o['id'] for o in updates} | {o['id'] for o in ops if any(r['storage'] in state for r in o['results'])}
        free |= {o['id'] for o in ops if o['holder'] >= 0 or o['code'] in ('const', 'reshape', 'read')}
        late = []
        for o in updates:
            after = max((e['from'] for e in f['dependences'] if e['to'] == o['id'] and not e['carried']), default=-1)
            late += [o['label'] for i in range(after + 1, o['id']) if i not in free][:1]
        yield f['function'], len(updates), late


def check(env, path):
    seen = 0
    for function, updates, late in waiting(env, path):
        seen += updates
        expect(not late, '%s: %d of %d updates stand later than they could: %s', function, len(late), updates, ', '.join(late[:4]))
        copies = must([env.mxcc, path, '--explain', 'copies', '--emit', 'plan', '-o', os.devnull, '-Wnone']).err
        expect(not re.search(r'^%s:$' % function, copies, re.M), '%s makes copies:\n%s', function, copies)
    expect(seen > 0, 'no updates found')


def cases(env):
    folder = env.folder('updates')
    small = write(os.path.join(folder, 'small.mxl'), SMALL)
    for path in [small] + [p for p in env.samples + sorted(glob.glob(os.path.join(ROOT, 'samples', 'zoo', '*.mxl'))) if 'train fn' in open(p, encoding='utf-8').read()]:
        yield stem(path), lambda path=path: check(env, path)
