"""Small code: an inference unit of digits in portable C, and what a threaded program takes from libmxrt; the figures that the
header states are those of the unit."""
import os
import re

from common import Skip, expect, must, read, stem, write

CODE, RUNTIME = 16 << 10, 24 << 10


def text_bytes(path):
    """Code and constants, as `size` counts them."""
    return int(must(['size', path]).out.splitlines()[1].split()[0])


def cases(env):
    folder = env.folder('sizes')

    def inference():
        digits = [m for m in env.samples if stem(m) == 'digits']
        if not digits:
            raise Skip('no samples/digits.mxl')
        text = read(digits[0])
        # Only `predict` is exported, and nothing is trained.
        text = re.sub(r'\n(///[^\n]*\n)*export train fn step.*?\n}\n', '\n', text, flags=re.S)
        text = re.sub(r'\n(///[^\n]*\n)*export fn score[^\n]*\n(?:    [^\n]*\n)*', '\n', text)
        text = re.sub(r'\ntrain \{.*?\n}\n?', '\n', text, flags=re.S)
        text = re.sub(r'\nopt *=[^\n]*', '\n', text)
        source = write(os.path.join(folder, 'predict.mxl'), text)
        for weights in ('init', 'caller'):
            more = [] if weights == 'init' else ['--weights', weights]
            c_file = os.path.join(folder, 'digits_%s.c' % weights)
            must([env.mxcc, source, '--name', 'digits', '--no-runtime', '--cpu', 'portable', *more, '-o', c_file])
            for cc in env.compilers:
                for stdio in ([], ['-DDIGITS_NO_STDIO']):
                    must([cc, '-std=c99', '-Os', *stdio, '-c', c_file, '-o', c_file[:-1] + 'o'])
                    n = text_bytes(c_file[:-1] + 'o')
                    expect(n < CODE, '%s -Os %s, weights from %s: %d bytes of code, not below %d', cc, ''.join(stdio), weights, n, CODE)

    def runtime():
        """What the linker takes from the library for a program with --threads: all members that its map names."""
        source = write(os.path.join(folder, 'wide.mxl'), 'export fn f(x: f32[512, 512], y: f32[512, 512]) -> f32[512, 512] = exp(x @ y)\n')
        main = write(os.path.join(folder, 'main.c'), '#include "wide.h"\nint main(void) { return wide_size(0) == 0; }\n')
        c_file = os.path.join(folder, 'wide.c')
        must([env.mxcc, source, '--threads', '-o', c_file])
        link_map = os.path.join(folder, 'map')
        must(['gcc', '-std=gnu11', '-O2', *must([env.mxcc, '--cflags']).out.split(), main, c_file, '-Wl,-Map=' + link_map, '-o', c_file[:-2], env.library,
              '-lpthread', '-lm'])
        used = sorted(set(re.findall(r'libmxrt\.a[(]([\w.-]+\.o)', read(link_map))))
        expect(len(used) > 0, 'nothing of the library is linked')
        must(['ar', 'x', env.library, *used], cwd=folder)
        total = sum(text_bytes(os.path.join(folder, m)) for m in used)
        expect(total < RUNTIME, '%d bytes of libmxrt (%s), not below %d', total, ', '.join(used), RUNTIME)

    def contract(source):
        """The header's memory is what `size` says, and the unit's own check of its struct holds."""
        name = stem(source)
        c_file = os.path.join(folder, name + '.c')
        must([env.mxcc, source, '--no-runtime', '-o', c_file])
        states = int(re.search(r'_MEMORY_BYTES (\d+)', read(c_file[:-1] + 'h')).group(1))
        arena = int(re.search(r'_ARENA_BYTES (\d+)', read(c_file[:-1] + 'h')).group(1))
        weights = int(re.search(r'_WEIGHTS_BYTES (\d+)', read(c_file[:-1] + 'h')).group(1))
        expect(states >= arena + weights, '%d bytes in all, %d of arena and %d of weights', states, arena, weights)
        test = write(os.path.join(folder, name + '_size.c'), '#include "%s.h"\nint main(void) { return %s_size(0) == %s_MEMORY_BYTES ? 0 : 1; }\n' %
                     (name, name, name.upper()))
        must(['gcc', '-std=c99', '-O0', test, c_file, '-o', test[:-2], '-lm'])
        must([test[:-2]])

    yield 'inference unit of digits', inference
    yield 'the library in a threaded program', runtime
    for m in env.models():
        yield 'memory of ' + stem(m), lambda m=m: contract(m)
