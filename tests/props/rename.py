"""Nothing is known by name: with every name of a model replaced by another, its plan and its code are the same but for names.

Names in the outputs are numbered in order of appearance before they are compared, so only their equality counts. Places in
the source (line:column) may move, as the new names have other lengths."""
import os
import re

import mxl_names
from common import expect, must, read, stem, write

WORD = re.compile(r'"(?:[^"\\\n]|\\.)*"|\b[A-Za-z_]\w*')
PLACE = re.compile(r'(:\d+):\d+')


COMMENT = re.compile(r'/\*.*?\*/', re.S)


def numbered(text):
    """Lines with every word replaced by its number, anew in each function or struct (a name of one may be another's by
    chance); comments, layout and the widths of padding do not count."""
    seen, out = {}, []

    def number(m):
        if m.group().startswith('"'):  # a message: its own words (`a`) may be names, too
            return '"%s"' % re.sub(r'[A-Za-z_]\w*', 'w', m.group()[1:-1])
        return 'n%d' % seen.setdefault(m.group(), len(seen))

    for line in COMMENT.sub('', text).splitlines():
        out.append(' '.join(WORD.sub(number, PLACE.sub(r'\1', line)).split()))
        if line.startswith('}') or not line.strip():
            seen = {}
    return [line for line in out if line]


def cases(env):
    folder = env.folder('rename')

    def outputs(path, kind):
        if kind == 'plan':
            return must([env.mxcc, path, '--name', 'model', '--emit', 'plan'], cwd=folder).out
        c_file = os.path.join(folder, 'model.c')
        must([env.mxcc, path, '--name', 'model', '-o', c_file] + ([] if kind == 'code' else [kind]), cwd=folder)
        return read(c_file)

    def check(source, kind):
        text, new = mxl_names.rename(read(source))
        expect(len(new) > 2, 'only %d names found', len(new))
        old = write(os.path.join(folder, 'before.mxl'), read(source))
        path = write(os.path.join(folder, 'after.mxl'), text)
        a, b = outputs(old, kind), outputs(path, kind)
        a, b = a.replace('before.mxl', 'file.mxl'), b.replace('after.mxl', 'file.mxl')
        x, y = numbered(a), numbered(b)
        for n, (p, q) in enumerate(zip(x, y), 1):
            expect(p == q, 'line %d: `%s`, renamed `%s`', n, p, q)
        expect(len(x) == len(y), '%d lines, renamed %d', len(x), len(y))

    for m in env.models():
        for kind in ('plan', 'code', '--threads'):
            yield '%s of %s' % (kind, stem(m)), lambda m=m, kind=kind: check(m, kind)
