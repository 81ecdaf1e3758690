/* libFuzzer entry: any bytes as a source file. Parsing must end, in bounds; a file without errors must format, and the
 * result must be a fixed point that means the same (format_file reports an error if it does not). */
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/text.h"
#include "frontend/ast.h"

static void format_twice(const char *text, size_t length) {
    struct text once = {0}, twice = {0};
    struct diag diag;
    diag_init(&diag);
    format_file(&once, &diag, diag_add_source(&diag, "fuzz.mxl", text, length));
    if (diag.errors) {
        diag_print(&diag, stderr, false);
        abort();
    }
    format_file(&twice, &diag, diag_add_source(&diag, "again.mxl", text_string(&once), once.length));
    if (diag.errors || strcmp(text_string(&once), text_string(&twice)) != 0) {
        fprintf(stderr, "--- once\n%s--- twice\n%s", text_string(&once), text_string(&twice));
        diag_print(&diag, stderr, false);
        abort();
    }
    text_free(&once);
    text_free(&twice);
    diag_free(&diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct diag diag;
    struct arena arena = {0};
    struct text text = {0};
    diag_init(&diag);
    const struct source *source = diag_add_source(&diag, "fuzz.mxl", (const char *)data, size);
    struct ast_file *file = parse_file(&arena, &diag, source);
    ast_print(&text, file);
    document_file(&text, file);
    FILE *sink = fopen("/dev/null", "w");
    if (sink) {
        diag_print(&diag, sink, true);
        diag_print_json(&diag, sink);
        fclose(sink);
    }
    if (diag.errors == 0)
        format_twice((const char *)data, size);
    text_free(&text);
    arena_free(&arena);
    diag_free(&diag);
    return 0;
}
