/* libFuzzer entry: any bytes as CSV. The parser ends with a table of the size it says, or with a message. */
#include <stdlib.h>
#include <string.h>

#include "mxrt/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mxrt_csv csv;
    struct mxrt_why why = {""};
    char *text = malloc(size + 1); /* as mxrt_read_file gives it: with a zero behind */
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (mxrt_csv_parse(&csv, "fuzz.csv", text, size, &why) == MX_OK) {
        volatile float sum = 0;
        for (int64_t i = 0; i < csv.rows * csv.columns; i++)
            sum = sum + csv.cells[i];
        for (int64_t i = 0; csv.names && i < csv.columns; i++)
            sum = sum + (float)strlen(csv.names[i]);
        mxrt_csv_free(&csv);
    } else if (!why.text[0]) {
        abort();
    }
    free(text);
    return 0;
}
