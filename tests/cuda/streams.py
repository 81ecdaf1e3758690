#!/usr/bin/env python3
"""Streams, events and graphs: the emulation tells right from wrong, and generated units use them rightly.

    streams.py --mxcc build/mxcc

streams.cu has one right or wrong use each. A unit (parts.mxl) gives the same numbers with graphs, without, with a wait behind every kernel,
whichever operation runs first where several could, and as C; its graphs are made once and launched again and again. And every wait
between two operations of a part on different streams is needed: with any one of them left out, the emulation finds the race. Only Python's standard library
is needed.
"""
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from checks import expect, main, sh  # noqa: E402

RACE = 'emulation: .* an operation without an event between (reads|writes)'
CASES = {
    'ordered': r'65$',
    'copy_then_kernel': RACE + '|which nothing wrote',
    'two_writers': RACE,
    'read_then_write': RACE,
    'early_event': RACE + '|which nothing wrote',
    'host_reads_early': '0 64$',
    'pinned_overwritten': 'the host wrote to pinned memory before a copy',
    'pinned_waited_for': '63$',
    'host_overwritten': '63$',
    'captured': '63\n69$',
    'graph_forked': '65$',
    'graph_that_meets': RACE + '|which nothing wrote',
    'graph_left_open': 'unjoined work',
    'graph_waits_inside': 'previous error during capture',
    'graph_outside_event': 'previous error during capture',
    'beside_a_graph': RACE + '|which nothing wrote',
}
ORDERS = ('first', 'last', '7', '1234567')


def uses(o):
    program = os.path.join(o.folder, 'streams')
    sh(*o.compiler, '-x', 'c++', '-c', os.path.join(HERE, 'streams.cu'), '-o', program + '.o')
    sh(o.compiler[0], program + '.o', o.emulation, '-o', program)
    for name, pattern in CASES.items():
        for order in ORDERS:
            text = sh(program, name, env={'EMULATED_STREAMS': order}).strip()
            expect(re.search(pattern, text), name, 'in order', order, 'gives', text)


def build(o, name, defines=(), change=lambda text: text):
    """parts.c with the CUDA unit, changed."""
    unit, to = os.path.join(o.folder, name + '.cu'), os.path.join(o.folder, name)
    with open(os.path.join(o.folder, 'parts.cu'), encoding='utf-8') as f:
        text = change(f.read())
    with open(unit, 'w', encoding='utf-8') as f:
        f.write(text)
    sh(*o.compiler, '-Werror', *defines, '-I' + o.folder, '-x', 'c++', '-c', unit, '-o', unit + '.o')
    sh(o.compiler[0], os.path.join(o.folder, 'main.o'), unit + '.o', o.emulation, '-lm', '-o', to)
    return to


def prepare(o):
    model = shutil.copy(os.path.join(HERE, 'parts.mxl'), o.folder)
    os.makedirs(os.path.join(o.folder, 'c'), exist_ok=True)
    sh(o.mxcc, model, '-o', os.path.join(o.folder, 'c', 'parts.c'))
    sh(o.mxcc, model, '-o', os.path.join(o.folder, 'parts.cu'), '--verify')
    sh('cc', '-O1', '-I' + o.folder, '-c', os.path.join(HERE, 'parts.c'), '-o', os.path.join(o.folder, 'main.o'))


def numbers(text):
    return [float(w) for w in re.findall(r'[-\d.]+(?:e[-+]\d+)?', text) if w.strip('-.')]


def unit(o):
    prepare(o)
    plain = os.path.join(o.folder, 'plain')
    folder = os.path.join(o.folder, 'c')
    sh('cc', '-O1', '-ffp-contract=off', '-I' + folder, os.path.join(HERE, 'parts.c'), os.path.join(folder, 'parts.c'), '-lm', '-o', plain)
    expected = numbers(sh(plain))
    program = build(o, 'graphs')
    text = sh(program)
    got = numbers(text)
    expect(len(got) == len(expected) and all(abs(a - b) <= 2e-5 * max(1, abs(b)) for a, b in zip(got, expected)), 'with CUDA it prints\n', text,
           '\nC gives\n', expected)
    for order in ORDERS:
        expect(sh(program, env={'EMULATED_STREAMS': order}) == text, 'in order', order, 'other bits')
    expect(sh(program, env={'EMULATED_REVERSED': '1'}) == text, 'other bits with threads in the opposite order')
    for name in ('MX_CUDA_NO_GRAPHS', 'MX_CUDA_SYNC', 'MX_CUDA_GRAPH_NODES=2'):
        expect(sh(build(o, 'other', ['-D' + name])) == text, name, 'gives other bits')
    alone, made, launched = counts(program)
    # step: 8 again and again, 33 to 40 in one bucket, 64 but once: 3 + 4 launches. rounds: 5 and 3, 3 + 2. scanned: 7 and 12, 2 + 2.
    expect((made, launched) == (6, 16), 'graphs made and launched:', made, launched)
    none = counts(build(o, 'other', ['-DMX_CUDA_NO_GRAPHS']))
    expect(none[1:] == (0, 0) and none[0] > 2 * alone, 'without graphs', none, 'with', alone, 'kernels are launched alone')


def counts(program):
    sh(program, env={'EMULATED_TRACE': program + '.trace'})
    with open(program + '.trace', encoding='utf-8') as f:
        text = f.read()
    m = re.search(r'(\d+) kernels alone, (\d+) graphs, launched (\d+) times', text)
    expect(m, 'no trace in', text)
    return tuple(int(x) for x in m.groups())


def missing_waits(o):
    """Each wait of one stream for another, left out by its place in the unit."""
    prepare(o)
    places = []

    def number(text):
        def one(m):
            places.append(m[0])
            return m[1] + 'getenv("LEFT_OUT") && atoi(getenv("LEFT_OUT")) == %d ? MX_OK : ' % len(places) + m[2]
        never = re.search(r'/\* reset_all, .*?\n}\n', text, re.S)  # this program does not call it
        parts = (text[:never.start()], never[0], text[never.end():])
        return ''.join(p if i == 1 else re.sub(r'(MX_TRY\()(parts_mx_after\()', one, p) for i, p in enumerate(parts))
    program = build(o, 'missing', change=number)
    right = sh(program, env={'LEFT_OUT': '0'})
    expect(len(places) > 15, 'only', len(places), 'waits in the unit')
    unit_text = open(os.path.join(o.folder, 'missing.cu'), encoding='utf-8').read()
    found, tried = 0, 0
    for k in range(1, len(places) + 1):
        line = re.search(r'== %d \? MX_OK : parts_mx_after\(m, (\d+), (\d+)' % k, unit_text)
        ends = int(line[2]) < 4  # where a part begins or ends: needed only where what is around it touches the same on another stream
        text = sh(program, env={'LEFT_OUT': str(k)}, status=None)
        wrong = re.search('emulation: |captur|unjoined', text)
        expect(wrong or text == right, 'wait', k, 'left out: other numbers without a message:', text[-600:])
        expect(wrong or ends, 'wait', k, 'was not needed, or nobody noticed:', line[0])
        found += bool(wrong)
        tried += 1
    expect(found * 2 > tried, 'of', tried, 'waits left out only', found, 'were noticed')


if __name__ == '__main__':
    sys.exit(main(__doc__, (uses, unit, missing_waits)))
