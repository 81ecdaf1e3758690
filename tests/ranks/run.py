#!/usr/bin/env python3
"""Generated programs that train over ranks: run.py --mxcc build/mxcc [--only bits,faults] [--filter WORD] [--long] [--seed N] [--keep FOLDER] [-v]

A module here has `cases(env)`, as the properties of tests/props, whose helpers it uses:

    bits      the same bits by any way, and what one process computes
    carried   states that each rank has for itself
    splits    steps that cannot be split, and generated C
    faults    ranks that are killed or stopped
    hosts     several hosts for real, as network namespaces
    launcher  ./run cluster

Jobs of processes need mpirun; what the machine lacks is skipped with a message. --long: a soak, from a seed that is printed. The last line
is `N passed, N failed`; exit status 1 if any failed."""
import argparse
import importlib
import os
import random
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), 'props')]
from common import ROOT, Env, Failure, Skip  # noqa: E402

PARTS = ['bits', 'carried', 'splits', 'faults', 'hosts', 'launcher']


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--mxcc', default=os.path.join(ROOT, 'build', 'mxcc'))
    p.add_argument('--only', default='', help='parts, separated by commas')
    p.add_argument('--filter', default='', help='only cases with one of these, separated by commas, in their name')
    p.add_argument('--long', action='store_true', help='the soak instead of a few losses')
    p.add_argument('--times', type=int, default=100, help='losses of the soak')
    p.add_argument('--seed', type=int, default=random.SystemRandom().randrange(10 ** 6))
    p.add_argument('--keep', help='work in this folder and leave it')
    p.add_argument('-v', action='store_true', help='print what passed, too')
    o = p.parse_args()
    passed = failed = 0
    print('seed %d' % o.seed, flush=True)
    with tempfile.TemporaryDirectory(prefix='mxcc-ranks-') as temporary:
        work = os.path.abspath(o.keep or temporary)
        os.makedirs(work, exist_ok=True)
        env = Env(os.path.abspath(o.mxcc), work, [], [], [])
        env.long, env.times, env.seed = o.long, o.times, o.seed
        for part in [w for w in o.only.split(',') if w] or PARTS:
            for case, run in importlib.import_module(part).cases(env):
                title = '%s: %s' % (part, case)
                if not any(w in title for w in o.filter.split(',')):
                    continue
                began = time.monotonic()
                try:
                    run()
                    passed += 1
                    if o.v:
                        print('ok   %s (%.1f s)' % (title, time.monotonic() - began))
                except Skip as e:
                    print('skip %s: %s' % (title, e))
                except (Failure, OSError, ValueError, KeyError, IndexError) as e:
                    failed += 1
                    print('FAIL %s: %s' % (title, ('%s' % e).replace('\n', '\n     ')))
                sys.stdout.flush()
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
