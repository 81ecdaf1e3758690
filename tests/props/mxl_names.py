"""Renames every name that a .mxl file declares: functions, blocks, parameters, dimensions, indices, variables, fields, results.

A file is read as tokens. What stands where a declaration names something is the file's own (`fn NAME`, `let A, B`, a
parameter before its type, an index before `<` or `in`, …); the same name anywhere else is renamed with it, but for the
places that belong to others: after a dot of a library's module, an argument's name in a call of the library, a setting's
key in `train`.
"""
import re

TOKEN = re.compile(r'''(?P<space>\s+)|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<number>0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>->|\.\.|\*\*|<<|>>|[<>=!]=|[+\-*/%@&|^]=|.)''',
                   re.X | re.S)
WORDS = set('''use as const fn block param state let var if else for in unroll while return export train kernel gradient extern inout limit
    checkpoint assert print and or not true false none inf nan pi int float string incremental'''.split())
TYPES = set('f64 f32 f16 bf16 i64 i32 i16 i8 u64 u32 u16 u8 bool'.split())
SETTINGS = set('data test split batch epochs step evaluate seed shuffle checkpoint log steps'.split())
MEMBERS = set('T shape dtype name min max bits is_float forward'.split())
REDUCTIONS = set('tensor sum prod max min any all mean argmax argmin'.split())


class Token:
    def __init__(self, kind, text):
        self.kind, self.text = kind, text


def tokens(text):
    return [Token(m.lastgroup, m.group()) for m in TOKEN.finditer(text)]


class File:
    def __init__(self, text):
        self.all = tokens(text)
        self.at = [t for t in self.all if t.kind not in ('space', 'comment')]
        self.starts = set()  # indices in `at` of tokens that begin a line
        fresh, n = True, 0
        for t in self.all:
            if t.kind in ('space', 'comment'):
                fresh = fresh or '\n' in t.text
            else:
                if fresh:
                    self.starts.add(n)
                fresh = False
                n += 1
        self.match = self.brackets()
        self.modules, self.own, self.fields, self.callables = set(), set(), set(), set()
        self.train = range(0)
        self.declarations()

    def brackets(self):
        match, stack = {}, []
        for i, t in enumerate(self.at):
            if t.kind == 'sign' and t.text in '([{':
                stack.append(i)
            elif t.kind == 'sign' and t.text in ')]}':
                match[stack[-1]] = i
                match[i] = stack.pop()
        return match

    def text(self, i):
        return self.at[i].text if 0 <= i < len(self.at) else ''

    def is_name(self, i):
        return 0 <= i < len(self.at) and self.at[i].kind == 'name' and self.text(i) not in WORDS | TYPES

    def depth_one(self, opening):
        """The tokens between a bracket and its partner that are in no bracket inside."""
        i = opening + 1
        while i < self.match[opening]:
            yield i
            i = self.match[i] + 1 if self.text(i) in '([{' and self.at[i].kind == 'sign' else i + 1

    def add(self, i, field=False):
        if self.is_name(i):
            self.own.add(self.text(i))
            if field:
                self.fields.add(self.text(i))

    def parameters(self, opening):
        """Names, and what their types may bind: every name in a type's brackets. Defaults declare nothing."""
        fresh, in_type = True, False
        for i in self.depth_one(opening):
            word = self.text(i)
            if word == ',':
                fresh, in_type = True, False
            elif word == ':':
                in_type = True
            elif word == '=':
                in_type = False
            elif word == '[' and in_type:
                self.bound(i)
            elif self.is_name(i) and (fresh or in_type):
                self.add(i)  # the parameter, or an element type that a type binds
                fresh = False

    def bound(self, opening):
        """Dimensions in a type: names that are not called."""
        for i in range(opening + 1, self.match[opening]):
            if self.is_name(i) and self.text(i + 1) != '(' and self.text(i - 1) != '.':
                self.own.add(self.text(i))

    def pattern(self, i, end):
        while i < len(self.at) and self.text(i) not in end:
            self.add(i)
            i += 1

    def declarations(self):
        blocks = []
        for i, t in enumerate(self.at):
            if t.kind == 'string':
                continue
            word, after = t.text, self.text(i + 1)
            while blocks and i > blocks[-1]:
                blocks.pop()
            inside = bool(blocks)
            if word == 'use':
                j = i + 1
                name = self.text(j)
                if self.text(j + 1) == 'as':
                    name = self.text(j + 2)
                self.modules.add(name)
            elif word in ('fn', 'block') and self.is_name(i + 1):
                self.add(i + 1, field=inside)
                self.callables.add(after)
                opening = i + 2
                if self.text(opening) == '(':
                    self.parameters(opening)
                    opening = self.match[opening] + 1
                if self.text(opening) == '->' and self.text(opening + 1) == '(':
                    self.parameters(opening + 1)
                if word == 'block':
                    while self.text(opening) != '{':
                        opening += 1
                    blocks.append(self.match[opening])
            elif word == 'train' and after == '{':
                self.train = range(i + 2, self.match[i + 1])
            elif word == 'gradient' and after == '(':
                self.parameters(i + 1)
            elif word in ('param', 'state') and self.is_name(i + 1) and i in self.starts | {k + 1 for k in self.starts}:
                self.add(i + 1, field=True)
            elif word == 'const' or word == 'var':
                self.add(i + 1, field=word == 'const')
            elif word == 'let':
                self.pattern(i + 1, '=')
            elif word == 'for':
                self.pattern(i + 1, ('in',))
            elif word in REDUCTIONS and after == '[':
                self.indices(i + 1)
            elif i in self.starts and self.is_name(i) and after == '=' and i not in self.train:
                self.add(i, field=True)
        self.own -= self.modules | MEMBERS - {'T'}

    def indices(self, opening):
        for i in range(opening + 1, self.match[opening]):
            if self.text(i + 1) in ('<', 'in') and self.text(i - 1) in ('[', ',', '..'):
                self.add(i)

    def callee(self, i):
        """The opening bracket of the call that token i is a direct argument of, or None."""
        depth = 0
        while i > 0:
            i -= 1
            if self.at[i].kind == 'sign' and self.text(i) in ')]}':
                i = self.match[i]
            elif self.at[i].kind == 'sign' and self.text(i) in '([{':
                return i if self.text(i) == '(' and self.at[i - 1].kind == 'name' else None
        return depth or None

    def root(self, i):
        while self.text(i - 1) == '.' and i >= 2:
            i -= 2
        return self.text(i)

    def renamed(self, i):
        word = self.text(i)
        if not self.is_name(i) or word not in self.own:
            return False
        if self.text(i - 1) == '.':
            return word in self.fields and self.root(i) not in self.modules
        if self.text(i + 1) == '=' and i not in self.starts:
            opening = self.callee(i)
            if opening is not None and self.text(opening - 2) not in ('fn', 'block'):
                if i in self.train and self.text(opening - 1) in ('csv', 'idx', 'npy', 'text', 'tokens'):
                    return True
                return self.text(opening - 1) in self.callables and self.root(opening - 1) not in self.modules
        if i in self.train and i in self.starts and word in SETTINGS:
            return False
        return True


def new_names(own):
    """Names of other lengths, in another order, none a prefix of the old."""
    result = {}
    for n, word in enumerate(sorted(own, reverse=True)):
        made = 'q%d%s' % ((n * 7919 + 13) % 1009, 'wxyz'[n % 4] * (n % 5 + 1))
        result[word] = made.upper() if word.isupper() else made
    return result


def rename(text):
    """The text with its own names replaced, and {old: new}."""
    f = File(text)
    new = new_names(f.own)
    for i in [i for i in range(len(f.at)) if f.renamed(i)]:
        f.at[i].text = new[f.at[i].text]
    return ''.join(t.text for t in f.all), new
