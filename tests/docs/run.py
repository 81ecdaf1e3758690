#!/usr/bin/env python3
"""Runs the examples of Markdown files: run.py --mxcc build/mxcc FILE.md...

Each file gets a folder of its own, in which its fenced blocks act in order:

    ```mxl gate.mxl      writes gate.mxl, which must pass `mxcc check`; the same for any other language, without the check
    ```sh                runs under `sh -eu` with mxcc in the PATH and the repository as $MXCC_ROOT; must succeed
    ```text              behind a sh block: what it prints; `…` stands for anything within a line, a line `…` for any lines
    ```sh not run        is left alone, as is any block without a name

Blocks of mxl without a name are checked by tests/run/run.py --docs. The last line is `N passed, N failed`; exit status 1 if any failed."""
import argparse
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def blocks(path):
    with open(path, encoding='utf-8') as f:
        text = f.read()
    for m in re.finditer(r'^```(\S*) *([^\n]*)\n(.*?)^```', text, re.S | re.M):
        yield text.count('\n', 0, m.start()) + 1, m.group(1), m.group(2).strip(), m.group(3)


def matches(expected, got):
    """Lines against lines, with `…`."""
    pattern = ''
    for line in expected.rstrip('\n').split('\n'):
        if line.strip() == '…':
            pattern += r'(?:[^\n]*\n)*?'
        else:
            pattern += '.*?'.join(re.escape(part) for part in line.rstrip().split('…')).replace('.*?', '[^\n]*?') + r'[ \t]*\n'
    return re.fullmatch(pattern, got.rstrip('\n') + '\n') is not None


def path_with_numpy(path, folder):
    """A PATH whose python3 has numpy: where the first one lacks it, the system's, which the distribution's package is for."""
    if subprocess.run(['python3', '-c', 'import numpy'], capture_output=True).returncode == 0:
        return path
    os.mkdir(folder)
    with open(os.path.join(folder, 'python3'), 'w', encoding='utf-8', opener=lambda name, flags: os.open(name, flags, 0o755)) as f:
        f.write('#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    return folder + os.pathsep + path


def run_file(path, mxcc, folder):
    passed, failures, output = 0, [], None
    search = path_with_numpy(os.environ.get('PATH', ''), os.path.join(folder, '.bin'))
    env = dict(os.environ, PATH=os.path.dirname(mxcc) + os.pathsep + search, MXCC_ROOT=ROOT, LC_ALL='C.UTF-8')
    for line, language, info, body in blocks(path):
        where = '%s:%d' % (os.path.relpath(path, ROOT), line)
        if language == 'sh' and info == '':
            try:
                p = subprocess.run(['sh', '-eu'], input=body, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
            except subprocess.TimeoutExpired:
                failures.append('%s: did not end' % where)
                continue
            output = p.stdout
            if p.returncode != 0:
                failures.append('%s: status %d\n%s%s' % (where, p.returncode, p.stdout[-1500:], p.stderr[-3000:]))
                continue
        elif language == 'text' and info == '' and output is not None:
            if not matches(body, output):
                failures.append('%s: the commands above print\n%s' % (where, output))
                continue
            output = None
        elif '.' in info and ' ' not in info or info in ('Makefile',):
            with open(os.path.join(folder, info), 'w', encoding='utf-8') as f:
                f.write(body)
            output = None
            if language == 'mxl':
                p = subprocess.run([mxcc, 'check', '-Werror', info], cwd=folder, capture_output=True, text=True, timeout=60)
                if p.returncode != 0:
                    failures.append('%s: %s' % (where, p.stderr[-2000:]))
                    continue
            else:
                continue
        else:
            continue
        passed += 1
    if passed + len(failures) == 0:
        p = subprocess.run([sys.executable, os.path.join(ROOT, 'tests', 'run', 'run.py'), '--mxcc', mxcc, '--docs', path], capture_output=True, text=True)
        lines = p.stdout.rstrip().split('\n')
        m = re.match(r'(\d+) passed, (\d+) failed', lines[-1])
        if not m:
            return 0, ['%s: %s' % (path, p.stdout + p.stderr)]
        return int(m.group(1)), lines[:-1] if m.group(2) != '0' else []
    return passed, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default='build/mxcc')
    parser.add_argument('paths', nargs='+')
    o = parser.parse_args()
    passed = failed = 0
    for path in o.paths:
        with tempfile.TemporaryDirectory(prefix='mxcc-docs-') as folder:
            n, failures = run_file(path, os.path.abspath(o.mxcc), folder)
        passed += n
        failed += len(failures)
        for x in failures:
            print(x)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
