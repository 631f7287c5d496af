// Rejections and the log.
#include "own.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES_MAX = 1024 };
Text rejected;

static Text formatted(const char *format, va_list values) {
    char line[LINE_BYTES_MAX];
    int size = vsnprintf(line, sizeof line, format, values);
    if (size < 0) return text("a line that printf cannot write");
    if (size >= LINE_BYTES_MAX) {
        size = LINE_BYTES_MAX - 1;  // Cut where a character begins.
        while (size && (line[size] & 0xC0) == 0x80) size--;
    }
    char *copy = allocate((size_t)size + 1);
    memcpy(copy, line, (size_t)size);
    copy[size] = 0;
    return (Text){copy, (size_t)size};
}

void reject(const char *reason, ...) {
    if (rejected.data) return;
    va_list values;
    va_start(values, reason);
    rejected = formatted(reason, values);
    va_end(values);
}

__attribute__((import_module("headwater:module/logging@0.1.0"), import_name("log")))
void agent_log(int32_t level, const char *line, size_t size);

void write_log(Level level, const char *line, ...) {
    if (rejected.data) return;
    va_list values;
    va_start(values, line);
    Text whole = formatted(line, values);
    va_end(values);
    agent_log(level, whole.data, whole.size);
}
