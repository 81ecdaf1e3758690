/* libFuzzer entry for IR text: whatever parses and verifies must print to text that parses to the same text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct diag d;
    diag_init(&d);
    struct ir_module *m = ir_parse(&d, diag_add_source(&d, "fuzz.mxir", (const char *)data, size));
    struct text why = {0}, first = {0}, second = {0};
    if (m && ir_verify(m, &why)) {
        ir_print(&first, m);
        struct ir_module *again = ir_parse(&d, diag_add_source(&d, "again.mxir", first.data, first.length));
        if (again)
            ir_print(&second, again);
        if (!again || strcmp(text_string(&first), text_string(&second))) {
            diag_print(&d, stderr, false);
            fprintf(stderr, "%s\n-- again --\n%s\n", text_string(&first), text_string(&second));
            abort();
        }
        ir_module_free(again);
    }
    text_free(&why);
    text_free(&first);
    text_free(&second);
    ir_module_free(m);
    diag_free(&d);
    return 0;
}
