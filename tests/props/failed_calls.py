"""A call that fails leaves every buffer as it was: a check may fail behind writes, in a loop, in a branch, at a loop's limit."""
import importlib.util
import os

from common import ROOT, expect, write

SOURCE = '''
state s: f32[4] = 1
state n: i64 = 0
block Rows() { state rows: f32[3, 2] = 0; fn forward(x: f32[2], i: i32) { rows[i] = x } }
a = Rows()
export fn behind(x: f32[4], i: i32) -> f32 { s += x; n += 1; return s[i] }
export fn written(x: f32[2], i: i32) -> f32[3, 2] { n += 1; a(x, 0); a(x, i); return a.rows }
export fn counted(x: f32[4], ids: i32[5]) -> f32 {
    var t = 0.0
    for k in 0..5 { s[ids[k]] += 1; n += 1; t += x[ids[k]] }
    return t
}
export fn later(x: f32[4], ids: i32[5]) -> f32 {
    for k in 0..5 { s *= 2 }
    for k in 0..5 { s += x[ids[k]] }
    return sum(s)
}
export fn divided(x: f32[4], c: i32, d: i32) -> f32 {
    s += x
    if c > 0 { s *= f32(10 / d) }
    n += i64(100 / c)
    return sum(s)
}
export fn limited(x: f32[4], m: i32) -> f32 { s += x; for t in 0..m <= 3 { s *= 2 }; return sum(s) }
export fn endless(x: f32[4], m: f32) -> f32 { s += x; while s[0] < m limit 3 { s *= 2 }; return sum(s) }
export fn given(inout w: f32[4], i: i32) -> f32 { w += 1; w[0] = 9; return w[i] }
export fn found(x: f32[4], k: i32) -> f32[K <= 4] { s += 1; return x[:k] }
export fn get() -> (s: f32[4], n: i64, rows: f32[3, 2]) = s, n, a.rows
'''
X, IDS = '[1, 2, 3, 4]', '[0, 1, 2, 3, 4]'
CALLS = [('behind', {'x': X, 'i': '9'}), ('written', {'x': '[1, 2]', 'i': '-1'}), ('counted', {'x': X, 'ids': IDS}), ('later', {'x': X, 'ids': IDS}),
         ('divided', {'x': X, 'c': '1', 'd': '0'}), ('divided', {'x': X, 'c': '0', 'd': '1'}), ('limited', {'x': X, 'm': '4'}),
         ('endless', {'x': X, 'm': '1e9'}), ('given', {'w': X, 'i': '4'}), ('found', {'x': X, 'k': '5'}), ('found', {'x': X, 'k': '-1'})]


def run(env):
    spec = importlib.util.spec_from_file_location('behaviour', os.path.join(ROOT, 'tests', 'run', 'run.py'))
    behaviour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(behaviour)
    folder = env.folder('failed_calls')
    source = write(os.path.join(folder, 'model.mxl'), SOURCE)
    model = behaviour.Model(env.mxcc, source, folder, ['-O', '1'])
    m = model.instance()
    # what is there is not what is there at first
    expect(model.call(m, 'behind', model.typed_inputs('behind', {'x': X, 'i': '1'}))[0] == 0, 'a good call failed')

    def state():
        return [a.data for a in model.call(m, 'get', {})[1][0]]
    before = state()
    for name, inputs in CALLS:
        inputs = model.typed_inputs(name, inputs)
        status, message = model.call(m, name, inputs)
        expect(status != 0, '%s should fail', name)
        expect(state() == before, '%s failed and changed a buffer: %s, before %s', name, state(), before)
        code, text = behaviour.eager(env.mxcc, source, name, inputs, folder, model.signatures[name])
        expect(code != 0 and message in text, '%s: eager says `%s`, compiled `%s`', name, text, message)
    model.free(m)


def cases(env):
    yield 'buffers stay', lambda: run(env)
