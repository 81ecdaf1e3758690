"""What the scripts of this folder share that are lists of checks: failures, commands, and the run of a list."""
import argparse
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run as cuda  # noqa: E402


class Failure(Exception):
    pass


def expect(condition, *words):
    if not condition:
        raise Failure(' '.join(str(w) for w in words))


def sh(*command, cwd=None, env=None, status=0):
    p = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})})
    expect(status is None or p.returncode == status, ' '.join(map(str, command)), 'gave', p.returncode, '\n', p.stdout[-3000:], p.stderr[-3000:])
    return p.stdout + p.stderr


def main(text, checks, emulation=True):
    """Runs each check with the options: mxcc, a folder and, if there is to be one, the emulation and the compiler of its units."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', required=True)
    o = parser.parse_args()
    o.mxcc = os.path.abspath(o.mxcc)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix='mxcc-cuda-') as o.folder:
        if emulation:
            o.emulation = cuda.build_emulation(o.folder)
            with open(o.emulation + '.flags', encoding='utf-8') as f:
                o.compiler = f.read().split('\n')
        for check in checks:
            try:
                check(o)
                passed += 1
            except Failure as e:
                failed += 1
                print('FAIL %s: %s' % (check.__name__, e), flush=True)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0
