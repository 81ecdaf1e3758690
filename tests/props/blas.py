"""With `--blas openblas` large products call the library, and agree with eager execution. Skipped where OpenBLAS is not installed."""
import os
import sys

from common import ROOT, Skip, expect, must, read, sh, write


def run(env):
    folder = env.folder('blas')
    probe = write(os.path.join(folder, 'probe.c'), 'void cblas_sgemm(void);\nint main(void) { cblas_sgemm(); return 0; }\n')
    if sh(['cc', probe, '-o', os.path.join(folder, 'probe'), '-lopenblas']).status != 0:
        raise Skip('OpenBLAS is not installed')
    model = write(os.path.join(folder, 'products.mxl'), '//: build --blas openblas\n' + read(os.path.join(ROOT, 'tests', 'run', 'products.mxl')))
    text = env.compile(model, os.path.join(folder, 'products.c'), '--blas', 'openblas')
    expect(text.count('mx_blas_f') >= 8, 'the products are not calls of the library')
    must([sys.executable, os.path.join(ROOT, 'tests', 'run', 'run.py'), '--mxcc', env.mxcc, model])


def cases(env):
    yield 'products', lambda: run(env)
