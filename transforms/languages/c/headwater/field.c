// The fields of a payload.
#include "own.h"
#include <math.h>
#include <string.h>

static const Text *field_value(Text payload, const char *field) {
    const Object *all = read_object(payload);
    const char *reason;
    if (!all) return NULL;
    const Text *found = find(all, text(field), &reason);
    if (!found) reject(reason, field);
    return found;
}

bool json_has_number(Text payload, const char *field, double *number) {
    const Object *all = read_object(payload);
    const char *reason;
    const Text *found = all ? find(all, text(field), &reason) : NULL;
    if (!found) return false;
    *number = number_of(*found);
    return isfinite(*number);
}

double json_number(Text payload, const char *field) {
    const Text *found = field_value(payload, field);
    if (!found) return NAN;
    double number = number_of(*found);
    if (isfinite(number)) return number;
    size_t cut = 0;
    for (int i = 0; i < 40 && cut < found->size; i++) {
        do cut++; while (cut < found->size && (found->data[cut] & 0xC0) == 0x80);
    }
    reject("field `%s` is not a number: %.*s", field, (int)cut, found->data);
    return NAN;
}

static bool has(const Object *object, Text field) {
    for (size_t i = 0; i < object->count; i++) {
        if (equal(object->members[i].name, field)) return true;
    }
    return false;
}

// The payload with other parts in place of one.
static Text spliced(Text payload, Text old, const Text *parts, size_t count) {
    size_t before = (size_t)(old.data - payload.data), size = payload.size - old.size;
    for (size_t i = 0; i < count; i++) size += parts[i].size;
    char *out = allocate(size + 1), *to = out + before;
    memcpy(out, payload.data, before);
    for (size_t i = 0; i < count; to += parts[i++].size) memcpy(to, parts[i].data, parts[i].size);
    memcpy(to, old.data + old.size, payload.size - before - old.size);
    out[size] = 0;
    return (Text){out, size};
}

Text json_with_number(Text payload, const char *field, double number) {
    const Object *all = read_object(payload);
    if (!all) return payload;
    const char *reason;
    const Text *found = find(all, text(field), &reason);
    if (!found && has(all, text(field))) {
        reject(reason, field);
        return payload;
    }
    if (!isfinite(number)) {
        reject("field `%s` would become %s", field, isnan(number) ? "NaN" : number < 0 ? "-inf" : "inf");
        return payload;
    }
    Text digits = number_text(number);
    if (found) return spliced(payload, *found, (Text[]){digits}, 1);
    Text end = {payload.data + payload.size, 0};
    while (*--end.data != '}') continue;
    return spliced(payload, end, (Text[]){text(all->count ? "," : ""), quoted_text(text(field)), text(":"), digits}, 4);
}

Text json_text(Text payload, const char *field) {
    const Text *found = field_value(payload, field);
    if (!found) return (Text){"", 0};
    Text raw = {found->data + 1, found->size - 2}, out;
    if (found->data[0] == '"' && unescaped(raw, &out)) return out;
    reject("field `%s` is not a text", field);
    return (Text){"", 0};
}
