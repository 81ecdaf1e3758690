/* Averages over ranks on their GPUs, by NCCL: units made with --main --nccl carry this text (mxrt/program.h: mxrt_device_exchange).
 *
 * A bucket of gradients is summed in place on a stream of its own. NCCL's all-reduce adds in an order that depends on how the machine is
 * wired; so unless that is asked for (--reduction fast), NCCL only moves bytes: each rank gets everybody's share of a part, adds along
 * the tree of mxrt/net.h, and hands the sum to all, which is what a ring sends, too. Little is sent whole to everybody, in one step.
 *
 * A rank may be lost while others wait for it, on the host or in a kernel of NCCL's. So the communicator does not block, the host asks for
 * what it waits for again and again, with the runtime's watch and NCCL's own errors between, and ends the communicator when either
 * says so; kernels of NCCL's end then, and whatever waited behind them on the device goes on. */
#if NCCL_VERSION_CODE < 21400
#error "NCCL 2.14 or later is needed: communicators that do not block"
#endif

enum {
    MX_NCCL_LEVELS = 10,     /* 1024 ranks */
    MX_NCCL_WHOLE = 1 << 14, /* bytes up to which a bucket is sent whole */
    MX_NCCL_ALIGN = 256,
    MX_NCCL_THREADS = 256
};

struct mx_nccl {
    struct mxrt_device_rank rank;
    int joined;
    ncclComm_t comm;       /* NULL: one rank alone, or it was given up */
    cudaStream_t stream;   /* of sums, in the same order on all ranks */
    unsigned char *memory; /* all keys' tensors; behind them others' parts of a bucket */
    struct {
        cudaEvent_t ready; /* this rank's share is in the memory */
        cudaEvent_t done;
    } * buckets;
    int64_t begun, ended; /* sums */
    char why[400];
};

/* ---- elements ---------------------------------------------------------------------------------------------------------- */

static __device__ double mx_nccl_from_half(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double v = exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
                     : exponent     ? ldexp((double)(1024 + mantissa), exponent - 25)
                                    : ldexp((double)mantissa, -24);
    return h & 0x8000 ? -v : v;
}

static __device__ uint16_t mx_nccl_to_half(double v) {
    const uint16_t sign = v < 0 || (v == 0 && 1 / v < 0) ? 0x8000 : 0;
    int e = 0;
    if (v != v)
        return 0x7e00;
    v = fabs(v);
    if (v >= 65520)
        return (uint16_t)(sign | 0x7c00);
    if (v < ldexp(1.0, -14))
        return (uint16_t)(sign | (uint16_t)nearbyint(ldexp(v, 24)));
    const double m = frexp(v, &e); /* v = m 2^e, 0.5 <= m < 1 */
    return (uint16_t)(sign | (((e + 14) << 10) + ((int)nearbyint(ldexp(m, 11)) - 1024)));
}

static __device__ float mx_nccl_from_bfloat(uint16_t b) {
    const uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static __device__ uint16_t mx_nccl_to_bfloat(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return f != f ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* How elements are kept, and in what they are added and scaled: as the runtime does. */
struct mx_nccl_f64 {
    typedef double stored, sum, product;
    static __device__ double load(double x) {
        return x;
    }
    static __device__ double store(double x) {
        return x;
    }
};
struct mx_nccl_f32 {
    typedef float stored, sum, product;
    static __device__ float load(float x) {
        return x;
    }
    static __device__ float store(float x) {
        return x;
    }
};
struct mx_nccl_f16 {
    typedef uint16_t stored;
    typedef float sum;
    typedef double product;
    static __device__ double load(uint16_t x) {
        return mx_nccl_from_half(x);
    }
    static __device__ uint16_t store(double x) {
        return mx_nccl_to_half(x);
    }
};
struct mx_nccl_bf16 {
    typedef uint16_t stored;
    typedef float sum;
    typedef double product;
    static __device__ float load(uint16_t x) {
        return mx_nccl_from_bfloat(x);
    }
    static __device__ uint16_t store(double x) {
        return mx_nccl_to_bfloat((float)x);
    }
};

/* ---- kernels ------------------------------------------------------------------------------------------------------------ */

template <class T> static __device__ void mx_nccl_scale_one(void *to, const void *from, int64_t i, float by) {
    typedef typename T::product product;
    ((typename T::stored *)to)[i] = T::store((product)T::load(((const typename T::stored *)from)[i]) * (product)by);
}

/* A rank's share of a tensor, into the memory that is summed. */
static __global__ void __launch_bounds__(MX_NCCL_THREADS)
    mx_nccl_scale(void *to, const void *from, int64_t n, int dtype, float by) {
    const int64_t i = (int64_t)blockIdx.x * MX_NCCL_THREADS + threadIdx.x;
    if (i >= n)
        return;
    switch (dtype) {
    case MX_F64: mx_nccl_scale_one<mx_nccl_f64>(to, from, i, by); break;
    case MX_F32: mx_nccl_scale_one<mx_nccl_f32>(to, from, i, by); break;
    case MX_F16: mx_nccl_scale_one<mx_nccl_f16>(to, from, i, by); break;
    default: mx_nccl_scale_one<mx_nccl_bf16>(to, from, i, by); break;
    }
}

static __global__ void __launch_bounds__(MX_NCCL_THREADS) mx_nccl_zero(uint16_t *to, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * MX_NCCL_THREADS + threadIdx.x;
    if (i < n)
        to[i] = 0;
}

/* As a binary counter adds ones: level l holds the sum of 2^l ranks, until the next ranks have one as large. That splits n ranks at the
 * largest power of two below n. */
template <class T>
static __device__ void mx_nccl_add_one(void *mine, const void *others, int64_t i, int64_t part, int rank, int ranks) {
    typedef typename T::sum sum;
    typedef typename T::stored stored;
    sum level[MX_NCCL_LEVELS] = {0}, x = 0;
    for (int r = 0; r < ranks; r++) {
        x = (sum)T::load(r == rank ? ((const stored *)mine)[i] : ((const stored *)others)[r * part + i]);
#pragma unroll
        for (int l = 0; l < MX_NCCL_LEVELS; l++) {
            if (!(r >> l & 1)) {
                level[l] = x;
                break;
            }
            x = level[l] + x;
        }
    }
    int any = 0;
#pragma unroll
    for (int l = 0; l < MX_NCCL_LEVELS; l++)
        if (ranks >> l & 1) {
            x = any ? level[l] + x : level[l];
            any = 1;
        }
    ((stored *)mine)[i] = T::store(x);
}

/* others[rank, part]: what the other ranks have of these n elements. */
static __global__ void __launch_bounds__(MX_NCCL_THREADS)
    mx_nccl_add(void *mine, const void *others, int64_t n, int64_t part, int dtype, int rank, int ranks) {
    const int64_t i = (int64_t)blockIdx.x * MX_NCCL_THREADS + threadIdx.x;
    if (i >= n)
        return;
    switch (dtype) {
    case MX_F64: mx_nccl_add_one<mx_nccl_f64>(mine, others, i, part, rank, ranks); break;
    case MX_F32: mx_nccl_add_one<mx_nccl_f32>(mine, others, i, part, rank, ranks); break;
    case MX_F16: mx_nccl_add_one<mx_nccl_f16>(mine, others, i, part, rank, ranks); break;
    default: mx_nccl_add_one<mx_nccl_bf16>(mine, others, i, part, rank, ranks); break;
    }
}

static int64_t mx_nccl_blocks(int64_t n) {
    return (n + MX_NCCL_THREADS - 1) / MX_NCCL_THREADS;
}

static size_t mx_nccl_element(mx_dtype t) {
    return t == MX_F64 ? 8 : t == MX_F32 ? 4 : 2;
}

/* ---- waiting, and what goes wrong ---------------------------------------------------------------------------------------- */

static void mx_nccl_give_up(struct mx_nccl *x) {
    if (x->comm)
        (void)ncclCommAbort(x->comm);
    x->comm = NULL;
}

static mx_status mx_nccl_fail(struct mx_nccl *x, mx_status status, const char *what, const char *why) {
    (void)snprintf(x->why, sizeof x->why, "%s: %s", what, why);
    mx_nccl_give_up(x);
    return status;
}

static mx_status mx_nccl_cuda(struct mx_nccl *x, cudaError_t e) {
    if (e == cudaSuccess)
        return MX_OK;
    (void)cudaGetLastError();
    return mx_nccl_fail(x, MX_ERROR_DEVICE, "an average: CUDA", cudaGetErrorString(e));
}

static mx_status mx_nccl_error(struct mx_nccl *x, ncclResult_t e) {
    const char *last = x->comm ? ncclGetLastError(x->comm) : "";
    char text[300];
    (void)snprintf(text, sizeof text, "%s%s%.200s", ncclGetErrorString(e), last && *last ? ": " : "", last ? last : "");
    return mx_nccl_fail(x, e == ncclRemoteError || e == ncclSystemError ? MX_ERROR_PEER : MX_ERROR_DEVICE, "NCCL",
                        text);
}

/* The sum that is waited for: its number if this rank's share is there, so that others' is missing; else 0. */
static int64_t mx_nccl_waits(struct mx_nccl *x) {
    int64_t number = 0;
    while (x->ended < x->begun && cudaEventQuery(x->buckets[x->ended % x->rank.buckets].done) == cudaSuccess)
        x->ended++;
    if (x->ended < x->begun && cudaEventQuery(x->buckets[x->ended % x->rank.buckets].ready) == cudaSuccess)
        number = x->ended + 1;
    (void)cudaGetLastError(); /* "not ready" is none */
    return number;
}

/* Between two looks at what is waited for. */
static mx_status mx_nccl_look(struct mx_nccl *x, int64_t average, int *turn) {
    ncclResult_t e = ncclSuccess;
    if (x->rank.watch(x->rank.context, average) != MX_OK)
        return mx_nccl_fail(x, MX_ERROR_PEER, "NCCL", "the ranks have lost each other");
    if (x->comm && ncclCommGetAsyncError(x->comm, &e) == ncclSuccess && e != ncclSuccess && e != ncclInProgress)
        return mx_nccl_error(x, e);
    if (++*turn > 200) {
        const struct timespec pause = {0, 20000};
        (void)nanosleep(&pause, NULL);
    }
    return MX_OK;
}

/* Until a call to NCCL has done what it does on the host. */
static mx_status mx_nccl_settle(struct mx_nccl *x, ncclResult_t e) {
    int turn = 0;
    while (e == ncclInProgress) {
        const mx_status status = mx_nccl_look(x, x->begun + 1, &turn);
        if (status != MX_OK)
            return status;
        const ncclResult_t asked = ncclCommGetAsyncError(x->comm, &e);
        e = asked == ncclSuccess ? e : asked;
    }
    return e == ncclSuccess ? MX_OK : mx_nccl_error(x, e);
}

/* Until all on a stream is done; *e: what CUDA says. */
static mx_status mx_nccl_wait(struct mx_nccl *x, cudaStream_t stream, cudaError_t *e) {
    int turn = 0;
    while ((*e = cudaStreamQuery(stream)) == cudaErrorNotReady) {
        (void)cudaGetLastError();
        const mx_status status = mx_nccl_look(x, mx_nccl_waits(x), &turn);
        if (status != MX_OK)
            return status;
    }
    return MX_OK;
}

/* ---- ranks ---------------------------------------------------------------------------------------------------------------- */

static size_t mx_nccl_others(const struct mxrt_device_rank *r) {
    const size_t parts = r->bucket_bytes + (size_t)r->ranks * MX_NCCL_ALIGN, whole = (size_t)r->ranks * MX_NCCL_WHOLE;
    return r->ranks == 1 || r->fast ? 0 : parts > whole ? parts : whole;
}

static mx_status mx_nccl_connect(struct mx_nccl *x) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    config.blocking = 0;
    memcpy(&id, x->rank.id, sizeof id);
    ncclResult_t e = ncclCommInitRankConfig(&x->comm, x->rank.ranks, id, x->rank.rank, &config);
    return mx_nccl_settle(x, e);
}

static mx_status mx_nccl_join(struct mx_nccl *x, const struct mxrt_device_rank *rank, void **memory) {
    const size_t tensors = (rank->bytes + MX_NCCL_ALIGN - 1) / MX_NCCL_ALIGN * MX_NCCL_ALIGN,
                 all = tensors + mx_nccl_others(rank) + MX_NCCL_ALIGN;
    cudaError_t e = cudaSuccess;
    x->rank = *rank;
    x->joined = 1;
    x->begun = x->ended = 0;
    if (rank->ranks >= 1 << MX_NCCL_LEVELS)
        return mx_nccl_fail(x, MX_ERROR_UNSUPPORTED, "NCCL", "at most 1023 ranks");
    x->buckets = (decltype(x->buckets))calloc((size_t)rank->buckets + 1, sizeof *x->buckets);
    if (!x->buckets)
        return mx_nccl_fail(x, MX_ERROR_MEMORY, "NCCL", "no memory for buckets");
    if (cudaMalloc((void **)&x->memory, all) != cudaSuccess) {
        (void)cudaGetLastError();
        (void)snprintf(x->why, sizeof x->why,
                       "the GPU has too little memory free for averages over ranks: %lld bytes are needed",
                       (long long)all);
        return MX_ERROR_MEMORY;
    }
    e = cudaStreamCreateWithFlags(&x->stream, cudaStreamNonBlocking);
    for (int i = 0; i < rank->buckets && e == cudaSuccess; i++)
        e = cudaEventCreateWithFlags(&x->buckets[i].done, cudaEventDisableTiming);
    if (e == cudaSuccess) /* what stands between tensors is sent with them */
        e = MX_LAUNCH(mx_nccl_zero, mx_nccl_blocks((int64_t)(tensors / 2)), MX_NCCL_THREADS, x->stream,
                      (uint16_t *)MX_AT(x->memory, tensors), (int64_t)(tensors / 2));
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(x->stream);
    *memory = x->memory;
    const mx_status status = mx_nccl_cuda(x, e);
    return status == MX_OK && rank->ranks > 1 ? mx_nccl_connect(x) : status;
}

/* lost: the others do not come to this. */
static void mx_nccl_leave(struct mx_nccl *x, int lost) {
    if (lost)
        mx_nccl_give_up(x);
    if (x->comm && mx_nccl_settle(x, ncclCommFinalize(x->comm)) == MX_OK)
        (void)ncclCommDestroy(x->comm);
    x->comm = NULL;
    for (int i = 0; x->buckets && i < x->rank.buckets; i++)
        if (x->buckets[i].done)
            (void)cudaEventDestroy(x->buckets[i].done);
    if (x->stream)
        (void)cudaStreamDestroy(x->stream);
    if (x->memory)
        (void)cudaFree(x->memory);
    free(x->buckets);
    memset(x, 0, sizeof *x);
}

/* ---- a sum ---------------------------------------------------------------------------------------------------------------- */

struct mx_nccl_cut { /* of a bucket: rank r's part begins at r * part */
    unsigned char *at;
    int64_t elements, part;
    size_t size; /* of an element */
};

/* A call within a group. */
static int mx_nccl_goes(ncclResult_t e) {
    return e == ncclSuccess || e == ncclInProgress;
}

static int64_t mx_nccl_count(const struct mx_nccl_cut *c, int rank) {
    const int64_t left = c->elements - rank * c->part;
    return left < 0 ? 0 : left < c->part ? left : c->part;
}

/* To each rank its part of the tensors here, or the sum of the part that is this rank's; what comes is put into `others`, or in its place. */
static mx_status mx_nccl_exchange(struct mx_nccl *x, const struct mx_nccl_cut *c, unsigned char *others) {
    const int me = x->rank.rank;
    const int64_t mine = mx_nccl_count(c, me);
    ncclResult_t e = ncclGroupStart(), end;
    for (int r = 0; r < x->rank.ranks; r++) {
        const int64_t theirs = mx_nccl_count(c, r), out = others ? theirs : mine, in = others ? mine : theirs;
        unsigned char *from = c->at + (others ? r : me) * c->part * c->size,
                      *to = (others ? others : c->at) + r * c->part * c->size;
        if (r != me && out && mx_nccl_goes(e))
            e = ncclSend(MX_AT(from, out * c->size), (size_t)out * c->size, ncclUint8, r, x->comm, x->stream);
        if (r != me && in && mx_nccl_goes(e))
            e = ncclRecv(MX_AT(to, in * c->size), (size_t)in * c->size, ncclUint8, r, x->comm, x->stream);
    }
    end = ncclGroupEnd();
    return mx_nccl_settle(x, mx_nccl_goes(e) ? end : e);
}

/* Each rank's share, whole, to all. */
static mx_status mx_nccl_spread(struct mx_nccl *x, const struct mx_nccl_cut *c, unsigned char *others) {
    const size_t bytes = (size_t)c->elements * c->size;
    ncclResult_t e = ncclGroupStart(), end;
    for (int r = 0; r < x->rank.ranks && mx_nccl_goes(e); r++) {
        if (r == x->rank.rank)
            continue;
        e = ncclSend(MX_AT(c->at, bytes), bytes, ncclUint8, r, x->comm, x->stream);
        if (mx_nccl_goes(e))
            e = ncclRecv(MX_AT(others + r * c->part * c->size, bytes), bytes, ncclUint8, r, x->comm, x->stream);
    }
    end = ncclGroupEnd();
    return mx_nccl_settle(x, mx_nccl_goes(e) ? end : e);
}

static mx_status mx_nccl_sum(struct mx_nccl *x, struct mx_nccl_cut *c, mx_dtype dtype) {
    static const ncclDataType_t types[] = {ncclFloat64, ncclFloat32, ncclFloat16, ncclBfloat16};
    const int ranks = x->rank.ranks, me = x->rank.rank;
    const size_t bytes = (size_t)c->elements * c->size;
    const int is_whole = bytes <= MX_NCCL_WHOLE;
    unsigned char *others = x->memory + (x->rank.bytes + MX_NCCL_ALIGN - 1) / MX_NCCL_ALIGN * MX_NCCL_ALIGN;
    if (x->rank.fast)
        return mx_nccl_settle(x, ncclAllReduce(MX_AT(c->at, bytes), MX_AT(c->at, bytes), (size_t)c->elements,
                                               types[dtype], ncclSum, x->comm, x->stream));
    const int64_t unit = (int64_t)(MX_NCCL_ALIGN / c->size);
    c->part = is_whole ? c->elements : ((c->elements + ranks - 1) / ranks + unit - 1) / unit * unit;
    const int64_t n = is_whole ? c->elements : mx_nccl_count(c, me);
    unsigned char *mine = is_whole ? c->at : c->at + me * c->part * c->size;
    mx_status status = is_whole ? mx_nccl_spread(x, c, others) : mx_nccl_exchange(x, c, others);
    if (status == MX_OK && n)
        status = mx_nccl_cuda(x, MX_LAUNCH(mx_nccl_add, mx_nccl_blocks(n), MX_NCCL_THREADS, x->stream,
                                           MX_AT(mine, n * c->size), MX_AT(others, ranks * c->part * c->size), n,
                                           c->part, (int)dtype, me, ranks));
    return status != MX_OK || is_whole ? status : mx_nccl_exchange(x, c, NULL);
}

/* Sums a bucket over ranks, in place, once `ready` has come. */
static mx_status mx_nccl_average(struct mx_nccl *x, int bucket, size_t at, int64_t elements, mx_dtype dtype,
                                 cudaEvent_t ready) {
    struct mx_nccl_cut c = {x->memory + at, elements, elements, mx_nccl_element(dtype)};
    if (x->rank.ranks > 1 && !x->comm)
        return mx_nccl_fail(x, MX_ERROR_PEER, "NCCL", "the ranks have lost each other");
    x->buckets[bucket].ready = ready;
    mx_status status = mx_nccl_cuda(x, cudaStreamWaitEvent(x->stream, ready, 0));
    if (status == MX_OK && x->comm)
        status = mx_nccl_sum(x, &c, dtype);
    if (status == MX_OK)
        status = mx_nccl_cuda(x, cudaEventRecord(x->buckets[bucket].done, x->stream));
    if (status == MX_OK && x->begun++ - x->ended >= x->rank.buckets)
        x->ended = x->begun - x->rank.buckets; /* those of the step before were waited for on the device */
    return status;
}
