/* Reading what other ranks sent. Nothing of it is believed: sizes are computed with overflow checks from the header, compared with
 * what is there, and indices are looked at once, here, so that nobody behind this file needs to. */
#include "item.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "compress.h"
#include "internal.h"

static_assert(sizeof(struct item) == 64 && sizeof(struct item) % ITEM_ALIGN == 0, "headers keep payloads aligned");
static_assert((int)FORM_2BIT - FORM_DENSE == (int)MXRT_KV_2BIT && (int)FORM_TOP_K - FORM_DENSE == (int)MXRT_KV_TOP_K,
              "forms are in the order of compressions");

static bool times(uint64_t a, uint64_t b, uint64_t *product) {
    return !__builtin_mul_overflow(a, b, product) && *product <= INT64_MAX;
}

bool kv_item_payload(const struct item *item, uint64_t *bytes) {
    uint64_t n = (uint64_t)item->elements, rows = (uint64_t)item->rows, size, row_bytes;
    *bytes = 0;
    if (item->elements < 0 || item->rows < 0 || item->row_elements < 0 || item->dtype > MX_BOOL || item->form >= FORMS)
        return false;
    size = mxrt_dtype_size((mx_dtype)item->dtype);
    bool is_float = item->dtype == MX_F32, fits = times(n, size, bytes);
    switch ((enum item_form)item->form) {
    case FORM_NONE: *bytes = 0; return true;
    case FORM_DENSE: return fits;
    case FORM_2BIT:
        *bytes = n / 4 + (n % 4 != 0);
        return fits && is_float && isfinite(item->threshold) && item->threshold > 0;
    case FORM_1BIT: *bytes = n / 8 + (n % 8 != 0); return fits && is_float;
    case FORM_BF16: *bytes = 2 * n; return fits && is_float;
    case FORM_TOP_K: *bytes = 8 * rows; return fits && is_float && rows <= n && n <= UINT32_MAX;
    case FORM_SPARSE:
        return fits && item->row_elements > 0 && n % (uint64_t)item->row_elements == 0 &&
               rows <= n / (uint64_t)item->row_elements && times((uint64_t)item->row_elements, size, &row_bytes) &&
               times(rows, row_bytes + 8, bytes);
    case FORM_IDS: return times(rows, 8, bytes);
    case FORM_TEXT: *bytes = rows; return rows <= 600;
    case FORMS: break;
    }
    return false;
}

mx_status kv_item_open(const struct item *item, const void *payload, int from, struct part *part,
                       struct mxrt_why *why) {
    *part = (struct part){.form = (enum item_form)item->form,
                          .dtype = (mx_dtype)item->dtype,
                          .threshold = item->threshold,
                          .elements = item->elements,
                          .rows = item->rows,
                          .row_elements = item->row_elements,
                          .data = payload};
    if (item->form == FORM_TOP_K) {
        const uint32_t *index = payload;
        for (int64_t i = 0; i < item->rows; i++) {
            if (index[i] >= item->elements || (i > 0 && index[i] <= index[i - 1]))
                return mxrt_fail(why, MX_ERROR_PEER,
                                 "rank %d sent index %u at place %lld of %lld; indices ascend, below %lld", from,
                                 index[i], (long long)i, (long long)item->rows, (long long)item->elements);
        }
    } else if (item->form == FORM_SPARSE || item->form == FORM_IDS) {
        part->ids = payload;
        part->data = part->ids + item->rows;
    }
    if (item->form == FORM_SPARSE) {
        char whose[32];
        snprintf(whose, sizeof whose, "rank %d sent", from);
        return kv_check_rows(part->ids, item->rows, item->elements / item->row_elements, whose, why);
    }
    return MX_OK;
}

mx_status kv_item_next(const void *batch, size_t bytes, size_t *at, struct item *item, const void **payload, int from,
                       struct mxrt_why *why) {
    size_t left = bytes - *at;
    uint64_t expected;
    if (left < sizeof *item)
        return mxrt_fail(why, MX_ERROR_PEER, "rank %d sent a message that ends within a header, at byte %zu", from,
                         *at);
    memcpy(item, (const char *)batch + *at, sizeof *item);
    *at += sizeof *item;
    left -= sizeof *item;
    if (item->kind == 0 || item->kind >= ITEM_KINDS || item->wants >= WANTS || item->apart > 1 ||
        !kv_item_payload(item, &expected) || expected != item->bytes)
        return mxrt_fail(why, MX_ERROR_PEER,
                         "rank %d sent what is no request of a store (kind %u, form %u, %llu bytes)", from, item->kind,
                         item->form, (unsigned long long)item->bytes);
    *payload = NULL;
    if (item->apart)
        return MX_OK;
    if (item->bytes > left)
        return mxrt_fail(why, MX_ERROR_PEER, "rank %d sent %zu bytes where its header announces %llu", from, left,
                         (unsigned long long)item->bytes);
    *payload = (const char *)batch + *at;
    size_t padded = item_padded((size_t)item->bytes);
    *at += padded < left ? padded : left;
    return MX_OK;
}
