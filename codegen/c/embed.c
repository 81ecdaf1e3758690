/* The C text that generated units carry: files of the runtime, taken in by tools/embed so that there is one copy. */
#include <string.h>

#include "codegen/c/model_internal.h"
#include "embedded_c.h"

const char *embedded_text(const char *name) {
    for (int i = 0; embedded_c[i].name; i++) {
        const char *slash = strrchr(embedded_c[i].name, '/');
        if (strcmp(slash ? slash + 1 : embedded_c[i].name, name) == 0)
            return embedded_c[i].text;
    }
    return "";
}
