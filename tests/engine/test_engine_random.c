/* Random programs: what the engine computes is what a serial loop computes, exactly. Operations read and write random
 * variables, sleep, fail, are asynchronous and completed by another thread, go through all lanes with random
 * priorities, and delete variables in use; some come from operators, and some are pushed by operations.
 *
 * Usage: test_engine_random [operations [seed]] */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "mxrt/engine.h"

enum { VARIABLES = 100, MOST = 20, SEGMENTS = 5 };

struct cell { /* what a variable stands for */
    uint64_t value, version;
    int error;             /* the model's: the number of the one it carries, or 0 */
    _Atomic int deletions; /* how often `release` was called with it */
};

struct step {
    int reads[MOST], writes[MOST], read_count, write_count;
    int lane, priority, sleep;
    bool fails, asynchronous, always, operator;
    int deletes, creates; /* cells, or -1 */
    uint64_t salt;
};

struct run {
    struct cell *cells;
    const struct step *step;
    struct mxrt_engine *engine;
    struct mxrt_token token;
    struct run *next;
};

static void mix(struct run *r) {
    uint64_t h = r->step->salt;
    for (int i = 0; i < r->step->read_count; i++)
        h = (h ^ r->cells[r->step->reads[i]].value) * 0x9E3779B97F4A7C15u + (h >> 29);
    for (int i = 0; i < r->step->write_count; i++) {
        uint64_t *v = &r->cells[r->step->writes[i]].value;
        *v = *v * 31 + h;
    }
}

static mx_status run(void *context, struct mxrt_why *why) {
    struct run *r = context;
    if (r->step->sleep)
        sleep_us(r->step->sleep);
    if (r->step->fails)
        return mxrt_fail(why, MX_ERROR_CHECK, "as planned");
    mix(r);
    return MX_OK;
}

/* ---- the thread that completes asynchronous operations */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct run *begun;
static bool over;

static void start(void *context, struct mxrt_token token) {
    struct run *r = context;
    r->token = token;
    pthread_mutex_lock(&lock);
    r->next = begun;
    begun = r;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

static void *completer(void *unused) {
    pthread_mutex_lock(&lock);
    while (!over || begun) {
        struct run *r = begun;
        if (!r) {
            pthread_cond_wait(&more, &lock);
            continue;
        }
        begun = r->next;
        pthread_mutex_unlock(&lock);
        struct mxrt_why why = {"as planned"};
        mx_status status = run(r, &why);
        CHECK(mxrt_op_complete(r->engine, r->token, status, why.text) == MX_OK);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return unused;
}

/* ---- */

static void deleted(void *context) {
    struct cell *c = context;
    atomic_fetch_add(&c->deletions, 1);
    c->value = c->value * 7 + 1;
}

/* `at`: the variables that exist, by cell; a deletion puts the next cell in the place of its own. */
static void plan(struct step *s, struct random *r, bool errors, int *at, int *cells) {
    bool used[VARIABLES] = {false};
    *s = (struct step){.deletes = -1, .salt = draw(r, 1u << 30)};
    if (draw(r, 60) == 0) {
        int v = (int)draw(r, VARIABLES);
        s->deletes = at[v];
        s->creates = at[v] = (*cells)++;
        return;
    }
    int n = 1 + (int)draw(r, draw(r, 4) == 0 ? MOST - 1 : 6);
    for (int i = 0; i < n; i++) {
        int v = (int)draw(r, VARIABLES);
        if (used[v])
            continue;
        used[v] = true;
        if (draw(r, 3) == 0 || (i == 0 && draw(r, 2)))
            s->writes[s->write_count++] = at[v];
        else
            s->reads[s->read_count++] = at[v];
    }
    s->lane = draw(r, 3) ? MXRT_LANE_NORMAL : (int)draw(r, 4);
    s->priority = (int)draw(r, 10) - 5;
    s->sleep = draw(r, 8) ? 0 : 1 + (int)draw(r, 9);
    s->fails = errors && draw(r, 40) == 0;
    s->asynchronous = draw(r, 10) == 0;
    s->always = draw(r, 50) == 0;
    s->operator= !s->asynchronous && draw(r, 20) == 0;
}

/* What the serial loop does with a step. `taken[n]`: error n has been given to a wait, or there is none. */
static void model(struct cell *cells, const struct step *s, bool *taken, int *errors) {
    if (s->deletes >= 0) {
        deleted(&cells[s->deletes]);
        cells[s->deletes].version = UINT64_MAX;
        return;
    }
    int error = 0;
    for (int i = s->write_count; i-- > 0 && !s->always;)
        error = taken[cells[s->writes[i]].error] ? error : cells[s->writes[i]].error;
    for (int i = s->read_count; i-- > 0 && !s->always;)
        error = taken[cells[s->reads[i]].error] ? error : cells[s->reads[i]].error;
    if (!error && s->fails)
        error = ++*errors;
    else if (!error)
        mix(&(struct run){.cells = cells, .step = s});
    for (int i = 0; i < s->write_count; i++) {
        cells[s->writes[i]].error = error;
        cells[s->writes[i]].version++;
    }
}

static void push(struct mxrt_engine *e, struct mxrt_var *vars, struct run *r) {
    const struct step *s = r->step;
    bool naive = mxrt_engine_threads(e) == 1;
    if (s->deletes >= 0) {
        OK(mxrt_var_delete(e, vars[s->deletes], deleted, &r->cells[s->deletes], why));
        OK(mxrt_var_new(e, NULL, &vars[s->creates], why));
        return;
    }
    struct mxrt_var reads[MOST], writes[MOST];
    for (int i = 0; i < s->read_count; i++)
        reads[i] = vars[s->reads[i]];
    for (int i = 0; i < s->write_count; i++)
        writes[i] = vars[s->writes[i]];
    struct mxrt_op op = {.name = "step",
                         .run = s->asynchronous ? NULL : run,
                         .start = s->asynchronous ? start : NULL,
                         .context = r,
                         .reads = reads,
                         .read_count = s->read_count,
                         .writes = writes,
                         .write_count = s->write_count,
                         .lane = (enum mxrt_lane)s->lane,
                         .priority = s->priority,
                         .always = s->always};
    struct mxrt_why words = {""};
    mx_status status;
    if (s->operator) {
        struct mxrt_operator *o;
        OK(mxrt_operator_new(e, &op, &o, why));
        status = mxrt_operator_push(o, s->priority, &words);
        mxrt_operator_delete(o);
    } else {
        status = mxrt_engine_push(e, &op, &words);
    }
    /* The naive engine says at once that an operation failed. */
    if (status != MX_OK && !(naive && s->fails && strstr(words.text, "as planned"))) {
        fprintf(stderr, "push: %s\n", words.text);
        exit(1);
    }
}

static void compare(const struct mxrt_engine_options *options, int operations, uint64_t seed, bool errors) {
    struct random random = {seed};
    struct step *steps = malloc((size_t)operations * sizeof *steps);
    struct run *runs = calloc((size_t)operations, sizeof *runs);
    int at[VARIABLES], count = VARIABLES;
    for (int i = 0; i < VARIABLES; i++)
        at[i] = i;
    for (int i = 0; i < operations; i++)
        plan(&steps[i], &random, errors, at, &count);
    struct cell *serial = calloc((size_t)count, sizeof *serial), *parallel = calloc((size_t)count, sizeof *parallel);
    struct mxrt_var *vars = calloc((size_t)count, sizeof *vars);
    bool *taken = calloc((size_t)operations + 1, sizeof *taken);
    int failures = 0, given = 0;
    taken[0] = true;
    struct mxrt_engine *e;
    OK(mxrt_engine_create(&e, options, why));
    for (int i = 0; i < VARIABLES; i++)
        OK(mxrt_var_new(e, "x", &vars[i], why));
    for (int i = 0; i < count; i++)
        serial[i].value = parallel[i].value = (uint64_t)i;
    for (int i = 0; i < operations; i++)
        runs[i] = (struct run){parallel, &steps[i], e, {0}, NULL};
    for (int segment = 0; segment < SEGMENTS; segment++) {
        int from = operations / SEGMENTS * segment, to = operations / SEGMENTS * (segment + 1);
        for (int i = from; i < to; i++) {
            model(serial, &steps[i], taken, &failures);
            push(e, vars, &runs[i]);
            int v = (int)draw(&random, (uint32_t)count);
            if (vars[v].id && serial[v].version != UINT64_MAX && draw(&random, 100) == 0) {
                if (taken[serial[v].error])
                    OK(mxrt_engine_wait_var(e, vars[v], why));
                else
                    FAILS(MX_ERROR_CHECK, "operation `step`: as planned", mxrt_engine_wait_var(e, vars[v], why));
                taken[serial[v].error] = true;
                CHECK(mxrt_var_version(e, vars[v]) == serial[v].version);
            }
        }
        bool all_taken = true;
        for (; given < failures; taken[++given] = true)
            all_taken &= taken[given + 1];
        if (!all_taken)
            FAILS(MX_ERROR_CHECK, "operation `step`: as planned", mxrt_engine_wait_all(e, why));
        OK(mxrt_engine_wait_all(e, why)); /* it was given */
        for (int i = 0; i < count; i++) {
            CHECK(parallel[i].value == serial[i].value);
            CHECK(parallel[i].deletions == serial[i].deletions);
            CHECK(vars[i].id == 0 || mxrt_var_version(e, vars[i]) == serial[i].version);
            if (vars[i].id && serial[i].version != UINT64_MAX)
                OK(mxrt_engine_wait_var(e, vars[i], why));
        }
    }
    free(taken);
    free(vars);
    free(parallel);
    free(serial);
    mxrt_engine_destroy(e);
    free(runs);
    free(steps);
}

int main(int argc, char **argv) {
    int operations = argc > 1 ? atoi(argv[1]) : 10000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
    printf("%d operations, seed %llu\n", operations, (unsigned long long)seed);
    fflush(stdout);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, completer, NULL) == 0);
    for (int errors = 0; errors < 2; errors++) {
        compare(&(struct mxrt_engine_options){.kind = MXRT_ENGINE_NAIVE}, operations, seed, errors);
        for (int threads = 1; threads <= 8; threads++)
            compare(&(struct mxrt_engine_options){.threads = threads, .io_threads = threads == 1 ? 0 : 1 + threads % 2},
                    operations, seed + (uint64_t)threads, errors);
        compare(&(struct mxrt_engine_options){.threads = 1, .io_threads = 1}, operations, seed, errors);
    }
    pthread_mutex_lock(&lock);
    over = true;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    return 0;
}
