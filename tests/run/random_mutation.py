#!/usr/bin/env python3
"""Random programs that write elements, run with copying semantics and compiled in place; all must agree exactly.

    random_mutation.py [--mxcc build/mxcc] [--seed N] [--programs N] [--batch N] [--eager N] [--seconds S] [--keep FOLDER]

Each program is one exported function: element and slice writes, overlapping and disjoint, strided, by loop counters, by data, scatters; loops,
nested, with `while`; branches; snapshots that are read later; swaps; inout arguments, inout helpers; states kept over calls; asserts that end a
call in the middle; gradients through all of it. A program is made together with its meaning: a closure over lists of Python integers in which every
write makes a new list. Values stay exact (integers modulo 97, or f64 that holds integers), gradients are exact by forward differentiation
in integers. Every plan passes the validator (--verify); every --eager-th program is run eagerly, too. Only Python's standard library is
needed. A failing batch is kept; the last line is `N passed, N failed`.
"""
import argparse
import concurrent.futures
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location('behaviour', os.path.join(HERE, 'run.py'))
behaviour = importlib.util.module_from_spec(spec)
spec.loader.exec_module(behaviour)

MODULUS = 97
LARGEST = 2 ** 50  # of an f64 that holds an integer


class Failed(Exception):
    """An assert of the program."""


class TooLarge(Exception):
    """An f64 would round: the program is dropped."""


class Dual:
    """An integer and its derivatives by each element of x."""
    __slots__ = ('v', 'd')

    def __init__(self, v, d=None):
        if abs(v) > LARGEST:
            raise TooLarge
        self.v, self.d = v, d

    def __add__(self, o):
        return Dual(self.v + o.v, merge(self.d, 1, o.d, 1))

    def __sub__(self, o):
        return Dual(self.v - o.v, merge(self.d, 1, o.d, -1))

    def __mul__(self, o):
        return Dual(self.v * o.v, merge(self.d, o.v, o.d, self.v))


def merge(a, s, b, t):
    out = {k: s * x for k, x in a.items()} if a else {}
    for k, x in (b or {}).items():
        out[k] = out.get(k, 0) + t * x
        if abs(out[k]) > LARGEST:
            raise TooLarge
    return out


class Var:
    def __init__(self, name, shape, writable=True):
        self.name, self.shape, self.writable = name, shape, writable


class Number:
    """A static or run-time integer with known bounds."""

    def __init__(self, text, run, lo, hi):
        self.text, self.run, self.lo, self.hi = text, run, lo, hi


def size(shape):
    n = 1
    for d in shape:
        n *= d
    return n


class Program:
    def __init__(self, r, name, gradient):
        self.r, self.name, self.gradient = r, name, gradient
        self.type = 'f64' if gradient else 'i64'
        self.R, self.C = r.choice([4, 5, 6]), r.choice([4, 6, 7])
        self.vars, self.numbers, self.lines, self.count, self.depth = [], [], [], 0, 1
        self.loops = 0
        self.helpers = []

    # -- pieces: a text and a function of the environment
    def fresh(self, stem):
        self.count += 1
        return '%s%d' % (stem, self.count)

    def emit(self, text):
        self.lines.append('    ' * self.depth + text)

    def value(self, n):
        return Dual(n) if self.gradient else n

    def index(self, n):
        r = self.r
        choices = []
        for x in self.numbers:
            for c in (-1, 0, 1):
                if x.lo + c >= 0 and x.hi + c < n:
                    choices.append(Number('%s + %d' % (x.text, c) if c > 0 else '%s - %d' % (x.text, -c) if c else x.text,
                                          lambda e, x=x, c=c: x.run(e) + c, x.lo + c, x.hi + c))
            for c in (0, 1):
                if x.lo >= 0 and 2 * x.hi + c < n:
                    choices.append(Number('2 * %s%s' % (x.text, ' + 1' if c else ''), lambda e, x=x, c=c: 2 * x.run(e) + c, 0, n - 1))
            if x.lo >= 0:
                choices.append(Number('%s %% %d' % (x.text, n), lambda e, x=x: x.run(e) % n, 0, n - 1))
            if x.lo >= 0 and x.hi < n:
                choices.append(Number('%d - %s' % (n - 1, x.text), lambda e, x=x: n - 1 - x.run(e), 0, n - 1))
        if choices and r.random() < 0.75:
            return r.choice(choices)
        c = r.randrange(n)
        return Number(str(c), lambda e: c, c, c)

    def span(self, n, length):
        """`length` of n entries along an axis: text, places as a function of the environment."""
        r = self.r
        if length == n:
            return r.choice([':', ':', '0:%d' % n]), lambda e: range(n)
        if 2 * length <= n + 1 and r.random() < 0.4:
            lo = r.randrange(n - 2 * length + 2) if n - 2 * length + 2 > 0 else 0
            return '%d:%d:2' % (lo, lo + 2 * length - 1), lambda e: range(lo, lo + 2 * length - 1, 2)
        starts = [x for x in self.numbers if x.lo >= 0 and x.hi + length <= n and x.lo < x.hi]
        if starts and r.random() < 0.5:
            x = r.choice(starts)
            return '%s:%s + %d' % (x.text, x.text, length), lambda e: range(x.run(e), x.run(e) + length)
        lo = r.choice([0, n - length, r.randrange(n - length + 1)])
        text = ':%d' % length if lo == 0 and r.random() < 0.5 else '%d:' % lo if lo + length == n and r.random() < 0.5 else '%d:%d' % (lo, lo + length)
        return text, lambda e: range(lo, lo + length)

    def access(self, v, shape):
        """Elements of v that have the shape: text, flat places; None if it has none such."""
        r = self.r
        if len(v.shape) < len(shape) or (not v.shape and shape):
            return None
        if not v.shape:
            return v.name, lambda e: [0]
        if len(v.shape) == 1:
            n = v.shape[0]
            if not shape:
                i = self.index(n)
                return '%s[%s]' % (v.name, i.text), lambda e: [i.run(e)]
            if shape[0] > n:
                return None
            if shape[0] == n and r.random() < 0.4:
                return v.name, lambda e: list(range(n))
            text, places = self.span(n, shape[0])
            return '%s[%s]' % (v.name, text), lambda e: list(places(e))
        rows, columns = v.shape
        if len(shape) == 2:
            if shape[0] > rows or shape[1] > columns:
                return None
            if shape == v.shape and r.random() < 0.4:
                return v.name, lambda e: list(range(rows * columns))
            a, pa = self.span(rows, shape[0])
            b, pb = self.span(columns, shape[1])
        elif len(shape) == 1 and (shape[0] <= columns and (r.random() < 0.7 or shape[0] > rows)):
            i = self.index(rows)
            a, pa = i.text, lambda e: [i.run(e)]
            b, pb = self.span(columns, shape[0])
            if shape[0] == columns and r.random() < 0.5:
                return '%s[%s]' % (v.name, a), lambda e: [i.run(e) * columns + k for k in range(columns)]
        elif len(shape) == 1 and shape[0] <= rows:
            j = self.index(columns)
            a, pa = self.span(rows, shape[0])
            b, pb = j.text, lambda e: [j.run(e)]
        elif not shape:
            i, j = self.index(rows), self.index(columns)
            a, pa = i.text, lambda e: [i.run(e)]
            b, pb = j.text, lambda e: [j.run(e)]
        else:
            return None
        return '%s[%s, %s]' % (v.name, a, b), lambda e: [i * columns + j for i in pa(e) for j in pb(e)]

    def view(self, shape):
        """A run of a matrix seen as one row, or a piece of a column of its transposed."""
        r = self.r
        found = [v for v in self.vars if len(v.shape) == 2 and size(v.shape) >= shape[0]]
        if not found:
            return None
        v = r.choice(found)
        rows, columns = v.shape
        if r.random() < 0.5 or shape[0] > rows:
            text, places = self.span(rows * columns, shape[0])
            return 'reshape(%s, [%d])[%s]' % (v.name, rows * columns, text), lambda e: [e[v.name][k] for k in places(e)]
        j, (text, places) = self.index(columns), self.span(rows, shape[0])
        return '%s.T[%s, %s]' % (v.name, j.text, text), lambda e: [e[v.name][i * columns + j.run(e)] for i in places(e)]

    def leaf(self, shape):
        r = self.r
        if len(shape) == 1 and r.random() < 0.1:
            found = self.view(shape)
            if found:
                return found
        for _ in range(6):
            v = r.choice(self.vars)
            found = self.access(v, shape)
            if found:
                text, places = found
                return text, lambda e: [e[v.name][k] for k in places(e)]
        c = r.randrange(1, 4)
        return str(c), lambda e: [self.value(c)] * size(shape)

    def expression(self, shape, depth=2):
        r = self.r
        kind = r.random()
        if depth == 0 or kind < 0.35:
            return self.leaf(shape)
        if kind < 0.45 and self.numbers:
            x = r.choice(self.numbers)
            a, run = self.expression(shape, depth - 1)
            return '(%s * %s(%s))' % (a, self.type, x.text), lambda e: [y * self.value(x.run(e)) for y in run(e)]
        if kind < 0.5 and not self.gradient and shape and len(shape) == 1:
            a, run = self.leaf([self.R, self.C])
            if a[0].isalpha() and shape[0] == self.C:
                return 'sum(%s, axis = 0)' % a, lambda e: [sum(run(e)[j::self.C]) for j in range(self.C)]
        a, run_a = self.expression(shape, depth - 1)
        b, run_b = self.expression(r.choice([shape, shape, []]), depth - 1)

        def spread(x, n):
            return x * n if len(x) == 1 else x
        op = r.choice(['+', '+', '-', '*'])
        calls = {'+': lambda p, q: p + q, '-': lambda p, q: p - q, '*': lambda p, q: p * q}
        f = calls[op]
        if self.gradient:
            return '(%s %s %s)' % (a, op, b), lambda e: [f(p, q) for p, q in zip(run_a(e), spread(run_b(e), size(shape)))]
        return '((%s %s %s) %% %d)' % (a, op, b, MODULUS), lambda e: [f(p, q) % MODULUS for p, q in zip(run_a(e), spread(run_b(e), size(shape)))]

    def condition(self):
        r = self.r
        if self.numbers and (self.gradient or r.random() < 0.5):
            x = r.choice(self.numbers)
            k = r.randrange(2)
            return '%s %% 2 == %d' % (x.text, k), lambda e: x.run(e) % 2 == k
        if self.gradient:
            return 'flag', lambda e: e['flag']
        a, run = self.leaf([])
        c = r.randrange(MODULUS)
        return '%s < %d' % (a, c), lambda e: run(e)[0] < c

    # -- statements: each returns what it does to the environment
    def shapes(self, v):
        r = self.r
        if not v.shape:
            return []
        if len(v.shape) == 1:
            return r.choice([[], v.shape, [r.randrange(1, v.shape[0] + 1)]])
        rows, columns = v.shape
        return r.choice([[], [columns], [rows], v.shape, [r.randrange(1, rows + 1), r.randrange(1, columns + 1)], [r.randrange(1, columns + 1)]])

    def write(self):
        r = self.r
        v = r.choice([v for v in self.vars if v.writable])
        shape = self.shapes(v)
        found = self.access(v, shape)
        if not found:
            return lambda e: None
        text, places = found
        op = r.choice(['=', '=', '+=', '-='])
        value, run = self.expression(r.choice([shape, shape, []]) if op != '=' or shape != v.shape else shape)
        if not self.gradient:
            value = '%s %% %d' % (value, MODULUS)
        self.emit('%s %s %s' % (text, op, value))

        def do(e):
            new, got = list(e[v.name]), run(e)
            if not self.gradient:
                got = [x % MODULUS for x in got]
            at = places(e)
            old = [e[v.name][k] for k in at]
            got = got * len(at) if len(got) == 1 else got
            for k, x, y in zip(at, old, got):
                new[k] = y if op == '=' else x + y if op == '+=' else x - y
            e[v.name] = new
        return do

    def scatter(self):
        r = self.r
        v = r.choice([v for v in self.vars if v.writable])
        if len(v.shape) != 1:
            return self.write()
        n = v.shape[0]
        ids = [r.randrange(n) for _ in range(r.randrange(1, 5))]
        name = self.fresh('ids')
        add = r.random() < 0.5
        value, run = self.expression([len(ids)])
        if value[0].isdigit():
            return self.write()
        if not self.gradient:
            value = '%s %% %d' % (value, MODULUS)
        self.emit('let %s: i32[%d] = %s' % (name, len(ids), ids))
        self.emit('%s[%s] %s %s' % (v.name, name, '+=' if add else '=', value))

        def do(e):
            new, got = list(e[v.name]), run(e)
            for k, y in zip(ids, got):
                y = y if self.gradient else y % MODULUS
                new[k] = new[k] + y if add else y
            e[v.name] = new
        return do

    def snapshot(self):
        v = self.r.choice(self.vars)
        shape = self.shapes(v)
        found = self.access(v, shape)
        if not found or len(self.vars) > 12:
            return self.write()
        text, places = found
        name = self.fresh('a')
        writable = self.r.random() < 0.4
        self.emit('%s %s = %s' % ('var' if writable else 'let', name, text))
        self.vars.append(Var(name, shape, writable and bool(shape)))

        def do(e):
            e[name] = [e[v.name][k] for k in places(e)]
        return do

    def swap(self):
        pairs = [(a, b) for a in self.vars for b in self.vars if a is not b and a.writable and b.writable and a.shape == b.shape and a.shape]
        if not pairs:
            return self.write()
        a, b = self.r.choice(pairs)
        name = self.fresh('t')
        self.emit('let %s = %s' % (name, a.name))
        self.emit('%s = %s' % (a.name, b.name))
        self.emit('%s = %s' % (b.name, name))

        def do(e):
            e[a.name], e[b.name] = e[b.name], e[a.name]
        return do

    def block(self, count, first=()):
        """Statements of a region of their own: what they declare ends with it."""
        variables, numbers = list(self.vars), list(self.numbers)
        self.depth += 1
        for line in first:
            self.emit(line)
        run = self.statements(count)
        self.depth -= 1
        self.vars, self.numbers = variables, numbers
        return run

    def branch(self):
        text, test = self.condition()
        self.emit('if %s {' % text)
        first = self.block(self.r.randrange(1, 4))
        second = None
        if self.r.random() < 0.6:
            self.emit('} else {')
            second = self.block(self.r.randrange(1, 4))
        self.emit('}')

        def do(e):
            if test(e):
                first(e)
            elif second:
                second(e)
        return do

    def loop(self):
        r = self.r
        if self.loops >= 2:
            return self.write()
        self.loops += 1
        name = self.fresh('t')
        lo, hi = r.choice([0, 0, 1]), r.choice([2, 3, self.R - 1, self.R])
        hi = max(hi, lo + 1)
        ends = [x for x in self.numbers if x.lo >= 0 and x.hi <= 7 and x.text.isidentifier()]
        end = r.choice(ends) if ends and r.random() < 0.3 else None
        self.emit('for %s in %d..%s {' % (name, lo, ('%s <= %d' % (end.text, max(1, end.hi)) if self.gradient else end.text) if end else hi))
        number = Number(name, lambda e: e[name], lo, (end.hi if end else hi) - 1)
        kept = list(self.numbers)
        self.numbers.append(number)
        first = []
        if r.random() < 0.3:  # the counter in a narrower type, moved
            narrow, by = self.fresh('p'), r.choice([0, 1])
            first = ['let %s = %s(%s) + %d' % (narrow, r.choice(['i32', 'i16', 'u8']), name, by)]
            self.numbers.append(Number(narrow, lambda e: number.run(e) + by, number.lo + by, number.hi + by))
        body = self.block(r.randrange(1, 5), first)
        self.numbers = kept
        self.emit('}')
        self.loops -= 1

        def do(e):
            for t in range(lo, end.run(e) if end else hi):
                e[name] = t
                body(e)
        return do

    def while_loop(self):
        if self.loops >= 2:
            return self.write()
        self.loops += 1
        name, trips = self.fresh('w'), self.r.randrange(1, 5)
        self.emit('var %s: i64 = 0' % name)
        self.emit('while %s < %d%s {' % (name, trips, ' limit 6' if self.gradient else ''))
        kept = list(self.numbers)
        self.numbers.append(Number(name, lambda e: e[name], 0, trips - 1))
        body = self.block(self.r.randrange(1, 4))
        self.numbers = kept
        self.emit('    %s += 1' % name)
        self.emit('}')
        self.loops -= 1

        def do(e):
            e[name] = 0
            while e[name] < trips:
                body(e)
                e[name] += 1
        return do

    def helper(self):
        targets = [v for v in self.vars if v.writable and v.shape == [self.R, self.C]]
        if not targets or self.loops > 1:
            return self.write()
        v = self.r.choice(targets)
        p = Program(self.r, self.name + '_h%d' % len(self.helpers), self.gradient)
        p.R, p.C, p.loops = self.R, self.C, 1
        p.vars, p.numbers = [Var('w', [self.R, self.C])], [Number('k', lambda e: e['k'], 0, 2)]
        body = p.statements(self.r.randrange(1, 4))
        self.helpers.append('fn %s(inout w: %s[%d, %d], k: i64) {\n%s\n}\n' % (p.name, self.type, self.R, self.C, '\n'.join(p.lines)))
        self.helpers += p.helpers
        k = self.r.randrange(3)
        self.emit('%s(inout %s, %d)' % (p.name, v.name, k))

        def do(e):
            inner = {'w': e[v.name], 'k': k, 'flag': False}
            body(inner)
            e[v.name] = inner['w']
        return do

    def claim(self):
        if self.gradient or self.loops:
            return self.write()
        text, test = self.condition()
        other, or_test = self.condition()
        self.emit('assert (%s) or (%s), "claim"' % (text, other))

        def do(e):
            if not (test(e) or or_test(e)):
                raise Failed
        return do

    def statements(self, count):
        r = self.r
        kinds = [self.write] * 8 + [self.snapshot] * 3 + [self.swap, self.branch, self.branch, self.loop, self.loop, self.while_loop, self.scatter]
        if self.depth == 1:
            kinds += [self.helper, self.claim] if '_h' not in self.name else []
        done = []
        for _ in range(count):
            kind = r.choice(kinds)
            if self.depth > 3 and kind in (self.branch, self.loop, self.while_loop):
                kind = self.write
            if kind == self.scatter and '_h' in self.name:
                kind = self.write
            done.append(kind())

        def run(e):
            for f in done:
                f(e)
        return run

    # -- the whole
    def build(self):
        r, t = self.r, self.type
        matrix, vector = [self.R, self.C], [self.C]
        self.vars = [Var('x', matrix, False), Var('u', vector, False)]
        self.numbers = [Number('n', lambda e: e['n'], 0, 3)]
        self.state = None if self.gradient or r.random() < 0.4 else self.name + '_s'
        self.inout = not self.gradient and r.random() < 0.4
        if self.state:
            self.vars.append(Var(self.state, matrix))
        if self.inout:
            self.vars.append(Var('q', matrix))
        self.emit('let flag = n > 1')
        start = []
        for name, shape in (('z', matrix), ('y', matrix), ('v', vector)):
            text, run = r.choice([self.leaf(shape), self.expression(shape, 1)])
            if text[0].isdigit():
                continue
            self.emit('var %s: %s = %s' % (name, t + str(shape), text))
            self.vars.append(Var(name, shape))
            start.append((name, run))
        body = self.statements(r.randrange(4, 11))
        results = [v for v in self.vars if v.name in ('z', 'y', 'v')] or [self.vars[0]]
        if self.gradient:
            parts = ['sum(%s * %d)' % (v.name, k + 1) for k, v in enumerate(results)]
            self.emit('let loss = %s' % ' + '.join(parts))
            self.emit('let g = grad(loss, x)')
            shape_text = '(%s)' % ', '.join(['%s[%d, %d]' % (t, self.R, self.C), t])
            self.emit('return g, loss')
        else:
            extra = [v for v in self.vars if v.name[0] == 'a' and v.shape][:2]
            results = results + extra
            shape_text = '(%s)' % ', '.join(t + str(v.shape) for v in results)
            self.emit('return %s' % ', '.join(v.name for v in results))

        def run(e):
            e['flag'] = e['n'] > 1
            for name, f in start:
                e[name] = f(e)
            body(e)
            if not self.gradient:
                return [(v.shape, e[v.name]) for v in results]
            loss = Dual(0)
            for k, v in enumerate(results):
                for x in e[v.name]:
                    loss = loss + x * Dual(k + 1)
            return [(matrix, [(loss.d or {}).get(i, 0) for i in range(size(matrix))]), ([], [loss.v])]
        self.run = run
        head = ''.join(self.helpers)
        if self.state:
            head += 'state %s: %s[%d, %d] = 2\n' % (self.state, t, self.R, self.C)
        shape_text = shape_text[1:-1] if shape_text.count('[') + shape_text.count(t) == 2 and ', ' + t not in shape_text else shape_text
        return head + 'export fn %s(x: %s[%d, %d], u: %s[%d], n: i64%s) -> %s {\n%s\n}\n' % (
            self.name, t, self.R, self.C, t, self.C, ', inout q: %s[%d, %d]' % (t, self.R, self.C) if self.inout else '', shape_text,
            '\n'.join(self.lines))

    def calls(self, r, count):
        """Inputs, and what must come out: (inputs, None if the call fails else results, the inout argument after it)."""
        out = []
        state = [2] * (self.R * self.C)
        for _ in range(count):
            x = [r.randrange(0, 5 if self.gradient else MODULUS) for _ in range(self.R * self.C)]
            u = [r.randrange(0, 4 if self.gradient else MODULUS) for _ in range(self.C)]
            q = [r.randrange(MODULUS) for _ in range(self.R * self.C)]
            n = r.randrange(0, 4)
            e = {'x': [Dual(v, {i: 1}) for i, v in enumerate(x)] if self.gradient else x, 'u': [Dual(v) for v in u] if self.gradient else u, 'n': n,
                 'q': q}
            if self.state:
                e[self.state] = state
            try:
                results, after = self.run(e), e['q']
                if self.state:
                    state = e[self.state]
            except Failed:
                results, after = None, q
            inputs = {'x': (self.type, [self.R, self.C], x), 'u': (self.type, [self.C], u), 'n': ('i64', [], [n])}
            if self.inout:
                inputs['q'] = (self.type, [self.R, self.C], q)
            out.append((inputs, results, after))
        return out


def typed(inputs):
    return {k: behaviour.Array(t, s, [float(v) for v in d] if t == 'f64' else d) for k, (t, s, d) in inputs.items()}


def make(seed, count, mxcc, folder):
    """A file of programs the compiler takes; a refused one is an answer, too, unless it crashed."""
    r = random.Random(seed)
    programs, texts, problems, refused = [], [], [], 0
    while len(programs) < count and refused < 20 * count:
        p = Program(r, 'f%d' % len(programs), r.random() < 0.35)
        try:
            text = p.build()
            calls = p.calls(random.Random(r.random()), 3)
        except TooLarge:
            refused += 1
            continue
        programs.append((p, calls))
        texts.append(text)
    path = os.path.join(folder, 'model.mxl')
    for _ in range(count):
        with open(path, 'w', encoding='utf-8') as f:
            f.write('\n'.join(texts))
        c = subprocess.run([mxcc, 'check', path, '-Wnone'], capture_output=True, text=True)
        if c.returncode == 0:
            break
        if c.returncode != 1:
            problems.append('mxcc check ended with status %d: %s' % (c.returncode, c.stderr[-2000:]))
        # An error names a line: the program there goes.
        bad = set()
        for m in behaviour.re.finditer(r'--> [^\n]*model\.mxl:(\d+)', c.stderr):
            at, total = int(m.group(1)), 0
            for k, t in enumerate(texts):
                total += t.count('\n') + 1
                if at <= total:
                    bad.add(k)
                    break
        if os.environ.get('SHOW_REFUSED'):
            print(c.stderr)
        if not bad:
            problems.append('mxcc check: %s' % c.stderr[-2000:])
            break
        texts = [t for k, t in enumerate(texts) if k not in bad]
        programs = [p for k, p in enumerate(programs) if k not in bad]
    return path, programs, problems


def check(model, p, calls, problems):
    m = model.instance()
    for number, (inputs, expected, after) in enumerate(calls):
        where = '%s, call %d' % (p.name, number)
        status, got = model.call(m, p.name, typed(inputs))
        if (status != 0) != (expected is None):
            problems.append('%s: status %d, expected %s: %s' % (where, status, 'a failed assert' if expected is None else 'results', got))
            break
        if status == 0:
            for k, ((shape, data), a) in enumerate(zip(expected, got[0])):
                if list(a.data) != list(data):
                    problems.append('%s, result %d: %s, expected %s' % (where, k, list(a.data), list(data)))
            if p.inout and list(got[1][0].data) != list(after):
                problems.append('%s: inout argument is %s, expected %s' % (where, list(got[1][0].data), list(after)))
    model.free(m)


def batch(o, seed):
    folder = os.path.join(o.keep, 'seed-%d' % seed)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    path, programs, problems = make(seed, o.batch, o.mxcc, folder)
    if programs and not problems:
        try:
            model = behaviour.Model(o.mxcc, path, folder, ['-O', '0', '--verify', '-Wnone'])
            for k, (p, calls) in enumerate(programs):
                check(model, p, calls, problems)
                if o.eager and k % o.eager == 0 and not p.state and not p.inout:
                    inputs, expected, _ = calls[0]
                    status, got = behaviour.eager(o.mxcc, path, p.name, typed(inputs), folder, model.signatures[p.name])
                    if (status != 0) != (expected is None):
                        problems.append('%s, eagerly: status %d: %s' % (p.name, status, got))
                    elif status == 0 and any(list(a.data) != list(d) for a, (_, d) in zip(got, expected)):
                        problems.append('%s, eagerly: %s, expected %s' % (p.name, [list(a.data) for a in got], [d for _, d in expected]))
        except behaviour.Failure as e:
            problems.append(str(e))
    if not problems:
        shutil.rmtree(folder)
    return seed, len(programs), problems, folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--programs', type=int, default=400)
    parser.add_argument('--batch', type=int, default=50, help='programs of a file')
    parser.add_argument('--eager', type=int, default=4, help='run every Nth eagerly, too')
    parser.add_argument('--seconds', type=float, default=0, help='begin no more batches after that long')
    parser.add_argument('--keep', help='where failing batches stay')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    o = parser.parse_args()
    o.mxcc = os.path.abspath(o.mxcc)
    o.keep = os.path.abspath(o.keep) if o.keep else tempfile.mkdtemp(prefix='mxcc-mutation-')
    passed = failed = 0
    start, batches = time.time(), range(o.seed, o.seed + -(-o.programs // o.batch))

    def timed(seed):
        return batch(o, seed) if not o.seconds or time.time() - start < o.seconds else (seed, 0, [], '')
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        for seed, n, problems, folder in pool.map(timed, batches):
            failed += len(problems)
            passed += max(0, n - len(problems))
            for x in problems[:5]:
                print('seed %d (%s): %s' % (seed, folder, x))
            sys.stdout.flush()
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
