/* libFuzzer entry: any bytes as a program. Elaboration must end, in bounded time, memory and stack, with diagnostics or with a
 * module that the verifier accepts. Corpus: tests/lang. */
#include <stdlib.h>

#include "base/diag.h"
#include "base/text.h"
#include "frontend/elaborate.h"
#include "ir/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct diag diag;
    diag_init(&diag);
    const struct source *source = diag_add_source(&diag, "fuzz.mxl", (const char *)data, size);
    const struct elaborate_options options = {.name = "fuzz"};
    struct ir_module *module = elaborate_file(&diag, source, &options);
    struct text why = {0};
    if (module && diag.errors == 0 && !ir_verify(module, &why)) {
        fprintf(stderr, "the IR is broken: %s\n", text_string(&why));
        abort();
    }
    text_free(&why);
    FILE *sink = fopen("/dev/null", "w");
    if (sink) {
        diag_print(&diag, sink, false);
        fclose(sink);
    }
    if (module)
        ir_module_free(module);
    diag_free(&diag);
    return 0;
}
