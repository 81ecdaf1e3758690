"""An incremental function gives what the ordinary one gives, to the bit, after any changes of inputs, run-time dimensions, params and states.

Every exported function of a model that neither writes nor draws is compiled twice, once as `export incremental fn`. A driver in C
changes things at random in both instances (inputs one by one or all with other dimensions, buffers through `…_param`, calls of the
model's other functions, reset_all, save and load), and compares status and results. A second call without a change must run nothing but
what has effects. The driver and the portable unit are built without a warning and run under ASan and UBSan.
"""
import importlib.util
import os
import re

from common import ROOT, STRICT, Skip, expect, must, read, sh, stem, write

STEPS = 60
C_TYPES = {'f64': 'double', 'f32': 'float', 'f16': 'uint16_t', 'bf16': 'uint16_t', 'i64': 'int64_t', 'i32': 'int32_t', 'i16': 'int16_t',
           'i8': 'int8_t', 'u64': 'uint64_t', 'u32': 'uint32_t', 'u16': 'uint16_t', 'u8': 'uint8_t', 'bool': 'bool'}

DRIVER = r'''
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plain.h"
#include "inc.h"

#define max(a, b) ((a) > (b) ? (a) : (b)) /* as dimensions have them */
#define min(a, b) ((a) < (b) ? (a) : (b))
static uint64_t state = SEED;
static uint32_t draw(uint32_t n) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % n;
}
static const char *const types[] = {"f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool"};
static const size_t sizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};
static int type_of(const char *name) {
    int t = 0;
    while (strcmp(types[t], name) != 0)
        t++;
    return t;
}
/* Floats in [-2, 2], integers in [0, 3): likely to be good indices. */
static void fill(int type, void *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double d = (double)draw(4001) / 1000 - 2;
        float f = (float)d;
        uint32_t bits;
        uint64_t k = draw(3);
        memcpy(&bits, &f, sizeof bits);
        switch (type) {
        case 0: ((double *)to)[i] = d; break;
        case 1: ((float *)to)[i] = f; break;
        case 2: ((uint16_t *)to)[i] = (uint16_t)(0x3000 + draw(0x0fff)); break;
        case 3: ((uint16_t *)to)[i] = (uint16_t)(bits >> 16); break;
        case 12: ((bool *)to)[i] = draw(2) != 0; break;
        default: /* little-endian */ memcpy((char *)to + (size_t)i * sizes[type], &k, sizes[type]);
        }
    }
}
static bool is_nan(int type, const void *p) {
    if (type == 0) {
        double d;
        memcpy(&d, p, sizeof d);
        return d != d;
    }
    if (type == 1) {
        float f;
        memcpy(&f, p, sizeof f);
        return f != f;
    }
    return false;
}
static void same(const char *function, const char *name, int type, const void *a, const void *b, int64_t n, int step) {
    for (int64_t i = 0; i < n; i++) {
        const char *x = (const char *)a + (size_t)i * sizes[type], *y = (const char *)b + (size_t)i * sizes[type];
        if (memcmp(x, y, sizes[type]) != 0 && !(is_nan(type, x) && is_nan(type, y))) {
            printf("%s: step %d: %s differs at element %lld\n", function, step, name, (long long)i);
            exit(1);
        }
    }
}
static void expect(bool condition, const char *function, int step, const char *what) {
    if (!condition) {
        printf("%s: step %d: %s: `%s` and `%s`\n", function, step, what, plain_error(NULL), inc_error(NULL));
        exit(1);
    }
}
static const char *const buffers[] = {BUFFERS NULL};
static void poke(plain *p, inc *q) {
    mx_tensor a, b;
    if (!buffers[0])
        return;
    const char *name = buffers[draw(BUFFER_COUNT)];
    if (plain_param(p, name, &a) != MX_OK || inc_param(q, name, &b) != MX_OK || a.bytes != b.bytes)
        exit(2);
    fill((int)a.dtype, a.data, (int64_t)(a.bytes / sizes[a.dtype]));
    memcpy(b.data, a.data, a.bytes);
}
FUNCTIONS
int main(void) {
    plain *p;
    inc *q;
    plain_options po;
    inc_options qo;
    memset(&po, 0, sizeof po);
    memset(&qo, 0, sizeof qo);
    po.log = qo.log = quiet;
    if (plain_init(&p, NULL, 0, &po) != MX_OK || inc_init(&q, NULL, 0, &qo) != MX_OK)
        return 2;
    for (int step = 0; step < STEPS; step++) {
        switch (draw(8)) {
        case 0:
        case 1: poke(p, q); break;
        case 2:
            if (plain_reset_all(p) != MX_OK || inc_reset_all(q) != MX_OK)
                return 2;
            break;
        case 3:
            if (draw(4) == 0 && (plain_save(p, "state.safetensors") != MX_OK || inc_load(q, "state.safetensors") != MX_OK))
                return 2;
            break;
        CALLS
        default: break;
        }
        STEP
    }
    plain_free(p);
    inc_free(q);
    return 0;
}
'''


def behaviour():
    spec = importlib.util.spec_from_file_location('behaviour', os.path.join(ROOT, 'tests', 'run', 'run.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rename(env, source, folder):
    """A copy in which every function that may be is incremental; their names."""
    text = re.sub(r'^export (?=fn )', 'export incremental ', read(source), flags=re.M)
    path = os.path.join(folder, 'inc.mxl')
    for _ in range(3):
        write(path, text)
        r = sh([env.mxcc, path, '-o', os.path.join(folder, 'inc.c')], cwd=os.path.dirname(source))
        bad = set(re.findall(r'the incremental function `(\w+)`', r.err))
        if r.status == 0:
            break
        expect(bad, '%s', r)
        for name in bad:
            text = re.sub(r'^export incremental fn %s\b' % name, 'export fn ' + name, text, flags=re.M)
    return re.findall(r'^export incremental fn (\w+)', text, flags=re.M)


class Writer:
    """The C of one function: its inputs, results and calls."""

    def __init__(self, s, bounds, found):
        self.s, self.bounds, self.found, self.name = s, bounds, found, s.name

    def extent(self, shape):
        largest = {d: hi for d, (_, hi) in self.bounds.items()}
        n = 1
        for d in shape:
            n *= int(eval(d.replace('/', '//'), {'__builtins__': {}, 'max': max, 'min': min}, largest))
        return max(n, 1)

    def count(self, shape):
        return ' * '.join(['(int64_t)1'] + ['(%s)' % d for d in shape])

    def symbols(self, shape):
        return [d for d in self.bounds if d not in self.found and any(re.search(r'\b%s\b' % d, e) for e in shape)]

    def declare(self):
        out = []
        for d, (lo, hi) in self.bounds.items():
            out.append('static int64_t %s_%s = %d;' % (self.name, d, lo))
        for name, dtype, shape, inout in self.s.params:
            out.append('static %s %s_in_%s[%d]%s;' % (C_TYPES[dtype], self.name, name, self.extent(shape), ', %s_other_%s[%d]' % (
                self.name, name, self.extent(shape)) if inout else ''))
        for name, dtype, shape, _ in self.s.results:
            out.append('static %s %s_p_%s[%d], %s_q_%s[%d];' % (C_TYPES[dtype], self.name, name, self.extent(shape), self.name, name, self.extent(shape)))
        return '\n'.join(out)

    def bind(self):
        return ''.join('    int64_t %s = %s_%s; (void)%s;\n' % (d, self.name, d, d) for d in self.bounds)

    def fill(self, name, dtype, shape):
        return '    fill(type_of("%s"), %s_in_%s, %s);\n' % (dtype, self.name, name, self.count(shape))

    def resize(self):
        return ''.join('        %s = %s_%s = %d + (int64_t)draw(%d);\n' % (d, self.name, d, lo, min(hi - lo, 5) + 1)
                       for d, (lo, hi) in self.bounds.items() if d not in self.found)

    def call(self, prefix, m, which):
        dims = [d for d in self.bounds if d not in self.found]
        args = ['%s%s_in_%s' % ('' if shape or inout else '*', self.name, n) for n, _, shape, inout in self.s.params]
        if which == 'q':
            args = [a.replace('_in_', '_other_') if p[3] else a for a, p in zip(args, self.s.params)]
        found = ['&%s_%s' % (which, d) for d in self.found]
        results = ['%s_%s_%s' % (self.name, which, r[0]) for r in self.s.results]
        return '%s_%s(%s)' % (prefix, self.name, ', '.join([m] + dims + args + found + results))

    def compare(self):
        out = ''.join('    expect(p_%s == q_%s, "%s", step, "found");\n    %s = p_%s;\n' % (d, d, self.name, d, d) for d in self.found)
        for name, dtype, shape, _ in self.s.results:
            out += '    same("%s", "%s", type_of("%s"), %s_p_%s, %s_q_%s, %s, step);\n' % (self.name, name, dtype, self.name, name, self.name, name,
                                                                                             self.count(shape))
        return out

    def locals(self):
        return ''.join('    int64_t p_%s = 0, q_%s = 0;\n' % (d, d) for d in self.found)

    def incremental(self):
        """Changes some inputs, calls both, and once more without a change."""
        out = 'static void try_%s(plain *p, inc *q, int step) {\n%s%s    mx_status a, b;\n    static int64_t effects = -1;\n' % (
            self.name, self.bind(), self.locals())
        dims = [d for d in self.bounds if d not in self.found]
        out += '    bool all = step == 0%s;\n' % (' || draw(4) == 0' if dims else '')
        if dims:
            out += '    if (all) {\n%s    }\n' % self.resize()
        for name, dtype, shape, _ in self.s.params:
            given = ['q'] + self.symbols(shape) + ['%s%s_in_%s' % ('' if shape else '*', self.name, name)]
            out += '    if (all || draw(3) == 0) {\n    %s        if (inc_%s_set_%s(%s) != MX_OK)\n            exit(2);\n    }\n' % (
                self.fill(name, dtype, shape), self.name, name, ', '.join(given))
        again = 'inc_%s(%s)' % (self.name, ', '.join(['q'] + ['&q_%s' % d for d in self.found] + ['%s_q_%s' % (self.name, r[0]) for r in self.s.results]))
        out += '    (void)all;\n    a = %s;\n    b = %s;\n' % (self.call('plain', 'p', 'p'), again)
        out += '    expect(a == b, "%s", step, "status");\n    if (a != MX_OK)\n        return;\n' % self.name
        out += self.compare()
        out += '    b = %s;\n    expect(b == MX_OK, "%s", step, "the second call");\n' % (again, self.name) + self.compare()
        out += '    if (effects < 0)\n        effects = inc_%s_ran(q);\n    expect(inc_%s_ran(q) == effects && effects <= EFFECTS, "%s", step, "operations ran without a change");\n}\n' % (
            self.name, self.name, self.name)
        return self.declare() + '\n' + out

    def ordinary(self):
        out = 'static void run_%s(plain *p, inc *q, int step) {\n%s%s    mx_status a, b;\n' % (self.name, self.bind(), self.locals())
        if self.resize():
            out += '    if (draw(2)) {\n%s    }\n' % self.resize()
        for name, dtype, shape, inout in self.s.params:
            out += self.fill(name, dtype, shape)
            if inout:
                out += '    memcpy(%s_other_%s, %s_in_%s, sizeof %s_other_%s);\n' % ((self.name, name) * 3)
        out += '    a = %s;\n    b = %s;\n    expect(a == b, "%s", step, "status");\n    if (a != MX_OK)\n        return;\n%s}\n' % (
            self.call('plain', 'p', 'p'), self.call('inc', 'q', 'q'), self.name, self.compare())
        return self.declare() + '\n' + out


def check(env, source, seed):
    folder = env.folder('incremental-' + stem(source))
    names = rename(env, source, folder)
    if not names:
        raise Skip('every function writes or draws')
    for prefix, path in ('plain', source), ('inc', os.path.join(folder, 'inc.mxl')):
        must([env.mxcc, os.path.abspath(path), '-o', os.path.join(folder, prefix + '.c')], cwd=os.path.dirname(source))
    b = behaviour()
    signatures = b.header_signatures(os.path.join(folder, 'plain.h'), 'plain')
    header = read(os.path.join(folder, 'plain.h'))
    functions, calls, steps = ['static void quiet(void *c, const char *t) {\n    (void)c;\n    (void)t;\n}\n'], [], []
    for name, s in signatures.items():
        comment = re.search(r'\* %s\(.*?\*/' % name, header, re.S).group(0)
        bounds = {d: (int(lo), int(hi)) for lo, d, hi in re.findall(r'(\d+) <= (\w+) <= (\d+)', comment)}
        given = set(re.findall(r'int64_t (\w+)', s.arguments))
        w = Writer(s, bounds, [d for d in bounds if d not in given])
        if name in names:
            functions.append(w.incremental())
            steps.append('try_%s(p, q, step);' % name)
        else:
            functions.append(w.ordinary())
            calls.append('case %d: run_%s(p, q, step); break;' % (4 + len(calls), name))
    buffers = re.findall(r'\{"([^"]+)", MX_\w+, \d+, \d+, offsetof', read(os.path.join(folder, 'plain.c')))
    text = DRIVER.replace('FUNCTIONS', '\n'.join(functions)).replace('CALLS', '\n        '.join(calls)).replace('STEP\n', '\n        '.join(steps) + '\n')
    text = text.replace('draw(8)', 'draw(%d)' % (6 + len(calls))).replace('BUFFERS', ''.join('"%s", ' % n for n in buffers))
    effects = 1000 if 'print(' in read(source) else 0
    main = write(os.path.join(folder, 'main.c'), text)
    program = os.path.join(folder, 'program')
    must(['gcc', *STRICT, '-c', 'inc.c', '-o', 'strict.o', '-O0'], cwd=folder)
    must(['gcc', '-std=c11', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-DSEED=%d' % seed, '-DSTEPS=%d' % STEPS,
          '-DEFFECTS=%d' % effects, '-DBUFFER_COUNT=%d' % max(len(buffers), 1), '-I.', 'main.c', 'plain.c', 'inc.c', '-lm', '-o', program], cwd=folder)
    must([program], cwd=folder, timeout=60)
    return len(names)


def cases(env):
    files = [os.path.join(ROOT, *path) for path in (('samples', 'digits.mxl'), ('tests', 'run', 'notation.mxl'), ('tests', 'props', 'affected.mxl'))]
    for i, path in enumerate(files):
        yield stem(path), lambda path=path, i=i: check(env, path, 1 + i)
