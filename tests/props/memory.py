"""The plans of all samples and of the zoo are valid (`--verify`), within 1% of the lower bound of their order, which is itself within 3% of
what any order needs; and nothing is copied, but by incremental functions, which hand out copies of what they keep."""
import glob
import os
import re

from common import ROOT, expect, must, stem

FUNCTION = re.compile(r'^(\w+)\n  operations .*\n  arena +(.*?), lower bound (.*?): (?:optimal|([\d.]+)% above)$', re.M)


def hands_over(report):
    """An incremental function copies its results out of what it keeps."""
    return '\n  incremental ' in report


def number(text):
    n, unit = text.split()
    return float(n) * {'B': 1, 'KiB': 1024, 'MiB': 1 << 20}[unit]


def cases(env):
    for path in env.samples + sorted(glob.glob(os.path.join(ROOT, 'samples', '*', '*.mxl'))):
        if 'export' not in open(path, encoding='utf-8').read():  # blocks for others
            continue
        yield stem(path), lambda path=path: check(env, path)


def check(env, path):
    report = must([env.mxcc, 'report', path, '--verify', '-Wnone']).out
    functions = list(FUNCTION.finditer(report))
    expect(functions, 'no function in the report of %s', path)
    for i, f in enumerate(functions):
        text = report[f.start():functions[i + 1].start() if i + 1 < len(functions) else len(report)]
        expect(float(f.group(4) or 0) < 1, '%s: the arena is %s%% above the bound', f.group(1), f.group(4))
        bound = re.search(r'^  order +by \w+, no order below (.*?)(: optimal)?$', text, re.M)
        if not hands_over(text) and f.group(3) != '0 B':
            expect(bound, '%s: the bound of its orders is unknown', f.group(1))
            expect(bound.group(2) or number(bound.group(1)) > 0.97 * number(f.group(3)), '%s: %s of %s', f.group(1), f.group(3), bound.group(1))
        copies = re.search(r'^  copies +(\d+)$', text, re.M)
        expect(copies, '%s: no line about copies', f.group(1))
        expect(hands_over(text) or copies.group(1) == '0', '%s: %s copies', f.group(1), copies.group(1))
