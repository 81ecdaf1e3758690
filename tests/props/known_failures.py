"""What other systems got wrong at some time, each as a program in C that calls what the compiler made: a buffer updated inside a compiled
step and read by the next call; weights written from outside after a compiled step; an in-place write between forward and backward; recurrent
state over calls and its reset; two instances side by side, also in two threads."""
import os

from common import must, write

MODEL = '''
use nn
state counted: f32[4] = 0
param w: f32[4] = 1
cell = nn.LSTMCell(4, 4)
state h: f32[1, 4] = 0
state c: f32[1, 4] = 0

export fn count(x: f32[4]) -> f32[4] { counted[1:3] += x[1:3]; return counted * 1 }
export fn counts() -> f32[4] = counted
export train fn step(x: f32[4], lr: f32) -> (loss: f32) {
    let loss = sum((w * x) ** 2)
    w -= lr * grad(loss, w)
    return loss
}
export fn scaled(x: f32[4]) -> f32[4] = w * x
/// The gradient of sum(h^3) for h = 2x needs the h before the write.
export fn between(x: f32[4]) -> (g: f32[4], later: f32) {
    var h = x * 2
    let y = sum(h ** 3)
    h[0:2] = 0
    h[3] += h[2]
    return grad(y + sum(h), x), sum(h)
}
export fn recur(x: f32[4]) -> f32[4] {
    let hidden, memory = cell(reshape(x, [1, 4]), h, c)
    h = hidden
    c = memory
    return h[0]
}
'''

HEAD = '''#include <math.h>
#include <stdio.h>
#include <string.h>
#include "model.h"
#define CHECK(x) do { if (!(x)) { fprintf(stderr, "line %d: %s\\n", __LINE__, #x); return 1; } } while (0)
static const float x[4] = {1, 2, 3, 4};
'''

PROGRAMS = {
    'a buffer updated inside a step is seen by the next call': '''
int main(void) {
    model *m; float y[4];
    CHECK(model_init(&m, NULL, 0, NULL) == MX_OK);
    for (int i = 1; i <= 3; i++) {
        CHECK(model_count(m, x, y) == MX_OK && y[0] == 0 && y[1] == 2.0f * i && y[2] == 3.0f * i && y[3] == 0);
        CHECK(model_counts(m, y) == MX_OK && y[1] == 2.0f * i);
    }
    model_free(m);
    return 0;
}''',
    'weights changed after a step are seen': '''
int main(void) {
    model *m; float y[4], loss; mx_tensor w;
    CHECK(model_init(&m, NULL, 0, NULL) == MX_OK);
    CHECK(model_step(m, x, 0.01f, &loss) == MX_OK && loss == 30);
    CHECK(model_scaled(m, x, y) == MX_OK && y[0] == 0.98f);
    CHECK(model_param(m, "w", &w) == MX_OK);
    for (int i = 0; i < 4; i++) ((float *)w.data)[i] = 10;
    CHECK(model_scaled(m, x, y) == MX_OK && y[0] == 10 && y[3] == 40);
    CHECK(model_step(m, x, 0.0f, &loss) == MX_OK && loss == 3000);
    CHECK(model_save(m, "w.safetensors") == MX_OK);
    CHECK(model_step(m, x, 0.01f, &loss) == MX_OK && model_step(m, x, 0.0f, &loss) == MX_OK && loss < 3000);
    CHECK(model_load(m, "w.safetensors") == MX_OK);
    CHECK(model_step(m, x, 0.0f, &loss) == MX_OK && loss == 3000);
    model_free(m);
    return 0;
}''',
    'a write between forward and backward leaves the gradient': '''
int main(void) {
    model *m; float g[4], later;
    CHECK(model_init(&m, NULL, 0, NULL) == MX_OK);
    CHECK(model_between(m, x, g, &later) == MX_OK && later == 20);
    /* 24 x^2, and the derivatives of the h that was summed last: 0, 0, 4, 2 */
    CHECK(g[0] == 24 && g[1] == 96 && g[2] == 220 && g[3] == 386);
    model_free(m);
    return 0;
}''',
    'recurrent state survives calls until it is reset': '''
int main(void) {
    model *m; float first[3][4], y[4];
    CHECK(model_init(&m, NULL, 0, NULL) == MX_OK);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            CHECK(model_recur(m, x, y) == MX_OK);
            if (round == 0) memcpy(first[i], y, sizeof y);
            CHECK(!memcmp(first[i], y, sizeof y));
        }
        CHECK(memcmp(first[0], first[1], sizeof y) && memcmp(first[1], first[2], sizeof y));
        CHECK(model_reset_all(m) == MX_OK);
    }
    model_free(m);
    return 0;
}''',
    'two instances share nothing': '''
#include <pthread.h>
static void *work(void *m) {
    float y[4], loss;
    for (int i = 0; i < 2000; i++)
        if (model_count(m, x, y) != MX_OK || model_recur(m, x, y) != MX_OK || model_step(m, x, 0.001f, &loss) != MX_OK) return m;
    return NULL;
}
int main(void) {
    model *a, *b, *c; float ya[4], yb[4]; pthread_t t; void *bad;
    mx_tensor wa, wb, wc;
    CHECK(model_init(&a, NULL, 0, NULL) == MX_OK && model_init(&b, NULL, 0, NULL) == MX_OK && model_init(&c, NULL, 0, NULL) == MX_OK);
    CHECK(model_count(a, x, ya) == MX_OK && model_counts(b, yb) == MX_OK && ya[1] == 2 && yb[1] == 0);
    CHECK(model_reset_all(a) == MX_OK && work(c) == NULL); /* alone */
    CHECK(pthread_create(&t, NULL, work, a) == 0 && work(b) == NULL && pthread_join(t, &bad) == 0 && bad == NULL);
    CHECK(model_param(a, "w", &wa) == MX_OK && model_param(b, "w", &wb) == MX_OK && model_param(c, "w", &wc) == MX_OK);
    CHECK(!memcmp(wa.data, wc.data, 16) && !memcmp(wb.data, wc.data, 16));
    CHECK(model_counts(a, ya) == MX_OK && model_counts(b, yb) == MX_OK && !memcmp(ya, yb, 16) && ya[1] == 4000);
    model_free(a); model_free(b); model_free(c);
    return 0;
}''',
}


def check(env, folder, program):
    must([env.mxcc, os.path.join(folder, 'model.mxl'), '-o', os.path.join(folder, 'model.c'), '--verify'])
    write(os.path.join(folder, 'main.c'), HEAD + program)
    must(['cc', '-std=gnu11', '-O1', '-Wall', '-Werror', '-o', 'main', 'main.c', 'model.c', '-lm', '-lpthread'], cwd=folder)
    must([os.path.join(folder, 'main')], cwd=folder)


def cases(env):
    folder = env.folder('known_failures')
    write(os.path.join(folder, 'model.mxl'), MODEL)
    for name, program in PROGRAMS.items():
        yield name, lambda program=program: check(env, folder, program)
