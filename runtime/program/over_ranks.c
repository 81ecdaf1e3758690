/* Training over ranks: the options that say which, and the ranks themselves: this process of an MPI job, or threads of this
 * process, each with a model of its own. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "processors.h"
#include "session.h"

static int bad(const struct session *s, const char *name, const char *value, const char *expected) {
    fprintf(stderr, "%s: %s %s: expected %s\n", s->p->name, name, value, expected);
    return -1;
}

static int compression(struct session *s, const char *value) {
    static const struct {
        const char *name;
        enum mxrt_kv_compression kind;
        float threshold; /* where none is given; nan: it must be */
    } kinds[] = {{"none", MXRT_KV_NONE, 0},
                 {"2bit", MXRT_KV_2BIT, 0.5f},
                 {"1bit", MXRT_KV_1BIT, 0},
                 {"bf16", MXRT_KV_BF16, 0},
                 {"topk", MXRT_KV_TOP_K, 0.01f}};
    const char *colon = strchr(value, ':');
    size_t n = colon ? (size_t)(colon - value) : strlen(value);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strlen(kinds[i].name) == n && strncmp(kinds[i].name, value, n) == 0) {
            char *end = NULL;
            s->ranks_options.compression = kinds[i].kind;
            s->ranks_options.threshold = colon ? strtof(colon + 1, &end) : kinds[i].threshold;
            if (colon && (end == colon + 1 || *end || !isfinite(s->ranks_options.threshold)))
                break;
            return 1;
        }
    return bad(s, "--compression", value, "none, 2bit:THRESHOLD, 1bit:THRESHOLD, bf16 or topk:PART");
}

int ranks_option(struct session *s, const char *name, const char *value) {
    struct ranks_options *o = &s->ranks_options;
    char *end;
    if (strcmp(name, "--kvstore") == 0) {
        static const char *const types[] = {"local", "device", "dist_sync", "dist_device_sync", "dist_async"};
        for (int i = 0; i < 5; i++)
            if (strcmp(value, types[i]) == 0) {
                o->store = i < 2 ? NULL : types[i];
                o->devices = i == 1;
                return 1;
            }
        return bad(s, name, value, "local, device, dist_sync or dist_async");
    }
    if (strcmp(name, "--virtual-ranks") == 0) {
        long n = strtol(value, &end, 10);
        if (end == value || *end || n < 1 || n > 1024)
            return bad(s, name, value, "a number from 1 to 1024");
        o->virtual_ranks = (int)n;
        return 1;
    }
    if (strcmp(name, "--servers") == 0) {
        long n = strtol(value, &end, 10);
        if (end == value || *end || n < 0 || n > 1024)
            return bad(s, name, value, "a number from 0 to 1024");
        o->servers = (int)n;
        return 1;
    }
    if (strcmp(name, "--compression") == 0)
        return compression(s, value);
    if (strcmp(name, "--reduction") == 0) {
        o->fast = strcmp(value, "fast") == 0;
        return o->fast || strcmp(value, "ordered") == 0 ? 1 : bad(s, name, value, "ordered or fast");
    }
    if (strcmp(name, "--rank-timeout") == 0) {
        o->timeout = strtod(value, &end);
        return end != value && !*end && o->timeout > 0 && o->timeout < 1e6 ? 1 : bad(s, name, value, "seconds");
    }
    if (strcmp(name, "--node-ranks") == 0) {
        long n = strtol(value, &end, 10);
        if (end == value || *end || n < 0 || n > 1024)
            return bad(s, name, value, "a number from 0 to 1024");
        o->node_ranks = (int)n;
        return 1;
    }
    if (strcmp(name, "--bucket") == 0) {
        o->bucket = strtoull(value, &end, 10);
        return end != value && !*end && o->bucket ? 1 : bad(s, name, value, "bytes");
    }
    return 0;
}

static void *thread(void *context) {
    struct session *s = context;
    s->status = train_command(s);
    return NULL;
}

/* The worst of the ranks' statuses; an interrupted run is no error. */
static int run_group(struct session *first, struct mxrt_net **nets, int n) {
    struct session *s = calloc((size_t)n, sizeof *s);
    pthread_t *threads = calloc((size_t)n, sizeof *threads);
    int started = 1, status = 0;
    if (!s || !threads) {
        fprintf(stderr, "%s: error: no memory for %d ranks\n", first->p->name, n);
        status = 1;
        for (int i = 0; i < n; i++)
            mxrt_net_close(nets[i]);
        n = 0;
    }
    for (int i = 0; i < n; i++) {
        s[i] = *first;
        s[i].net = nets[i];
    }
    while (started < n && pthread_create(&threads[started], NULL, thread, &s[started]) == 0)
        started++;
    for (int i = started; i < n; i++) {
        mxrt_net_fail(nets[i], "the system gives no thread for this rank");
        s[i].status = 1;
    }
    if (n)
        (void)thread(&s[0]);
    for (int i = 1; i < started && n; i++)
        (void)pthread_join(threads[i], NULL);
    for (int i = 0; i < n; i++) {
        if (i >= started)
            mxrt_net_close(nets[i]);
        session_close(&s[i]);
        status = s[i].status == 1 || status == 0 ? s[i].status : status;
    }
    free(s);
    free(threads);
    return status;
}

/* Ranks of one machine share its processors, unless they were bound to their own. */
static int threads_of_rank(int virtual_ranks) {
    static const char *const counts[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"};
    int here = virtual_ranks, all = mxrt_processors();
    for (size_t i = 0; i < sizeof counts / sizeof *counts && !here; i++)
        here = getenv(counts[i]) ? atoi(getenv(counts[i])) : 0;
    if (here < 1 || (!virtual_ranks && all < (int)sysconf(_SC_NPROCESSORS_ONLN)))
        return all;
    return all > here ? all / here : 1;
}

/* The model's GPUs, where they can train together. */
static int devices(const struct mxrt_program *p) {
    const struct mxrt_split *split = p->split;
    const int count = split && !split->why_not && split->device ? split->device->count() : 0;
    return count > 1 ? count : 0;
}

int over_ranks(struct session *s) {
    const struct ranks_options *o = &s->ranks_options;
    if (o->devices && !o->virtual_ranks)
        s->ranks_options.virtual_ranks = devices(s->p);
    const struct mxrt_net_options options = {.timeout = o->timeout, .fast = o->fast, .node_ranks = o->node_ranks};
    mx_status status = MX_OK;
    int exit_status;
    if (o->virtual_ranks && !o->store)
        s->ranks_options.store = "dist_sync";
    if (!o->store) {
        exit_status = train_command(s);
        session_close(s);
        return exit_status;
    }
    if (!s->threads)
        s->threads = threads_of_rank(o->virtual_ranks);
    struct mxrt_net **nets = calloc((size_t)o->virtual_ranks + 1, sizeof *nets);
    if (!nets)
        status = mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory");
    else if (o->virtual_ranks)
        status = mxrt_net_group(nets, o->virtual_ranks, &options, &s->why);
    else
        status = mxrt_net_open(&s->net, &options, &s->why);
    if (status != MX_OK) {
        fprintf(stderr, "%s: error: %s\n", s->p->name, s->why.text);
        exit_status = 1;
    } else if (o->virtual_ranks) {
        exit_status = run_group(s, nets, o->virtual_ranks);
    } else {
        exit_status = train_command(s);
        session_close(s);
    }
    free(nets);
    return exit_status;
}
