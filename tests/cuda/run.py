#!/usr/bin/env python3
"""Generated CUDA units on the host: builds the emulation (emulation.cpp, streams.cpp, nccl.cpp) and runs tests with it.

    run.py [--mxcc build/mxcc] [--sample N/K] [--work FOLDER] FILE-or-FOLDER...      behaviour tests (tests/run/run.py), emulated

    run.py [--mxcc build/mxcc] --random SEED:COUNT                                   random programs (tests/run/random_programs.py)

--sample 1/4 takes every fourth expectation file, from the first on. The last line is `N passed, N failed`.
"""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FLAGS = ['-std=c++17', '-O1', '-fPIC', '-U_FORTIFY_SOURCE', '-ffp-contract=off', '-fno-math-errno', '-Wall', '-Wextra',
         '-Wno-unknown-pragmas', '-I' + os.path.join(HERE, 'include')]
CHECKED = ['-fsanitize=thread', '--param', 'tsan-instrument-func-entry-exit=0']  # only the calls: see emulation.cpp


def build_emulation(folder):
    """The path of emulation.o, beside which emulation.o.flags says how units are compiled."""
    cxx = os.environ.get('CUDA_EMULATION_CXX', 'g++')
    target = os.path.join(folder, 'emulation.o')
    parts = []
    for source in ('emulation', 'streams', 'nccl'):
        parts.append(os.path.join(folder, 'part_%s.o' % source))
        subprocess.run([cxx, *FLAGS, '-O2', '-c', os.path.join(HERE, source + '.cpp'), '-o', parts[-1]], check=True)
    subprocess.run(['ld', '-r', *parts, '-o', target], check=True)
    with open(target + '.flags', 'w', encoding='utf-8') as f:
        f.write('\n'.join([cxx, *FLAGS, *CHECKED]))
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--sample', default='1/1')
    parser.add_argument('--filter', default='')
    parser.add_argument('--random')
    parser.add_argument('paths', nargs='*')
    o = parser.parse_args()
    files = []
    for p in o.paths:
        files += sorted(os.path.join(p, f) for f in os.listdir(p) if f.endswith('.mxl')) if os.path.isdir(p) else [p]
    first, step = (int(x) for x in o.sample.split('/'))
    with tempfile.TemporaryDirectory(prefix='mxcc-cuda-') as folder:
        env = dict(os.environ, MXCC_EMULATION=build_emulation(folder))
        runner = os.path.join(HERE, '..', 'run', 'run.py')
        command = [sys.executable, runner, '--mxcc', o.mxcc, '--filter', o.filter, *files[first - 1::step]]
        if o.random:
            seed, count = o.random.split(':')
            command = [sys.executable, os.path.join(HERE, '..', 'run', 'random_programs.py'), '--mxcc', o.mxcc, '--modes', 'cuda', '--seed', seed, '--count', count]
        return subprocess.run(command, env=env).returncode


if __name__ == '__main__':
    sys.exit(main())
