"""The plans of all samples and of the zoo are valid (`--verify`), within 1% of the lower bound of their order, and copy nothing in what trains
or predicts. (`generate` of gpt keeps copies: its characters index a table, a check that may still fail once the caches are written.)"""
import glob
import os
import re

from common import ROOT, expect, must, stem

FUNCTION = re.compile(r'^(\w+)\n  operations .*\n  arena +(.*?), lower bound (.*?): (?:optimal|([\d.]+)% above)$', re.M)


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
        copies = re.search(r'^  copies +(\d+)$', text, re.M)
        expect(copies, '%s: no line about copies', f.group(1))
        hands_over = '\n  incremental ' in text  # results are copied out of what it keeps
        expect(hands_over or f.group(1) == 'generate' or copies.group(1) == '0', '%s: %s copies', f.group(1), copies.group(1))
