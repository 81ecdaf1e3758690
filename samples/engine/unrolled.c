/* A graph that changes at each iteration, run again only where it must (mxrt/graph.h).
 *
 * An RNN reads a sequence that grows and shrinks, one node a step, inserted before the policy or removed; the policy
 * reads the last step's state and takes one of two branches, of which only the taken one is in the graph. Each result is
 * compared with that of a plain loop over everything.
 *
 *     cc -O2 unrolled.c $(mxcc --cflags) $(mxcc --libs) -lm -o unrolled && ./unrolled */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mxrt/graph.h"

enum { UNITS = 64, LONGEST = 200, ITERATIONS = 300 };

struct step {
    const float *x, *before;
    float *after; /* [UNITS] */
};

static float weights[UNITS][UNITS], sequence[LONGEST], states[LONGEST + 1][UNITS], action, gain[2] = {1, 1};

static void advance(float x, const float *before, float *after) {
    for (int i = 0; i < UNITS; i++) {
        float sum = x;
        for (int k = 0; k < UNITS; k++)
            sum += weights[i][k] * before[k];
        after[i] = tanhf(sum);
    }
}

static float branch(int taken, const float *state) {
    float sum = 0;
    for (int i = 0; i < UNITS; i++)
        sum += state[i] * (taken ? (float)(i % 5) : (float)(i % 3) - 1.0f);
    return gain[taken] * sum;
}

static mx_status run_step(void *context, struct mxrt_why *why) {
    const struct step *s = context;
    (void)why;
    advance(*s->x, s->before, s->after);
    return MX_OK;
}

static const float *last_state;

static mx_status run_left(void *context, struct mxrt_why *why) {
    (void)context, (void)why;
    action = branch(0, last_state);
    return MX_OK;
}

static mx_status run_right(void *context, struct mxrt_why *why) {
    (void)context, (void)why;
    action = branch(1, last_state);
    return MX_OK;
}

static void check(mx_status status, const struct mxrt_why *why) {
    if (status != MX_OK) {
        fprintf(stderr, "unrolled: %s\n", why->text);
        exit(1);
    }
}

int main(void) {
    struct mxrt_why why;
    struct mxrt_engine *e;
    struct mxrt_graph *g;
    struct mxrt_var vx[LONGEST], vh[LONGEST + 1], vgain[2], vaction;
    struct mxrt_node *step_node[LONGEST] = {NULL}, *policy = NULL;
    struct step steps[LONGEST];
    check(mxrt_engine_create(&e, NULL, &why), &why);
    check(mxrt_graph_create(e, &g, &why), &why);
    for (int i = 0; i <= LONGEST; i++)
        check(mxrt_var_new(e, "h", &vh[i], &why), &why);
    for (int i = 0; i < LONGEST; i++)
        check(mxrt_var_new(e, "x", &vx[i], &why), &why);
    for (int i = 0; i < 2; i++)
        check(mxrt_var_new(e, "gain", &vgain[i], &why), &why);
    check(mxrt_var_new(e, "action", &vaction, &why), &why);
    srand(1);
    for (int i = 0; i < UNITS; i++) {
        for (int k = 0; k < UNITS; k++)
            weights[i][k] = ((float)rand() / (float)RAND_MAX - 0.5f) * 0.3f;
    }
    int length = 0, taken = -1;
    long long ran_in_all = 0, all = 0;
    for (int iteration = 0; iteration < ITERATIONS; iteration++) {
        int wanted = length + rand() % 9 - 3, branch_wanted = rand() % 8 == 0 ? !taken : taken < 0 ? 0 : taken;
        wanted = wanted < 1 ? 1 : wanted > LONGEST ? LONGEST : wanted;
        bool rewired = wanted != length;
        while (length > wanted)
            mxrt_graph_remove(g, step_node[--length]);
        for (; length < wanted; length++) {
            sequence[length] = (float)rand() / (float)RAND_MAX - 0.5f;
            steps[length] = (struct step){&sequence[length], states[length], states[length + 1]};
            struct mxrt_var reads[2] = {vx[length], vh[length]};
            struct mxrt_op op = {.name = "step",
                                 .run = run_step,
                                 .context = &steps[length],
                                 .reads = reads,
                                 .read_count = 2,
                                 .writes = &vh[length + 1],
                                 .write_count = 1};
            check(mxrt_graph_add(g, &op, policy, &step_node[length], &why), &why);
        }
        last_state = states[length];
        if (branch_wanted != taken) { /* the other branch is another node */
            if (policy)
                mxrt_graph_remove(g, policy);
            taken = branch_wanted;
            struct mxrt_var reads[2] = {vh[length], vgain[taken]};
            struct mxrt_op op = {.name = taken ? "right" : "left",
                                 .run = taken ? run_right : run_left,
                                 .reads = reads,
                                 .read_count = 2,
                                 .writes = &vaction,
                                 .write_count = 1};
            check(mxrt_graph_add(g, &op, NULL, &policy, &why), &why);
        } else if (rewired) {
            struct mxrt_var reads[2] = {vh[length], vgain[taken]};
            check(mxrt_graph_rewire(g, policy, reads, 2, &vaction, 1, &why), &why);
        }
        if (iteration % 3 == 0) { /* a late input changes: the steps before it stay */
            int at = length - 1 - rand() % (length < 8 ? length : 8);
            sequence[at] += 0.125f;
            mxrt_graph_touch(g, vx[at]);
        }
        if (iteration % 5 == 0) {
            gain[taken] *= 1.01f;
            mxrt_graph_touch(g, vgain[taken]);
        }
        int64_t ran;
        check(mxrt_graph_run(g, &ran, &why), &why);
        ran_in_all += ran;
        all += mxrt_graph_size(g);
        float state[2][UNITS] = {{0}};
        for (int t = 0; t < length; t++)
            advance(sequence[t], state[t % 2], state[(t + 1) % 2]);
        if (action != branch(taken, state[length % 2])) {
            fprintf(stderr, "unrolled: iteration %d: the graph gives %g, the loop %g\n", iteration, action,
                    branch(taken, state[length % 2]));
            return 1;
        }
    }
    printf("%d iterations, %d steps at the end: %lld nodes ran, running everything would be %lld\n", ITERATIONS, length,
           ran_in_all, all);
    mxrt_graph_destroy(g);
    mxrt_engine_destroy(e);
    return 0;
}
