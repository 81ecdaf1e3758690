#!/usr/bin/env python3
"""Each copy that the compiler makes is needed: left out (`--drop-copy N`), the plan's validator objects, and results are wrong.

    copies.py [--mxcc build/mxcc] [--random N] FILE-or-FOLDER...

For every .mxl file, and for N files of random programs (random_mutation.py), each copy in turn: the validator must reject the plan without it. The
functions of copies.mxl are also built without it and called: some result must differ from what the file expects. A copy whose two sides
both need memory of their own (a result that is also a buffer's value) is counted and cannot be left out. no_copies.mxl must need none. The last line is `N passed, N failed`.
"""
import argparse
import concurrent.futures
import importlib.util
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def module(name):
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, name + '.py'))
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


behaviour, mutation = module('run'), module('random_mutation')


def compile_model(mxcc, path, *flags):
    with tempfile.TemporaryDirectory(prefix='mxcc-copies-') as place:  # where a reproducer is written
        return subprocess.run([mxcc, path, '--emit', 'plan', '-o', os.path.join(place, 'plan'), '-Wnone', *flags], capture_output=True, text=True,
                              cwd=place, timeout=300)


def copies(mxcc, path):
    """How many copies can be left out, and how many cannot."""
    p = compile_model(mxcc, path, '--explain', 'copies')
    if p.returncode != 0:
        raise behaviour.Failure('%s: %s' % (path, p.stderr[-1000:]))
    lines = [x for x in p.stderr.splitlines() if x.startswith('  copy of ')]
    fixed = sum('both must be in memory of their own' in x for x in lines)
    return len(lines) - fixed, fixed


def rejected(mxcc, path):
    """(copies left out, failures): the validator's verdict on each."""
    failures = []
    n, fixed = copies(mxcc, path)
    p = compile_model(mxcc, path, '--verify')
    if p.returncode != 0:
        failures.append('%s: %s' % (path, p.stderr[-300:]))
    for k in range(1, n + 1):
        p = compile_model(mxcc, path, '--verify', '--drop-copy', str(k))
        if p.returncode != 3 or 'the memory plan of' not in p.stderr:
            failures.append('%s: copy %d is not needed: status %d %s' % (path, k, p.returncode, p.stderr[-300:]))
    return n, fixed, failures


def wrong_results(mxcc, path):
    """Built without each copy: how many of them are seen in a result."""
    failures = []
    n, _ = copies(mxcc, path)
    for k in range(1, n + 1):
        with tempfile.TemporaryDirectory(prefix='mxcc-copies-') as folder:
            # in a process of its own: the library's name is the same each time, and it may crash
            code = 'import sys; sys.path.insert(0, %r); import copies; sys.exit(copies.all_right(%r, %r, %r, %d))' % (HERE, mxcc, path, folder, k)
            p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
            if p.returncode == 0:
                failures.append('%s: without copy %d all results are right' % (path, k))
    return n, failures


def all_right(mxcc, path, folder, k):
    """0 if every expectation of the file holds without copy k."""
    wanted, flags, _ = behaviour.expectations(path)
    try:
        model = behaviour.Model(mxcc, path, folder, [*flags, '-O', '0', '--drop-copy', str(k)])
        for e in wanted:
            behaviour.run_expectation(mxcc, path, model, e, folder)
    except behaviour.Failure as x:
        print(x)
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--random', type=int, default=2)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('files', nargs='+')
    o = parser.parse_args()
    o.mxcc = os.path.abspath(o.mxcc)
    paths = []
    for f in o.files:
        paths += sorted(os.path.join(f, x) for x in os.listdir(f) if x.endswith('.mxl')) if os.path.isdir(f) else [f]
    paths = [os.path.abspath(p) for p in paths]
    failures, passed, fixed = [], 0, 0
    with tempfile.TemporaryDirectory(prefix='mxcc-copies-') as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for k in range(o.random):
            place = os.path.join(folder, str(k))
            os.makedirs(place)
            path, _, problems = mutation.make(o.seed + k, 25, o.mxcc, place)
            failures += problems
            paths.append(path)
        for n, f, bad in pool.map(lambda p: rejected(o.mxcc, p), paths):
            passed += n - len(bad)
            fixed += f
            failures += bad
    kept = sum(copies(o.mxcc, os.path.join(HERE, 'no_copies.mxl')))
    passed += kept == 0
    if kept:
        failures.append('no_copies.mxl: %d copies that nothing needs' % kept)
    seen, bad = wrong_results(o.mxcc, os.path.join(HERE, 'copies.mxl'))
    passed += seen - len(bad)
    failures += bad
    for x in failures[:40]:
        print(x)
    print('%d copies cannot be left out; %d were seen in wrong results' % (fixed, seen - len(bad)))
    print('%d passed, %d failed' % (passed, len(failures)))
    return 1 if failures or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
