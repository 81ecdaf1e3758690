#!/usr/bin/env python3
"""Runs `mxcc fmt` on NAME.mxl and compares with NAME.expected; the result formatted again must not change, and so must
every other .mxl file given (samples, the standard library: they are kept formatted).

    run.py MXCC DIRECTORY ...
"""
import os
import subprocess
import sys
import tempfile


def formatted(mxcc, path, folder):
    result = os.path.join(folder, 'result.mxl')
    p = subprocess.run([mxcc, 'fmt', path, '-o', result], capture_output=True, timeout=60)
    if p.returncode != 0:
        return None, p.stderr.decode('utf-8', 'replace')
    with open(result, 'rb') as f:
        return f.read(), ''


def run_file(mxcc, path, folder):
    once, error = formatted(mxcc, path, folder)
    if once is None:
        return error
    expected = os.path.splitext(path)[0] + '.expected'
    if not os.path.exists(expected):
        expected = path
    with open(expected, 'rb') as f:
        if f.read() != once:
            return f'differs from {expected}'
    again = os.path.join(folder, 'again.mxl')
    with open(again, 'wb') as f:
        f.write(once)
    twice, error = formatted(mxcc, again, folder)
    return error if twice is None else '' if twice == once else 'changes when formatted again'


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for root in sys.argv[2:]:
            for name in sorted(os.listdir(root)):
                if not name.endswith('.mxl'):
                    continue
                complaint = run_file(sys.argv[1], os.path.join(root, name), folder)
                if complaint:
                    failed += 1
                    print(f'FAIL {os.path.join(root, name)}: {complaint}')
                else:
                    passed += 1
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
