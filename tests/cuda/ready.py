#!/usr/bin/env python3
"""`./run test gpu` and `./run bench gpu`, as far as they can be tried without a GPU.

    ready.py --mxcc build/mxcc

Without one both say so and end with 77, whether the driver's tool is missing or finds nothing; with one but without nvcc, too. Wrong arguments
end with 2. In the emulation, at tiny sizes, both run and write JSON: a device, a date, a row for each thing with what came of it. What takes
too long is skipped, and a failure is told. A GPU that is only pretended (an nvidia-smi of our own) is named in the JSON. Only
Python's standard library is needed.
"""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
from checks import expect, main  # noqa: E402

TEST, BENCH = os.path.join(HERE, 'gpu.py'), os.path.join(ROOT, 'bench', 'gpu.py')


def call(o, script, *arguments, status=0, env=None):
    p = subprocess.run([sys.executable, script, '--mxcc', o.mxcc, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **(env or {})})
    expect(p.returncode == status, script, *arguments, 'gave', p.returncode, p.stdout[-2000:], p.stderr[-2000:])
    return p.stdout + p.stderr


def tool(o, name, text):
    """A folder with a command of that name, to stand first in the PATH."""
    folder = os.path.join(o.folder, name + '-of-ours')
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path, 'w', encoding='utf-8') as f:
        f.write('#!/bin/sh\n' + text)
    os.chmod(path, 0o755)
    return folder


def without(o):
    nothing = os.path.join(o.folder, 'nothing')
    os.makedirs(nothing, exist_ok=True)
    for script in (TEST, BENCH):
        text = call(o, script, status=77, env={'PATH': nothing})
        expect('skipped: no GPU that can be used: there is no nvidia-smi' in text and './run test cuda' in text, 'without a driver:', text)
        broken = tool(o, 'nvidia-smi', 'echo "NVIDIA-SMI has failed because it could not communicate with the driver"\nexit 9\n')
        text = call(o, script, status=77, env={'PATH': broken})
        expect('could not communicate with the driver' in text, 'with a driver that fails:', text)
        there = tool(o, 'nvidia-smi', 'echo "Some GPU, 999.99, 81559, 9.0"\n')
        text = call(o, script, status=77, env={'PATH': there, 'NVCC': os.path.join(o.folder, 'no-nvcc')})
        expect('there is a GPU, Some GPU, but no nvcc' in text, 'without nvcc:', text)
        for wrong in (('--seconds', '0'), ('--seconds', 'x'), ('--only', 'nothing'), ('--nothing',)):
            call(o, script, *wrong, status=2)


def read(path):
    with open(path, encoding='utf-8') as f:
        return json.load(f)


def emulated(o):
    path = os.path.join(o.folder, 'result.json')
    call(o, TEST, '--emulated', '--only', 'interface', '--only', 'sanitizer', '--json', path)
    got = read(path)
    states = {r['name']: r['status'] for r in got['rows']}
    expect(got['device'] == 'emulation' and got['date'].startswith('20') and states['interface'] == 'ok' and states['racecheck parts'] == 'skipped', got)
    call(o, TEST, '--emulated', '--only', 'interface', '--seconds', '0.000001', '--json', path)
    expect([(r['status'], r['why']) for r in read(path)['rows']] == [('skipped', 'the time is over')], read(path))
    call(o, BENCH, '--emulated', '--only', 'lstm_lm', '--json', path)
    rows = read(path)['rows']
    expect([r['name'] for r in rows][:2] == ['mxcc lstm_lm f32', 'mxcc lstm_lm f32 --cublas'], rows)
    expect(all(r['status'] == 'ok' and r['device_bytes'] > 0 and 0 < r['fastest_ms'] <= r['median_ms'] and len(r['losses']) == 3 for r in rows), rows)


def failing(o):
    """A compiler that fails is a failed row, and status 1."""
    path = os.path.join(o.folder, 'result.json')
    there = tool(o, 'nvidia-smi', 'echo "Some GPU, 999.99, 81559, 9.0"\n')
    nvcc = os.path.join(tool(o, 'nvcc', 'echo "Build of ours"\n[ "$1" = --version ] || { echo "no such architecture" >&2; exit 1; }\n'), 'nvcc')
    env = {'PATH': there + os.pathsep + os.environ['PATH'], 'NVCC': nvcc}
    for script, name in ((TEST, 'interface'), (BENCH, 'lstm_lm')):
        call(o, script, '--only', name, '--json', path, status=1, env=env)
        got = read(path)
        expect(got['device'] == 'Some GPU' and got['driver'] == '999.99' and got['cuda'] == 'Build of ours' and got['memory_mib'] == 81559, got)
        expect(got['rows'][0]['status'] == 'failed' and 'no such architecture' in got['rows'][0]['why'], got)


if __name__ == '__main__':
    sys.exit(main(__doc__, (without, emulated, failing), emulation=False))
