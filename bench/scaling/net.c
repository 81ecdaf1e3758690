/* How long runtime/net takes on a machine as busy as this one: a worker of bench/kvstore that waits at barriers, or sums. A barrier of two ranks is a
 * message each way at the same time, so its mean is what a message takes with all that disturbs it; mxrt_net_measure
 * takes the best of some, which says what the link could do.
 *
 * BENCH_CONTROL is the socket of the driver, which writes lines `COUNT MEGABYTES`; the mean seconds of so many barriers go back, or of
 * so many all-reduces of so many bytes, one after the other. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "mxrt/net.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(const char *what) {
    fprintf(stderr, "net: error: %s\n", what);
    return 1;
}

struct sum {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    mx_status status;
};

static void done(void *context, mx_status status, const char *message) {
    struct sum *s = context;
    (void)message;
    pthread_mutex_lock(&s->lock);
    s->done = true;
    s->status = status;
    pthread_cond_signal(&s->ended);
    pthread_mutex_unlock(&s->lock);
}

static bool all_reduce(struct mxrt_net *n, uint64_t id, float *x, int64_t elements) {
    struct sum s = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};
    mxrt_net_all_reduce(n, id, 0, (struct mxrt_net_range){x, elements, MX_F32}, done, &s);
    pthread_mutex_lock(&s.lock);
    while (!s.done)
        pthread_cond_wait(&s.ended, &s.lock);
    pthread_mutex_unlock(&s.lock);
    return s.status == MX_OK;
}

int main(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct mxrt_why why;
    struct mxrt_net *n;
    char line[100];
    uint64_t id = 0;
    const char *path = getenv("BENCH_CONTROL");
    if (mxrt_net_open(&n, NULL, &why) != MX_OK)
        return fail(why.text);
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path ? path : "");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&at, sizeof at) != 0)
        return fail("no driver at BENCH_CONTROL");
    FILE *in = fdopen(s, "r"), *out = fdopen(dup(s), "w");
    fprintf(out, "{\"rank\": %d, \"pid\": %d}\n", mxrt_net_rank(n), (int)getpid());
    fflush(out);
    while (fgets(line, sizeof line, in)) {
        char *end;
        long count = strtol(line, &end, 10);
        int64_t elements = (int64_t)(strtod(end, NULL) * 250000);
        float *x = calloc((size_t)elements + 1, sizeof *x);
        if (!x)
            return fail("no memory");
        double start = now();
        for (long i = -1; i < count; i++) {
            if (i == 0)
                start = now();
            if (elements ? !all_reduce(n, ++id, x, elements) : mxrt_net_barrier(n, &why) != MX_OK)
                return fail("a rank is lost");
        }
        fprintf(out, "{\"seconds\": %.9f}\n", count > 0 ? (now() - start) / (double)count : 0);
        fflush(out);
        free(x);
    }
    _exit(0);
}
