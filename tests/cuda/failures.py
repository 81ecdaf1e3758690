#!/usr/bin/env python3
"""What goes wrong is found and said: by the emulation, and by generated units.

    failures.py --mxcc build/mxcc

Kernels with a mistake (wrong.cu) are told by the emulation. A program that uses the whole interface prints the same as with the C unit,
for each origin of weights; without a device, with too little memory and with a launch that fails it says so, with the line of the model,
and goes on. With a limit of the device's memory the results are the same, and state is in the host's. Only Python's standard library is needed.
"""
import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from checks import expect, main, sh  # noqa: E402

WRONG = {
    'right': r'right\nright\n125 129',
    'outside': 'reads 4 bytes of device memory .*outside of what its arguments name',
    'outside_write': 'writes 4 bytes of device memory .*outside of what its arguments name',
    'uninitialised': 'reads 4 bytes of device memory .*which nothing wrote',
    'uninitialised_shared': 'reads 4 bytes of shared memory .*which nothing wrote',
    'no_barrier': 'reads shared memory .*which (another thread writes without a barrier between|nothing wrote)|writes shared memory',
    'no_second_barrier': 'shared memory .*without a barrier between',
    'same_place': 'writes device memory .*which another thread writes, too',
    'between_blocks': 'block 1 thread 0: writes device memory .*which another thread writes, too',
    'divergent': 'some threads wait where others never come',
    'half_a_warp': 'some threads wait where others never come',
    'host_memory': 'writes memory of the host',
    'copy_not_awaited': 'reads 4 bytes of shared memory .*which nothing wrote',
    'copy_no_barrier': 'reads .*shared memory .*which (another thread writes without a barrier between|nothing wrote)',
    'copy_unfinished': 'ends before a copy that it began',
    'copy_unaligned': 'an address is no multiple of 16',
}


def wrong_kernels(o):
    program = os.path.join(o.folder, 'wrong')
    sh(*o.compiler, '-x', 'c++', '-c', os.path.join(HERE, 'wrong.cu'), '-o', program + '.o')
    sh(o.compiler[0], program + '.o', o.emulation, '-o', program)
    for name, pattern in WRONG.items():
        text = sh(program, name)
        expect(re.search(pattern, text) and (name == 'right' or text.count('emulation:') == 2), name, 'gives', text)


def program(o, flags=(), defines=(), hidden=20, cuda_flags=()):
    """Beside each other: the interface's program with the CUDA unit in the emulation and with the C unit."""
    folder = tempfile.mkdtemp(dir=o.folder)
    model = os.path.join(folder, 'interface.mxl')
    with open(os.path.join(HERE, 'interface.mxl'), encoding='utf-8') as f, open(model, 'w', encoding='utf-8') as to:
        to.write(f.read().replace('hidden = 20)', 'hidden = %d)' % hidden))
    paths = []
    for kind in ('cu', 'c'):
        unit, to = os.path.join(folder, 'interface.' + kind), os.path.join(folder, 'with_' + kind)
        sh(o.mxcc, model, '-o', unit, *flags, *(cuda_flags if kind == 'cu' else ()))
        main = to + '_main.o'
        sh('cc', '-O1', '-I' + folder, *defines, '-c', os.path.join(HERE, 'interface.c'), '-o', main)
        if kind == 'cu':
            sh(*o.compiler, '-Werror', '-I' + folder, '-x', 'c++', '-c', unit, '-o', unit + '.o')
            sh(o.compiler[0], main, unit + '.o', o.emulation, '-lm', '-o', to)
        else:
            sh('cc', '-O1', '-ffp-contract=off', '-I' + folder, main, unit, '-lm', '-o', to)
        paths.append(to)
    return folder, paths


def interface(o):
    folder, (cu, c) = program(o)
    expected = sh(c, cwd=folder)
    expect(expected.count('status 0') > 12, 'the C program prints', expected)
    got = sh(cu, cwd=folder)
    expect(got == expected, 'with CUDA it prints\n', got, '\nwith C\n', expected)
    saved = os.path.join(folder, 'saved.safetensors')
    for flags, defines in ((('--weights', 'source'), ()), (('--weights', 'file'), ()), (('--weights', 'caller'), ('-DWEIGHTS_IMAGE="%s"' % saved,))):
        folder, (cu, c) = program(o, flags, defines)
        expected, got = sh(c, cwd=folder), sh(cu, cwd=folder)
        expect('step: status 0' in got and got == expected, *flags, 'with CUDA\n', got, '\nwith C\n', expected)


def failures(o):
    folder, (cu, _) = program(o)
    text = sh(cu, 'once', cwd=folder, env={'EMULATED_DEVICE': 'none'})
    expect('log: init: no GPU that can be used' in text and 'init: status 12' in text, 'without a device:', text)
    text = sh(cu, 'once', cwd=folder, env={'EMULATED_MEMORY': '1000'})
    expect(re.search(r'log: init: the GPU has too little memory free: \d+ bytes are needed', text) and 'init: status 4' in text,
           'with too little memory:', text)
    text = sh(cu, 'once', cwd=folder)
    expect(text.count('step: status 0') == 2, 'without a failure:', text)
    # Launches are counted from those of init on; among the next is one of the step.
    found = 0
    for launch in range(1, 60):
        text = sh(cu, 'once', cwd=folder, env={'EMULATED_FAILURE': str(launch)})
        if 'init: status' in text:
            expect('log: ' in text and 'status 12' in text, 'launch', launch, 'of init failed:', text)
            continue
        if 'step: status 12' in text.split('\n')[0]:
            found += 1
            expect(re.search(r'step: status 12 \S+\.mxl[>:]\S*:?\d* ?.*CUDA: emulation: \w+ was to fail', text) or
                   re.search(r'step: status 12 .*:\d+ .*CUDA: emulation: \w+ was to fail', text), 'launch', launch, 'failed:', text)
            expect('arguments 0.1000 -0.2000 0.3000 1.0000 2.0000 -1.0000' in text, 'arguments have changed:', text)
            expect(text.split('\n')[2].startswith('step: status 0'), 'the next call does not go on:', text)
    expect(found > 3, 'only', found, 'launches of the step failed')


def names(o):
    """A unit that is called like one of its own locals."""
    unit = os.path.join(o.folder, 'step.cu')
    sh(o.mxcc, os.path.join(HERE, 'products.mxl'), '-o', unit)
    sh(*o.compiler, '-Werror', '-fsyntax-only', '-x', 'c++', unit)


def contract(folder):
    with open(os.path.join(folder, 'interface.h'), encoding='utf-8') as f:
        return {m[1]: int(m[2]) for m in re.finditer(r'#define INTERFACE_(\w+) (\d+)', f.read())}


def memory(o):
    """--memory-limit: all of the device's memory counts, and optimizer state leaves it; not a bit of a result changes."""
    folder, (cu, c) = program(o, hidden=3000)
    expected, all_there = sh(cu, cwd=folder).replace(folder, ''), contract_of_cuda(o, folder, ())
    expect('PINNED_BYTES' not in all_there and expected.count('status 0') > 12, 'without a limit', all_there)
    text = sh(o.mxcc, os.path.join(folder, 'interface.mxl'), '-o', os.path.join(folder, 'no.cu'), '--memory-limit', '1000', status=1)
    m = re.search(r'an instance needs (\d+) bytes of the GPU.s memory, --memory-limit is 1000', text)
    expect(m and 'go to the host\'s memory' in text and '--memory-limit %s is enough' % m[1] in text, 'a limit that is too small:', text)
    least = int(m[1])
    expect(least < all_there['DEVICE_BYTES'], least, 'is no less than', all_there)
    for limit in (least, (least + all_there['DEVICE_BYTES']) // 2):
        folder, (cu, c) = program(o, hidden=3000, cuda_flags=('--memory-limit', limit, '--verify'))
        here = contract_of_cuda(o, folder, ('--memory-limit', limit))
        expect(here['DEVICE_BYTES'] <= limit and here['PINNED_BYTES'] > 0, 'limit', limit, 'gives', here)
        for order in ('first', 'last'):
            # two instances at a time
            got = sh(cu, cwd=folder, env={'EMULATED_STREAMS': order, 'EMULATED_MEMORY': str(2 * limit)}).replace(folder, '')
            expect(got == expected, 'with --memory-limit', limit, 'it prints\n', got, '\nwithout\n', expected)
    text = sh(cu, 'once', cwd=folder, env={'EMULATED_MEMORY': '1000'})
    expect(re.search(r'log: init: the GPU has too little memory free: %d bytes are needed, 1000 of 1000 are free; mxcc --memory-limit BYTES computes again '
                     r'instead of keeping the \d+ bytes of working memory, and \d+ bytes of optimizer state can stay in the host.s memory' % here['DEVICE_BYTES'], text),
           'with too little memory:', text)


def contract_of_cuda(o, folder, flags):
    """The header beside it is that of the C unit, which came last."""
    sh(o.mxcc, os.path.join(folder, 'interface.mxl'), '-o', os.path.join(folder, 'interface.cu'), *flags)
    return contract(folder)


if __name__ == '__main__':
    sys.exit(main(__doc__, (wrong_kernels, interface, failures, names, memory)))
