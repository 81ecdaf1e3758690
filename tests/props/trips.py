"""A loop's trip count changes neither the size of the code nor the time to compile it, and its gradient keeps what the adjoint
uses, one entry a trip, never whole versions of a buffer."""
import os
import re
import time

from common import expect, must, read, without_digits, write

# Each takes TRIPS; the number in the text below is replaced.
LOOPS = {
    'recurrence': '''
param w: f32[8, 8] = 0.1
fn run(x: f32[TRIPS, 4, 8]) -> f32[4, 8] {
    var h = zeros(f32[4, 8])
    for t in 0..TRIPS {
        h = tanh(x[t] @ w.T + h @ w)
    }
    return h
}
export fn forward(x: f32[TRIPS, 4, 8]) -> f32[4, 8] = run(x)
export fn learn(x: f32[TRIPS, 4, 8]) -> f32[8, 8] = grad(sum(run(x)), w)
''',
    'rows written': '''
param w: f32[8] = 0.1
fn run(x: f32[TRIPS, 8]) -> f32[TRIPS, 8] {
    var h = zeros(f32[8])
    var out = zeros(f32[TRIPS, 8])
    for t in 0..TRIPS {
        h = sigmoid(h * w + x[t])
        out[t] = h
    }
    return out
}
export fn forward(x: f32[TRIPS, 8]) -> f32[TRIPS, 8] = run(x)
export fn learn(x: f32[TRIPS, 8]) -> f32[8] = grad(sum(run(x)), w)
''',
    'a branch in the loop': '''
param w: f32 = 0.1
fn run(a: f32) -> f32 {
    var s = a
    for t in 0..TRIPS {
        if s > 1 { s = s * w } else { s += exp(-s) }
    }
    return s
}
export fn forward(a: f32) -> f32 = run(a)
export fn learn(a: f32) -> f32 = grad(run(a), w)
''',
    'nested loops': '''
param w: f32[5] = 0.1
fn run(a: f32[5]) -> f32[5] {
    var s = a
    for t in 0..TRIPS {
        for u in 0..3 {
            s = tanh(s * w)
        }
    }
    return s
}
export fn forward(a: f32[5]) -> f32[5] = run(a)
export fn learn(a: f32[5]) -> f32[5] = grad(sum(run(a)), w)
''',
    'a while loop with a limit': '''
param w: f32 = 0.5
fn run(a: f32) -> f32 {
    var s = a
    while s > 1e-3 limit TRIPS { s = s * w }
    return s
}
export fn forward(a: f32) -> f32 = run(a)
export fn learn(a: f32) -> f32 = grad(run(a), w)
''',
    'elements written': '''
fn run(x: f32[TRIPS + 2]) -> f32 {
    var y = x
    for t in 0..TRIPS {
        y[t + 2] = 0.5 * y[t + 1] * y[t] + y[t + 2]
    }
    return y[-1] * y[-2]
}
export fn forward(x: f32[TRIPS + 2]) -> f32 = run(x)
export fn learn(x: f32[TRIPS + 2]) -> f32[TRIPS + 2] = grad(run(x), x)
''',
    'nothing to keep': '''
fn run(x: f32[TRIPS, 64]) -> f32 {
    var total = zeros(f32[64])
    for t in 0..TRIPS {
        total += 0.5 * x[t]
    }
    return sum(total)
}
export fn forward(x: f32[TRIPS, 64]) -> f32 = run(x)
export fn learn(x: f32[TRIPS, 64]) -> f32[TRIPS, 64] = grad(run(x), x)
''',
}
# Bytes of working memory a trip that the gradient may need: what the adjoints of tanh and of the product read (the state before and after), and a reserve of half.
KEPT = {'recurrence': 2 * 4 * 8 * 4, 'rows written': 3 * 8 * 4, 'a branch in the loop': 4 + 4 + 1, 'nested loops': 3 * 5 * 4 * 2, 'a while loop with a limit': 4,
        'elements written': 3 * 4, 'nothing to keep': 0}


def cases(env):
    folder = env.folder('trips')

    def model(name, trips):
        path = write(os.path.join(folder, '%s-%d.mxl' % (re.sub(r'\W', '-', name), trips)), LOOPS[name].replace('TRIPS', str(trips)))
        c_file = path[:-3] + 'c'
        best = 1e9
        for _ in range(3):
            began = time.monotonic()
            must([env.mxcc, path, '--name', 'model', '--no-runtime', '-o', c_file])
            best = min(best, time.monotonic() - began)
        return read(c_file), read(c_file[:-1] + 'h'), best

    def size(name):
        few, _, fast = model(name, 10)
        many, _, slow = model(name, 100000)
        a, b = (re.sub(r'\s+', ' ', without_digits(t)) for t in (few, many))
        # Constants that became wider types (a cast, a suffix) are no code: a hundredth is left to them.
        expect(abs(len(a) - len(b)) <= len(a) // 100, '%d bytes of C for 10 trips, %d for 100000', len(a), len(b))
        expect(slow < 2 * fast + 0.05, '%.3f s for 10 trips, %.3f s for 100000', fast, slow)

    def arena(header):
        return int(re.search(r'MODEL_ARENA_BYTES (\d+)', header).group(1))

    def memory(name):
        less, more = (arena(model(name, trips)[1]) for trips in (1000, 3000))
        slope = (more - less) / 2000
        allowed = KEPT[name] * 1.5 + 0.1
        expect(slope <= allowed, 'the gradient takes %.1f bytes a trip; the adjoint uses %d', slope, KEPT[name])

    for name in LOOPS:
        yield 'size and time of ' + name, lambda name=name: size(name)
        yield 'memory of ' + name, lambda name=name: memory(name)
