// JSON, read without building a tree and without recursion: whatever the payload, the memory it
// takes is a small multiple of its size. What passes is what RFC 8259 says, however deep.
#include "own.h"
#include <string.h>

bool skip_blank(Reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
    return r->at < r->end;
}

static bool digits(Reader *r) {
    const char *first = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
    return r->at > first;
}

bool take(Reader *r, char c) {
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static bool number(Reader *r) {
    take(r, '-');
    if (!take(r, '0') && !digits(r)) return false;
    if (take(r, '.') && !digits(r)) return false;
    if (!take(r, 'e') && !take(r, 'E')) return true;
    if (!take(r, '+')) take(r, '-');
    return digits(r);
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool string(Reader *r, bool *escaped) {
    if (!take(r, '"')) return false;
    while (r->at < r->end) {
        unsigned char c = (unsigned char)*r->at++;
        if (c == '"') return true;
        if (c < 0x20) return false;
        if (c != '\\') continue;
        *escaped = true;
        if (r->at == r->end || !strchr("\"\\/bfnrtu", *r->at) || !*r->at) return false;
        if (*r->at++ != 'u') continue;
        for (int i = 0; i < 4; i++, r->at++) {
            if (r->at == r->end || hex(*r->at) < 0) return false;
        }
    }
    return false;
}

static bool word(Reader *r, const char *expected) {
    size_t size = strlen(expected);
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, expected, size) != 0) return false;
    r->at += size;
    return true;
}

bool skip_value(Reader *r) {
    bool escaped;
    unsigned char *open = NULL;  // A bit for each that is open, innermost last, set for an object.
    size_t depth = 0;
    for (;;) {
        if (!skip_blank(r)) return false;
        char c = *r->at;
        bool entered = false;
        if (c == '{' || c == '[') {
            if (!open) open = allocate((size_t)(r->end - r->at) / 8 + 1);
            r->at++;
            unsigned char bit = (unsigned char)(1 << depth % 8);
            open[depth / 8] = c == '{' ? open[depth / 8] | bit : open[depth / 8] & ~bit;
            depth++;
            entered = true;
        } else if (!(c == '"' ? string(r, &escaped) : c == 't' ? word(r, "true") : c == 'f' ? word(r, "false")
                                 : c == 'n' ? word(r, "null") : number(r))) {
            return false;
        }
        for (;; entered = false) {  // Out of all that ends here.
            if (depth == 0) return true;
            bool object = open[(depth - 1) / 8] >> (depth - 1) % 8 & 1;
            if (!skip_blank(r)) return false;
            if (take(r, object ? '}' : ']')) {
                depth--;
                continue;
            }
            if (!entered && (!take(r, ',') || !skip_blank(r))) return false;
            if (object && (!string(r, &escaped) || !skip_blank(r) || !take(r, ':'))) return false;
            break;
        }
    }
}

static unsigned code_unit(const char *at) {
    return (unsigned)(hex(at[0]) << 12 | hex(at[1]) << 8 | hex(at[2]) << 4 | hex(at[3]));
}

static size_t utf8(char *out, unsigned c) {
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xC0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3F)), 2;
    size_t size = c < 0x10000 ? 3 : 4;
    out[0] = (char)(size == 3 ? 0xE0 | c >> 12 : 0xF0 | c >> 18);
    for (size_t i = 1; i < size; i++) out[i] = (char)(0x80 | (c >> 6 * (size - 1 - i) & 0x3F));
    return size;
}

bool unescaped(Text raw, Text *out) {
    char *to = allocate(raw.size + 1), *start = to;
    for (const char *at = raw.data, *end = at + raw.size; at < end;) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
        const char *letter = strchr(letters, at[1]);
        if (at[1] != 'u') {
            *to++ = letter ? meant[letter - letters] : at[1];
            at += 2;
            continue;
        }
        unsigned c = code_unit(at + 2);
        at += 6;
        if (c >= 0xD800 && c < 0xE000) {
            if (c >= 0xDC00 || end - at < 6 || at[0] != '\\' || at[1] != 'u') return false;
            unsigned low = code_unit(at + 2);
            if (low < 0xDC00 || low >= 0xE000) return false;
            c = 0x10000 + ((c - 0xD800) << 10 | (low - 0xDC00));
            at += 6;
        }
        to += utf8(to, c);
    }
    *to = 0;
    *out = (Text){start, (size_t)(to - start)};
    return true;
}

static bool quoted(Reader *r, Text *out) {
    const char *start = r->at + 1;
    bool escaped = false;
    if (!string(r, &escaped)) return false;
    *out = (Text){start, (size_t)(r->at - 1 - start)};
    return !escaped || unescaped(*out, out);
}

static bool members(Reader *r, Object *object) {
    if (!skip_blank(r) || !take(r, '{') || !skip_blank(r)) return false;
    bool more = !take(r, '}');
    while (more) {
        Member member;
        if (!skip_blank(r) || *r->at != '"' || !quoted(r, &member.name)) return false;
        if (!skip_blank(r) || !take(r, ':') || !skip_blank(r)) return false;
        member.value.data = r->at;
        if (!skip_value(r)) return false;
        member.value.size = (size_t)(r->at - member.value.data);
        if (object->count == object->room) {
            object->room = object->room ? object->room * 2 : 16;
            Member *larger = allocate(object->room * sizeof member);
            if (object->count) memcpy(larger, object->members, object->count * sizeof member);
            object->members = larger;
        }
        object->members[object->count++] = member;
        if (!skip_blank(r)) return false;
        more = take(r, ',');
        if (!more && !take(r, '}')) return false;
    }
    return !skip_blank(r);
}

// Returns the number of bytes that are UTF-8.
static size_t utf8_valid(Text text) {
    const unsigned char *s = (const unsigned char *)text.data;
    size_t at = 0, n = text.size;
    while (at < n) {
        unsigned char c = s[at];
        if (c < 0x80) {
            at++;
            continue;
        }
        size_t more = c >= 0xC2 && c < 0xE0 ? 1 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xF0 && c < 0xF5 ? 3 : 0;
        if (more == 0 || n - at <= more) return at;
        unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
        unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (s[at + 1] < low || s[at + 1] > high) return at;
        for (size_t i = 2; i <= more; i++) {
            if ((s[at + i] & 0xC0) != 0x80) return at;
        }
        at += more + 1;
    }
    return n;
}

// The last payload that was read, which most often is asked again.
static Text read_last;
static Object object_last;

const Object *read_object(Text payload) {
    if (read_last.data == payload.data && read_last.size == payload.size && read_last.data) return &object_last;
    size_t valid = utf8_valid(payload);
    if (valid < payload.size) {
        reject("not UTF-8: byte %zu", valid);
        return NULL;
    }
    Reader reader = {payload.data, payload.data, payload.data + payload.size};
    Object found = {0};
    if (!members(&reader, &found)) {
        reject("not a JSON object: byte %zu", (size_t)(reader.at - reader.start));
        return NULL;
    }
    read_last = payload;
    object_last = found;
    return &object_last;
}

void forget(void) { read_last = (Text){0}; }

const Text *find(const Object *object, Text field, const char **reason) {
    const Text *found = NULL;
    *reason = "field `%s` is missing";
    for (size_t i = 0; i < object->count; i++) {
        if (!equal(object->members[i].name, field)) continue;
        if (found) {
            *reason = "field `%s` is there twice";
            return NULL;
        }
        found = &object->members[i].value;
    }
    return found;
}
