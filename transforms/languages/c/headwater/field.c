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

Text json_with_number(Text payload, const char *field, double number) {
    const Text *found = field_value(payload, field);
    if (!found) return payload;
    if (!isfinite(number)) {
        reject("field `%s` would become %s", field, isnan(number) ? "NaN" : number < 0 ? "-inf" : "inf");
        return payload;
    }
    Text digits = number_text(number);
    size_t before = (size_t)(found->data - payload.data), size = payload.size - found->size + digits.size;
    char *out = allocate(size + 1);
    memcpy(out, payload.data, before);
    memcpy(out + before, digits.data, digits.size);
    memcpy(out + before + digits.size, found->data + found->size, payload.size - before - found->size);
    out[size] = 0;
    return (Text){out, size};
}

Text json_text(Text payload, const char *field) {
    const Text *found = field_value(payload, field);
    if (!found) return (Text){"", 0};
    Text raw = {found->data + 1, found->size - 2}, out;
    if (found->data[0] == '"' && unescaped(raw, &out)) return out;
    reject("field `%s` is not a text", field);
    return (Text){"", 0};
}
