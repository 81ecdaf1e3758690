/* The train step taken apart: which tensors are averaged, what changes together, what is each rank's own, what comes late; and that the parts
 * have what they need and nothing of the others. */
#include <criterion/criterion.h>
#include <string.h>

#include "frontend/elaborate.h"
#include "ir/text.h"
#include "passes/passes.h"

#define HEAD                 \
    "use nn\nuse optim\n"    \
    "net = nn.Dense(3, 2)\n" \
    "fn loss_of(x: f32[N, 3], y: f32[N, 2]) -> f32 = mean(nn.mse(net(x), y))\n"
#define STEP  "export train fn step(x: f32[N <= 8, 3], y: f32[N, 2], lr: f32) -> "
#define TRAIN "\ntrain {\n data = csv(\"a.csv\", x = columns(0, 3), y = columns(3, 5))\n lr = 0.1\n step = step\n}\n"

struct parted {
    struct diag d;
    struct ir_module *m;
    struct compile_options o;
    struct pass_context c;
    const struct step_split *s;
};

static void take_apart(struct parted *t, const char *text) {
    const struct elaborate_options how = {.name = "t"};
    struct text why = {0};
    memset(t, 0, sizeof *t);
    diag_init(&t->d);
    t->m = elaborate_file(&t->d, diag_add_source(&t->d, "t.mxl", text, strlen(text)), &how);
    if (!t->m)
        diag_print(&t->d, stderr, false);
    cr_assert_not_null(t->m);
    t->o = (struct compile_options){.name = "t", .with_main = true};
    t->c = (struct pass_context){.module = t->m, .diag = &t->d, .options = &t->o};
    pass_distribute(&t->c);
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    t->s = t->c.split;
    text_free(&why);
}

static void done(struct parted *t) {
    ir_module_free(t->m);
    diag_free(&t->d);
}

static int buffer_of(const struct parted *t, const char *name) {
    for (int i = 0; i < t->m->buffer_count; i++)
        if (strcmp(t->m->buffers[i]->name, name) == 0)
            return i;
    cr_assert_fail("there is no buffer %s", name);
    return -1;
}

static int group_of(const struct parted *t, const char *name) {
    return t->s->group_of[buffer_of(t, name)];
}

static const struct step_key *key_of(const struct parted *t, const char *name) {
    for (int i = 0; i < t->s->key_count; i++)
        if (strcmp(t->s->keys[i].buffer->name, name) == 0)
            return &t->s->keys[i];
    return NULL;
}

static int count(const struct ir_func *f, enum ir_opcode code) {
    int n = 0;
    for (const struct ir_op *op = f->body->first; op; op = op->next)
        n += op->code == code;
    return n;
}

Test(distribute, one_group_a_parameter) {
    struct parted t;
    take_apart(
        &t,
        HEAD "opt = optim.SGD(net, momentum = 0.9)\n" STEP
             "(loss: f32) {\n let loss = loss_of(x, y)\n opt.update(grad(loss, net), lr = lr)\n return loss\n}" TRAIN);
    const struct step_split *s = t.s;
    cr_assert_null(s->why_not);
    cr_assert_eq(s->key_count, 2);
    cr_assert_eq(s->group_count, 2);
    cr_assert_eq(group_of(&t, "net.weight"), group_of(&t, "opt.moments.0.value"));
    cr_assert_eq(group_of(&t, "net.bias"), group_of(&t, "opt.moments.1.value"));
    cr_assert_neq(group_of(&t, "net.weight"), group_of(&t, "net.bias"));
    cr_assert_eq(step_split_last(s), -1);
    cr_assert_null(s->report);
    cr_assert_not(s->is_late[0]);
    cr_assert_eq(s->scalar_count, 1, "lr");
    for (int g = 0; g < 2; g++) {
        const struct ir_func *f = s->groups[g].func;
        cr_assert_eq(f->body->arg_count, 2, "lr and a gradient");
        cr_assert_eq(count(f, OP_write), 2, "a parameter and its moment");
        cr_assert_eq(count(f, OP_grad), 0);
    }
    cr_assert_eq(s->gradients->result_count, 3, "the loss and two gradients");
    cr_assert_eq(count(s->gradients, OP_write), 0);
    cr_assert_eq(count(s->gradients, OP_grad), 1);
    done(&t);
}

Test(distribute, a_counter_is_the_last_group) {
    struct parted t;
    take_apart(
        &t,
        HEAD "opt = optim.Adam(net)\n" STEP
             "(loss: f32) {\n let loss = loss_of(x, y)\n opt.update(grad(loss, net), lr = lr)\n return loss\n}" TRAIN);
    cr_assert_null(t.s->why_not);
    cr_assert_eq(t.s->group_count, 3);
    cr_assert_eq(step_split_last(t.s), 2);
    cr_assert_eq(group_of(&t, "opt.t"), 2);
    cr_assert_eq(t.s->groups[2].key_count, 0);
    cr_assert_neq(group_of(&t, "net.weight"), group_of(&t, "net.bias"), "both only read the counter");
    for (int g = 0; g < 2; g++)
        cr_assert_eq(count(t.s->groups[g].func, OP_write), 3, "w, m and v, not t");
    done(&t);
}

Test(distribute, a_common_norm_joins) {
    struct parted t;
    take_apart(&t, HEAD "opt = optim.SGD(net)\n" STEP
                        "(loss: f32, norm: f32) {\n let loss = loss_of(x, y)\n let g = grad(loss, net)\n"
                        " opt.update(optim.clip_norm(g, 1), lr = lr)\n return loss, optim.norm(g)\n}" TRAIN);
    cr_assert_null(t.s->why_not);
    cr_assert_eq(t.s->group_count, 1);
    cr_assert_eq(t.s->groups[0].key_count, 2);
    cr_assert_not(t.s->is_late[0]);
    cr_assert(t.s->is_late[1]);
    cr_assert_not_null(t.s->report);
    cr_assert_eq(t.s->report->result_count, 1);
    cr_assert_eq(t.s->report->body->arg_count, 3, "lr and all gradients");
    cr_assert_eq(t.s->gradients->result_count, 3, "the loss and two gradients: the norm is late");
    done(&t);
}

Test(distribute, a_norm_that_is_only_told_joins_nothing) {
    struct parted t;
    take_apart(&t, HEAD "opt = optim.SGD(net)\n" STEP
                        "(loss: f32, norm: f32) {\n let loss = loss_of(x, y)\n let g = grad(loss, net)\n"
                        " opt.update(g, lr = lr)\n return loss, optim.norm(g)\n}" TRAIN);
    cr_assert_null(t.s->why_not);
    cr_assert_eq(t.s->group_count, 2);
    cr_assert(t.s->is_late[1]);
    done(&t);
}

Test(distribute, who_reads_joins_who_writes) {
    struct parted t;
    take_apart(&t, HEAD "slow = nn.Dense(3, 2)\nopt = optim.SGD(net)\n" STEP
                        "(loss: f32) {\n let loss = loss_of(x, y)\n opt.update(grad(loss, net), lr = lr)\n"
                        " optim.average(slow, net)\n return loss\n}" TRAIN);
    cr_assert_null(t.s->why_not);
    cr_assert_eq(t.s->key_count, 2, "nothing is averaged for what follows the parameters");
    cr_assert_eq(group_of(&t, "slow.weight"), group_of(&t, "net.weight"));
    cr_assert_eq(group_of(&t, "slow.bias"), group_of(&t, "net.bias"));
    cr_assert_neq(group_of(&t, "net.bias"), group_of(&t, "net.weight"));
    done(&t);
}

Test(distribute, statistics_and_states_of_ranks) {
    struct parted t;
    take_apart(
        &t, HEAD
        "opt = optim.SGD(net)\nnorm = nn.BatchNorm(2, affine = false)\nstate h: f32[2] = 0\nstate seen: i64 = 0\n" STEP
        "(loss: f32) {\n let z = norm(net(x)) + h\n h = 0.5 * h + mean(z, axis = 0)\n seen += 1\n"
        " let loss = mean(nn.mse(z, y))\n opt.update(grad(loss, net), lr = lr)\n"
        " return loss\n}" TRAIN);
    cr_assert_null(t.s->why_not, "%s", t.s->why_not);
    const struct step_key *mean = key_of(&t, "norm.running_mean"), *weight = key_of(&t, "net.weight");
    cr_assert_not_null(mean, "a statistic is averaged");
    cr_assert_not(mean->is_gradient);
    cr_assert(weight && weight->is_gradient);
    cr_assert_null(key_of(&t, "h"), "the loss reads it: each rank has its own");
    cr_assert(t.s->is_carried[buffer_of(&t, "h")]);
    cr_assert_not(t.s->is_carried[buffer_of(&t, "norm.running_mean")]);
    cr_assert_eq(group_of(&t, "h"), -1);
    cr_assert_geq(group_of(&t, "norm.running_mean"), 0);
    cr_assert_not(t.s->is_carried[buffer_of(&t, "seen")], "all ranks count alike");
    cr_assert_eq(group_of(&t, "seen"), step_split_last(t.s));
    cr_assert_eq(count(t.s->gradients, OP_write), 1, "only h");
    done(&t);
}

Test(distribute, an_inner_gradient_is_no_cut) {
    struct parted t;
    take_apart(&t, HEAD
               "opt = optim.SGD(net)\n" STEP
               "(loss: f32) {\n let first = loss_of(x, y)\n let g = grad(first, net.weight)\n"
               " let loss = first + 0.1 * sum(g * g)\n opt.update(grad(loss, net), lr = lr)\n return loss\n}" TRAIN);
    cr_assert_null(t.s->why_not, "%s", t.s->why_not);
    cr_assert_eq(t.s->key_count, 2);
    cr_assert_eq(count(t.s->gradients, OP_grad), 2);
    done(&t);
}

Test(distribute, only_training_programs) {
    static const char text[] =
        HEAD "opt = optim.SGD(net)\n" STEP
             "(loss: f32) {\n let loss = loss_of(x, y)\n opt.update(grad(loss, net), lr = lr)\n return loss\n}" TRAIN;
    const struct elaborate_options how = {.name = "t"};
    for (int k = 0; k < 2; k++) {
        struct diag d;
        diag_init(&d);
        struct ir_module *m = elaborate_file(&d, diag_add_source(&d, "t.mxl", text, strlen(text)), &how);
        struct compile_options o = {.name = "t", .with_main = k == 1, .no_ranks = k == 1};
        struct pass_context c = {.module = m, .diag = &d, .options = &o};
        int before = m->func_count;
        cr_assert_not(pass_distribute(&c));
        cr_assert_null(c.split);
        cr_assert_eq(m->func_count, before);
        ir_module_free(m);
        diag_free(&d);
    }
}
