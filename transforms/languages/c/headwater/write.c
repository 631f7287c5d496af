// A result, written as JSON.
#include "own.h"
#include <stdio.h>
#include <string.h>

static struct { char *data; size_t size, room; bool comma; } result;

static void append(const char *data, size_t size) {
    if (result.room - result.size < size) {
        result.room = (result.room + size) * 2;
        char *larger = allocate(result.room);
        if (result.size) memcpy(larger, result.data, result.size);
        result.data = larger;
    }
    memcpy(result.data + result.size, data, size);
    result.size += size;
}

static void append_quoted(Text value) {
    append("\"", 1);
    for (size_t i = 0; i < value.size; i++) {
        static const char short_of[] = "\"\"\\\\\bb\ff\nn\rr\tt";
        unsigned char c = (unsigned char)value.data[i];
        char escape[8];
        const char *found = NULL;
        for (const char *at = short_of; *at && !found; at += 2) found = (unsigned char)*at == c ? at : NULL;
        if (found) append(escape, (size_t)sprintf(escape, "\\%c", found[1]));
        else if (c < 0x20) append(escape, (size_t)sprintf(escape, "\\u%04x", c));
        else append(value.data + i, 1);
    }
    append("\"", 1);
}

Text quoted_text(Text value) {
    typeof(result) under_way = result;
    memset(&result, 0, sizeof result);
    append_quoted(value);
    Text quoted = {result.data, result.size};
    result = under_way;
    return quoted;
}

static void append_name(const char *name) {
    if (result.comma) append(",", 1);
    append_quoted(text(name));
    append(":", 1);
    result.comma = true;
}

void write_number(const char *name, double number) {
    append_name(name);
    Text digits = number_text(number);
    append(digits.data, digits.size);
}

void write_integer(const char *name, uint64_t number) {
    char figures[24];
    append_name(name);
    append(figures, (size_t)sprintf(figures, "%llu", (unsigned long long)number));
}

void write_text(const char *name, Text value) {
    append_name(name);
    append_quoted(value);
}

void write_open(const char *name) {
    append_name(name);
    append("{", 1);
    result.comma = false;
}

void write_close(void) {
    append("}", 1);
    result.comma = true;
}

void result_begin(void) {
    memset(&result, 0, sizeof result);
    append("{", 1);
}

Text result_end(void) {
    append("}", 1);
    return (Text){result.data, result.size};
}
