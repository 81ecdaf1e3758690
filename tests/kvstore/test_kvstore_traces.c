/* The values that three workers of MXNet 1.9.1 pulled, after each push, from a dist_sync and a dist_async store, plain and 2bit
 * (traces/, recorded by others): this store must give them to the bit.
 *
 * What a trace leaves open is the order in which pushes reached MXNet's servers, which decides how f32 sums round: sums here are in the
 * order of ranks, there in that of arrival. So the order is found first: of all orders of three pushes, those that lead from
 * the values of one step to those of the next in f32. Then the pushes are replayed so that the store adds in that order: in a
 * synchronous one rank k pushes what arrived k-th, in an asynchronous one the ranks push in turn. Each entry of a trace has the least and
 * the largest element of the key; they may lie on different servers, and so each has an order of its own.
 *
 * Argument: the folder of the traces. */
#include <ctype.h>
#include <math.h>

#include "ranks.h"

enum { RANKS = 3, KEYS = 3, STEPS = 7, ELEMENTS = 2, MOST = 64 };

static const char *const key_names[KEYS] = {"3", "99", "irr"};
static const double pushed[STEPS] = {0, .2, .4, .6, -.3, -.9, 0}; /* times rank + 1, in f32; step 0 is init */

struct trace {
    float low[RANKS][KEYS][STEPS], high[RANKS][KEYS][STEPS];
};

/* ---- reading */

static char *slurp(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    char *text = calloc(1, 1 << 16);
    CHECK(text && fread(text, 1, (1 << 16) - 1, f) > 0);
    fclose(f);
    return text;
}

/* The next string or number behind `at`, without its quotes. */
static const char *token(const char *p, char *out, size_t room) {
    size_t n = 0;
    while (*p && *p != '"' && !isdigit((unsigned char)*p) && *p != '-')
        p++;
    if (*p == '"') {
        for (p++; *p && *p != '"' && n + 1 < room; p++)
            out[n++] = *p;
        p += *p == '"';
    } else {
        while (*p && strchr("+-.eE0123456789", *p) && n + 1 < room)
            out[n++] = *p++;
    }
    out[n] = 0;
    return p;
}

static void read_trace(struct trace *t, const char *folder, const char *type, const char *compression) {
    for (int r = 0; r < RANKS; r++) {
        char path[600], word[MOST];
        snprintf(path, sizeof path, "%s/trace_%s_%s_rank%d.json", folder, type, compression, r);
        char *text = slurp(path);
        const char *p = strstr(text, "\"steps\"");
        CHECK(p);
        p += 7;
        for (int s = 0; s < STEPS; s++) {
            for (int k = 0; k < KEYS; k++) {
                char expected[MOST] = "init";
                if (s > 0)
                    snprintf(expected, sizeof expected, "push %g*(rank+1)", pushed[s]);
                p = token(p, word, sizeof word);
                CHECK(!strcmp(word, key_names[k]));
                p = token(p, word, sizeof word);
                CHECK(!strcmp(word, expected));
                p = token(p, word, sizeof word);
                t->low[r][k][s] = strtof(word, NULL);
                p = token(p, word, sizeof word);
                t->high[r][k][s] = strtof(word, NULL);
            }
        }
        free(text);
    }
}

/* ---- the orders of arrival */

static const int orders[6][RANKS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

/* What a key did: for each step and element the order, and the element's values after so many of its pushes. */
struct course {
    int order[STEPS][ELEMENTS];
    float after[STEPS][ELEMENTS][RANKS + 1];
};

/* What a rank sends: its gradient, or of that what 2bit leaves, with a residual. */
static void gradients(float g[STEPS][RANKS], bool two_bit) {
    for (int r = 0; r < RANKS; r++) {
        float residual = 0;
        for (int s = 1; s < STEPS; s++) {
            g[s][r] = (float)pushed[s] * (float)(r + 1);
            if (two_bit) {
                residual += g[s][r];
                g[s][r] = residual >= 0.5f ? 0.5f : residual <= -0.5f ? -0.5f : 0;
                residual -= g[s][r];
            }
        }
    }
}

static void follow(struct course *c, int s, int element, int order, const float *g, bool synchronous) {
    float w = s == 1 ? 1 : c->after[s - 1][element][RANKS], sum = 0;
    c->order[s][element] = order;
    c->after[s][element][0] = w;
    for (int i = 0; i < RANKS; i++) {
        float next = g[orders[order][i]];
        sum = i == 0 ? next : sum + next;
        c->after[s][element][i + 1] = synchronous ? w - sum : c->after[s][element][i] - next;
    }
}

/* Whether rank r's pull saw what was there after a pushes to the one and b to the other element. */
static bool sees(const struct trace *t, const struct course *c, int k, int s, int r, int a, int b) {
    float x = c->after[s][0][a], y = c->after[s][1][b];
    return t->low[r][k][s] == fminf(x, y) && t->high[r][k][s] == fmaxf(x, y);
}

/* How many pushes there were when rank r's own was in. */
static int own(const struct course *c, int s, int element, int r) {
    int i = 0;
    while (orders[c->order[s][element]][i] != r)
        i++;
    return i + 1;
}

/* A pull of a synchronous store sees all pushes, of an asynchronous one its own and perhaps others; the two elements may lie on
 * different servers. */
static bool explains(const struct trace *t, const struct course *c, int k, int s, int r, bool synchronous) {
    for (int a = synchronous ? RANKS : own(c, s, 0, r); a <= RANKS; a++) {
        for (int b = synchronous ? RANKS : own(c, s, 1, r); b <= RANKS; b++) {
            if (sees(t, c, k, s, r, a, b))
                return true;
        }
    }
    return false;
}

/* The steps from s on, depth first. */
static bool find(const struct trace *t, struct course *c, int k, int s, float g[STEPS][RANKS], bool synchronous) {
    for (int o = 0; o < 36 && s < STEPS; o++) {
        bool possible = true;
        follow(c, s, 0, o / 6, g[s], synchronous);
        follow(c, s, 1, o % 6, g[s], synchronous);
        for (int r = 0; r < RANKS && possible; r++)
            possible = explains(t, c, k, s, r, synchronous);
        if (possible && find(t, c, k, s + 1, g, synchronous))
            return true;
    }
    return s == STEPS;
}

/* ---- the replay */

struct replay {
    const char *type;
    bool synchronous, two_bit;
    struct course course[KEYS];
};

/* Elements of a key: with 2bit all are alike; else the two whose orders were found stand for the others. */
static void push_of(const struct replay *x, int k, int s, int turn, struct mxrt_kv_value *v) {
    for (int e = 0; e < ELEMENTS; e++)
        ((float *)v->data)[e] = (float)pushed[s] * (float)(orders[x->course[k].order[s][e]][turn] + 1);
}

static void check_pull(const struct replay *x, int k, int s, int count, int rank, const struct mxrt_kv_value *out) {
    for (int e = 0; e < ELEMENTS; e++) {
        float expected = x->course[k].after[s][e][count], got = ((float *)out->data)[e];
        if (memcmp(&expected, &got, sizeof got) != 0) {
            fprintf(stderr, "%s%s, key %s, step %d, rank %d, after %d pushes: %.9g, MXNet has %.9g\n", x->type,
                    x->two_bit ? " 2bit" : "", key_names[k], s, rank, count, (double)got, (double)expected);
            exit(1);
        }
    }
}

static void replay_rank(struct rank *r) {
    const struct replay *x = r->context;
    struct sgd one = {1};
    OK(mxrt_kv_create(&r->kv, x->type, r->e, &(struct mxrt_kv_options){.net = r->net, .servers = 2, .big_array = 64},
                      why));
    if (x->two_bit)
        OK(mxrt_kv_set_compression(r->kv, MXRT_KV_2BIT, 0.5f, why));
    OK(mxrt_kv_set_updater(r->kv, sgd, &one, why));
    struct mxrt_kv_key keys[KEYS];
    struct mxrt_kv_value v[KEYS], out[KEYS];
    for (int k = 0; k < KEYS; k++) {
        keys[k] = name(key_names[k]);
        v[k] = dense(r->e, MX_F32, ELEMENTS, 1);
        out[k] = dense(r->e, MX_F32, ELEMENTS, 0);
    }
    OK(mxrt_kv_init(r->kv, KEYS, keys, v, why));
    for (int s = 1; s < STEPS; s++) {
        for (int k = 0; k < KEYS; k++) {
            if (x->two_bit) /* a rank's residual is its own: it pushes its own, and every order has the same sum */
                fill(&v[k], (double)((float)pushed[s] * (float)(r->rank + 1)));
            else
                push_of(x, k, s, r->rank, &v[k]);
            if (x->synchronous) {
                OK(mxrt_kv_push(r->kv, 1, &keys[k], &v[k], 0, why));
                pull(r->kv, r->e, keys[k], &out[k]);
                check_pull(x, k, s, RANKS, r->rank, &out[k]);
                continue;
            }
            for (int turn = 0; turn < RANKS; turn++) {
                if (turn == r->rank) {
                    OK(mxrt_kv_push(r->kv, 1, &keys[k], &v[k], 0, why));
                    pull(r->kv, r->e, keys[k], &out[k]);
                    if (!x->two_bit)
                        check_pull(x, k, s, turn + 1, r->rank, &out[k]);
                }
                OK(mxrt_kv_barrier(r->kv, why));
            }
            pull(r->kv, r->e, keys[k], &out[k]);
            check_pull(x, k, s, RANKS, r->rank, &out[k]);
        }
    }
    for (int k = 0; k < KEYS; k++) {
        drop(r->e, &v[k]);
        drop(r->e, &out[k]);
    }
    mxrt_kv_destroy(r->kv);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    for (int i = 0; i < 4; i++) {
        struct trace t;
        struct replay x = {.type = i % 2 ? "dist_async" : "dist_sync", .synchronous = i % 2 == 0, .two_bit = i / 2};
        float g[STEPS][RANKS] = {{0}};
        read_trace(&t, argv[1], x.type, x.two_bit ? "2bit" : "none");
        gradients(g, x.two_bit);
        for (int k = 0; k < KEYS; k++) {
            for (int r = 0; r < RANKS; r++)
                CHECK(t.low[r][k][0] == 1 && t.high[r][k][0] == 1);
            if (!find(&t, &x.course[k], k, 1, g, x.synchronous)) {
                fprintf(stderr, "%s, key %s: no order of arrival gives what MXNet's workers pulled\n", x.type,
                        key_names[k]);
                return 1;
            }
        }
        on_ranks(RANKS, 2, NULL, replay_rank, &x);
    }
    printf("kvstore, traces of MXNet: passed\n");
    return 0;
}
