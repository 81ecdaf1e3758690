"""The C interface under sanitizers: interface.c with counters.mxl, and a few calls of every function of every model with
the least and the largest dimensions (the program is written from the header)."""
import os
import re

from common import HERE, Skip, expect, must, read, stem, write

SANITIZE = ['-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all']


def prototypes(header, name):
    """(function, [(type, is a pointer, is const, name)]) of the exported functions."""
    header = re.sub(r'/\*.*?\*/', '', header, flags=re.S)
    for m in re.finditer(r'^mx_status %s_(\w+)\(%s \*m, ([^;]*)\);' % (name, name), header, re.M):
        if m.group(1) in ('init', 'save', 'load', 'param', 'reset_all'):
            continue
        arguments = []
        for a in m.group(2).split(','):
            words = a.replace('*', ' * ').split()
            arguments.append(([w for w in words if w not in ('const', '*')][0], '*' in words, 'const' in words, words[-1]))
        yield m.group(1), arguments


def program(text, name):
    """Calls each function at the least and the largest dimensions. Buffers are as large as the largest argument could be;
    inputs are small numbers, so that labels and indices mostly hold. A failed check (MX_ERROR_CHECK) is no fault here."""
    shapes = dict(re.findall(r'^(?:/| )\* (\w+)\((.*)\*/', text, re.M))
    out = ['#include <stdio.h>', '#include <stdlib.h>', '#include <string.h>', '#include "%s.h"' % name, 'int main(void) {',
           '    size_t bytes = %s_size(NULL);' % name, '    void *memory = malloc(bytes);', '    %s *m = NULL;' % name,
           '    if (!memory || %s_init(&m, memory, bytes, NULL) != MX_OK)' % name, '        return 1;']
    flops = {n.lower(): int(v) for n, v in re.findall(r'^#define %s_FLOPS_(\w+) (\d+)' % name.upper(), text, re.M)}
    for function, arguments in prototypes(text, name):
        if flops.get(function.lower(), 0) > 2e8:  # unoptimized and sanitized it would take minutes
            continue
        comment = shapes.get(function, '')
        limits = dict((n, (int(lo), int(hi))) for lo, n, hi in re.findall(r'(-?\d+) <= (\w+) <= (\d+)', comment))
        dims = [a[3] for a in arguments if a[0] == 'int64_t' and not a[1] and a[3] in limits]
        for pick in (0, 1):
            values = {d: limits[d][pick] for d in dims}
            out.append('    {')
            call, frees = ['m'], []
            for type_, pointer, const, arg in arguments:
                if arg in values:
                    call.append(str(values[arg]))
                elif not pointer:
                    call.append('1')
                else:
                    n = elements(comment, arg, values, limits)
                    out.append('        %s *p_%s = malloc(%d * sizeof *p_%s);' % (type_, arg, n, arg))
                    out.append('        for (long i = 0; i < %d; i++) p_%s[i] = (%s)(i %% 2);' % (n, arg, type_))
                    call.append('p_' + arg)
                    frees.append('        free(p_%s);' % arg)
            out.append('        mx_status s = MX_OK;')
            out.append('        for (int i = 0; i < 2; i++) s = %s_%s(%s);' % (name, function, ', '.join(call)))
            out.append('        if (s != MX_OK && s != MX_ERROR_CHECK) { fprintf(stderr, "%s: %%s\\n", %s_error(m)); return 1; }' % (function, name))
            out += frees + ['    }']
    return '\n'.join(out + ['    %s_free(m);' % name, '    free(memory);', '    return 0;', '}', ''])


def elements(comment, arg, values, limits):
    """The size of an argument or result, from the comment above the prototype: `x: f32[N, 8]`; exactly, so that every
    access outside is seen."""
    expect(comment, 'the header does not say what %s is', arg)
    m = None
    for spelt in (arg, arg[:-1]):  # C's own words get an underscore
        m = m or re.search(r'\b%s: \w+(?:\[([^\]]*)\])?' % re.escape(spelt), comment)
    if not m or not m.group(1):
        return 1
    total = 1
    for part in m.group(1).split(','):
        names = {k: values.get(k, v[1]) for k, v in limits.items()}
        try:
            total *= int(eval(part.replace('/', '//'), {'__builtins__': {}, 'max': max, 'min': min}, names))
        except (NameError, SyntaxError, TypeError):
            return 1 << 16
    return max(total, 1)


def cases(env):
    folder = env.folder('interface')

    def by_hand(cc):
        must([env.mxcc, os.path.join(HERE, 'counters.mxl'), '--no-runtime', '-o', os.path.join(folder, 'counters.c')])
        path = os.path.join(folder, 'interface')
        must([cc, '-std=c99', '-Wall', '-Wextra', '-Werror', *SANITIZE, '-I', folder, os.path.join(HERE, 'interface.c'), os.path.join(folder, 'counters.c'), '-o', path, '-lm'])
        must([path, folder])

    def calls(source):
        name = stem(source)
        c_file = os.path.join(folder, name + '.c')
        must([env.mxcc, source, '--no-runtime', '-o', c_file])
        large = [n for n, hi in re.findall(r' <= (\w+) <= (\d+)', read(c_file[:-1] + 'h')) if int(hi) > 5]
        small = [w for n in sorted(set(large)) for w in ('--bind', n + '=5')]  # a sanitized step at full size takes minutes
        must([env.mxcc, source, '--no-runtime', *small, '-o', c_file])
        text = program(read(c_file[:-1] + 'h'), name)
        if '_init(&m' not in text or text.count('mx_status s') == 0:
            raise Skip('nothing to call')
        main = write(os.path.join(folder, name + '_calls.c'), text)
        must(['gcc', '-std=c99', *SANITIZE, main, c_file, '-o', main[:-2], '-lm'], timeout=600)
        r = must([main[:-2]], timeout=600)
        expect(r.err == '', '%s', r.err)

    for cc in env.compilers:
        yield 'right and wrong calls, ' + cc, lambda cc=cc: by_hand(cc)
    for m in env.models():
        yield 'sanitized: ' + stem(m), lambda m=m: calls(m)
