/* The net of an MPI job. MPI stands in a plugin, so that a program that may run alone or on a cluster is linked once, without it, and
 * so that machines without MPI build and run all else. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#ifndef MXRT_PLUGIN_FOLDERS
#define MXRT_PLUGIN_FOLDERS ""
#endif

static const char plugin[] = "libmxrt-mpi.so";

/* One MPI a process: it cannot be begun twice. */
static atomic_flag begun = ATOMIC_FLAG_INIT;

static void *load_from(const char *folder, size_t length, char *error, size_t room) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%.*s%s%s", (int)length, folder, length ? "/" : "", plugin);
    if (n < 0 || (size_t)n >= sizeof path || (length > 0 && access(path, R_OK) != 0))
        return NULL;
    /* Open MPI's own plugins find its symbols only if they are global. */
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        (void)snprintf(error, room, "%s", dlerror());
    return library;
}

static void *load(char *error, size_t room) {
    const char *named = getenv("MXRT_MPI");
    if (named && *named) {
        void *library = dlopen(named, RTLD_NOW | RTLD_GLOBAL);
        if (!library)
            (void)snprintf(error, room, "MXRT_MPI: %s", dlerror());
        return library;
    }
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    void *library = slash ? load_from(self, (size_t)(slash - self), error, room) : NULL;
    for (const char *at = MXRT_PLUGIN_FOLDERS, *end; !library && *at; at = *end ? end + 1 : end) {
        end = at + strcspn(at, ":");
        if (end > at)
            library = load_from(at, (size_t)(end - at), error, room);
    }
    return library ? library : load_from("", 0, error, room);
}

/* How many ranks whoever started this process says there are; 0: nobody does. */
static int ranks_of_job(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value && atoi(value) > 0)
            return atoi(value);
    }
    return getenv("PMIX_RANK") ? 1 : 0;
}

mx_status mxrt_net_open(struct mxrt_net **n, const struct mxrt_net_options *options, struct mxrt_why *why) {
    int ranks = ranks_of_job();
    if (ranks == 0)
        return mxrt_net_group(n, 1, options, why);
    char error[300] = "";
    void *library = load(error, sizeof error);
    mxrt_mpi_create *create = NULL;
    if (library) {
        void *symbol = dlsym(library, "mxrt_mpi_create_carrier");
        memcpy(&create, &symbol, sizeof create);
    }
    if (!create)
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                         "this is a rank of an MPI job, but %s cannot be loaded (%s): install Open MPI (Debian: "
                         "libopenmpi-dev openmpi-bin), build mxcc again, or name the file by MXRT_MPI",
                         plugin, error[0] ? error : "it was not built");
    if (atomic_flag_test_and_set(&begun))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "mxrt_net_open was called before: there is one MPI a process");
    struct carrier *c = NULL;
    mx_status status = create(&c, CARRIER_VERSION, why);
    if (status != MX_OK)
        return status;
    if (c->size == 1 && ranks > 1) {
        c->operations->close(c, true);
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                         "started as one of %d ranks by a launcher that Open MPI does not know: use its own mpirun",
                         ranks);
    }
    status = net_create(n, c, options, why);
    if (status == MX_OK && (status = net_wait_for_all(*n, why)) != MX_OK) {
        mxrt_net_close(*n);
        *n = NULL;
    }
    return status;
}
