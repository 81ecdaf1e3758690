/* Streams, events and graphs used rightly and wrongly, for the emulation to tell apart; run as `streams NAME`, which prints what came of
 * it. */
#include <cuda_runtime.h>
#include <stdio.h>

enum { N = 64 };

static __global__ void add_one(const float *x, float *y) {
    y[threadIdx.x] = x[threadIdx.x] + 1;
}

static float *device, host[N], got[N];
static cudaStream_t s, t;
static cudaEvent_t e, f;

static float *at(int k) {
    return (float *)MX_AT(device + k * N, sizeof host);
}

static cudaError_t launch(cudaStream_t stream, int from, int to) {
    return MX_LAUNCH(add_one, 1, N, stream, (const float *)at(from), at(to));
}

static cudaError_t up(cudaStream_t stream, int to) {
    return cudaMemcpyAsync(device + to * N, host, sizeof host, cudaMemcpyDefault, stream);
}

static cudaError_t down(cudaStream_t stream, int from) {
    return cudaMemcpyAsync(got, device + from * N, sizeof got, cudaMemcpyDefault, stream);
}

static void then(cudaStream_t first, cudaStream_t second, cudaEvent_t event) {
    cudaEventRecord(event, first);
    cudaStreamWaitEvent(second, event, 0);
}

/* What waiting for both says; the last value that came down. */
static void show() {
    cudaError_t a = cudaStreamSynchronize(s), b = cudaStreamSynchronize(t);
    if (a != cudaSuccess || b != cudaSuccess)
        puts(cudaGetErrorString(a != cudaSuccess ? a : b));
    else
        printf("%g\n", got[N - 1]);
}

static void ordered() {
    up(s, 0);
    then(s, t, e);
    launch(t, 0, 1);
    then(t, s, f);
    launch(s, 1, 2);
    down(s, 2);
    show();
}

static void copy_then_kernel() {
    up(s, 0);
    launch(t, 0, 1);
    down(t, 1);
    show();
}

static void two_writers() {
    up(s, 0);
    then(s, t, e);
    launch(s, 0, 1);
    launch(t, 0, 1);
    down(t, 1);
    show();
}

static void read_then_write() {
    up(s, 0);
    then(s, t, e);
    launch(s, 0, 1);
    up(t, 0);
    down(s, 1);
    show();
}

/* The event stands before what it was to bring. */
static void early_event() {
    up(s, 0);
    cudaEventRecord(e, s);
    launch(s, 0, 1);
    cudaStreamWaitEvent(t, e, 0);
    launch(t, 1, 2);
    down(t, 2);
    show();
}

static void host_reads_early() {
    up(s, 0);
    launch(s, 0, 1);
    down(s, 1);
    printf("%g ", got[N - 1]);
    show();
}

static void pinned(bool waits) {
    void *p;
    cudaHostAlloc(&p, sizeof host, cudaHostAllocDefault);
    memcpy(p, host, sizeof host);
    cudaMemcpyAsync(device, p, sizeof host, cudaMemcpyDefault, s);
    if (waits)
        cudaStreamSynchronize(s);
    ((float *)p)[3] = 7;
    down(s, 0);
    show();
}

static void pinned_overwritten() {
    pinned(false);
}

static void pinned_waited_for() {
    pinned(true);
}

/* The caller's ordinary memory is read at once. */
static void host_overwritten() {
    up(s, 0);
    host[N - 1] = 99;
    down(s, 0);
    show();
}

static cudaGraphExec_t capture(void (*record)()) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    record();
    cudaError_t error = cudaStreamEndCapture(s, &graph);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&exec, graph, 0);
    if (error != cudaSuccess)
        puts(cudaGetErrorString(error));
    if (graph)
        cudaGraphDestroy(graph);
    return exec;
}

static void chain() {
    launch(s, 0, 1);
    launch(s, 1, 0);
}

static void captured() {
    up(s, 0);
    cudaGraphExec_t exec = capture(chain);
    down(s, 0);
    show();
    for (int i = 0; i < 3; i++)
        cudaGraphLaunch(exec, s);
    down(s, 0);
    show();
    cudaGraphExecDestroy(exec);
}

static void forked() {
    then(s, t, e);
    launch(s, 0, 1);
    launch(t, 0, 2);
    then(t, s, f);
    launch(s, 2, 3);
}

static void fork_that_meets() {
    then(s, t, e);
    launch(s, 0, 1);
    launch(t, 1, 2);
    then(t, s, f);
}

static void fork_left_open() {
    then(s, t, e);
    launch(t, 0, 1);
}

static void waits_inside() {
    launch(s, 0, 1);
    cudaStreamSynchronize(s);
}

static void outside_event() {
    cudaEventRecord(e, t);
    cudaStreamWaitEvent(s, e, 0);
    launch(s, 0, 1);
}

static void run_graph(void (*record)(), int from) {
    up(s, 0);
    cudaStreamSynchronize(s);
    cudaGraphExec_t exec = capture(record);
    if (!exec)
        return;
    cudaGraphLaunch(exec, s);
    down(s, from);
    show();
    cudaGraphExecDestroy(exec);
}

static void graph_forked() {
    run_graph(forked, 3);
}
static void graph_that_meets() {
    run_graph(fork_that_meets, 2);
}
static void graph_left_open() {
    run_graph(fork_left_open, 1);
}
static void graph_waits_inside() {
    run_graph(waits_inside, 1);
}
static void graph_outside_event() {
    run_graph(outside_event, 1);
}

/* What stands beside the graph, on a stream that does not wait for it. */
static void beside_a_graph() {
    up(s, 0);
    then(s, t, e);
    cudaGraphExec_t exec = capture(chain);
    cudaGraphLaunch(exec, s);
    launch(t, 1, 2);
    down(t, 2);
    show();
    cudaGraphExecDestroy(exec);
}

int main(int argc, char **argv) {
#define CASE(name) {#name, name}
    static const struct {
        const char *name;
        void (*run)();
    } all[] = {CASE(ordered), CASE(copy_then_kernel), CASE(two_writers), CASE(read_then_write), CASE(early_event), CASE(host_reads_early),
               CASE(pinned_overwritten), CASE(pinned_waited_for), CASE(host_overwritten), CASE(captured), CASE(graph_forked),
               CASE(graph_that_meets), CASE(graph_left_open), CASE(graph_waits_inside), CASE(graph_outside_event), CASE(beside_a_graph)};
    void *memory;
    for (int i = 0; i < N; i++)
        host[i] = (float)i;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&f, cudaEventDisableTiming);
    cudaMalloc(&memory, 8 * sizeof host);
    device = (float *)memory;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (argc > 1 && strcmp(argv[1], all[i].name) == 0) {
            all[i].run();
            return 0;
        }
    return 2;
}
