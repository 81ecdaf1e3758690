/* The table of buffers, and what works by it: param, save, load, and weights given as an image in memory. */

#include "codegen/c/model_internal.h"

static void table(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    int n = u->module->buffer_count, at = 0;
    text_add(c, "/* ---- buffers by name */\n\n");
    text_printf(c, "static const int64_t %s_mx_extents[] = {", p);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < u->module->buffers[i]->type.rank; k++, at++)
            text_printf(c, "%s%lld,", at % 16 ? " " : "\n    ",
                        (long long)ir_dim_upper(u->module->buffers[i]->type.dims[k]));
    text_add(c, at ? "\n};\n" : "0};\n");
    text_printf(
        c,
        "static const struct {\n    const char *name;\n    int is_state;\n    mx_dtype dtype;\n    int rank, extents; /* first of %s_mx_extents */\n"
        "    size_t field;      /* where the struct holds the pointer */\n} %s_mx_buffers[] = {\n",
        p, p);
    at = 0;
    for (int i = 0; i < n; i++) {
        const struct ir_buffer *b = u->module->buffers[i];
        char type[8];
        size_t k = 0;
        for (const char *s = dtype_name(b->type.dtype); *s; s++)
            type[k++] = (char)(*s >= 'a' ? *s - 32 : *s);
        type[k] = 0;
        text_printf(c, "    {\"%s\", %d, MX_%s, %d, %d, offsetof(struct %s, %s)},\n", b->name, b->kind == BUFFER_STATE,
                    type, b->type.rank, at, p, cgen_buffer_field(&u->g, b));
        at += b->type.rank;
    }
    if (n == 0)
        text_add(c, "    {\"\", 0, MX_F32, 0, 0, 0},\n");
    text_printf(c, "};\nenum { %s_BUFFER_COUNT = %d };\n\n", u->upper, n);
    text_printf(
        c,
        "static void *%s_mx_data(const struct %s *m, int i) {\n    void *data;\n"
        "    memcpy(&data, (const unsigned char *)m + %s_mx_buffers[i].field, sizeof data);\n    return data;\n}\n\n",
        p, p, p);
    text_printf(c,
                "static void %s_mx_view(const struct %s *m, int i, mx_tensor *view) {\n"
                "    static const unsigned char size[] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};\n"
                "    view->dtype = %s_mx_buffers[i].dtype;\n    view->rank = %s_mx_buffers[i].rank;\n"
                "    view->shape = %s_mx_extents + %s_mx_buffers[i].extents;\n    view->data = %s_mx_data(m, i);\n"
                "    view->bytes = size[view->dtype];\n    for (int k = 0; k < view->rank; k++)\n"
                "        view->bytes *= (size_t)view->shape[k];\n}\n\n",
                p, p, p, p, p, p, p);
    if (u->g.cuda)
        unit_cuda_buffers(u);
    text_printf(
        c,
        "mx_status %s_param(%s *m, const char *name, mx_tensor *view) {\n"
        "    if (!m)\n        return MX_ERROR_ARGUMENT;\n"
        "    if (!name || !view)\n        return %s_mx_fail(m, MX_ERROR_ARGUMENT, \"param: a null pointer\");\n"
        "    for (int i = 0; i < %s_BUFFER_COUNT; i++)\n        if (strcmp(%s_mx_buffers[i].name, name) == 0) {\n"
        "            %s_mx_view(m, i, view);\n%s            return %s;\n        }\n"
        "    return %s_mx_fail(m, MX_ERROR_ARGUMENT, \"param: there is no \\\"%%s\\\"\", name);\n}\n\n",
        p, p, p, u->upper, p, p, u->incremental && n ? "            m->mx_versions[i]++;\n" : "",
        u->g.cuda ? arena_printf(&u->g.arena, "%s_mx_see(m, i, 2)", p) : "MX_OK", p);
    text_printf(
        c,
        "mx_status %s_param_at(const %s *m, int i, mx_param *param) {\n"
        "    struct %s *w = (struct %s *)m; /* only its message is written */\n"
        "    if (!m)\n        return MX_ERROR_ARGUMENT;\n"
        "    if (!param)\n        return %s_mx_fail(w, MX_ERROR_ARGUMENT, \"param_at: a null pointer\");\n"
        "    if (i < 0 || i >= %s_BUFFER_COUNT)\n"
        "        return %s_mx_fail(w, MX_ERROR_ARGUMENT, \"param_at: %%d is not one of the %%d params and states\", i, (int)%s_BUFFER_COUNT);\n"
        "    param->name = %s_mx_buffers[i].name;\n    param->is_state = %s_mx_buffers[i].is_state;\n"
        "    %s_mx_view(m, i, &param->value);\n    return %s;\n}\n\n",
        p, p, p, p, p, u->upper, p, u->upper, p, p, p,
        u->g.cuda ? arena_printf(&u->g.arena, "%s_mx_see(w, i, 1)", p) : "MX_OK");
}

/* Whether some buffer is constant data of the unit. */
static bool any_shared(const struct unit *u) {
    for (int i = 0; i < u->module->buffer_count; i++)
        if (u->shared[i])
            return true;
    return false;
}

static void save_and_load(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix, *up = u->upper;
    text_printf(c, "#ifndef %s_NO_STDIO\n\n", up);
    text_printf(c, "mx_status %s_save(const %s *m, const char *path) {\n", p, p);
    text_printf(
        c,
        "    struct mx_st_entry entries[%s_BUFFER_COUNT + 1];\n    char seed[24], calls[24], part[1024];\n"
        "    const char *metadata[3][2];\n    FILE *f;\n    int ok;\n    struct %s *w = (struct %s *)m; /* only its message is written */\n",
        up, p, p);
    text_printf(c,
                "    if (!m)\n        return MX_ERROR_ARGUMENT;\n    if (!path || strlen(path) + 6 > sizeof part)\n"
                "        return %s_mx_fail(w, MX_ERROR_ARGUMENT, \"save: no path, or one that is too long\");\n",
                p);
    if (u->g.cuda)
        text_printf(c, "    MX_TRY(%s_mx_move_all(w, 0, \"save\"));\n", p);
    text_printf(
        c,
        "    (void)snprintf(part, sizeof part, \"%%s.part\", path);\n    f = fopen(part, \"wb\");\n    if (!f)\n"
        "        return %s_mx_fail(w, MX_ERROR_IO, \"cannot write %%s: %%s\", part, strerror(errno));\n",
        p);
    text_add(c, "    (void)snprintf(seed, sizeof seed, \"%llu\", (unsigned long long)m->seed);\n"
                "    (void)snprintf(calls, sizeof calls, \"%llu\", (unsigned long long)m->calls);\n");
    text_printf(
        c,
        "    metadata[0][0] = \"model\";\n    metadata[0][1] = \"%s\";\n    metadata[1][0] = \"seed\";\n    metadata[1][1] = seed;\n"
        "    metadata[2][0] = \"calls\";\n    metadata[2][1] = calls;\n",
        p);
    text_printf(
        c,
        "    %s_mx_entries(m, entries);\n    ok = mx_st_write(f, entries, %s_BUFFER_COUNT, (const char *const(*)[2])metadata, 3);\n"
        "    ok = fclose(f) == 0 && ok;\n"
        "#if defined(_WIN32)\n    (void)remove(path); /* rename does not replace there */\n#endif\n"
        "    if (!ok || rename(part, path) != 0) {\n        int why = errno;\n        (void)remove(part);\n"
        "        return %s_mx_fail(w, MX_ERROR_IO, \"cannot write %%s: %%s\", path, strerror(why));\n    }\n    return MX_OK;\n}\n\n",
        p, up, p);
    text_printf(c, "mx_status %s_load(%s *m, const char *path) {\n", p, p);
    if (any_shared(u)) {
        text_printf(
            c,
            "    (void)path;\n    return m ? %s_mx_fail(m, MX_ERROR_UNSUPPORTED, \"load: the weights are constants of this unit\") : MX_ERROR_ARGUMENT;\n}\n\n#endif\n\n",
            p);
        return;
    }
    text_printf(
        c,
        "    struct mx_st_entry entries[%s_BUFFER_COUNT + 1];\n    uint64_t offsets[%s_BUFFER_COUNT + 1];\n    char why[160];\n"
        "    struct mx_st_source s;\n    long size;\n    FILE *f;\n",
        up, up);
    text_printf(
        c,
        "    if (!m || !path)\n        return m ? %s_mx_fail(m, MX_ERROR_ARGUMENT, \"load: no path\") : MX_ERROR_ARGUMENT;\n",
        p);
    unit_touch_all(u, false);
    text_printf(
        c,
        "    f = fopen(path, \"rb\");\n    if (!f)\n        return %s_mx_fail(m, MX_ERROR_IO, \"cannot read %%s: %%s\", path, strerror(errno));\n",
        p);
    text_printf(
        c,
        "    if (fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0) {\n        (void)fclose(f);\n"
        "        return %s_mx_fail(m, MX_ERROR_IO, \"cannot read %%s: %%s\", path, strerror(errno));\n    }\n",
        p);
    text_printf(
        c,
        "    memset(&s, 0, sizeof s);\n    s.file = f;\n    s.size = (uint64_t)size;\n    s.why = why;\n    s.why_size = sizeof why;\n"
        "    s.metadata = %s_mx_metadata;\n    s.context = m;\n    %s_mx_entries(m, entries);\n",
        p, p);
    text_printf(
        c,
        "    if (mx_st_open(&s, entries, %s_BUFFER_COUNT, offsets))\n        (void)mx_st_read(&s, entries, %s_BUFFER_COUNT, offsets);\n"
        "    (void)fclose(f);\n    return s.status == MX_OK ? %s : %s_mx_fail(m, s.status, \"%%s: %%s\", path, why);\n}\n\n#endif\n\n",
        up, up, u->g.cuda ? arena_printf(&u->g.arena, "%s_mx_move_all(m, 1, \"load\")", p) : "MX_OK", p);
}

/* Weights as an image in memory: what is never written is used where it lies. */
static void attach(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix, *up = u->upper;
    text_printf(c, "static mx_status %s_mx_attach(struct %s *m, const void *image, size_t bytes) {\n", p, p);
    text_printf(c, "    static const unsigned char shared[] = {");
    for (int i = 0; i < u->module->buffer_count; i++)
        text_printf(c, "%d, ", u->shared[i]);
    text_add(c, "0};\n");
    text_printf(
        c,
        "    struct mx_st_entry entries[%s_BUFFER_COUNT + 1];\n    uint64_t offsets[%s_BUFFER_COUNT + 1];\n    struct mx_st_source s;\n",
        up, up);
    text_printf(
        c,
        "    if (!image || (uintptr_t)image %% 8 != 0)\n        return %s_mx_fail(m, MX_ERROR_ARGUMENT, \"init: options->weights is not given, or not aligned to 8 bytes\");\n",
        p);
    text_printf(
        c,
        "    memset(&s, 0, sizeof s);\n    s.bytes = (const unsigned char *)image;\n    s.size = bytes;\n    s.why = m->mx_error;\n    s.why_size = sizeof m->mx_error;\n"
        "    s.metadata = %s_mx_metadata;\n    s.context = m;\n    %s_mx_entries(m, entries);\n",
        p, p);
    text_printf(c, "    if (!mx_st_open(&s, entries, %s_BUFFER_COUNT, offsets))\n        return s.status;\n", up);
    text_printf(
        c,
        "    for (int i = 0; i < %s_BUFFER_COUNT; i++) {\n        if (!shared[i]) {\n            (void)mx_st_read(&s, &entries[i], 1, &offsets[i]);\n"
        "        } else if (offsets[i] %% mx_st_size(entries[i].dtype) != 0 || mx_st_big_endian()) {\n"
        "            return %s_mx_fail(m, MX_ERROR_FORMAT, \"init: \\\"%%s\\\" is not aligned in the image\", entries[i].name);\n        } else {\n"
        "            const void *data = s.bytes + offsets[i];\n            memcpy((unsigned char *)m + %s_mx_buffers[i].field, &data, sizeof data);\n        }\n    }\n"
        "    return s.status;\n}\n\n",
        up, p, p);
}

void unit_files(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix, *up = u->upper;
    bool image = u->options->weights == WEIGHTS_CALLER;
    table(u);
    if (!image)
        text_printf(c, "#ifndef %s_NO_STDIO\n\n", up);
    text_add(c, embedded_text("safetensors.h"));
    text_printf(
        c,
        "\nstatic void %s_mx_entries(const struct %s *m, struct mx_st_entry *entries) {\n"
        "    for (int i = 0; i < %s_BUFFER_COUNT; i++) {\n        mx_tensor view;\n        %s_mx_view(m, i, &view);\n"
        "        entries[i].name = %s_mx_buffers[i].name;\n        entries[i].dtype = view.dtype;\n        entries[i].rank = view.rank;\n"
        "        entries[i].shape = view.shape;\n        entries[i].data = view.data;\n    }\n"
        "    memset(&entries[%s_BUFFER_COUNT], 0, sizeof *entries); /* a model without buffers has one, too */\n}\n\n",
        p, p, up, p, p, up);
    if (image || !any_shared(u))
        text_printf(
            c,
            "static void %s_mx_metadata(void *context, const char *key, const char *value) {\n    struct %s *m = (struct %s *)context;\n"
            "    uint64_t n = 0;\n    for (; *value >= '0' && *value <= '9'; value++)\n        n = n * 10u + (uint64_t)(*value - '0');\n"
            "    if (strcmp(key, \"seed\") == 0)\n        m->seed = n;\n    else if (strcmp(key, \"calls\") == 0)\n        m->calls = n;\n}\n\n",
            p, p, p);
    if (!image)
        text_add(c, "#endif\n\n");
    save_and_load(u);
    if (image)
        attach(u);
}
