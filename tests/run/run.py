#!/usr/bin/env python3
"""Behaviour tests: runs the exported functions of .mxl files eagerly and compiled, and compares both with what the file expects.

    run.py [--mxcc build/mxcc] [--filter WORD] [--docs docs/language.md] FILE-or-FOLDER...

A comment that begins with `//>` is an expectation; `//|` continues it. Inputs are by name, results by position:

    //> double x=[[1, 2], [3, 4]] -> [[2, 4], [6, 8]]        called like this, it gives that
    //> moments x=rand(3, 4) -> *                            eager and compiled agree, whatever the numbers
    //> both a=1 b=true -> 3; [1, 2]                         several results
    //> pick i=9 fails index                                 the call fails with a message containing the text
    //> gradient relu x=rand(3, 4)                           relu gives (y, dx, …): finite differences of y confirm each d… given

Numbers may be inf and nan; rand(2, 3), rand(2, 3, lo=0, hi=1), ints(5, lo=0, hi=9), arange(2, 3) make arrays. A file's first lines may say
`//: build FLAGS` (more flags for `mxcc build`) and `//: extern FILE.c` (C beside it that its functions call). Tolerances: 1e-5 of the largest entry in f32, 1e-9 in f64, 2^-7 in bf16, 2^-9 in f16, integers
exactly. With MXCC_EMULATION (see tests/cuda/run.py) the compiled side is the CUDA unit, run by the emulation.
Only Python's standard library is needed. The last line is `N passed, N failed`; exit status 1 if any failed.
"""
import argparse
import ast
import concurrent.futures
import ctypes
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import zlib

TYPES = {  # name: (npy descr, struct format, ctypes type)
    'f64': ('<f8', 'd', ctypes.c_double), 'f32': ('<f4', 'f', ctypes.c_float), 'f16': ('<f2', 'e', ctypes.c_uint16),
    'bf16': ('<u2', 'H', ctypes.c_uint16), 'i64': ('<i8', 'q', ctypes.c_int64), 'i32': ('<i4', 'i', ctypes.c_int32),
    'i16': ('<i2', 'h', ctypes.c_int16), 'i8': ('|i1', 'b', ctypes.c_int8), 'u64': ('<u8', 'Q', ctypes.c_uint64),
    'u32': ('<u4', 'I', ctypes.c_uint32), 'u16': ('<u2', 'H', ctypes.c_uint16), 'u8': ('|u1', 'B', ctypes.c_uint8),
    'bool': ('|b1', '?', ctypes.c_bool),
}
TOLERANCE = {'f64': 1e-9, 'f32': 1e-5, 'f16': 2.0 ** -9, 'bf16': 2.0 ** -7}


class Failure(Exception):
    pass


class Array:
    """A type name, a shape and the elements in row-major order; bf16 elements are floats."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, list(shape), list(data)

    def copy(self):
        return Array(self.dtype, self.shape, self.data)

    def packed(self):
        data = self.data
        if self.dtype == 'bf16':
            data = [struct.unpack('<I', struct.pack('<f', x))[0] + 0x8000 >> 16 & 0xffff for x in data]
        return struct.pack('<%d%s' % (len(data), TYPES[self.dtype][1]), *data)

    @staticmethod
    def unpacked(dtype, shape, raw):
        n = math.prod(shape)
        data = struct.unpack('<%d%s' % (n, TYPES[dtype][1]), raw[:n * struct.calcsize(TYPES[dtype][1])])
        if dtype == 'bf16':
            data = [struct.unpack('<f', struct.pack('<I', x << 16))[0] for x in data]
        return Array(dtype, shape, data)

    def __str__(self):
        shown = ', '.join('%.9g' % x if isinstance(x, float) else str(x) for x in self.data[:12])
        return '%s%s [%s%s]' % (self.dtype, self.shape, shown, ', …' if len(self.data) > 12 else '')


def write_npy(path, a):
    if a.dtype == 'bf16':
        a = Array('f32', a.shape, a.data)
    head = "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }" % (TYPES[a.dtype][0], ''.join('%d,' % n for n in a.shape))
    head += ' ' * (-(10 + len(head) + 1) % 64) + '\n'
    with open(path, 'wb') as f:
        f.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head.encode() + a.packed())


def read_npy(path, dtype):
    with open(path, 'rb') as f:
        raw = f.read()
    length = struct.unpack('<H', raw[8:10])[0]
    head = ast.literal_eval(raw[10:10 + length].decode())
    descr = head['descr']
    if descr != TYPES[dtype][0] and not (dtype == 'bf16' and descr == '<u2'):
        raise Failure('%s holds %s, expected %s' % (os.path.basename(path), descr, dtype))
    return Array.unpacked(dtype, head['shape'], raw[10 + length:])


# ---- values in expectations ------------------------------------------------------------------------------------------------

def flatten(v):
    if not isinstance(v, list):
        return [], [v]
    if not v:
        return [0], []
    parts = [flatten(x) for x in v]
    if any(s != parts[0][0] for s, _ in parts):
        raise Failure('a ragged list')
    return [len(v)] + parts[0][0], [x for _, d in parts for x in d]


def value(text):
    """A literal or a generator as (shape, elements)."""
    seed = zlib.crc32(text.encode())

    def rand(*shape, lo=-1.0, hi=1.0):
        r = random.Random(seed)
        return list(shape), [r.uniform(lo, hi) for _ in range(math.prod(shape))]

    def ints(*shape, lo=0, hi=9):
        r = random.Random(seed)
        return list(shape), [r.randrange(lo, hi) for _ in range(math.prod(shape))]

    def arange(*shape, first=0, step=1):
        return list(shape), [first + step * i for i in range(math.prod(shape))]

    names = {'inf': math.inf, 'nan': math.nan, 'true': True, 'false': False, 'rand': rand, 'ints': ints, 'arange': arange, 'pi': math.pi}
    v = eval(text, {'__builtins__': {}}, names)
    return v if isinstance(v, tuple) else flatten(v)


def typed(dtype, text):
    shape, data = value(text)
    if dtype in TOLERANCE:
        a = Array(dtype, shape, [float(x) for x in data])
        return Array.unpacked(dtype, shape, a.packed())  # rounded to the type
    return Array(dtype, shape, [bool(x) if dtype == 'bool' else int(x) for x in data])


def same(a, b, scale=1.0):
    """None, or what differs."""
    if a.shape != b.shape:
        return 'shape %s, expected %s' % (a.shape, b.shape)
    if a.dtype not in TOLERANCE:
        for i, (x, y) in enumerate(zip(a.data, b.data)):
            if x != y:
                return 'element %d is %s, expected %s' % (i, x, y)
        return None
    finite = [abs(y) for y in b.data if math.isfinite(y)]
    bound = TOLERANCE[a.dtype] * scale * max([1e-3] + finite)
    for i, (x, y) in enumerate(zip(a.data, b.data)):
        if x == y or math.isnan(x) and math.isnan(y):
            continue
        if not abs(x - y) <= bound:
            return 'element %d is %.12g, expected %.12g (tolerance %.2g)' % (i, x, y, bound)
    return None


# ---- files ------------------------------------------------------------------------------------------------------------------

def split_top(text, separator):
    """Splits at separators outside brackets."""
    parts, depth, last = [], 0, 0
    for i, c in enumerate(text):
        depth += c in '([{'
        depth -= c in ')]}'
        if c == separator and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return [p.strip() for p in parts + [text[last:]] if p.strip()]


class Expectation:
    def __init__(self, line, text):
        self.line, self.text = line, text
        self.fails = self.results = None
        self.gradient = text.startswith('gradient ')
        if self.gradient:
            text = text[9:]
        if ' fails ' in text:
            text, self.fails = [s.strip() for s in text.split(' fails ', 1)]
        elif '->' in text:
            text, results = [s.strip() for s in text.split('->', 1)]
            self.results = None if results == '*' else split_top(results, ';')
        words = split_top(text.strip(), ' ')
        self.function = words[0]
        self.inputs = dict(w.split('=', 1) for w in words[1:])


def expectations(path):
    found, flags, sources = [], [], []
    with open(path, encoding='utf-8') as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if line.startswith('//: build '):
                flags = line[10:].split()
                if os.environ.get('MXCC_TEST_SERIAL'):  # libmxrt of a sanitized build cannot be loaded into Python
                    flags = [w for w in flags if w != '--threads']
            elif line.startswith('//: extern '):
                sources = [os.path.join(os.path.dirname(os.path.abspath(path)), w) for w in line[11:].split()]
            elif line.startswith('//>'):
                found.append([number, line[3:].strip()])
            elif line.startswith('//|'):
                found[-1][1] += ' ' + line[3:].strip()
    return [Expectation(n, t) for n, t in found], flags, sources


# ---- the compiled model ------------------------------------------------------------------------------------------------------

class Signature:
    """Read from the comment above each function of the generated header:
    f(x: f32[N, 4], inout w: f32[4]) -> y: f32[N], n: i64; 1 <= N <= 8"""

    def __init__(self, name, params, results, bounds):
        self.name = name
        self.params = [self.entry(p) for p in split_top(params, ',')]
        self.results = [self.entry(r) for r in split_top(results or '', ',')]
        self.symbols = re.findall(r'\d+ <= (\w+) <= \d+', bounds)

    @staticmethod
    def entry(text):
        m = re.match(r'(inout )?(\w+): (\w+)(?:\[(.*)\])?$', text)
        if not m:
            raise Failure('cannot read `%s` in the header' % text)
        return m.group(2).rstrip('_'), m.group(3), split_top(m.group(4) or '', ','), bool(m.group(1))


def header_signatures(path, prefix):
    with open(path, encoding='utf-8') as f:
        text = f.read()
    out = {}
    for m in re.finditer(r'(?:/\*|\n \*) (\w+)\(((?:(?!\*/).)*?)\)(?: -> (.*?))?(?:; ((?:\d+ <= \w+ <= \d+(?:, )?)+.*?))? \*/\nmx_status %s_(\w+)\((.*?)\);' % prefix,
                         text, re.S):
        s = Signature(m.group(1), m.group(2), m.group(3), m.group(4) or '')
        s.arguments = m.group(6)
        written = {n.rstrip('_') for const, n in re.findall(r'(const )?\w+ \*(\w+)(?=,|$)', s.arguments.partition(',')[2]) if not const}
        s.params = [(n, t, shape, n in written) for n, t, shape, _ in s.params]
        out[m.group(1)] = s
    return out


class Model:
    def __init__(self, mxcc, path, folder, flags):
        self.prefix = 'model'
        library = os.path.join(folder, 'libmodel.so')
        if os.environ.get('MXCC_EMULATION'):
            build_emulated(mxcc, path, folder, library, flags)
        elif os.environ.get('MXCC_TARGET') == 'cuda':  # on a GPU: tests/cuda/gpu.py
            self.run([mxcc, 'build', '--target', 'cuda', path, '-o', library, *cuda_flags(flags)])
        else:
            self.run([mxcc, 'build', path, '-o', library, *flags])
        self.signatures = header_signatures(os.path.join(folder, 'model.h'), self.prefix)
        self.lib = ctypes.CDLL(library)

    @staticmethod
    def run(command):
        p = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if p.returncode != 0:
            raise Failure('%s\n%s%s' % (' '.join(command), p.stdout[-2000:], p.stderr[-4000:]))

    def instance(self):
        m = ctypes.c_void_p()
        init = self.lib.model_init
        init.restype = ctypes.c_int
        if init(ctypes.byref(m), None, ctypes.c_size_t(0), None) != 0:
            raise Failure('model_init failed')
        return m

    def free(self, m):
        self.lib.model_free(m)

    def typed_inputs(self, function, inputs):
        s = self.signatures[function]
        names = [p[0] for p in s.params]
        for name in inputs:
            if name not in names:
                raise Failure('%s has no parameter %s' % (function, name))
        if len(inputs) != len(names):
            raise Failure('%s needs %s' % (function, ', '.join(names)))
        return {n: typed(t, inputs[n]) for n, t, _, _ in s.params}

    def call(self, m, function, inputs):
        s = self.signatures[function]
        dims, held, args = {}, [], []
        for name, dtype, shape, inout in s.params:
            a = inputs[name]
            if len(a.shape) != len(shape):
                raise Failure('%s has %d dimensions, expected %d' % (name, len(a.shape), len(shape)))
            for d, n in zip(shape, a.shape):
                if d.isidentifier():
                    dims.setdefault(d, n)
        found = []
        for name, dtype, shape, inout in s.params:
            a = inputs[name]
            raw = ctypes.create_string_buffer(a.packed() or b'\0')
            held.append((name, dtype, a.shape, inout, raw))
            kind = TYPES[dtype][2]
            args.append(kind.from_buffer(raw) if not a.shape and not inout else ctypes.cast(raw, ctypes.c_void_p))
        # results: dimensions only named there are found by the call
        symbols = [ctypes.c_int64(dims[d]) for d in s.symbols if d in dims]
        extra = []
        for m2 in re.finditer(r'int64_t \*(\w+)', s.arguments):
            if m2.group(1).rstrip('_') not in [p[0] for p in s.params] + [r[0] for r in s.results]:
                found.append((m2.group(1), ctypes.c_int64()))
        buffers = []
        for name, dtype, shape, _ in s.results:
            n = 1
            for d in shape:
                n *= self.extent(d, dims, 4096)
            buffers.append(ctypes.create_string_buffer(max(n, 1) * struct.calcsize(TYPES[dtype][1])))
        f = getattr(self.lib, '%s_%s' % (self.prefix, function))
        f.restype = ctypes.c_int
        status, given = 0, [*symbols, *args]
        if hasattr(self.lib, '%s_%s_ran' % (self.prefix, function)):  # incremental: inputs are set one by one
            given = []
            for (name, _, shape, _), a in zip(s.params, args):
                own = [ctypes.c_int64(dims[d]) for d in s.symbols if any(re.search(r'\b%s\b' % d, e) for e in shape)]
                status = status or getattr(self.lib, '%s_%s_set_%s' % (self.prefix, function, name))(m, *own, a)
        status = status or f(m, *given, *[ctypes.byref(x) for _, x in found], *buffers)
        if status != 0:
            error = self.lib.model_error
            error.restype = ctypes.c_char_p
            return status, error(m).decode()
        for name, x in found:
            dims[name] = x.value
        unknown = [d for _, _, shape, _ in s.results for d in shape if d.isidentifier() and d not in dims]
        for d, (_, x) in zip(dict.fromkeys(unknown), found):
            dims[d] = x.value
        out = []
        for name, dtype, shape, inout, raw in held:
            if inout:
                out.append(Array.unpacked(dtype, shape, raw.raw))
        results = [Array.unpacked(dtype, [self.extent(d, dims, None) for d in shape], b.raw)
                   for (name, dtype, shape, _), b in zip(s.results, buffers)]
        return 0, (results, out)

    @staticmethod
    def extent(text, dims, unknown):
        """A dimension of the header's comment: a polynomial of symbols, with floor divisions."""
        try:
            return int(eval(text.replace('/', '//'), {'__builtins__': {}, 'max': max, 'min': min}, dict(dims)))
        except NameError:
            if unknown is None:
                raise
            return unknown


def build_emulated(mxcc, path, folder, library, flags=()):
    """The .cu of a model by the host's compiler, with the emulation for the CUDA runtime, as a library."""
    emulation = os.environ['MXCC_EMULATION']  # emulation.o, beside it the compiler and its flags
    with open(emulation + '.flags', encoding='utf-8') as f:
        compiler = f.read().split('\n')
    unit, objects = os.path.join(folder, 'model.cu'), []
    Model.run([mxcc, path, '-o', unit, *cuda_flags(flags)])
    Model.run([*compiler, '-I' + os.path.dirname(os.path.abspath(path)), '-x', 'c++', '-c', unit, '-o', unit + '.o'])
    for source in os.environ.get('CFLAGS', '').split():
        if source.endswith('.c'):  # of extern functions
            objects.append(os.path.join(folder, os.path.basename(source) + '.o'))
            Model.run([os.environ.get('CC', 'cc'), '-fPIC', '-O1', '-c', source, '-o', objects[-1]])
    Model.run([compiler[0], '-shared', '-o', library, unit + '.o', *objects, emulation, '-lm'])


def cuda_flags(flags):
    """Those that say something to the CUDA target: --cpu, --threads, --blas and the like are of C."""
    kept, skip = [], False
    for w in flags:
        if not skip and w not in ('--threads', '--no-runtime') and not w.startswith(('--cpu', '--blas', '--split', '-O')):
            kept.append(w)
        skip = w in ('--cpu', '--blas', '--split', '-O')
    return kept


# ---- running -----------------------------------------------------------------------------------------------------------------

def eager(mxcc, path, function, inputs, folder, signature):
    out = os.path.join(folder, 'out')
    os.makedirs(out, exist_ok=True)
    for f in os.listdir(out):
        os.remove(os.path.join(out, f))
    command = [mxcc, 'run', path, '--call', function, '--out', out]
    for name, a in inputs.items():
        npy = os.path.join(folder, name + '.npy')
        write_npy(npy, a)
        command += ['--in', '%s=%s' % (name, npy)]
    p = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if p.returncode != 0:
        return p.returncode, p.stdout + p.stderr
    results = []
    for name, dtype, _, _ in signature.results:
        file = os.path.join(out, name + '.npy')
        if not os.path.exists(file):  # a result named like a parameter has another name in C
            file = os.path.join(out, re.sub(r'_\d+$', '', name) + '.npy')
        results.append(read_npy(file, dtype))
    return 0, results


def finite_differences(model, m, e, inputs, results):
    """The first result is the value; a result named dx (or x_gradient) is its gradient by x."""
    s = model.signatures[e.function]
    checked = 0
    for (name, dtype, _, _), given in list(zip(s.results, results))[1:]:
        target = name[1:] if name.startswith('d') and name[1:] in inputs else None
        if target is None:
            continue
        checked += 1
        a = inputs[target]
        expected = []
        for i in range(len(a.data)):
            steps = []
            for h in (1e-4, 5e-5):
                ends = []
                for sign in (1, -1):
                    moved = dict(inputs)
                    moved[target] = a.copy()
                    moved[target].data[i] += sign * h
                    status, r = model.call(m, e.function, moved)
                    if status != 0:
                        raise Failure('a shifted call failed: %s' % r)
                    ends.append(r[0][0].data[0])
                steps.append((ends[0] - ends[1]) / (2 * h))
            expected.append((4 * steps[1] - steps[0]) / 3)  # Richardson: error h^4
        difference = same(given, Array(dtype, a.shape, expected), 1e3)  # 1e-6: what differences can resolve
        if difference:
            raise Failure('the gradient %s against finite differences: %s' % (name, difference))
    if not checked:
        raise Failure('no result d… names an input')


def run_expectation(mxcc, path, model, e, folder):
    if e.function not in model.signatures:
        raise Failure('there is no exported function %s in the header' % e.function)
    inputs = model.typed_inputs(e.function, e.inputs)
    s = model.signatures[e.function]
    m = model.instance()
    try:
        status, got = model.call(m, e.function, inputs)
        code, direct = eager(mxcc, path, e.function, inputs, folder, s)
        if e.fails:
            if status == 0:
                raise Failure('compiled: it was expected to fail')
            if e.fails not in got:
                raise Failure('compiled: the message is `%s`' % got)
            if code == 0 or code > 2:
                raise Failure('eager: exit status %d, expected to fail' % code)
            if e.fails not in direct:
                raise Failure('eager: the message is `%s`' % direct.strip())
            return
        if status != 0:
            raise Failure('compiled: status %d: %s' % (status, got))
        if code != 0:
            raise Failure('eager: exit status %d: %s' % (code, direct.strip()[-1500:]))
        got, _ = got
        for (name, _, _, _), a, b in zip(s.results, got, direct):
            difference = same(b, a)
            if difference:
                raise Failure('eager against compiled, %s: %s' % (name, difference))
        if e.results is not None:
            if len(e.results) != len(got):
                raise Failure('%d results, %d expected' % (len(got), len(e.results)))
            for (name, dtype, _, _), a, text in zip(s.results, got, e.results):
                if text == '*':
                    continue
                difference = same(a, typed(dtype, text))
                if difference:
                    raise Failure('%s = %s: %s' % (name, a, difference))
        if e.gradient:
            finite_differences(model, m, e, inputs, got)
    finally:
        model.free(m)


def run_file(mxcc, path, only):
    passed, failures = 0, []
    wanted, flags, sources = expectations(path)
    if only:
        wanted = [e for e in wanted if only in e.text or only in path]
    if not wanted:
        return 0, [] if only else ['%s: no expectation' % path]
    with tempfile.TemporaryDirectory(prefix='mxcc-run-') as folder:
        try:
            if sources:
                library = os.path.join(folder, 'extern.so')
                Model.run([os.environ.get('CC', 'cc'), '-shared', '-fPIC', '-O1', '-o', library, *sources])
                os.environ['MXCC_EXTERN_LIBRARY'] = library
                os.environ['CFLAGS'] = ' '.join([os.environ.get('CFLAGS', ''), '-I' + os.path.dirname(sources[0]), *sources])
            model = Model(mxcc, path, folder, flags)
        except (Failure, subprocess.TimeoutExpired, OSError) as x:
            return 0, ['%s: %s' % (path, x)] + ['%s:%d: not run' % (path, e.line) for e in wanted[1:]]
        for e in wanted:
            try:
                run_expectation(mxcc, path, model, e, folder)
                passed += 1
            except (Failure, subprocess.TimeoutExpired, SyntaxError, NameError, TypeError, FileNotFoundError, struct.error) as x:
                failures.append('%s:%d: %s\n    %s' % (path, e.line, e.text, x))
    return passed, failures


def isolated(mxcc, path, only):
    """In a process of its own: generated code that crashes ends only its file."""
    p = subprocess.run([sys.executable, os.path.abspath(__file__), '--mxcc', mxcc, '--one', path, '--filter', only], capture_output=True, text=True)
    for line in p.stdout.splitlines():  # among what the models print
        try:
            if line.startswith('{"passed"'):
                result = json.loads(line)
                return result['passed'], result['failures']
        except ValueError:
            pass
    return 0, ['%s: ended with status %d: %s' % (path, p.returncode, (p.stdout + p.stderr)[-2000:])]


def code_blocks(path, folder):
    """The ```mxl blocks of a Markdown file as files; `error E0204` behind the word says which error they give."""
    out = []
    with open(path, encoding='utf-8') as f:
        text = f.read()
    for m in re.finditer(r'^```mxl *([^\n]*)\n(.*?)^```', text, re.S | re.M):
        if m.group(1).split()[:1] and m.group(1).split()[0].endswith('.mxl'):
            continue  # a file of tests/docs/run.py
        line = text.count('\n', 0, m.start()) + 2
        name = os.path.join(folder, 'line%d.mxl' % line)
        with open(name, 'w', encoding='utf-8') as f:
            f.write(m.group(2))
        out.append((line, m.group(1), name))
    return out


def run_docs(mxcc, path, folder):
    passed, failures = 0, []
    for line, info, name in code_blocks(path, folder):
        p = subprocess.run([mxcc, 'check', name], capture_output=True, text=True)
        wrong = re.search(r'error E(\d+)', info)
        if wrong:
            if p.returncode == 1 and 'E' + wrong.group(1) in p.stderr:
                passed += 1
            else:
                failures.append('%s:%d: expected the error E%s: %s' % (path, line, wrong.group(1), p.stderr[-1500:]))
            continue
        if p.returncode != 0:
            failures.append('%s:%d: does not compile: %s' % (path, line, p.stderr[-1500:]))
            continue
        passed += 1
        if expectations(name)[0]:
            n, wrong = isolated(mxcc, name, '')
            passed += n
            failures += ['%s:%d: %s' % (path, line, x) for x in wrong]
    return passed, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--filter', default='')
    parser.add_argument('--docs', action='append', default=[])
    parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    parser.add_argument('paths', nargs='*')
    o = parser.parse_args()
    o.mxcc = os.path.abspath(o.mxcc)
    if o.one:
        passed, failures = run_file(o.mxcc, o.paths[0], o.filter)
        print('\n' + json.dumps({'passed': passed, 'failures': failures}), flush=True)
        return 0
    files = []
    for p in o.paths:
        files += sorted(os.path.join(p, f) for f in os.listdir(p) if f.endswith('.mxl')) if os.path.isdir(p) else [p]
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix='mxcc-docs-') as folder, concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        work = [pool.submit(isolated, o.mxcc, f, o.filter) for f in files] + [pool.submit(run_docs, o.mxcc, d, folder) for d in o.docs]
        for w in work:
            n, failures = w.result()
            passed += n
            failed += len(failures)
            for x in failures:
                print(x)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
