#!/usr/bin/env python3
"""Random programs, run eagerly and compiled in several ways; all must agree.

    random_programs.py [--mxcc build/mxcc] [--seed N] [--count N] [--modes portable,native,…] [--keep FOLDER]

Each seed gives a file of functions: index notation with guards, runs and ragged bounds, reductions of all kinds, element writes with
gathers and scatters, loops, branches, sort, scan, products of odd sizes, symbolic dimensions, all element types, gradients. Eager and
compiled agree within run.py's tolerances; serial, 1, 2 and 4 threads and both C compilers agree to the bit. Values that differ in
their last bits never decide anything: what is compared, sorted or truncated is an input or an integer. Only Python's standard library
is needed. A failing file is kept; the last line is `N passed, N failed`.
"""
import argparse
import concurrent.futures
import importlib.util
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location('behaviour', os.path.join(HERE, 'run.py'))
behaviour = importlib.util.module_from_spec(spec)
spec.loader.exec_module(behaviour)

FLOATS = ['f32', 'f32', 'f32', 'f64', 'f16', 'bf16']
INTS = ['i64', 'i32', 'i16', 'i8', 'u64', 'u32', 'u16', 'u8']
SANITIZE = '-fsanitize=address,undefined -fno-sanitize-recover=all -g'

# name: (flags of mxcc build, environment, threads to run with, group of equal bits)
MODES = {
    'portable': (['-O', '2', '--cc', 'gcc'], {}, [0], 'portable'),
    'native': (['-O', '3', '--cpu', 'native', '--cc', 'gcc'], {}, [0], 'native'),
    'threads': (['-O', '1', '--threads', '--cc', 'gcc'], {}, [1, 2, 4], 'portable'),
    'threads-native': (['-O', '2', '--threads', '--cpu', 'native', '--cc', 'clang'], {}, [2], 'native'),
    'clang': (['-O', '2', '--cc', 'clang'], {}, [0], 'portable'),
    'sanitize': (['-O', '1', '--cc', 'gcc'], {'CFLAGS': SANITIZE}, [0], 'portable'),
    'cuda': (['--cc', 'g++'], {}, [0], 'cuda'),  # emulated: by tests/cuda/run.py --random
}


class Value:
    def __init__(self, name, dtype, shape, exact, smooth=False):
        self.name, self.dtype, self.shape = name, dtype, list(shape)
        self.exact = exact    # the same bits everywhere: an input, an integer, or moved from one
        self.smooth = smooth  # a differentiable function of the inputs


def is_float(t):
    return t[0] in 'fb' and t != 'bool'


class Program:
    """One exported function."""

    def __init__(self, r, name):
        self.r, self.name = r, name
        self.lines, self.values, self.args, self.used = [], [], [], set()
        self.count = 0
        self.N = None
        self.float = r.choice(FLOATS)
        self.int = r.choice(INTS)
        self.indent = 1
        self.large = r.random() < 0.2  # enough work to be split among threads

    # -- pieces
    def fresh(self, stem='v'):
        self.count += 1
        return '%s%d' % (stem, self.count)

    def emit(self, text):
        self.lines.append('    ' * self.indent + text)

    def dim(self, big=False):
        r = self.r
        return r.choice([1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17] + ([23, 33, 40, 65] if big or self.large else []) + ([70, 130, 257] * 3 if self.large else []))

    def declare(self, dtype, shape):
        v = Value(self.fresh('x'), dtype, shape, True, is_float(dtype))
        self.args.append(v)
        self.values.append(v)
        return v

    def let(self, text, dtype, shape, exact, smooth=False, stem='v'):
        v = Value(self.fresh(stem), dtype, shape, exact or not is_float(dtype), smooth)
        self.emit('let %s = %s' % (v.name, text))
        self.values.append(v)
        return v

    def pick(self, test=lambda v: True, make=None):
        found = [v for v in self.values if test(v)]
        if found and self.r.random() < 0.85:
            return self.r.choice(found[-6:] if self.r.random() < 0.5 else found)
        return make() if make else None

    def tensor(self, dtype=None, rank=None, exact=False, smooth=False, big=False):
        r = self.r

        def fits(v):
            return ((dtype is None or v.dtype == dtype) and (rank is None or len(v.shape) == rank) and (v.exact or not exact) and
                    (v.smooth or not smooth) and len(v.shape) <= 4)

        def make():
            n = rank if rank is not None else r.choice([1, 2, 2, 3, 3, 4])
            shape = [self.dim(big and n <= 2) for _ in range(n)]
            while elements(shape) > (100000 if self.large else 4000):
                shape[shape.index(max(shape))] = 3
            if n and r.random() < 0.15:
                shape[0] = 'N'
                self.N = self.N or r.choice([5, 8, 12])
            return self.declare(dtype or self.float, shape)
        return self.pick(fits, make)

    def number(self, dtype):
        if is_float(dtype):
            return '%.3g' % self.r.uniform(0.1, 1.5) if self.r.random() < 0.8 else '(-0.5)'
        return str(self.r.randrange(1, 100))

    # -- statements: each adds a value
    def elementwise(self, want=None):
        r = self.r
        a = want or self.tensor()
        if a is None:
            return
        t = a.dtype
        same = [v for v in self.values if v.dtype == t and v.shape == a.shape]
        lower = [v for v in self.values if v.dtype == t and len(v.shape) < len(a.shape) and v.shape == a.shape[len(a.shape) - len(v.shape):]]
        b = r.choice(same + lower)
        if t == 'bool':
            text = r.choice(['{a} and {b}', '{a} or not {b}', '{a} == {b}', 'not {a}'])
            return self.let(text.format(a=a.name, b=b.name), 'bool', a.shape, True)
        if is_float(t):
            smooth = ['{a} * {b}', '{a} - {b} * {n}', 'tanh({a}) + {b}', 'sigmoid({a} * {n})', 'sin({a}) * cos({b})', '{a} / (1 + {b} * {b})',
                      'exp(-{a} * {a})', 'sqrt(1 + {a} * {a})', 'log1p(abs({a}) + {n})', 'erf({a}) * {n}', '{n} * {a} + {n}',
                      'atan({a}) + tanh({b})', '{a} ** 2 - {b}']
            rough = ['max({a}, {b})', 'min({a}, {n})', 'where({a} < {b}, {a}, {b} * {n})', 'abs({a}) + {b}', 'floor({a} * 4)', 'sign({a})',
                     'round({a} * 3)', 'where(({a} > 0) and ({b} < 0.5), {a}, -{b})', '{a} % 0.75']
            both = a.exact and b.exact
            text = r.choice(smooth + rough if both else smooth)
            moved = both and text in ('max({a}, {b})',)
            return self.let(text.format(a=a.name, b=b.name, n=self.number(t)), t, a.shape, moved,
                            a.smooth and b.smooth and text in smooth)
        text = r.choice(['{a} + {b}', '{a} * {b} - {n}', '{a} / ({b} | 1)', '{a} % ({b} | 1)', '({a} & {b}) | {n}', '{a} ^ ~{b}', 'max({a}, {b})',
                         'min({a}, {n})', '({a} << ({b} & 3)) >> 1', 'where({a} < {b}, {a}, {n})', '{a} // {b}'][:-1])
        return self.let(text.format(a=a.name, b=b.name, n=self.number(t)), t, a.shape, True)

    def cast(self):
        a = self.tensor()
        t = self.r.choice([self.float, 'f32', 'f64', self.int, 'i32', 'u8', 'i8', 'bool'])
        if t == a.dtype:
            return
        if is_float(a.dtype) and not is_float(t):
            if not a.exact:
                return
            if t == 'bool':
                return self.let('%s > 0.25' % a.name, 'bool', a.shape, True)
            return self.let('%s(%s * 50)' % (t, a.name), t, a.shape, False)  # exact: the product of an exact value rounds alike
        if t == 'bool' or a.dtype == 'bool':
            if t == 'bool':
                return self.let('%s > 3' % a.name, t, a.shape, True)
            return self.let('%s(%s)' % (t, a.name), t, a.shape, True)
        if is_float(t):
            if is_float(a.dtype):
                return self.let('%s(%s)' % (t, a.name), t, a.shape, a.exact, a.smooth and t != 'f16')
            return self.let('%s(%s %% 7) / 8' % (t, a.name), t, a.shape, True)
        return self.let('%s(%s)' % (t, a.name), t, a.shape, True)

    def comparison(self):
        a = self.tensor(exact=True)
        if a.dtype == 'bool':
            return
        return self.let('%s %s %s' % (a.name, self.r.choice(['<', '>=', '==', '!=']), '0.25' if is_float(a.dtype) else self.number(a.dtype)),
                        'bool', a.shape, True)

    def subscript(self, extent, index, index_extent, other=None, other_extent=1):
        """An index expression and whether it surely lies inside."""
        r = self.r
        if 'N' in (extent, index_extent):
            return (index, True) if extent == index_extent else ('0' if extent != 'N' else '%s %% N' % index, extent != 'N' or True)
        choices = [('%s %% %d' % (index, extent), True), ('%d - %s %% %d' % (extent - 1, index, extent), True)]
        if index_extent <= extent:
            choices += [(index, True), ('%s + %d' % (index, extent - index_extent), True), ('%d - %s' % (index_extent - 1, index), True)]
        k = 1
        while (index_extent - 1) // k >= extent:
            k += 1
        choices.append(('%s / %d' % (index, k), True))
        choices += [('%s - %d' % (index, r.randrange(1, 3)), False), ('%s * 2 - 1' % index, False), ('%s + %d' % (index, r.randrange(1, 4)), False)]
        if other:
            choices += [('(%s + 3 * %s) %% %d' % (index, other, extent), True), ('%s + %s - 1' % (index, other), False),
                        ('%s * 2 + %s' % (index, other), False)]
        return r.choice(choices)

    def access(self, v, indices):
        """v[…] over indices [(name, extent)], guarded where it may leave."""
        r = self.r
        if not v.shape:
            return v.name
        at, inside = [], True
        for d, n in enumerate(v.shape):
            i, e = indices[d % len(indices)] if r.random() < 0.8 else r.choice(indices)
            o, oe = r.choice(indices)
            s, ok = self.subscript(n, i, e, o, oe)
            at.append(s)
            inside = inside and ok
        text = '%s[%s]' % (v.name, ', '.join(at))
        return text if inside else '(%s else %s)' % (text, self.fill(v.dtype))

    def fill(self, t):
        return 'false' if t == 'bool' else '0.5' if is_float(t) else '1'

    def notation(self):
        r = self.r
        v = self.tensor()
        indices = [(n, self.dim() if r.random() < 0.8 else v.shape[0] if v.shape else 2) for n in ['i', 'j', 'k'][:r.choice([1, 2, 2, 3])]]
        indices = [(n, e) for n, e in indices]
        shape = [e for _, e in indices]
        if elements(shape) > (200000 if self.large else 3000):
            return
        a = self.access(v, indices)
        w = self.pick(lambda w: w.dtype == v.dtype) or v
        b = self.access(w, indices)
        t = v.dtype
        if t == 'bool':
            body, smooth = '%s and %s' % (a, b), False
        else:
            body = r.choice(['%s + %s', '%s * %s', '%s - %s'] + (['max(%s, %s)'] if v.exact and w.exact else [])) % (a, b)
            smooth = v.smooth and w.smooth and 'max' not in body
        if r.random() < 0.3:
            body, smooth = a, v.smooth
        head = ', '.join('%s < %s' % x for x in indices)
        return self.let('tensor[%s] %s' % (head, body), t, shape, body == a and v.exact, smooth)

    def reduction(self):
        r = self.r
        v = self.tensor()
        w = self.pick(lambda w: w.dtype == v.dtype) or v
        t = v.dtype
        pars = [(n, self.dim()) for n in ['i', 'j'][:r.choice([0, 1, 1, 2])]]
        reds, heads = [], []
        for n in ['k', 'l'][:r.choice([1, 1, 2])]:
            e = self.dim(True)
            kind = r.random()
            if v.shape and kind < 0.25 and v.shape[-1] == 'N':
                heads.append('%s < N' % n)
                e = 'N'
            elif pars and kind < 0.4:  # ragged by a parallel index
                p, pe = r.choice(pars)
                text, e = r.choice([('0 .. %s + 1' % p, pe), ('%s .. %s + 3' % (p, p), pe + 2), ('%s * 5 / %d .. ((%s + 1) * 5 + %d) / %d' %
                                                                                                (p, pe, p, pe - 1, pe), 5)])
                heads.append('%s in %s' % (n, text))
            elif reds and kind < 0.5 and reds[0][1] != 'N':
                heads.append('%s in 0 .. %s + 1' % (n, reds[0][0]))
                e = reds[0][1]
            elif kind < 0.6:
                heads.append('%s in 1 .. %d' % (n, e))
            else:
                heads.append('%s < %d' % (n, e))
            reds.append((n, e))
        shape = [e for _, e in pars]
        if elements(shape + [12 if e == 'N' else e for _, e in reds]) > (4000000 if self.large else 30000):
            return
        indices = pars + reds
        r.shuffle(indices)
        a, b = self.access(v, indices), self.access(w, indices)
        exact = v.exact and w.exact
        if t == 'bool':
            op, body, out = r.choice(['any', 'all']), a, t
        elif is_float(t):
            op = r.choice(['sum', 'sum', 'sum', 'mean', 'max', 'min', 'argmax', 'argmin', 'prod'] if exact else ['sum', 'mean', 'sum', 'max'])
            body = r.choice([a, '%s * %s' % (a, b), '%s * %s' % (a, b)]) if op in ('sum', 'mean') else a
            if op == 'prod':
                body = '(1 + 0.1 * %s)' % a
            out = 'i32' if op.startswith('arg') else t
        else:
            op = r.choice(['sum', 'prod', 'max', 'min', 'argmax', 'argmin'])
            body = r.choice([a, '%s * %s' % (a, b)])
            out = 'i32' if op.startswith('arg') else t
        text = '%s[%s] %s' % (op, ', '.join(heads), body)
        if pars:
            text = 'tensor[%s] %s' % (', '.join('%s < %s' % x for x in pars), text)
        # A maximum moves an input; a mean of an empty window is nan, which the comparison takes as equal.
        return self.let(text, out, shape, exact and op in ('max', 'min'), v.smooth and w.smooth and op in ('sum', 'mean', 'prod'))

    def axis(self):
        r = self.r
        v = self.tensor()
        if not v.shape:
            return
        d = r.randrange(len(v.shape))
        shape = v.shape[:d] + v.shape[d + 1:]
        keep = r.random() < 0.3
        if keep:
            shape = v.shape[:d] + [1] + v.shape[d + 1:]
        if v.dtype == 'bool':
            op, out = r.choice(['any', 'all']), 'bool'
        else:
            op = r.choice(['sum', 'max', 'min'] + (['mean', 'sum'] if is_float(v.dtype) else []) + (['argmax', 'argmin'] if v.exact else []))
            out = 'i32' if op.startswith('arg') else v.dtype
        return self.let('%s(%s, axis = %d%s)' % (op, v.name, d, ', keepdims = true' if keep else ''), out, shape,
                        v.exact and op in ('max', 'min'), v.smooth and op in ('sum', 'mean'))

    def product(self):
        r = self.r
        t = r.choice([self.float, self.float, self.int])
        m, k, n = (self.dim(True) for _ in range(3))
        if r.random() < 0.3:
            m = r.choice([64, 70, 96])
            k = r.choice([31, 64, 100])
        batch = [r.choice([1, 2, 3, 5])] if r.random() < 0.3 and m * k < 9000 else []
        if elements(batch + [m, n]) > (60000 if self.large else 6000) or elements(batch + [m, k]) > (60000 if self.large else 9000):
            return
        ta, tb = r.random() < 0.3, r.random() < 0.3
        if not batch and r.random() < 0.2:
            m = 'N'
            self.N = self.N or 8
            ta = False
        a = self.declare(t, batch + ([k, m] if ta else [m, k]))
        b = self.declare(t, (batch if r.random() < 0.7 else []) + ([n, k] if tb else [k, n]))
        text = '%s%s @ %s%s' % (a.name, '.T' if ta else '', b.name, '.T' if tb else '')
        if is_float(t) and r.random() < 0.4:
            c = self.declare(t, [n])
            text = r.choice(['tanh(%s + %s)', '(%s) * 0.5 + %s']) % (text, c.name)
        return self.let(text, t, batch + [m, n], False, is_float(t))

    def convolution(self):
        r = self.r
        t = r.choice([self.float, self.float, 'f32'])
        n, c, o, h, w, kh, kw = r.choice([1, 2, 3]), r.choice([1, 3, 4]), r.choice([1, 4, 5, 8]), r.choice([5, 7, 9]), r.choice([4, 6, 9]), r.choice([1, 2, 3]), r.choice([1, 3])
        s, p, d = r.choice([1, 1, 2]), r.choice([0, 1, 2]), r.choice([1, 1, 2])
        oh, ow = (h + 2 * p - d * (kh - 1) - 1) // s + 1, (w + 2 * p - d * (kw - 1) - 1) // s + 1
        if oh < 1 or ow < 1:
            return
        x, k = self.declare(t, [n, c, h, w]), self.declare(t, [o, c, kh, kw])
        text = ('tensor[n < %d, o < %d, i < %d, j < %d] sum[c < %d, y < %d, z < %d] (%s[n, c, i * %d + y * %d - %d, j * %d + z * %d - %d] else 0) * %s[o, c, y, z]' %
                (n, o, oh, ow, c, kh, kw, x.name, s, d, p, s, d, p, k.name))
        return self.let(text, t, [n, o, oh, ow], False, True)

    def moved(self):
        r = self.r
        v = self.tensor()
        if not v.shape:
            return
        rank = len(v.shape)
        kind = r.randrange(5)
        if kind == 0:
            at, shape = [], []
            for n in v.shape:
                if n == 'N' or r.random() < 0.3:
                    at.append(':')
                    shape.append(n)
                elif r.random() < 0.3:
                    at.append(str(r.randrange(n)))
                else:
                    lo = r.randrange(n)
                    hi = r.randrange(lo + 1, n + 1)
                    step = r.choice([1, 1, 2, 3])
                    at.append('%d:%d%s' % (lo, hi, ':%d' % step if step > 1 else ''))
                    shape.append((hi - lo + step - 1) // step)
            return self.let('%s[%s]' % (v.name, ', '.join(at)), v.dtype, shape, v.exact, v.smooth)
        if kind == 1:
            order = list(range(rank))
            r.shuffle(order)
            return self.let('transpose(%s, %s)' % (v.name, order), v.dtype, [v.shape[d] for d in order], v.exact, v.smooth)
        if kind == 2 and 'N' not in v.shape:
            total = elements(v.shape)
            a = r.choice([d for d in range(1, total + 1) if total % d == 0])
            return self.let('reshape(%s, [%d, %d])' % (v.name, a, total // a), v.dtype, [a, total // a], v.exact, v.smooth)
        if kind == 3 and v.shape[0] != 'N':
            w = self.pick(lambda w: w.dtype == v.dtype and w.shape[1:] == v.shape[1:] and w.shape and w.shape[0] != 'N') or v
            return self.let('concat([%s, %s], axis = 0)' % (v.name, w.name), v.dtype, [v.shape[0] + w.shape[0]] + v.shape[1:], v.exact and w.exact,
                            v.smooth and w.smooth)
        if v.shape[0] != 'N':
            ids = self.ids(v.shape[0])
            return self.let('%s[%s]' % (v.name, ids.name), v.dtype, ids.shape + v.shape[1:], v.exact, v.smooth)

    def ids(self, extent, count=None):
        t = self.r.choice(['i32', 'i64', 'u8', 'i16'])
        a = self.declare(t, [count or self.dim()])
        return self.let('%s %% %d' % (a.name, extent), t, a.shape, True, stem='ids')

    def ordered(self):
        r = self.r
        v = self.tensor(exact=True)
        if not v.shape or v.dtype == 'bool':
            return
        d = r.randrange(len(v.shape))
        kind = r.randrange(4)
        if kind == 0:
            return self.let('sort(%s, axis = %d)' % (v.name, d), v.dtype, v.shape, True)
        if kind == 1:
            return self.let('i64(argsort(%s, axis = %d))' % (v.name, d), 'i64', v.shape, True)
        if kind == 2 and v.shape[d] != 'N':
            k = r.randrange(1, v.shape[d] + 1)
            a, b = self.fresh(), self.fresh()
            self.emit('let %s, %s = topk(%s, %d, axis = %d)' % (a, b, v.name, k, d))
            self.values.append(Value(a, v.dtype, v.shape[:d] + [k] + v.shape[d + 1:], True))
            return
        op = r.choice(['cumsum', 'cumprod'])
        if op == 'cumprod' and is_float(v.dtype):
            op = 'cumsum'
        more = r.choice(['', ', reverse = true', ', exclusive = true', ', reverse = true, exclusive = true'])
        return self.let('%s(%s, axis = %d%s)' % (op, v.name, d, more), v.dtype, v.shape, False, False)

    def written(self):
        """A variable that is written by element."""
        r = self.r
        t = r.choice([self.float, self.float, self.int])
        shape = [r.choice([3, 4, 7, 9]) for _ in range(r.choice([1, 2, 2]))]
        v = Value(self.fresh('o'), t, shape, False)
        source = self.pick(lambda w: w.dtype == t and w.shape == shape)
        self.emit('var %s: %s%s = %s' % (v.name, t, show(shape), source.name if source else '0'))
        for _ in range(r.choice([1, 2, 3])):
            kind = r.randrange(5)
            row = self.pick(lambda w: w.dtype == t and w.shape == shape[1:]) or self.declare(t, shape[1:])
            if kind == 0:
                self.emit('%s[%d] %s %s' % (v.name, r.randrange(shape[0]), r.choice(['=', '+=']), row.name))
            elif kind == 1:
                ids = self.ids(shape[0])
                rows = self.declare(t, ids.shape + shape[1:])
                self.emit('%s[%s] %s %s' % (v.name, ids.name, r.choice(['=', '+=', '+=']), rows.name))
            elif kind == 2:
                self.emit('for t in 0..%d {' % r.choice([shape[0], 2, 3]))
                self.emit('    %s[t %% %d] %s %s' % (v.name, shape[0], r.choice(['=', '+=']), row.name))
                if r.random() < 0.5:
                    self.emit('    %s[(t + 1) %% %d] += %s[t %% %d]' % (v.name, shape[0], v.name, shape[0]))
                self.emit('}')
            elif kind == 3:
                lo = r.randrange(shape[0])
                hi = r.randrange(lo + 1, shape[0] + 1)
                self.emit('%s[%d:%d] += %s' % (v.name, lo, hi, row.name))
            else:
                self.emit('%s = %s[%s]' % (v.name, v.name, ', '.join(['tensor[q < %d] (q * 2 + 1) %% %d' % (shape[0], shape[0])])))
        final = Value(v.name, t, shape, False)
        self.values.append(final)

    def branch(self):
        r = self.r
        scalar = self.pick(lambda w: w.exact and is_float(w.dtype) and w.shape and 'N' not in w.shape, lambda: self.declare(self.float, [3]))
        v = self.pick(lambda w: is_float(w.dtype) and w.shape and w.dtype == self.float)
        if not v:
            return
        name = self.fresh('h')
        self.emit('var %s: %s%s = %s' % (name, v.dtype, show(v.shape), v.name))
        kind = r.randrange(3)
        if kind == 0:
            self.emit('if %s[%s] > 0 {' % (scalar.name, ', '.join('0' for _ in scalar.shape)))
            self.emit('    %s = tanh(%s) * 0.5' % (name, name))
            if r.random() < 0.6:
                self.emit('} else {')
                self.emit('    %s += %s' % (name, v.name))
            self.emit('}')
        elif kind == 1:
            self.emit('for t in 0..%d {' % r.choice([1, 2, 5]))
            self.emit('    %s = sin(%s) + %s(t) * 0.125' % (name, name, v.dtype))
            if r.random() < 0.4:
                self.emit('    if t %% 2 == 1 { %s *= 0.5 }' % name)
            self.emit('}')
        else:
            n = self.fresh('n')
            self.emit('var %s = %d' % (n, r.randrange(4)))
            self.emit('while %s < 4 limit 9 {' % n)
            self.emit('    %s = %s * 0.5 + 0.25' % (name, name))
            self.emit('    %s += 1' % n)
            self.emit('}')
        self.values.append(Value(name, v.dtype, v.shape, False, v.smooth and kind != 0 and False))

    def gathered(self):
        """Subscripts and bounds that are data; some calls leave the array or divide by 0, eagerly and compiled."""
        r = self.r
        v = self.tensor()
        if not v.shape or 'N' in v.shape:
            return
        n = self.dim()
        ids = self.declare(r.choice(['i32', 'i64', 'u8', 'i8']), [n])
        last = ', '.join([''] + ['j %% %d' % d for d in v.shape[1:]])
        kind = r.randrange(6)
        if kind == 0:
            return self.let('tensor[i < %d, j < 3] %s[%s[i] %% %d%s]' % (n, v.name, ids.name, v.shape[0], last), v.dtype, [n, 3], v.exact, v.smooth)
        if kind == 1:
            return self.let('tensor[i < %d, j < 3] %s[%s[i] - 1%s] else %s' % (n, v.name, ids.name, last, self.fill(v.dtype)), v.dtype, [n, 3], v.exact,
                            v.smooth)
        if kind == 2 and r.random() < 0.3:
            return self.let('tensor[i < %d, j < 3] %s[%s[i]%s]' % (n, v.name, ids.name, last), v.dtype, [n, 3], v.exact, v.smooth)
        if kind == 3 and v.dtype != 'bool':
            return self.let('tensor[i < %d] sum[k in 0 .. %s[i] %% %d, j < 2] %s[k%s]' % (n, ids.name, v.shape[0] + 1, v.name, last), v.dtype, [n], False,
                            v.smooth)
        if kind == 4 and r.random() < 0.3 and not is_float(v.dtype) and v.dtype != 'bool':
            return self.let('100 / %s' % v.name, v.dtype, v.shape, True)
        if kind == 5 and v.dtype != 'bool' and v.exact:
            return self.let('tensor[i < %d] argmax[k in i %% 2 .. %s[i] %% %d, j < 3] %s[k%s]' % (n, ids.name, v.shape[0] + 1, v.name, last), 'i32', [n], True)

    def sliced(self):
        """Slices with run-time bounds."""
        r = self.r
        v = self.tensor()
        if not v.shape or 'N' in v.shape or not is_float(v.dtype):
            return
        n = self.declare('i32', [])
        at = 'at%d' % self.count
        self.emit('let %s = %s %% %d' % (at, n.name, v.shape[0] + 1))
        kind = r.randrange(3)
        if kind == 0:
            return self.let('sum(%s[:%s])' % (v.name, at), v.dtype, [], False, v.smooth)
        if kind == 1:
            return self.let('sum(%s[%s:] * 2, axis = 0)' % (v.name, at), v.dtype, v.shape[1:], False, v.smooth)
        k = r.randrange(1, v.shape[0] + 1)
        return self.let('%s[%s %% %d:%s %% %d + %d]' % (v.name, n.name, v.shape[0] - k + 1, n.name, v.shape[0] - k + 1, k), v.dtype, [k] + v.shape[1:],
                        v.exact, v.smooth)

    def recurrence(self):
        """A loop with carried tensors that are swapped, written by element, branched on."""
        r = self.r
        t = self.float
        n, m = r.choice([2, 3, 5]), r.choice([1, 4, 6])
        x = self.declare(t, [n, m])
        w = self.declare(t, [m, m])
        a, b, out = self.fresh('a'), self.fresh('b'), self.fresh('o')
        self.emit('var %s = zeros(%s[%d])' % (a, t, m))
        self.emit('var %s = %s[0]' % (b, x.name))
        self.emit('var %s = zeros(%s[%d, %d])' % (out, t, n, m))
        self.emit('for t in 0..%d {' % n)
        self.emit('    let next = tanh(%s[t] + %s @ %s * 0.25)' % (x.name, a, w.name))
        if r.random() < 0.5:
            self.emit('    %s = %s' % (a, b))
            self.emit('    %s = next' % b)
        else:
            self.emit('    %s = next' % a)
        if r.random() < 0.4:
            self.emit('    if %s[t, 0] > 0 { %s = %s * 0.5 } else { %s = %s + %s }' % (x.name, b, b, b, b, a))
        self.emit('    %s[%s] %s %s' % (out, r.choice(['t', '%d - t' % (n - 1), 't / 2']), r.choice(['=', '+=']), r.choice([a, b])))
        if r.random() < 0.3:
            self.emit('    for u in 0..2 { %s[t, %d] *= 0.5 }' % (out, m - 1))
        self.emit('}')
        smooth = t in ('f32', 'f64')
        self.values += [Value(a, t, [m], False, smooth), Value(out, t, [n, m], False, smooth), Value(b, t, [m], False, smooth)]

    def randomness(self):
        r = self.r
        shape = [self.dim() for _ in range(r.choice([0, 1, 2]))]
        if r.random() < 0.2 and self.N:
            shape = ['N'] + shape[:1]
        t = self.float
        kind = r.randrange(4)
        if kind == 0:
            return self.let('random.uniform(%s%s, -1, 1)' % (t, show(shape)), t, shape, False)
        if kind == 1:
            return self.let('random.normal(%s%s, 0, 0.5)' % (t, show(shape)), t, shape, False)
        if kind == 2:
            return self.let('random.bernoulli(bool%s, 0.3)' % show(shape), 'bool', shape, True)
        return self.let('random.integers(%s%s, 0, 10)' % (self.int, show(shape)), self.int, shape, True)

    def gradient(self):
        v = self.pick(lambda w: w.smooth and w.dtype in ('f32', 'f64') and not any(w is a for a in self.args))
        if not v:
            return
        inputs = [a for a in self.args if a.smooth and a.dtype == v.dtype]
        for a in self.r.sample(inputs, min(len(inputs), 2)):
            self.let('grad(sum(%s * %s), %s)' % (v.name, v.name, a.name), a.dtype, a.shape, False, stem='d')

    def build(self):
        r = self.r
        for t in [self.float, r.choice([self.float, self.int])]:
            self.declare(t, [self.dim() for _ in range(r.choice([1, 2, 3]))] if r.random() < 0.8 else [])
        weights = [(self.elementwise, 4), (self.cast, 2), (self.comparison, 1), (self.notation, 4), (self.reduction, 5), (self.axis, 2), (self.product, 2),
                   (self.convolution, 1), (self.moved, 3), (self.ordered, 2), (self.written, 3), (self.branch, 2), (self.gathered, 3), (self.sliced, 2),
                   (self.recurrence, 2), (self.randomness, 1)]
        for _ in range(r.choice([3, 4, 6, 9])):
            r.choices([f for f, _ in weights], [w for _, w in weights])[0]()
            if len(self.args) > 9:
                break
        if r.random() < 0.5:
            self.gradient()
        results = [v for v in self.values if not any(v is a for a in self.args)][-r.choice([1, 2, 3, 5, 20]):]
        if not results:
            results = [self.elementwise(self.args[0]) or self.args[0]]
            results = [v for v in results if not any(v is a for a in self.args)]
            if not results:
                self.emit('let same = %s' % self.args[0].name)
                results = [Value('same', self.args[0].dtype, self.args[0].shape, True)]
        return results

    def text(self):
        results = self.build()
        first = True
        params = []
        for a in self.args:
            shape = show(a.shape)
            if first and 'N' in a.shape:
                shape = shape.replace('N', 'N <= %d' % self.N, 1)
                first = False
            params.append('%s: %s%s' % (a.name, a.dtype, shape))
        if first and any('N' in v.shape for v in results):
            raise AssertionError('N without an argument')
        outs = ', '.join('r%d: %s%s' % (i, v.dtype, show(v.shape)) for i, v in enumerate(results))
        values = ', '.join(v.name for v in results)
        return 'export fn %s(%s) -> (%s) {\n%s\n    return %s\n}\n' % (self.name, ', '.join(params), outs, '\n'.join(self.lines), values)

    def inputs(self, r, n):
        out = {}
        for a in self.args:
            shape = [n if d == 'N' else d for d in a.shape]
            out[a.name] = behaviour.Array(a.dtype, shape, [self.element(r, a.dtype) for _ in range(elements(shape))])
            if is_float(a.dtype):
                out[a.name] = behaviour.Array.unpacked(a.dtype, shape, out[a.name].packed())
        return out

    @staticmethod
    def element(r, t):
        if t == 'bool':
            return r.random() < 0.5
        if is_float(t):
            x = r.uniform(-1, 1)
            return round(x * 8) / 8 if r.random() < 0.2 else x
        bits = int(t[1:])
        lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if t[0] == 'i' else (0, (1 << bits) - 1)
        return r.randint(lo, hi) if r.random() < 0.2 else r.randint(max(lo, -9), min(hi, 99))


def elements(shape):
    n = 1
    for d in shape:
        n *= 12 if d == 'N' else d
    return n


def show(shape):
    return '[%s]' % ', '.join(str(d) for d in shape) if shape else ''


def generate(mxcc, seed, count, folder):
    """A file of functions that the compiler takes, and its calls."""
    r = random.Random(seed)
    texts, programs = [], []
    path = os.path.join(folder, 'model.mxl')
    attempts, refused = 0, []
    while len(programs) < count and attempts < 6 * count:
        attempts += 1
        p = Program(r, 'f%d' % len(programs))
        try:
            text = p.text()
        except AssertionError:
            continue
        with open(path, 'w', encoding='utf-8') as f:
            f.write('use random\n\n' + text)
        c = subprocess.run([mxcc, 'check', path], capture_output=True, text=True)
        if c.returncode == 0:
            texts.append(text)
            programs.append(p)
        else:
            refused.append((c.returncode, text, c.stdout + c.stderr))
    with open(path, 'w', encoding='utf-8') as f:
        f.write('use random\n\n' + '\n'.join(texts))
    calls = []
    for p in programs:
        for n in [p.N, max(1, p.N // 2)] if p.N else [0]:
            calls.append((p.name, p.inputs(r, n)))
    return path, calls, refused


def child(folder, threads, call_file, out_file):
    """Calls a library in a process of its own."""
    with open(call_file, 'rb') as f:
        calls = pickle.load(f)
    model = behaviour.Model.__new__(behaviour.Model)
    model.prefix = 'model'
    model.signatures = behaviour.header_signatures(os.path.join(folder, 'model.h'), 'model')
    import ctypes
    model.lib = ctypes.CDLL(os.path.join(folder, 'libmodel.so'))

    class Options(ctypes.Structure):
        _fields_ = [('seed', ctypes.c_uint64), ('threads', ctypes.c_int), ('log', ctypes.c_void_p), ('log_context', ctypes.c_void_p)]
    out = []
    model.lib.model_init.restype = ctypes.c_int
    for name, inputs in calls:
        print('in %s' % name, flush=True)
        m, options = ctypes.c_void_p(), Options(0, threads, None, None)  # anew, for the call counter is part of random numbers
        if model.lib.model_init(ctypes.byref(m), None, ctypes.c_size_t(0), ctypes.byref(options)) != 0:
            return 1
        inputs = {k: behaviour.Array(*v) for k, v in inputs.items()}
        status, got = model.call(m, name, inputs)
        out.append((status, [(a.dtype, a.shape, a.packed()) for a in got[0]] if status == 0 else got))
        model.free(m)
    with open(out_file, 'wb') as f:
        pickle.dump(out, f)
    return 0


def run_mode(mxcc, mode, path, call_file, folder):
    """{threads: results}, or a text that says what failed."""
    flags, env, threads, _ = MODES[mode]
    folder = os.path.join(folder, mode)
    os.makedirs(folder, exist_ok=True)
    library = os.path.join(folder, 'libmodel.so')
    if mode == 'cuda':
        try:
            behaviour.build_emulated(mxcc, path, folder, library)
        except behaviour.Failure as x:
            return 'build: %s' % x
    else:
        p = subprocess.run([mxcc, 'build', '--keep', path, '-o', library, *flags], capture_output=True, text=True, env=dict(os.environ, **env), timeout=600)
        if p.returncode != 0:
            return 'build: %s' % (p.stdout + p.stderr)[-3000:]
    results = {}
    for t in threads:
        out = os.path.join(folder, 'out%d' % t)
        full = dict(os.environ)
        if 'CFLAGS' in env:
            asan = subprocess.run(['gcc', '-print-file-name=libasan.so'], capture_output=True, text=True).stdout.strip()
            full.update(LD_PRELOAD=os.path.realpath(asan), ASAN_OPTIONS='detect_leaks=0', PYTHONMALLOC='malloc')
        p = subprocess.run([sys.executable, os.path.abspath(__file__), '--child', folder, str(t), call_file, out], capture_output=True, text=True, env=full,
                           timeout=600)
        if p.returncode != 0 or not os.path.exists(out):
            return 'run with %d threads: status %d\n%s%s' % (t, p.returncode, p.stdout[-200:], p.stderr[-3000:])
        with open(out, 'rb') as f:
            results[t] = pickle.load(f)
    return results


def check_seed(o, seed, folder):
    failures = []
    path, calls, refused = generate(o.mxcc, seed, o.functions, folder)
    for status, text, message in refused:
        if status != 1:
            failures.append('mxcc check ended with status %d:\n%s\n%s' % (status, text, message[-1500:]))
    if o.show_refused:
        for _, text, message in refused:
            print(message.split('\n')[0], '\n'.join(message.split('\n')[1:6]))
    call_file = os.path.join(folder, 'calls')
    with open(call_file, 'wb') as f:
        pickle.dump([(n, {k: (a.dtype, a.shape, a.data) for k, a in i.items()}) for n, i in calls], f)
    results = {}
    for mode in o.modes:
        results[mode] = run_mode(o.mxcc, mode, path, call_file, folder)
        if isinstance(results[mode], str):
            failures.append('%s: %s' % (mode, results[mode]))
    header = os.path.join(folder, o.modes[0], 'model.h')
    signatures = behaviour.header_signatures(header, 'model') if os.path.exists(header) else {}
    first = next((r for r in results.values() if not isinstance(r, str)), None)
    for number, (name, inputs) in enumerate(calls):
        where = '%s, call %d' % (name, number)
        direct = None
        if name in signatures:
            direct = behaviour.eager(o.mxcc, path, name, inputs, folder, signatures[name])
        groups = {}
        for mode, runs in results.items():
            if isinstance(runs, str):
                continue
            for t, run in runs.items():
                status, got = run[number]
                if direct:
                    if (status != 0) != (direct[0] != 0):
                        failures.append('%s, %s: status %d, eager %d: %s' % (where, mode, status, direct[0], got if status else direct[1][-500:]))
                        continue
                    if status:
                        if got not in direct[1]:
                            failures.append('%s, %s: `%s`, eager says: %s' % (where, mode, got, direct[1][-300:]))
                        continue
                    for k, ((dtype, shape, raw), d) in enumerate(zip(got, direct[1])):
                        a = behaviour.Array.unpacked(dtype, shape, raw)
                        difference = behaviour.same(a, d, 16.0)
                        if difference:
                            failures.append('%s, %s with %d threads against eager, result %d: %s' % (where, mode, t, k, difference))
                group = groups.setdefault(MODES[mode][3], (mode, t, got))
                for k, (x, y) in enumerate(zip(got, group[2])):
                    if x[2] != y[2] and not same_but_nan(x, y):
                        failures.append('%s, %s with %d threads against %s with %d: other bits in result %d' % (where, mode, t, group[0], group[1], k))
    return len(calls) * len(o.modes), failures, first


def same_but_nan(x, y):
    """The sign and payload of a nan are the C compiler's."""
    if x[0] not in behaviour.TOLERANCE:
        return False
    a, b = behaviour.Array.unpacked(*x).data, behaviour.Array.unpacked(*y).data
    return all(p == q or p != p and q != q for p, q in zip(a, b))


def one_seed(o, seed):
    folder = os.path.join(o.keep, 'seed-%d' % seed)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    n, failures, _ = check_seed(o, seed, folder)
    if not failures and not o.keep_all:
        shutil.rmtree(folder)
    return seed, n, failures, folder


def main():
    if len(sys.argv) > 1 and sys.argv[1] == '--child':
        return child(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--count', type=int, default=4, help='seeds')
    parser.add_argument('--functions', type=int, default=12, help='of a file')
    parser.add_argument('--modes', default=','.join(m for m in MODES if m != 'cuda' or os.environ.get('MXCC_EMULATION')))
    parser.add_argument('--keep', help='where failing programs stay')
    parser.add_argument('--keep-all', action='store_true')
    parser.add_argument('--show-refused', action='store_true')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    o = parser.parse_args()
    o.mxcc = os.path.abspath(o.mxcc)
    o.modes = [m for m in o.modes.split(',') if shutil.which(MODES[m][0][MODES[m][0].index('--cc') + 1])]
    o.keep = os.path.abspath(o.keep) if o.keep else tempfile.mkdtemp(prefix='mxcc-random-')
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        for seed, n, failures, folder in pool.map(lambda s: one_seed(o, s), range(o.seed, o.seed + o.count)):
            failed += len(failures)
            passed += max(0, n - len(failures))
            for x in failures[:8]:
                print('seed %d (%s): %s' % (seed, folder, x))
            sys.stdout.flush()
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
