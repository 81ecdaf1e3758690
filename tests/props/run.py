#!/usr/bin/env python3
"""Properties of compiled models, on every sample and on the small programs beside this file.

    run.py --mxcc build/mxcc [--only rename,trips] [--long] [--keep FOLDER]

A property is a module here with `cases(env)`: pairs of a name and a function that raises common.Failure (or common.Skip
where the machine lacks what it needs). Only Python's standard library, cc and nm are needed. The last line is
`N passed, N failed`; exit status 1 if any failed.
"""
import argparse
import glob
import importlib
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import HERE, ROOT, Env, Failure, Skip  # noqa: E402

PROPERTIES = ['roundtrip', 'same_bytes', 'rename', 'trips', 'portable', 'sizes', 'interface', 'eager_steps', 'same_bits', 'resume', 'bad_input', 'failed_calls', 'blas', 'incremental', 'updates', 'memory', 'known_failures']


def models(folder):
    return sorted(glob.glob(os.path.join(folder, '*.mxl')))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--mxcc', default=os.path.join(ROOT, 'build', 'mxcc'))
    p.add_argument('--only', default='', help='properties, separated by commas')
    p.add_argument('--filter', default='', help='only cases with this word in their name')
    p.add_argument('--keep', help='work in this folder and leave it')
    p.add_argument('-v', action='store_true', help='print what passed, too')
    o = p.parse_args()
    chosen = [w for w in o.only.split(',') if w] or PROPERTIES
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix='mxcc-props-') as temporary:
        work = os.path.abspath(o.keep or temporary)
        os.makedirs(work, exist_ok=True)
        others = [m for f in ('stdlib', 'run', 'lang/right') for m in models(os.path.join(ROOT, 'tests', f))]
        env = Env(os.path.abspath(o.mxcc), work, models(os.path.join(ROOT, 'samples')), models(HERE), others)
        for name in chosen:
            began = time.monotonic()
            for case, run in importlib.import_module(name).cases(env):
                title = '%s: %s' % (name, case)
                if o.filter not in title:
                    continue
                try:
                    run()
                    passed += 1
                    if o.v:
                        print('ok   ' + title)
                except Skip as e:
                    print('skip %s: %s' % (title, e))
                except (Failure, OSError, ValueError, KeyError) as e:
                    failed += 1
                    print('FAIL %s: %s' % (title, str(e).replace('\n', '\n     ')))
                sys.stdout.flush()
            if o.v:
                print('     %s took %.1f s' % (name, time.monotonic() - began))
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
