#!/usr/bin/env python3
"""The command line of mxcc: every option of docs/command.md, exit statuses, files written. run.py --mxcc build/mxcc [--filter WORD]

A test is a function named test_… that gets a Place (a folder with a small model and ways to run mxcc, cc and what they make) and uses
assert. The last line is `N passed, N failed`; exit status 1 if any failed."""
import argparse
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

MODEL = '''block Scale(n: int) {
    param w: f32[n] = 2
    state calls: i64 = 0
    fn forward(x: f32[N, n]) -> f32[N, n] {
        calls += 1
        return x * w
    }
}

net = Scale(3)

/// Three times the rows.
export fn predict(x: f32[N <= 8, 3]) -> f32[N, 3] = net(x)
export fn pick(x: f32[N <= 8, 3], i: i64) -> (row: f32[3]) = x[i]
export train fn step(x: f32[N <= 8, 3], y: f32[N, 3]) -> (loss: f32) {
    let loss = mean((net(x) - y) ** 2)
    net.w -= 0.1 * grad(loss, net.w)
    return loss
}
'''

MAIN = '''#include <stdio.h>
#include "model.h"
int main(void) {
    const float x[6] = {1, 2, 3, 4, 5, 6};
    float y[6];
    model *m;
%s    if (status != MX_OK || model_predict(m, 2, x, y) != MX_OK)
        return 1;
    printf("%%g %%g\\n", y[0], y[5]);
    model_free(m);
    return 0;
}
'''
INIT = '    mx_status status = model_init(&m, NULL, 0, NULL);\n'
STATIC = '    static unsigned char memory[MODEL_MEMORY_BYTES];\n    mx_status status = model_init(&m, memory, sizeof memory, NULL);\n'
STRICT = ['-std=c99', '-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow', '-Wvla', '-Werror', '-O1']


class Place:
    def __init__(self, mxcc, folder):
        self.mxcc_path, self.folder = mxcc, folder
        self.write('model.mxl', MODEL)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), 'w', encoding='utf-8') as f:
            f.write(text)

    def read(self, name):
        with open(self.path(name), encoding='utf-8') as f:
            return f.read()

    def run(self, argv, status=0, env=None):
        p = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, timeout=120, env=dict(os.environ, **env) if env else None)
        assert p.returncode == status, '`%s` gave status %d, expected %d\n%s%s' % (' '.join(argv), p.returncode, status, p.stdout[-1500:], p.stderr[-2500:])
        return p

    def mxcc(self, *words, status=0, env=None):
        return self.run([self.mxcc_path, *words], status, env)

    def cc(self, *words, main=MAIN % INIT):
        self.write('main.c', main)
        self.run([os.environ.get('CC', 'cc'), *STRICT, *os.environ.get('CFLAGS', '').split(), 'main.c', 'model.c', *words, '-o', 'main'])
        return self.run(['./main']).stdout


def test_unit(p):
    p.mxcc('model.mxl', '-o', 'model.c')
    assert p.cc('-lm') == '2 12\n'


def test_no_runtime(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--no-runtime')
    assert 'malloc' not in p.read('model.c')
    assert p.cc('-lm', main=MAIN % STATIC) == '2 12\n'


def test_threads(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--threads')
    flags = (p.mxcc('--cflags').stdout + p.mxcc('--libs').stdout).split()
    assert p.cc(*flags) == '2 12\n'
    p.mxcc('model.mxl', '-o', 'model.c', '--threads', '--no-runtime', status=2)


def test_weights_source(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--weights', 'source')
    assert 'model_data_' in p.read('model.c') or '_data_' in p.read('model.c')
    assert p.cc('-lm') == '2 12\n'


def test_weights_file(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--weights', 'file')
    assert os.path.exists(p.path('model.safetensors'))
    assert p.cc('-lm') == '2 12\n'
    os.remove(p.path('model.safetensors'))
    p.run(['./main'], status=1)
    p.mxcc('build', 'model.mxl', '-o', 'libmodel.so', '--weights', 'file')
    assert os.path.exists(p.path('model.safetensors'))
    os.remove(p.path('model.safetensors'))
    p.mxcc('model.mxl', '--weights', 'file', '--stop-after', 'simplify')
    assert not os.path.exists(p.path('model.safetensors'))


def test_weights_caller(p):
    # a narrow parameter before wide ones, which nothing writes: all are aligned in the image
    p.write('model.mxl', MODEL.replace('param w', 'param on: bool = true\n    param w').replace(
        'return x * w', 'return where(on, x * w, 0)').replace('net.w -=', 'let _w = net.w -'))
    p.mxcc('model.mxl', '-o', 'model.c', '--weights', 'file')
    image = open(p.path('model.safetensors'), 'rb').read()
    p.mxcc('model.mxl', '-o', 'model.c', '--weights', 'caller')
    words = ', '.join(str(b) for b in image)
    init = ('    static const union { unsigned char bytes[%d]; double align; } image = {{%s}};\n    model_options options = {0};\n'
            '    options.weights = &image;\n    options.weights_bytes = sizeof image.bytes;\n'
            '    mx_status status = model_init(&m, NULL, 0, &options);\n' % (len(image), words))
    assert p.cc('-lm', main=MAIN % init) == '2 12\n'


def test_cpu_and_blas(p):
    p.write('model.mxl', 'export fn predict(x: f32[N <= 8, 3]) -> f32[N, 3] = tensor[n < N, i < 3] sum[k < 3] x[n, k] * (if_(k == i))\n'
                         'fn if_(c: bool) -> f32 = where(c, f32(2), 0)\n')
    for cpu in ('portable', 'native'):
        p.mxcc('model.mxl', '-o', 'model.c', '--cpu', cpu)
    p.write('big.mxl', 'export fn product(a: f32[256, 256], b: f32[256, 256]) -> f32[256, 256] = a @ b\n')
    p.mxcc('big.mxl', '-o', 'big.c', '--blas', 'openblas')
    assert 'cblas_sgemm' in p.read('big.c')
    p.mxcc('big.mxl', '-o', 'big.c')
    assert 'cblas' not in p.read('big.c')


def test_bind(p):
    p.write('free.mxl', 'export fn f(x: f32[N]) -> f32[N] = 2 * x\n')
    assert 'N' in p.mxcc('free.mxl', '-o', 'free.c', status=1).stderr
    p.mxcc('free.mxl', '-o', 'free.c', '--bind', 'N=64')
    assert '1 <= N <= 64' in p.read('free.h') or '0 <= N <= 64' in p.read('free.h')
    for wrong in ('N', 'N=', 'N=0', 'N=-3', 'N=4x', '=4', 'N=99999999999999999999'):
        assert 'NAME=NUMBER' in p.mxcc('free.mxl', '-o', 'free.c', '--bind', wrong, status=2).stderr, wrong


def test_more_than_memory(p):
    p.write('big.mxl', 'export fn f(x: f32[N <= 9000000000000000000]) -> f32[N] = sort(x) * 2\n')
    says = p.mxcc('big.mxl', '-o', 'big.c', status=1).stderr
    assert 'E0804' in says and 'N = 9000000000000000000' in says, says
    p.write('big.mxl', 'param w: f32[100000000, 100000000]\nexport fn f(x: f32) -> f32 = sum(w) + x\n')
    assert 'E0804' in p.mxcc('big.mxl', '-o', 'big.c', status=1).stderr


def test_unchecked(p):
    p.mxcc('model.mxl', '-o', 'checked.c', '--name', 'model')
    p.mxcc('model.mxl', '-o', 'unchecked.c', '--name', 'model', '--unchecked')
    assert 'MX_ERROR_CHECK,' in p.read('checked.c')
    assert len(p.read('unchecked.c')) < len(p.read('checked.c'))
    p.mxcc('run', 'model.mxl', '--call', 'pick', '--in', 'x=x.npy', '--in', 'i=9', status=1)


def test_name(p):
    p.mxcc('model.mxl', '-o', 'other.c', '--name', 'thing')
    assert 'thing_init(' in p.read('other.h') and '#include "other.h"' in p.read('other.c')
    shutil.copy(p.path('model.mxl'), p.path('xor.mxl'))  # a word of C++
    p.mxcc('xor.mxl', '-o', 'xor.c')
    p.run(['cc', *STRICT, '-c', 'xor.c'])
    p.mxcc('model.mxl', '-o', 'other.c', '--name', '9x', status=1)
    for stem in ('n', 'x', 'path', 'rename', 'fwrite', 'va_end', 'mx'):  # what the unit uses itself
        p.mxcc('model.mxl', '-o', stem + '.c')
        p.run(['cc', *STRICT, '-c', stem + '.c'])
    for stem in ('name', 'value', 'is_state', 'data'):  # fields of the interface's structs: these shadow
        p.mxcc('model.mxl', '-o', stem + '.c')
        p.run(['cc', *[w for w in STRICT if w != '-Wshadow'], '-c', stem + '.c'])


def test_found_dimension(p):
    p.write('some.mxl', 'export fn some(x: f32[4]) -> f32[K <= 4] {\n    var n = 0\n    for i in 0..4 { if x[i] > 0 { n += 1 } }\n    return x[:n]\n}\n')
    p.mxcc('some.mxl', '-o', 'some.c')
    assert 'some(x: f32[4]) -> result: f32[K]; 0 <= K <= 4' in p.read('some.h')


def test_print(p):
    """Eager and compiled programs print the same text; braces are no places for values."""
    p.write('model.mxl', 'export fn predict(n: i64) -> f32[2, 2] {\n    let x = tensor[i < 2, j < 2] f32(i) / f32(2 + j) + f32(n)\n'
                         '    print("{} 100%", x, "n =", n, n > 3, [1, 2], "{")\n    print()\n    return x\n}\n')
    text = '{} 100% [[7, 7], [7.5, 7.33333]] n = 7 true [1, 2] {\n\n'
    p.mxcc('model.mxl', '-o', 'model.c')
    call = '    mx_status status = model_init(&m, NULL, 0, NULL);\n    float y[4];\n    if (status == MX_OK)\n        status = model_predict(m, 7, y);\n'
    assert p.cc('-lm', main='#include "model.h"\nint main(void) {\n    model *m;\n' + call + '    return (int)status;\n}\n') == text
    assert p.mxcc('run', 'model.mxl', '--call', 'predict', '--in', 'n=7', '--out', 'out').stdout == text


def test_depfile(p):
    p.write('part.mxl', 'fn twice(x: f32) -> f32 = 2 * x\n')
    p.write('kernel.h', 'float thrice(float x);\n')
    p.write('whole.mxl', 'use "part.mxl" as part\nextern "kernel.h" { fn thrice(x: f32) -> f32 = thrice(x) }\n'
                         'export fn go(x: f32) -> f32 = part.twice(thrice(x))\n')
    p.mxcc('whole.mxl', '-o', 'whole.c', '--depfile', 'whole.d')
    names = p.read('whole.d').split('\n')[0].split()
    assert names == ['whole.c:', 'whole.mxl', 'part.mxl', 'kernel.h'], names


def test_line_directives(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--line-directives')
    text = p.read('model.c')
    assert '#line 6 "model.mxl"' in text, re.findall('#line.*', text)
    lines = text.split('\n')
    for i, line in enumerate(lines, 1):
        m = re.match(r'#line (\d+) "model.c"$', line)
        assert not m or int(m.group(1)) == i + 1, line
    assert p.cc('-lm') == '2 12\n'


PROVEN = '''
export fn held(x: f32[9, 4], n: i64) -> f32[9, 4] {
    var y = x * 2
    for t in 0..8 {
        let p = i32(t)
        if p + 1 > 2 { y[p - 2] += 1 }
        y[p + 1, 0:2] = sum(x[:p + 1], axis = 0)[2:]
        if n >= 0 and n < 3 { y[n + t] += 1 }
    }
    return y
}
'''


def test_proven_checks(p):
    def checks(text):
        p.write('proven.mxl', text)
        return p.mxcc('proven.mxl', '--stop-after', 'prove', '--emit', 'ir', '--verify').stdout.count('check(')
    assert checks(PROVEN.replace('n < 3', 'n < 2')) == 0
    assert checks(PROVEN) == 1  # n + t is 9 at most
    assert checks(PROVEN.replace('0..8', '0..9').replace('n < 3', 'n < 1')) == 1  # p + 1 is 9 at most
    assert checks(PROVEN.replace('> 2', '> 1').replace('n < 3', 'n < 2')) == 1  # p - 2 is -1 at least
    assert checks(PROVEN.replace('n >= 0 and ', '').replace('n < 3', 'n < 2')) == 1
    assert checks(PROVEN.replace('i32(t)', 'i8(100 * t)').replace('n < 3', 'n < 2')) > 1  # wraps


def test_stages(p):
    for what in ('ast', 'ir', 'deps', 'deps.dot', 'deps.json', 'plan'):
        assert p.mxcc('model.mxl', '--emit', what).stdout
    ir = p.mxcc('model.mxl', '--emit', 'ir', '-o', 'model.mxir')
    p.mxcc('model.mxir', '-o', 'model.c')
    assert p.cc('-lm') == '2 12\n'
    p.mxcc('run', 'model.mxir', '--call', 'pick', '--in', 'x=nothing.npy', '--in', 'i=0', status=1)
    p.mxcc('model.mxl', '-o', 'model.c', '--print-after', 'nothing', status=1 if ir else 2)
    assert 'fuse' in p.mxcc('passes').stdout
    assert 'loop' in p.mxcc('ops').stdout or 'nest' in p.mxcc('ops').stdout


def test_report(p):
    text = p.mxcc('report', 'model.mxl').stdout
    for word in ('params', 'lower bound', 'FLOPs', 'predict', 'step', 'bytes'):
        assert word in text, (word, text)
    page = p.mxcc('report', 'model.mxl', '--html').stdout
    assert '<svg' in page and '<title>' in page and 'src=' not in page and '<script' not in page  # all of it is in the page
    root = xml.etree.ElementTree.fromstring(page.replace('<!doctype html>', '').replace('<meta charset="utf-8">', ''))
    boxes = [r for r in root.iter('{http://www.w3.org/2000/svg}rect') if r.get('class') != 'arena']
    assert 'Precision' not in page and '16 bits' not in page
    assert boxes and all(float(r.get('x')) >= 0 and float(r.get('x')) + float(r.get('width')) <= 1100.1 for r in boxes)


def test_load(p):
    """A constant from a file (tests/unit/test_tensor_file.c has the kinds of files): in a parameter, a constant and a function."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"
    with open(p.path('w.npy'), 'wb') as f:
        f.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode() + struct.pack('<3f', 1, 2, 4))
    p.write('load.mxl', 'const c = load("w.npy")\nparam w: f32[3] = load("w.npy")\nexport fn f() -> f32[3] {\n    let d = load("w.npy")\n'
            '    return w * c + d\n}\n')
    assert p.mxcc('run', 'load.mxl', '--call', 'f').stdout == 'result: f32[3] = 2 6 20\n'
    p.mxcc('load.mxl', '-o', 'load.c', '--depfile', 'load.d')
    with open(p.path('load.d')) as f:
        assert 'w.npy' in f.read()
    with open(p.path('w.npy'), 'r+b') as f:
        f.truncate(os.path.getsize(p.path('w.npy')) - 1)
    error = p.mxcc('load.mxl', '-o', 'load.c', status=1).stderr
    assert 'load.mxl:1:' in error and 'cannot load from `w.npy`: the file is truncated' in error, error


def test_report_precision(p):
    """All three forms of the report say what is of 16 bits; the page names each storage that is."""
    p.write('low.mxl', 'param a: f32[64, 64] = 1\nparam b: f32[64, 64] = 1\n'
            'export fn f(x: f32[32, 64]) -> f32[32, 64] {\n    let h = max(x @ a, 0)\n    return exp(h @ b)\n}\n')
    options = ['report', 'low.mxl', '--precision', 'bf16']
    low = json.loads(p.mxcc(*options, '--json').stdout)['functions'][0]['low_precision']
    assert low['products'] == 2 and low['stored'] == 1 and low['stored_bytes'] == 2 * 32 * 64, low
    counts = '%d products, %d values rounded for them, %d stored: 4096 B instead of' % (low['products'], low['rounded'], low['stored'])
    assert counts in p.mxcc(*options).stdout
    page = p.mxcc(*options, '--html').stdout
    assert 'Precision: bf16.' in page and counts in page
    root = xml.etree.ElementTree.fromstring(page.replace('<!doctype html>', '').replace('<meta charset="utf-8">', ''))
    rows = [[c.text for c in r] for t in root.iter('table') if t.get('class') == 'low' for r in list(t)[1:]]
    assert ['4096 B', 'bf16', 'h', 'low.mxl:4'] in rows and all(r[1] == 'bf16' for r in rows), rows
    titles = [t.text for t in root.iter('{http://www.w3.org/2000/svg}title')]
    assert sum(' of bf16 at' in t for t in titles) == len(rows), (titles, rows)


def test_report_gpu(p):
    """Bytes and FLOPs of kernels are those of the operations, and times follow from them and the table of GPUs."""
    p.write('costs.mxl', """
const n = 256
param w: f32[n, n] = 1
param table: f32[100000, 64] = 1
state cache: f32[4096, 64] = 0
export fn product(x: f32[64, n]) -> f32[64, n] = x @ w
export fn rows(ids: i32[8]) -> f32[8, 64] = table[ids]
export fn put(x: f32[2, 64], at: i32) { cache[at:at + 2] = x }
export fn wide(x: f64[1000]) -> f64[1000] = x * x
""")
    table = {}
    for m in re.finditer(r'^  (\w+) +[^:\n]+: (\d+) GB/s, TFLOP/s in f32 ([\d.]+),', p.mxcc('targets').stdout, re.M):
        table[m[1]] = (float(m[2]) * 1e9, float(m[3]) * 1e12)
    assert {'t4', 'a100', 'h100', 'h200'} <= set(table)
    expected = {'product': (4 * (64 * 256 * 2 + 256 * 256), 2 * 64 * 256 * 256), 'rows': (4 * (8 * 64 * 2 + 8), 0), 'put': (4 * 2 * 64 * 2, 0),
                'wide': (16 * 1000, 1000)}
    every = json.loads(p.mxcc('report', 'costs.mxl', '--target', 'cuda', '--json').stdout)['functions']
    one = json.loads(p.mxcc('report', 'costs.mxl', '--gpu', 'a100', '--json').stdout)['functions']
    assert [f['name'] for f in every] == [f['name'] for f in one]
    for f, g in zip(every, one):
        assert set(f['roofline']) == set(table) and set(g['roofline']) == {'a100'} and f['roofline']['a100'] == g['roofline']['a100']
        if f['name'] not in expected:
            continue
        work = [k for k in g['kernels'] if k['bytes'] > 64 or k['flops']]  # beside those that look at one number
        assert len(work) == 1 and work[0]['launches'] == 1 and work[0]['file'] == 'costs.mxl', work
        k, (bytes_, flops) = work[0], expected[f['name']]
        assert bytes_ <= k['bytes'] <= bytes_ + 16 and k['flops'] == flops, (f['name'], k)
        if f['name'] == 'product':
            assert k['product'] and k['type'] == 'f32'
            for gpu, (bandwidth, peak) in table.items():
                least = max(k['bytes'] / bandwidth, k['flops'] / peak)
                assert abs(f['roofline'][gpu]['seconds'] - least) < 1e-4 * least, gpu
        assert sum(k['seconds'] for k in g['kernels']) <= g['roofline']['a100']['seconds'] * 1.0001
    text = p.mxcc('report', 'costs.mxl', '--gpu', 'h200').stdout
    assert re.search(r'product\n(?:.*\n)*?  kernels +1 launches.*\n    NVIDIA H200 SXM +\S+ us, of that for memory .*\n    costs_mx_\w+ +costs.mxl:6 +1 x, 393.22 KB, 8.39 MFLOP, \S+ us of f32', text)
    assert 'did you mean h200?' in p.mxcc('report', 'costs.mxl', '--gpu', 'h2000', status=2).stderr
    assert 'does not belong to this command' in p.mxcc('costs.mxl', '--gpu', 'h200', status=2).stderr


def test_report_json(p):
    """The report for programs: bytes that add up, copies with their places, and what an incremental function runs after which change."""
    report = json.loads(p.mxcc('report', 'model.mxl', '--json').stdout)
    assert report['model'] == 'model' and {'predict', 'step', 'init'} <= {f['name'] for f in report['functions']}
    for f in report['functions']:
        assert f['lower_bound'] <= f['arena_bytes'] <= report['arena_bytes'] and f['incremental'] is None
        assert sum(s['bytes'] for s in f['peak']['alive']) <= f['lower_bound']
    p.write('inc.mxl', 'param w: f32[4] = 1\nparam v: f32[4] = 2\n'
            'export incremental fn f(x: f32[N <= 8, 4], z: f32[N, 4]) -> (s: f32[N], t: f32[N]) {\n'
            '    let h = tensor[i < N] sum[j < 4] exp(x[i, j]) * w[j]\n    return h * v[0], tensor[i < N] h[i] + sum[j < 4] exp(z[i, j])\n}\n')
    f = json.loads(p.mxcc('report', 'inc.mxl', '--json').stdout)['functions'][0]
    inc = f['incremental']
    names = {s['name']: s for s in inc['sources']}
    assert {n: s['kind'] for n, s in names.items()} == {'x': 'input', 'z': 'input', 'N': 'dimension', 'w': 'buffer', 'v': 'buffer'}
    assert inc['input_bytes'] == 2 * 8 * 4 * 4 and inc['cache_bytes'] >= inc['input_bytes'] + sum(k['bytes'] for k in inc['kept']) and inc['kept']
    counted = [o for o in inc['operations'] if o['group'] != 'results']
    for g in inc['groups']:  # dirty sets and operations are one relation, told twice
        assert g['operations'] == sum(o['group'] == g['group'] for o in counted)
        assert set(g['dirty_set']) == {n for n, s in names.items() if g['group'] in s['groups']}
    for s in names.values():
        assert s['operations'] == sum(o['group'] in s['groups'] for o in counted)
    assert inc['first_call'] == len(counted) == names['N']['operations'] > names['v']['operations'] > inc['no_change'] == 0
    kinds = {s['kind'] for s in json.loads(p.mxcc('inc.mxl', '--emit', 'deps.json').stdout)[0]['storages']}
    assert 'cache' in kinds, kinds
    assert 'choose one' in p.mxcc('report', 'inc.mxl', '--json', '--html', status=2).stderr


def test_disjoint_readers(p):
    """A reader of elements that a write leaves alone may stay behind it, over several versions; one of an element that it writes may not."""
    p.write('apart.mxl', 'export fn f(x: f32[64, 8], w: f32[4, 512]) -> f32 {\n    var y = x * 2\n    let old = y\n    y[:, :2] = y[:, :2] + 1\n'
            '    y[:, 2:4] = y[:, :2]\n    let t = y[:, :4] @ w\n    let s = max(t * t)\n    let big = old[:, 4:] @ w\n    return sum(big * big * s) + max(big)\n}\n')
    for text, apart in (('old[:, 4:]', True), ('old[:, 3:7]', False)):
        p.write('model2.mxl', p.read('apart.mxl').replace('old[:, 4:]', text))
        f = json.loads(p.mxcc('model2.mxl', '--emit', 'deps.json', '--verify').stdout)[0]
        last = max(o['id'] for o in f['operations'] if o['in_place'])
        reader = min(o['id'] for o in f['operations'] if o['line'] == 8)
        assert (last < reader) == apart, (text, last, reader)
        assert any(e['kind'] == 'WAR' for e in f['dependences']) != apart
        assert json.loads(p.mxcc('report', 'model2.mxl', '--json').stdout)['functions'][0]['copies'] == []


def test_memory_limit(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--memory-limit', '64M')
    says = p.mxcc('model.mxl', '-o', 'model.c', '--memory-limit', '1', status=1).stderr
    least = int(re.search(r'--memory-limit (\d+) is enough for all functions', says).group(1))
    assert 'E0802' in says and 'alive at its peak: ' in says and 'model.mxl:' in says, says
    p.mxcc('model.mxl', '-o', 'model.c', '--memory-limit', str(least))  # what it says is true
    assert 'needs %d bytes' % least in p.mxcc('model.mxl', '-o', 'model.c', '--memory-limit', str(least - 1), status=1).stderr
    for wrong in ('much', '0', '-1', '256Kb', '4MiB', '1T', '0.5', 'nan', 'inf', '9e30', ''):
        assert 'expected a number of bytes' in p.mxcc('model.mxl', '-o', 'model.c', '--memory-limit', wrong, status=2).stderr, wrong
    p.mxcc('model.mxl', '-o', 'model.c', '--memory-limit', '99999G')


def test_plan(p):
    """The planner alone: the table comes back with offsets; a capacity that is met, one that cannot be, wrong tables."""
    p.write('life.csv', 'name,id,lower,upper,size\na,1,3,6,3\nb,2,2,5,3\nc,3,2,3,4\nd,4,1,4,3\ne,5,6,7,4\nf,6,4,5,2\ng,7,4,8,2\nh,8,5,8,4\n')
    done = p.mxcc('plan', 'life.csv', '-o', 'offsets.csv')
    assert '8 items, 11 bytes, lower bound 11: optimal' in done.stderr, done.stderr
    rows = p.read('offsets.csv').split('\n')
    assert rows[0] == 'name,id,lower,upper,size,offset' and rows[1].startswith('a,1,3,6,3,') and len(rows) == 10
    assert p.mxcc('plan', 'life.csv', '--capacity', '12').stdout.count('\n') == 9
    assert 'E0543' in p.mxcc('plan', 'life.csv', '--capacity', '10', status=1).stderr
    p.write('wrong.csv', 'id,lower,upper,size\n1,5,3,8\n')
    assert 'before it begins' in p.mxcc('plan', 'wrong.csv', status=1).stderr
    for row, words in (('1,2,3', 'has 3 fields'), ('1,2,3,', 'size is empty'), ('1,2,3,1e3', 'size should be a whole number'), ('1,2,3,-4', 'is negative'),
                       ('1,2,3,99999999999999999999', 'size is too large'), ('1,0,1,1125899906842625', 'above 2^50')):
        p.write('wrong.csv', 'id,lower,upper,size\n' + row + '\n')
        assert words in p.mxcc('plan', 'wrong.csv', status=1).stderr, (row, words)
    p.write('wrong.csv', 'id,lower,upper,size\n' + '1,0,1,1125899906842624\n' * 1025)
    assert 'add up to more than 2^60' in p.mxcc('plan', 'wrong.csv', status=1).stderr
    p.write('wrong.csv', 'id;lower;upper;size\n1;0;1;2\n')
    said = p.mxcc('plan', 'wrong.csv', status=1).stderr
    assert 'with commas' in said and said.count('E0541') == 1, said
    p.write('marked.csv', '\ufeffid,lower,upper,size\n1,0,1,2\n')
    assert '1 items, 2 bytes' in p.mxcc('plan', 'marked.csv').stderr
    for wrong in ('much', '0', '-1', '1KB', ''):
        assert 'positive number of bytes' in p.mxcc('plan', 'life.csv', '--capacity', wrong, status=2).stderr
    for wrong in ('0', '-1', 'x', 'nan', '1e9'):
        assert 'positive number' in p.mxcc('plan', 'life.csv', '--seconds', wrong, status=2).stderr
    rng = random.Random(1)  # too much for so few steps: the best that was found, and that it was given up
    p.write('hard.csv', 'id,lower,upper,size\n' + ''.join('%d,%d,%d,%d\n' % (i, a, a + rng.randint(5, 60), rng.randint(1, 99))
                                                         for i, a in ((i, rng.randint(0, 100)) for i in range(200))))
    best = p.mxcc('plan', 'hard.csv', '--seconds', '0.001', '-o', 'a.csv').stderr
    assert 'given up after the steps of 0.001 seconds' in best, best
    assert p.mxcc('plan', 'hard.csv', '--seconds', '0.001', '-o', 'b.csv').stderr == best and p.read('a.csv') == p.read('b.csv')


def test_build(p):
    p.mxcc('build', 'model.mxl', '-o', 'libmodel.so')
    assert os.path.exists(p.path('libmodel.so')) and os.path.exists(p.path('model.h'))
    p.mxcc('build', 'model.mxl', '--main', '-o', 'program')
    p.run(['./program', 'predict'], status=1)
    assert 'predict' in p.run(['./program', '--help']).stdout
    p.run(['./program', 'nothing'], status=2)
    p.mxcc('build', 'model.mxl', '-o', 'x.so', '--cc', 'no-such-compiler', status=1)


def test_names_of_the_runtime(p):
    """What a program links does not take names from it: here such as the runtime's files have themselves."""
    p.write('net.mxl', MODEL + ''.join('export fn %s(x: f32[3]) -> f32[3] = x\n' % name for name in ('open', 'ask', 'poll', 'loop', 'wait_for_all')))
    p.mxcc('build', 'net.mxl', '--main', '-o', 'program')
    assert 'wait_for_all' in p.run(['./program', '--help']).stdout
    library = os.path.join(os.path.dirname(p.mxcc_path), 'libmxrt.a')
    names = {line.split()[2] for line in p.run(['nm', '-g', '--defined-only', library]).stdout.splitlines() if len(line.split()) == 3}
    assert len(names) > 100 and not [n for n in names if not re.match('_*mx(rt)?_', n)], names


def test_split(p):
    p.mxcc('model.mxl', '-o', 'model.c', '--split', '3')
    assert p.cc('model_1.c', 'model_2.c', '-lm') == '2 12\n'
    p.mxcc('build', 'model.mxl', '--main', '--split', '3', '-o', 'program')
    p.run(['./program', 'predict'], status=1)


def test_usage(p):
    assert 'did you mean check' in p.mxcc('chekc', 'model.mxl', status=2).stderr
    assert 'did you mean --threads' in p.mxcc('model.mxl', '-o', 'm.c', '--thread', status=2).stderr
    p.mxcc('model.mxl', '-o', 'm.txt', status=2)
    p.mxcc('model.mxl', '-o', 'm.c', '--split', '65', status=2)
    p.mxcc('model.mxl', '-o', 'm.c', '--split', 'some', status=2)
    p.mxcc('model.mxl', status=2)
    p.mxcc('no-such.mxl', '-o', 'm.c', status=1)
    p.mxcc(status=2)
    assert p.mxcc('--version').stdout.startswith('mxcc ')
    assert 'E0207' in p.mxcc('explain', 'E0207').stdout
    p.mxcc('explain', 'E9999', status=2)
    p.mxcc('targets')


def test_cuda(p):
    p.mxcc('model.mxl', '-o', 'model.c')
    c_header = p.read('model.h')
    p.mxcc('model.mxl', '-o', 'model.cu', '--verify')
    unit, header = p.read('model.cu'), p.read('model.h')
    assert '__global__' in unit and '#include <cuda_runtime.h>' in unit
    declarations = [re.findall(r'^[a-z][^#\n]*;$', text, re.M) for text in (c_header, header)]
    assert declarations[0] == declarations[1] and 'MODEL_DEVICE_BYTES' in header and 'MODEL_DEVICE_BYTES' not in c_header
    for words, why in ((['--threads'], 'the host waits'), (['--no-runtime'], 'the CUDA runtime'), (['--cpu', 'native'], '-arch'), (['--blas', 'openblas'], 'CPU'),
                       (['--split', '2'], 'one file'), (['--line-directives'], 'lines')):
        error = p.mxcc('model.mxl', '-o', 'model.cu', *words, status=2).stderr
        assert words[0] + ' does not go with --target cuda' in error and why in error, error
    assert 'ends in .cu' in p.mxcc('model.mxl', '--target', 'cuda', '-o', 'model.c', status=2).stderr
    assert 'ends in .c' in p.mxcc('model.mxl', '--target', 'c', '-o', 'model.x', status=2).stderr
    assert '--arch belongs to --target cuda' in p.mxcc('build', 'model.mxl', '--arch', 'sm_80', status=2).stderr
    # What nvcc would be asked: the compiler here only says it.
    line = p.mxcc('build', 'model.mxl', '--target', 'cuda', '--arch', 'sm_80', '--cc', 'echo', '-o', 'libmodel.so').stdout
    assert '-fmad=false' in line and '-arch=sm_80' in line and 'model.cu' in line and '-shared' in line, line
    line = p.mxcc('build', 'model.mxl', '--target', 'cuda', '--main', '-o', 'model', env={'NVCC': 'echo', 'NVCCFLAGS': '-lineinfo'}).stdout
    assert '-arch=native' in line and '-lineinfo' in line and 'libmxrt.a' in line, line
    p.mxcc('build', 'model.mxl', '--target', 'cuda', '--cc', 'no-such-compiler', status=1)
    assert 'cuda' in p.mxcc('targets').stdout and 'model.cu' in p.mxcc('--help').stdout


def test_color(p):
    p.write('wrong.mxl', 'export fn f(x: f32) -> f32 = y\n')
    for words, colored in ((['--color'], True), (['--color', 'never'], False), (['--color=always'], True), ([], False)):
        assert ('\x1b[' in p.mxcc(*words, 'wrong.mxl', '-o', 'w.c', status=1).stderr) == colored
    p.mxcc('--color=pink', 'wrong.mxl', '-o', 'w.c', status=2)


def test_help_of_every_command(p):
    for command in ('build', 'run', 'check', 'fmt', 'doc', 'report', 'plan', 'explain', 'ops', 'passes', 'targets'):
        assert command in p.mxcc(command, '--help').stdout


def test_deep_programs(p):
    text = 'fn g0(x: f32) -> f32 = x + 1\n'
    for i in range(1, 190):
        text += 'fn g%d(x: f32) -> f32 = g%d(x) * 0.5\n' % (i, i - 1)
    text += 'export fn calls(x: f32) -> f32 = g189(x)\n'
    text += 'export fn brackets(x: f32) -> f32 = ' + '(' * 190 + 'x' + ' + 1)' * 190 + '\n'
    text += 'export fn minus(x: f32) -> f32 = ' + '-' * 190 + 'x\n'
    text += 'export fn chain(x: f32) -> f32 = x' + ' + x' * 490 + '\n'
    p.write('deep.mxl', text)
    p.mxcc('deep.mxl', '-o', 'deep.c')
    p.mxcc('run', 'deep.mxl', '--call', 'chain', '--in', 'x=1', '--out', 'out')
    p.write('deeper.mxl', 'export fn f(x: f32) -> f32 = ' + '(' * 100000 + 'x' + ')' * 100000 + '\n')
    p.mxcc('deeper.mxl', '-o', 'deeper.c', status=1)


def test_stack_contract(p):
    """What the compiler says of each function's stack: the largest public one, what runs the model, and what that calls stay below the header's number."""
    for model in ('model.mxl', os.path.join(ROOT, 'samples', 'digits.mxl')):
        p.mxcc(model, '-o', 'unit.c', '--no-runtime')
        p.run(['gcc', '-std=c99', '-O2', '-fno-inline', '-fstack-usage', '-c', 'unit.c'])
        sizes = {line.split('\t')[0].split(':')[-1]: int(line.split('\t')[1]) for line in p.read('unit.su').strip().split('\n')}
        runs = [n for f, n in sizes.items() if '_mx_run_' in f]
        others = [n for f, n in sizes.items() if '_mx_' in f and '_mx_run_' not in f] + [0]
        public = [n for f, n in sizes.items() if '_mx_' not in f and not f.startswith('mx_')]
        helpers = [n for f, n in sizes.items() if f.startswith('mx_')] + [0]
        deepest = max(max(runs) + max(others) + 200, max(public) + 2 * max(helpers))
        stated = int(re.search(r'UNIT_STACK_BYTES (\d+)', p.read('unit.h')).group(1))
        assert deepest <= stated, (model, deepest, stated)


def test_embedded_cxx(p):
    p.mxcc('model.mxl', '-o', 'model.c')
    p.write('main.cc', '#include "model.h"\n#include "model.h"\nint main() { return model_size(nullptr) == MODEL_MEMORY_BYTES ? 0 : 1; }\n')
    p.run(['cc', '-c', 'model.c'])
    p.run(['g++', '-Wall', '-Wextra', '-Wpedantic', '-Werror', 'main.cc', 'model.o', '-lm', '-o', 'cxx'])
    p.run(['./cxx'])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default='build/mxcc')
    parser.add_argument('--filter', default='')
    o = parser.parse_args()
    passed = failed = 0
    for name, test in list(globals().items()):
        if not name.startswith('test_') or o.filter not in name:
            continue
        with tempfile.TemporaryDirectory(prefix='mxcc-command-') as folder:
            try:
                test(Place(os.path.abspath(o.mxcc), folder))
                passed += 1
            except Exception as e:
                failed += 1
                text = str(e) or traceback.format_exc().strip().split('\n')[-2].strip()
                print('FAIL %s: %s' % (name, text))
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
