/* Where libmxrt and its headers are: beside the executable in a build tree, or under its prefix when installed. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver/driver.h"

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

struct places find_places(struct arena *a) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return (struct places){"/usr/local/include", "/usr/local/lib"};
    self[n] = 0;
    *strrchr(self, '/') = 0;
    if (exists(arena_printf(a, "%s/libmxrt.a", self)))
        return (struct places){arena_printf(a, "%s/runtime/include", self), arena_strdup(a, self)};
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    static const char *const folders[] = {"lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"};
    const char *library = arena_printf(a, "%s/lib", self);
    for (int i = 3; i >= 0; i--)
        if (exists(arena_printf(a, "%s/%s/libmxrt.a", self, folders[i])))
            library = arena_printf(a, "%s/%s", self, folders[i]);
    return (struct places){arena_printf(a, "%s/include", self), library};
}

int flags_command(int argc, char **argv) {
    struct arena a = {0};
    struct places p = find_places(&a);
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--cflags") == 0)
            printf("%s-I%s", i ? " " : "", p.include);
        else if (strcmp(argv[i], "--libs") == 0)
            printf("%s-L%s -lmxrt -Wl,--as-needed -lz -lpthread -lm", i ? " " : "", p.library);
        else {
            usage_error("%s: only --cflags and --libs go together", argv[i]);
            arena_free(&a);
            return EXIT_USAGE;
        }
    }
    printf("\n");
    arena_free(&a);
    return EXIT_OK;
}
