#!/usr/bin/env python3
"""Runs wrong (and right) programs through `mxcc check` and compares the diagnostics with comments in the files.

    run.py MXCC DIRECTORY-OR-FILE ...

In a .mxl file, at the end of the line of the diagnostic (one or several of them):
    let a = b ++      //! E0141
    let a = b ++      //! E0141: there is no `++`         the message holds this text
or on the next line, where a comment at the end would change what is tested:
    let a = "text
    //^ E0104
Anywhere: `//!file E0701` a diagnostic without a place, `//!other E0113` one in another file, `//args: --bind N=4` more
arguments. A file without any of these must give no diagnostics. Lines and codes must agree exactly, both ways.
"""
import json
import os
import re
import subprocess
import sys

MARK = re.compile(r'//(!file|!other|!|\^) ((?:[EW]\d{4}[, ]*)+)(?:: (.*?))?\s*(?=//[!^]|$)')


def expected_of(text):
    """[(line or 'file' or 'other', code, part of the message)] and more arguments."""
    wanted, arguments, carets = [], [], 0
    for number, line in enumerate(text.split('\n'), 1):
        if line.startswith('//args: '):
            arguments += line[8:].split()
        marks = list(MARK.finditer(line))
        # Several `//^` lines below one another point at the same line.
        only_caret = line.lstrip().startswith('//^')
        carets = carets + 1 if only_caret else 0
        for mark in marks:
            kind, codes, part = mark.groups()
            place = {'!': number, '^': number - max(carets, 1)}.get(kind, kind[1:])
            for code in re.findall(r'[EW]\d{4}', codes):
                wanted.append((place, code, part or ''))
    return wanted, arguments


def seen_of(output, path):
    seen = []
    for line in output.splitlines():
        if not line.startswith('{'):
            continue
        d = json.loads(line)
        if not d.get('line'):
            place = 'file'
        elif os.path.basename(d['file']) != os.path.basename(path):
            place = 'other'
        else:
            place = d['line']
        seen.append((place, d['code'], d['message']))
    return seen


def run_file(mxcc, path):
    """A list of complaints, empty when all is as the file says."""
    with open(path, encoding='utf-8', errors='replace') as f:
        wanted, arguments = expected_of(f.read())
    try:
        p = subprocess.run([mxcc, 'check', '--diagnostics=json', *arguments, path], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ['no answer within 60 s']
    output = p.stdout.decode('utf-8', 'replace') + '\n' + p.stderr.decode('utf-8', 'replace')
    if p.returncode not in (0, 1):
        return [f'exit status {p.returncode}: {output.strip()[-2000:]}']
    try:
        seen = seen_of(output, path)
    except ValueError as error:
        return [f'no JSON: {error}']
    complaints = []
    rest = list(seen)
    for place, code, part in wanted:
        match = next((s for s in rest if s[0] == place and s[1] == code and part in s[2]), None)
        if match:
            rest.remove(match)
        else:
            complaints.append(f'line {place}: expected {code} {part}')
    complaints += [f'line {place}: unexpected {code} {message}' for place, code, message in rest]
    errors = any(code.startswith('E') for _, code, _ in seen)
    if p.returncode != (1 if errors else 0):
        complaints.append(f'exit status {p.returncode}')
    return complaints


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    files = []
    for argument in sys.argv[2:]:
        if os.path.isdir(argument):
            for folder, _, names in os.walk(argument):
                files += [os.path.join(folder, n) for n in names if n.endswith('.mxl')]
        else:
            files.append(argument)
    passed = failed = 0
    for path in sorted(files):
        complaints = run_file(sys.argv[1], path)
        if complaints:
            failed += 1
            print(f'FAIL {path}')
            for complaint in complaints:
                print(f'    {complaint}')
        else:
            passed += 1
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
