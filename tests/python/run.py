#!/usr/bin/env python3
"""The Python module that `--python` writes, against C and numpy: run.py --mxcc build/mxcc [--sanitize] [--filter WORD]

A test is a function named test_… that gets a Place: a folder with the models of this folder built as shared libraries. With
--sanitize the libraries are built with ASan and UBSan, and this program runs itself again with ASan in the process, so that
every array the module makes too small is seen. It needs a python3 with numpy: the one that runs it, or the system's. The last line
is `N passed, N failed`; exit status 1 if any failed."""
import argparse
import copy
import importlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SANITIZE = '-g -fsanitize=address,undefined -fno-sanitize-recover=all'

try:
    import numpy as np
except ImportError:  # another python3 than the one that the distribution's package is for
    if sys.executable == '/usr/bin/python3' or not os.path.exists('/usr/bin/python3'):
        sys.exit('numpy is needed: apt-get install python3-numpy')
    os.execv('/usr/bin/python3', ['/usr/bin/python3', *sys.argv])


class Place:
    def __init__(self, mxcc, folder, sanitize):
        self.mxcc_path, self.folder, self.sanitize = mxcc, folder, sanitize
        self.modules = {}

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), 'w', encoding='utf-8') as f:
            f.write(text)
        return self.path(name)

    def read(self, name, mode='r'):
        with open(self.path(name), mode) as f:
            return f.read()

    def run(self, *argv, status=0, env=None):
        env = dict(os.environ, **env or {})
        if self.sanitize:  # for this process alone
            env.update(LD_PRELOAD='', ASAN_OPTIONS=os.environ['OUTER_ASAN_OPTIONS'])
        p = subprocess.run([str(a) for a in argv], cwd=self.folder, capture_output=True, text=True, timeout=300, env=env)
        assert p.returncode == status, '`%s` gave status %d, expected %d\n%s%s' % (argv, p.returncode, status, p.stdout[-1500:], p.stderr[-2500:])
        return p

    def mxcc(self, *words, status=0):
        return self.run(self.mxcc_path, *words, status=status, env={'CFLAGS': SANITIZE if self.sanitize else os.environ.get('CFLAGS', '')})

    def module(self, source, name=None, *options):
        """The module of a model, built once; a name of its own for each set of options."""
        name = name or os.path.splitext(os.path.basename(source))[0]
        if name not in self.modules:
            self.mxcc('build', source, '--python', '-O', '1', *options, '-o', 'lib%s.so' % name)
            self.modules[name] = importlib.import_module(name)
        return self.modules[name]

    def mixed(self, **more):
        return self.module(os.path.join(HERE, 'mixed.mxl')).Mixed(**more)


def raises(kind, words, call, *arguments, **named):
    """The exception that a call must give; its text holds the words, in order."""
    try:
        call(*arguments, **named)
    except kind as e:
        assert re.search('.*'.join(re.escape(w) for w in words.split(' … ')), str(e), re.S), '%r does not say %r' % (str(e), words)
        return e
    raise AssertionError('no %s: %s' % (kind.__name__, words))


def equal(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all(), (a, b)


# ---- against C ----------------------------------------------------------------------------------------------------------


def test_same_bits(p):
    """The losses, results and checkpoint of a C program that makes the same calls."""
    p.mxcc(os.path.join(HERE, 'mixed.mxl'), '-o', 'mixed.c')
    p.run('cc', '-std=c99', '-Wall', '-Wextra', '-Werror', '-O1', '-ffp-contract=off', '-I', p.folder, os.path.join(HERE, 'steps.c'), 'mixed.c', '-lm', '-o', 'steps')
    theirs = p.run('./steps').stdout.split('\n')
    m, ours = p.mixed(seed=5), []
    for step in range(20):
        n = 1 + step % 8
        x = (np.array([(i * 7 + step * 3) % 11 for i in range(4 * n)], np.float32) / np.float32(11)).reshape(n, 4)
        y = np.array([(i + step) % 3 for i in range(2 * n)], np.float32).reshape(n, 2)
        loss = m.step(x, y, lr=np.float32(0.05))
        mean, out = m.run(x)
        ours.append([float(loss), float(mean), float(out[-1, -1])])
    assert ours == [[float.fromhex(w) for w in line.split()] for line in theirs[:20]]
    described = ['%s %s %d' % ('param' if n in m.parameters() else 'state', n, m.view(n).nbytes) for n in [*m.parameters(), *m.states()]]
    assert sorted(described) == sorted(theirs[20:-1]) and len(described) > 8
    m.save(p.path('python.safetensors'))
    assert p.read('python.safetensors', 'rb') == p.read('c.safetensors', 'rb')


def test_same_text(p):
    """The module depends on the model and the options alone; by `build` it differs only where the library is named."""
    mixed = os.path.join(HERE, 'mixed.mxl')
    for folder in ('one', 'two'):
        os.makedirs(p.path(folder))
        p.mxcc(mixed, '--python', '-o', folder + '/mixed.c')
    assert p.read('one/mixed.py') == p.read('two/mixed.py')
    p.mixed()
    a, b = p.read('one/mixed.py').split('\n'), p.read('mixed.py').split('\n')
    assert [x for x, y in zip(a, b) if x != y] == ['    _libraries = ("libmixed.so", "libmixed.dylib", "mixed.dll")'] and len(a) == len(b)
    assert max(map(len, a)) <= 140


def test_threads(p):
    """With the pool the same bits."""
    if p.sanitize:
        return  # libmxrt.a is not instrumented
    mixed = os.path.join(HERE, 'mixed.mxl')
    x, y = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 4), np.ones((8, 2), np.float32)
    results = []
    for m in (p.mixed(), p.module(mixed, 'threaded', '--threads').Threaded(threads=2)):
        with m:
            results.append([float(m.step(x, y, 0.1)) for _ in range(3)])
    assert results[0] == results[1]


# ---- what goes in and out -------------------------------------------------------------------------------------------------


def test_types(p):
    k = p.module(os.path.join(ROOT, 'tests', 'props', 'kinds.mxl'))
    m = k.Kinds()
    n = np.arange(1, 6)
    f16, bf16 = (n / 2).astype(np.float16), k.to_bf16(n / 4)
    r = m.casts(n / 3, f16, bf16, n.astype(np.int8), n.astype(np.uint16), n > 3)
    equal(r.x, (n / 3).astype(np.float32) + f16.astype(np.float32) * k.from_bf16(bf16))
    equal(r.y, n * 3 - n)
    equal(r.z, r.x.astype(np.uint8))
    equal(r.w, np.ones(5, bool))
    b = np.arange(6, dtype=np.float16).reshape(3, 2)
    h = m.halves(b, k.to_bf16(np.full((3, 2), 1.5)))
    equal(h.p, b * b + np.float16(1))
    equal(h.q, k.to_bf16(np.full(3, 3.0)))
    r = m.wide(n.astype(np.uint64), n.astype(np.int64) - 3)
    equal(r.p, n.astype(np.uint64) * 3 // 2)
    assert isinstance(r.r, np.int64) and r.r == 0
    equal(m.gather(np.arange(24, dtype=np.float32).reshape(6, 4), np.array([5, 0])), np.arange(24, dtype=np.float32).reshape(6, 4)[[5, 0]])


def test_scalars(p):
    m = p.mixed()
    one = p.modules['mixed'].to_bf16(1.0)
    r = m.scalars(0.1, 0.5, one, -3, 2**64 - 2, True)
    assert r.p == 1.1 and r.q == np.float16(1.5) and isinstance(r.q, np.float16)
    assert r.r == p.modules['mixed'].to_bf16(2.0) and r.s == -2 and r.t == 2**64 - 1 and not r.u
    m.scalars(np.float32(1), np.array(2), int(one), np.int64(3), np.uint8(4), np.bool_(False))
    raises(ValueError, 'scalars: d is 300, int8 holds -128 to 127', m.scalars, 0, 0, one, 300, 0, True)
    raises(ValueError, 'e is -1, uint64 holds 0', m.scalars, 0, 0, one, 0, -1, True)
    raises(TypeError, 'd is 1.5, float, expected int8; int(d) converts', m.scalars, 0, 0, one, 1.5, 0, True)
    raises(TypeError, "a is 'x', str, expected float64", m.scalars, 'x', 0, one, 0, 0, True)
    raises(TypeError, 'f is 1, int, expected bool; give True or False', m.scalars, 0, 0, one, 0, 0, 1)
    raises(TypeError, 'expected float64', m.scalars, True, 0, one, 0, 0, True)
    raises(TypeError, 'expected uint16, the bits of bf16', m.scalars, 0, 0, 1.0, 0, 0, True)


def test_bf16(p):
    """Rounding to the nearest even, against the definition; infinities and nan."""
    k = p.module(os.path.join(HERE, 'mixed.mxl'))
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32) * 10 ** np.arange(-20, 20, 0.04, dtype=np.float32)
    got = k.from_bf16(k.to_bf16(values)).astype(np.float64)
    low = k.from_bf16((values.view(np.uint32) >> 16).astype(np.uint16)).astype(np.float64)
    high = k.from_bf16(((values.view(np.uint32) >> 16) + 1).astype(np.uint16)).astype(np.float64)
    assert (np.abs(got - values) <= np.minimum(np.abs(low - values), np.abs(high - values))).all()
    assert list(k.to_bf16(np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32))) == [0x3F80, 0x3F82]
    special = k.from_bf16(k.to_bf16([np.inf, -np.inf, np.nan, 3e38, -0.0]))
    assert list(special[:2]) == [np.inf, -np.inf] and np.isnan(special[2]) and np.isfinite(special[3]) and np.signbit(special[4])


def test_wrong_arrays(p):
    m = p.mixed()
    x = np.zeros((2, 4), np.float32)
    raises(TypeError, 'run: x is float64[2, 4], expected float32[N, 4]; x.astype(np.float32) converts', m.run, x.astype(float))
    raises(TypeError, 'run: x is of type list, expected float32[N, 4]; np.array(x, np.float32) makes one', m.run, [[1, 2, 3, 4]])
    raises(TypeError, 'run: x is of type NoneType', m.run, None)
    raises(TypeError, 'expected float32', m.run, x.astype('>f4'))
    raises(ValueError, 'run: x is float32[4], expected float32[N, 4]; 2 axes', m.run, x[0])
    raises(ValueError, 'run: x is float32[2, 3], expected float32[N, 4] with N = 2', m.run, x[:, :3])
    raises(ValueError, 'run: N is 9 (axis 0 of x), its limits are 1 to 8', m.run, np.zeros((9, 4), np.float32))
    raises(ValueError, 'run: N is 0', m.run, x[:0])
    raises(ValueError, 'step: y is float32[3, 2], expected float32[N, 2] with N = 2', m.step, x, np.zeros((3, 2), np.float32), 0.1)
    raises(TypeError, "missing 1 required positional argument: 'lr'", m.step, x, np.zeros((2, 2), np.float32))
    equal(m.run(np.asfortranarray(x)).y, m.run(x=x).y)
    spread = np.zeros((2, 8), np.float32)
    spread[:, ::2] = 1
    before = m.states()
    m.set_parameters(before)
    one = m.run(spread[:, ::2]).y
    m.set_parameters(before)
    equal(one, m.run(np.ones((2, 4), np.float32)).y)


def test_shapes(p):
    m = p.mixed()
    f32 = np.float32
    assert m.shapes(np.zeros((4, 9), f32), np.zeros((3, 2), f32)).shape == (7, 12)
    assert m.shapes(np.zeros((1, 3), f32), np.zeros((1, 0), f32)).shape == (2, 1)
    raises(ValueError, 'shapes: x is float32[4, 8], expected float32[N, 2 * N + 1] with N = 4, M = 3', m.shapes, np.zeros((4, 8), f32), np.zeros((3, 2), f32))
    raises(ValueError, 'y is float32[3, 1], expected float32[M, N // 2]', m.shapes, np.zeros((4, 9), f32), np.zeros((3, 1), f32))


def test_found_dimensions(p):
    m = p.mixed()
    x = np.arange(8, dtype=np.float32)
    for k in range(5):
        r = m.found(x, 2 * k + 1 if k < 4 else 16)
        k = k if k < 4 else 8
        equal(r.head, x[:k])
        equal(r.across, np.arange(3, dtype=np.float32)[:, None] * x[:k])
        assert r.twice.shape == (2 * k + 1, 2) and (r.twice == 0).all()
    raises(p.modules['mixed'].ModelError, 'a slice bound leaves axis 0', m.found, x, 18)


def test_inout(p):
    m = p.mixed()
    w, times, x = np.ones((2, 2), np.float32), np.array(3, np.int32), np.full((2, 2), 10, np.float32)
    out = m.decay(w, times, 0.5, x)
    assert (w == 0.5).all() and times == 4 and (out == 10.5).all()
    wide = np.ones((2, 4), np.float32)
    m.decay(wide[:, ::2], times, 0.25, x)
    equal(wide, np.array([[0.25, 1, 0.25, 1]] * 2, np.float32))
    w = np.arange(8, dtype=np.float32).reshape(4, 2)
    was = w.copy()
    equal(m.decay(w, times, 2, w), was[::-1] + 2 * was)  # arguments are values: x is what w was
    w = was.copy()
    equal(m.decay(w[1:], times, 2, w[:3]), was[:3][::-1] + 2 * was[1:])
    frozen = np.ones((2, 2), np.float32)
    frozen.flags.writeable = False
    raises(ValueError, 'decay: w is updated in place, and this array is read-only', m.decay, frozen, times, 1, x)
    raises(TypeError, 'decay: times is 3, int, expected int32[]; np.array(times, np.int32) makes one', m.decay, w, 3, 1, x)
    bits = np.zeros(4, np.float32)
    raises(ValueError, 'w shares memory with another inout argument', m.decay, bits.reshape(2, 2), bits.view(np.int32)[1:2].reshape(()), 1, x)
    # A parameter's own memory as an argument of a function that writes the parameter.
    m.grow(np.array([[2, 1]], np.float32))
    m.grow(m.view('net.fixed').reshape(1, 2))
    equal(m.parameters()['net.fixed'], np.array([2, 1], np.float32))


def test_names(p):
    """Keywords of Python and the class's own methods get an underscore; C's keep their spelling."""
    m = p.mixed()
    r = m.lambda_(None_=np.ones(3, np.float32), self_=2, double=4)
    assert r._fields == ('count', 'n_x') and r.count == 5 and (r.n_x == 4).all()
    assert m.parameters_(3) == 3 and isinstance(m.parameters(), dict)
    module = p.modules['mixed']
    assert module.Model is module.Mixed and set(module.__all__) >= {'Mixed', 'Model', 'ModelError', 'RunResult', 'LambdaResult'}
    doc = module.Mixed.run.__doc__
    assert 'The mean and what it is the mean of; says "called" and a backslash \\.' in doc and 'x: float32[N, 4]' in doc and '1 <= N <= 8' in doc
    none = p.module(p.write('none.mxl', 'export fn f(x: f32) -> f32 = x\n'))
    assert none.None_().f(2) == 2


def test_incremental(p):
    m = p.mixed()
    x, bias = np.ones((3, 4), np.float32), np.array([1, 2, 3], np.float32)
    error = raises(p.modules['mixed'].ModelError, 'score: x has no value', m.score)
    assert error.status == 'MX_ERROR_ARGUMENT'
    m.score_set_x(x)
    m.score_set_bias(bias)
    w = m.parameters()['net.dense.weight'][0]
    np.testing.assert_allclose(m.score(), w.sum() + bias, rtol=1e-5)
    first = m.score_ran()
    m.score()
    assert first > 0 and m.score_ran() == 0
    m.parameters(), m.delta(m.parameters()), m.states()  # reading is no change
    m.score()
    assert m.score_ran() == 0
    m.add_delta({'net.dense.weight': np.ones((2, 4))})
    np.testing.assert_allclose(m.score(), w.sum() + 4 + bias, rtol=1e-5)
    assert m.score_ran() > 0
    m.score_set_x(x[:2])
    raises(p.modules['mixed'].ModelError, 'score: N is 2 in x and 3 in bias', m.score)
    m.score_set_bias(bias[:2])
    assert m.score().shape == (2,)
    raises(ValueError, 'score_set_x: N is 9', m.score_set_x, np.zeros((9, 4), np.float32))
    assert m.score().shape == (2,)


# ---- parameters and states --------------------------------------------------------------------------------------------------


def test_parameters(p):
    m = p.mixed(seed=1)
    params, states = m.parameters(), m.states()
    assert list(params) == ['net.dense.weight', 'net.dense.bias', 'net.norm.gamma', 'net.norm.beta', 'net.half', 'net.brain', 'net.wide', 'net.fixed']
    assert set(states) == {'net.norm.running_mean', 'net.norm.running_var', 'net.calls', 'net.flag'}
    assert params['net.half'].dtype == np.float16 and params['net.brain'].dtype == np.uint16 and states['net.flag'].dtype == np.bool_
    params['net.fixed'][:] = 9  # a copy
    equal(m.parameters()['net.fixed'], np.array([3, 3], np.float32))
    m.set_parameters({'net.fixed': params['net.fixed'], 'net.calls': np.int64(7), 'net.flag': np.array(True)})
    assert m.view('net.fixed')[0] == 9 and m.states()['net.calls'] == 7 and m.states()['net.flag']
    m.view('net.fixed')[1] = -1
    y = m.run(np.zeros((2, 4), np.float32)).y
    assert y[0, 0] > 8 and y[0, 1] < 1
    # What does not fit changes nothing, not even what comes before it.
    fine = np.zeros(2, np.float32)
    raises(ValueError, "there is no parameter or state 'net.dense.wait'; did you mean 'net.dense.weight'?", m.set_parameters, {'net.fixed': fine, 'net.dense.wait': fine})
    raises(TypeError, "'net.dense.bias' is float64[2], expected float32[2]; it.astype(np.float32) converts", m.set_parameters, {'net.fixed': fine, 'net.dense.bias': np.zeros(2)})
    raises(TypeError, "'net.calls' … np.rint(it).astype(np.int64) converts", m.set_parameters, {'net.fixed': fine, 'net.calls': np.float64(3.5)})
    raises(TypeError, "'net.brain' is float32[3], expected uint16[3], the bits of bf16; to_bf16(it)", m.set_parameters, {'net.brain': np.zeros(3, np.float32)})
    raises(ValueError, "'net.dense.bias' is float32[3], expected float32[2]", m.set_parameters, {'net.fixed': fine, 'net.dense.bias': np.zeros(3, np.float32)})
    raises(TypeError, 'of type list', m.set_parameters, {'net.fixed': [0, 0]})
    assert m.view('net.fixed')[0] == 9
    raises(ValueError, 'net.nothing', m.view, 'net.nothing')


def test_deltas(p):
    a, b = p.mixed(seed=1), p.mixed(seed=1)
    x, y = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 4), np.ones((8, 2), np.float32)
    before = {**a.parameters(), **{k: v for k, v in a.states().items() if k != 'net.flag'}}
    for _ in range(5):
        a.step(x, y, 0.1)
    a.view('net.half')[:] = 2.5
    a.view('net.brain')[:] = p.modules['mixed'].to_bf16(3.0)
    a.view('net.wide')[:] = 1 + 2**-40
    delta = a.delta(before)
    assert list(delta) == list(before)
    assert {k: str(v.dtype) for k, v in delta.items() if k.split('.')[1] in ('half', 'brain', 'wide', 'calls', 'dense')} == {
        'net.dense.weight': 'float32', 'net.dense.bias': 'float32', 'net.half': 'float32', 'net.brain': 'float32', 'net.wide': 'float64', 'net.calls': 'int64'}
    assert (delta['net.half'] == 1.5).all() and (delta['net.brain'] == 2).all() and (delta['net.wide'] == 2**-40).all() and delta['net.calls'] == 5
    b.add_delta(delta)
    for name, array in {**b.parameters(), **b.states()}.items():
        now = a.view(name)
        if array.dtype.kind == 'f':  # before + (now - before) rounds twice
            np.testing.assert_allclose(array, now, rtol=1e-6, atol=1e-6)
        else:
            equal(array, now)
    b.add_delta({'net.half': delta['net.half'], 'net.calls': delta['net.calls'], 'net.brain': np.float64([1, 1, 1])}, scale=-0.5)
    assert (b.view('net.half') == 1.75).all() and b.states()['net.calls'] == 3 and (p.modules['mixed'].from_bf16(b.view('net.brain')) == 2.5).all()
    b.add_delta({'net.calls': np.array(2, np.uint8)}, scale=-1)
    assert b.states()['net.calls'] == 1
    raises(ValueError, "add_delta: 'net.half' is float64[2], expected numbers[3]", b.add_delta, {'net.wide': np.ones(3), 'net.half': np.ones(2)})
    raises(ValueError, "expected numbers", b.add_delta, {'net.half': np.array(['a', 'b', 'c'])})
    raises(ValueError, "no parameter or state 'half'", b.add_delta, {'half': np.ones(3)})
    raises(TypeError, 'truth values', b.add_delta, {'net.flag': np.array(1)})
    raises(ValueError, "delta: 'net.half' was float64[3] and is float16[3]", b.delta, {'net.half': np.ones(3)})
    equal(b.parameters()['net.wide'], a.parameters()['net.wide'])


def test_averaging(p):
    """The mean of two instances by sums of deltas is the mean of their parameters and running statistics, and gives its results."""
    base, clients = p.mixed(seed=1), [p.mixed(seed=1), p.mixed(seed=1)]
    start = {**base.parameters(), 'net.norm.running_mean': base.states()['net.norm.running_mean'], 'net.norm.running_var': base.states()['net.norm.running_var']}
    rng = np.random.default_rng(0)
    for m in clients:
        for _ in range(4):
            m.step(rng.normal(size=(8, 4)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32), 0.1)
    for m, weight in zip(clients, (0.25, 0.75)):
        base.add_delta(m.delta(start), scale=weight)
    for name in start:
        kind = p.modules['mixed'].from_bf16 if name == 'net.brain' else np.asarray
        np.testing.assert_allclose(kind(base.view(name)), 0.25 * kind(clients[0].view(name)) + 0.75 * kind(clients[1].view(name)), rtol=1e-5, atol=1e-6)
    assert np.abs(base.view('net.norm.running_mean')).max() > 0


def test_two_instances(p):
    a, b = p.mixed(seed=1), p.mixed(seed=2)
    assert (a.view('net.dense.weight') != b.view('net.dense.weight')).any()
    x, y = np.ones((8, 4), np.float32), np.zeros((8, 2), np.float32)
    kept = {**b.parameters(), **b.states()}
    a.step(x, y, 0.5)
    a.set_parameters({'net.fixed': np.zeros(2, np.float32)})
    for name, array in {**b.parameters(), **b.states()}.items():
        equal(array, kept[name])
    equal(p.mixed(seed=2).view('net.dense.weight'), b.view('net.dense.weight'))
    # Side by side in threads, each its own instance: the results of one after the other.
    def work(seed, out):
        with p.mixed(seed=seed) as m:
            out[seed] = [float(m.step(x, y, 0.1)) for _ in range(50)]
    alone, together = {}, {}
    for seed in (1, 2):
        work(seed, alone)
    threads = [threading.Thread(target=work, args=(seed, together)) for seed in (1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert alone == together and alone[1] != alone[2]


def test_save_load_reset(p):
    m = p.mixed(seed=1)
    x = np.ones((2, 4), np.float32)
    m.run(x)
    m.save(p.path('s.safetensors'))
    kept = m.states()
    m.run(x)
    assert m.states()['net.calls'] == 2
    m.load(p.path('s.safetensors'))
    for name, array in m.states().items():
        equal(array, kept[name])
    m.reset_all()
    assert m.states()['net.calls'] == 0
    ModelError = p.modules['mixed'].ModelError
    assert raises(ModelError, 'cannot read … nowhere', m.load, p.path('nowhere')).status == 'MX_ERROR_IO'
    assert raises(ModelError, '', m.load, p.write('bad', 'no tensors')).status == 'MX_ERROR_FORMAT'
    assert raises(ModelError, 'cannot write', m.save, p.path('no', 'such', 'folder')).status == 'MX_ERROR_IO'


# ---- the instance ------------------------------------------------------------------------------------------------------------


def test_errors_and_log(p):
    lines = []
    m = p.mixed(log=lines.append)
    x = np.arange(3, dtype=np.float32)
    assert m.checked(x, 2) == 2 and lines == ['place 2']
    error = raises(p.modules['mixed'].ModelError, 'a negative place', m.checked, x, -1)
    assert error.status == 'MX_ERROR_CHECK' and isinstance(error, RuntimeError)
    raises(p.modules['mixed'].ModelError, 'index leaves axis 0', m.checked, x, 3)
    failing = p.module(p.write('failing.mxl', 'fn bad(n: int) -> f32[n] {\n    var one = zeros(f32[1])\n    assert one[0] > 0, "the initializer says no"\n    return zeros(f32[n])\n}\n'
                                              'param w: f32[2] = bad(2)\nexport fn f() -> f32[2] = w\n'))
    raises(failing.ModelError, 'the initializer says no', failing.Failing)


def test_close(p):
    with p.mixed() as m:
        view = m.view('net.fixed')
    raises(p.modules['mixed'].ModelError, 'the instance is closed', m.run, np.zeros((2, 4), np.float32))
    raises(p.modules['mixed'].ModelError, 'the instance is closed', m.score_ran)
    m.close()
    del m
    equal(view, np.array([3, 3], np.float32))  # its memory lives as long as the view
    raises(TypeError, 'is not copied', copy.deepcopy, p.mixed())
    # A call from within a call, by what print calls.
    again = []
    m = p.mixed(log=lambda text: again.append(raises(p.modules['mixed'].ModelError, 'at work', m.parameters_, 1)))
    m.checked(np.zeros(2, np.float32), 0)
    assert len(again) == 1
    raises(ValueError, 'seed is -1', p.mixed, seed=-1)
    raises(ValueError, 'threads is -2', p.mixed, threads=-2)


def test_libraries(p):
    m = p.mixed()
    other = p.module(p.write('other.mxl', 'param w: f32[3] = 1\nexport fn f(x: f32) -> f32 = x * w[0]\n'))
    raises(ImportError, 'libother.so … not of one model and one build', p.mixed, library=p.path('libother.so'))
    raises(FileNotFoundError, 'nothing.so … mxcc build', p.mixed, library='nothing.so')
    other.Other(library=p.path('libother.so')).f(1)
    bare = p.write('bare.mxl', 'export fn f(x: f32) -> f32 = x\n')
    p.mxcc(bare, '--no-runtime', '--python', '-o', 'bare.c')
    bare = importlib.import_module('bare')
    raises(FileNotFoundError, 'libbare.so', bare.Bare)
    p.run('cc', '-shared', '-fPIC', *(SANITIZE.split() if p.sanitize else []), '-DBARE_NO_STDIO', 'bare.c', '-lm', '-o', 'libbare.so')
    with bare.Bare() as m:
        assert m.f(3) == 3 and m.parameters() == {} == m.states()
        raises(bare.ModelError, 'BARE_NO_STDIO', m.save, 'x')


def test_weights(p):
    """The modes of --weights: constants are read-only, files and images are found or given."""
    source = p.write('weighted.mxl', 'param w: f32[3] = [1, 2, 3]\nstate n: i32 = 4\nexport fn f(x: f32[3]) -> f32[3] {\n    n += 1\n    return x * w\n}\n')
    x = np.ones(3, np.float32)
    plain = p.module(source).Weighted()
    plain.view('w')[:] = [7, 8, 9]
    plain.save(p.path('other.safetensors'))
    m = p.module(source, 'from_source', '--weights', 'source').FromSource()
    equal(m.f(x), np.array([1, 2, 3], np.float32))
    raises(ValueError, "'w' is a constant of this unit", m.set_parameters, {'w': x})
    raises(ValueError, "'w' is a constant of this unit", m.add_delta, {'w': x})
    raises(ValueError, 'read-only', m.view('w').__setitem__, 0, 1)
    m.set_parameters({'n': np.array(9, np.int32)})
    image = p.read('other.safetensors', 'rb')
    caller = p.module(source, 'from_caller', '--weights', 'caller')
    m = caller.FromCaller(weights=image)
    equal(m.f(x), np.array([7, 8, 9], np.float32))
    assert m.states()['n'] == 5 and not m.view('w').flags.writeable
    raises(caller.ModelError, '', caller.FromCaller, weights=image[:20])
    p.mxcc(source, '--weights', 'file', '--python', '-o', 'from_file.c')
    p.run('cc', '-shared', '-fPIC', *(SANITIZE.split() if p.sanitize else []), 'from_file.c', '-lm', '-o', 'libfrom_file.so')
    module = importlib.import_module('from_file')
    equal(module.FromFile().f(x), np.array([1, 2, 3], np.float32))
    equal(module.FromFile(weights_path=p.path('other.safetensors')).f(x), np.array([7, 8, 9], np.float32))
    raises(module.ModelError, 'cannot read', module.FromFile, weights_path=p.path('nowhere'))


def test_command(p):
    """What mxcc refuses."""
    model = p.write('small.mxl', 'export fn f(x: f32) -> f32 = x\n')
    assert 'import this file in place of the module small.py' in p.mxcc('build', model, '--python', '-o', 'small.so', status=2).stderr
    assert 'lib' in p.mxcc('build', model, '--python', '-o', 'small.py', status=2).stderr
    assert '--python excludes --main' in p.mxcc('build', model, '--python', '--main', status=2).stderr
    p.mxcc('build', model, '--python', '--name', 'net', '-o', 'small')
    assert '_libraries = ("small",)' in p.read('net.py')
    unknown = p.write('unknown.mxl', 'export fn f(x: f32[N <= 9, N], i: i32, j: i32) -> (a: f32[K <= 81], b: f32[2 * K]) {\n    let y = x[:i, :j]\n'
                                     '    return zeros(f32[y.shape[0] * y.shape[1]]), zeros(f32[2 * y.shape[0] * y.shape[1]])\n}\n')
    assert 'E0803' in p.mxcc(unknown, '--python', '-o', 'unknown.c', status=1).stderr
    p.mxcc(unknown, '-o', 'unknown.c')
    named = p.read('unknown.mxl').replace('2 * K]', 'M <= 162]')
    m = p.module(p.write('named.mxl', named)).Named()
    assert [r.shape for r in m.f(np.zeros((4, 4), np.float32), 2, 3)] == [(6,), (12,)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.path.join(ROOT, 'build', 'mxcc'))
    parser.add_argument('--sanitize', action='store_true')
    parser.add_argument('--filter', default='')
    o = parser.parse_args()
    if o.sanitize and 'LD_PRELOAD' not in os.environ:
        library = subprocess.run(['cc', '-print-file-name=libasan.so'], capture_output=True, text=True, check=True).stdout.strip()
        os.execve(sys.executable, [sys.executable, *sys.argv],
                  dict(os.environ, LD_PRELOAD=library, OUTER_ASAN_OPTIONS=os.environ.get('ASAN_OPTIONS', ''), ASAN_OPTIONS='detect_leaks=0:abort_on_error=0', PYTHONMALLOC='malloc'))
    warnings.simplefilter('error')
    sys.dont_write_bytecode = True
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix='mxcc-python-') as folder:
        sys.path.insert(0, folder)
        place = Place(os.path.abspath(o.mxcc), folder, o.sanitize)
        for name, test in list(globals().items()):
            if not name.startswith('test_') or o.filter not in name:
                continue
            try:
                test(place)
                passed += 1
            except Exception:
                failed += 1
                print('FAIL %s\n%s' % (name, traceback.format_exc()))
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
