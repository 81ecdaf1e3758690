"""Generated C is clean: portable C99 without a warning from gcc and clang, a header that C++ takes, only the model's prefix
defined, only libc and libm needed, two models in one program and in two threads. Every model of the tests is compiled."""
import os
import re
import shutil

from common import HERE, STRICT, Skip, expect, must, sh, stem

# What portable code may take from outside: memory for init(NULL), files for save and load (absent with NO_STDIO), text, libm.
LIBC = set('''malloc calloc free memcpy memset memmove memcmp strcmp strncmp strlen strtod strtoull snprintf vsnprintf printf fprintf puts putchar fputs
    fflush stdout stderr fopen fclose fread fwrite fseek ftell ferror feof rename remove fputc fputs abort __errno_location errno qsort strchr
    fgetc strerror'''.split())


def cases(env):
    folder = env.folder('portable')

    def translate(source, *flags):
        c_file = os.path.join(folder, 'm_%s.c' % re.sub(r'\W', '_', os.path.relpath(source, os.path.dirname(HERE)).replace('.mxl', '').replace('..', '')))
        r = sh([env.mxcc, source, '-o', c_file, *flags])
        if r.status == 1 and source in env.others:
            raise Skip('not for compilation alone')
        expect(r.status == 0, '%s', r)
        return c_file

    def clean(source, flags, words):
        c_file = translate(source, *flags)
        include = ['-I' + os.path.dirname(source), '-I' + os.path.join(os.path.dirname(HERE), '..', 'runtime', 'include')]
        for cc in env.compilers:  # gcc has warnings that only its optimizer finds
            stop = ['-O1', '-c', '-o', c_file[:-1] + 'o'] if cc == 'gcc' else ['-fsyntax-only']
            must([cc, *words, *stop, *include, c_file])

    def split(source):
        """In several files: as clean, and no other symbols."""
        c_file = translate(source, '--no-runtime', '--cpu', 'portable', '--split', '3')
        prefix = stem(c_file)
        files = [c_file, *(c_file[:-2] + '_%d.c' % i for i in (1, 2))]
        for f in files:
            for cc in env.compilers:
                must([cc, *STRICT, *(['-O0', '-c', '-o', f[:-1] + 'o'] if cc == 'gcc' else ['-fsyntax-only']), f])
        must(['ld', '-r', '-o', c_file[:-1] + 'all.o', *(f[:-1] + 'o' for f in files)])
        for line in must(['nm', '-g', c_file[:-1] + 'all.o']).out.splitlines():
            kind, name = line.split()[-2:]
            if kind == 'U':
                expect(not name.startswith(prefix + '_'), 'does not define %s', name)
            else:
                expect(name.startswith(prefix + '_'), 'defines %s', name)

    def symbols(source):
        c_file = translate(source, '--no-runtime', '--cpu', 'portable')
        must(['gcc', '-std=c99', '-O1', '-fno-builtin', '-fno-pie', '-c', c_file, '-o', c_file[:-1] + 'o'])
        prefix = stem(c_file)
        for line in must(['nm', '-g', c_file[:-1] + 'o']).out.splitlines():
            kind, name = line.split()[-2:]
            if kind == 'U':
                expect(name in LIBC or name in MATH or name == '_GLOBAL_OFFSET_TABLE_', 'needs %s from outside', name)
            else:
                expect(name == prefix or name.startswith(prefix + '_'), 'defines %s', name)
        for line in must(['nm', c_file[:-1] + 'o']).out.splitlines():
            expect(line.split()[-2] not in 'bBdDC', 'has data that is written: %s', line)

    def header(source):
        c_file = translate(source, '--no-runtime')
        if not shutil.which('g++'):
            raise Skip('no g++')
        must(['g++', '-std=c++11', '-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow', '-Werror', '-fsyntax-only', '-x', 'c++', c_file[:-1] + 'h'])

    def together():

        for i, flags in enumerate((['--no-runtime'], ['--threads'])):
            for source in ('counters', 'recurrent'):
                must([env.mxcc, os.path.join(HERE, source + '.mxl'), *flags, '-o', os.path.join(folder, source + '.c')])
            program = os.path.join(folder, 'together%d' % i)
            must(['gcc', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-I', folder,
                  *must([env.mxcc, '--cflags']).out.split(), os.path.join(HERE, 'together.c'), os.path.join(folder, 'counters.c'),
                  os.path.join(folder, 'recurrent.c'), '-o', program, *must([env.mxcc, '--libs']).out.split(), '-lpthread', '-lm'])
            must([program])


    portable = ['--no-runtime', '--cpu', 'portable']
    for m in env.models() + env.others:
        title = os.path.relpath(m, os.path.dirname(HERE))
        yield 'no warnings in ' + title, lambda m=m: clean(m, portable, STRICT)
    for m in env.models():
        # Fields for log, names and the like may stay unused in the other modes; conversions may not lose anything there either.
        yield 'threads: no warnings in ' + stem(m), lambda m=m: clean(m, ['--threads'], STRICT)
        yield 'main: no warnings in ' + stem(m), lambda m=m: clean(m, ['--main'], ['-std=c99', '-Wall', '-Wextra', '-Wpedantic', '-Wshadow', '-Wvla', '-Werror'])
        yield 'vectors: no warnings in ' + stem(m), lambda m=m: clean(m, ['--threads', '--cpu', 'x86-64-v3'], ['-std=gnu11', '-Wall', '-Wextra', '-Wshadow', '-Wvla', '-Werror', '-march=haswell'])
        yield 'in three files: ' + stem(m), lambda m=m: split(m)
        yield 'symbols of ' + stem(m), lambda m=m: symbols(m)
        yield 'C++ header of ' + stem(m), lambda m=m: header(m)
    yield 'two models in one program', together


MATH = {f + e for e in ('', 'f') for f in '''sqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh pow cbrt
    hypot erf erfc lgamma tgamma floor ceil trunc round rint nearbyint fabs fma fmin fmax fmod ldexp frexp lrint copysign'''.split()}
