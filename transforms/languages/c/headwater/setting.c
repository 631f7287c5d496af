// The settings, which are there during `init`.
#include "own.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const Object *settings;  // In `init` only.
static bool *asked;

static const Text *setting(const char *name) {
    const char *reason;
    if (!settings) return NULL;
    const Text *found = find(settings, text(name), &reason);
    for (size_t i = 0; i < settings->count; i++) {
        if (equal(settings->members[i].name, text(name))) asked[i] = true;
    }
    return found;
}

// Kept for as long as the module lives.
static const char *kept(Text value, const char *name) {
    Text raw = {value.data + 1, value.size - 2}, out;
    if (value.data[0] != '"' || !unescaped(raw, &out) || strlen(out.data) != out.size) {
        reject("setting `%s` is not a text", name);
        return "";
    }
    return strdup(out.data);
}

const char *setting_text(const char *name, const char *otherwise) {
    const Text *found = setting(name);
    if (found) return kept(*found, name);
    if (!otherwise) reject("setting `%s` is missing", name);
    return otherwise ? otherwise : "";
}

double setting_number(const char *name, double otherwise) {
    const Text *found = setting(name);
    double number = found ? number_of(*found) : otherwise;
    if (!found && isnan(otherwise)) reject("setting `%s` is missing", name);
    else if (found && !isfinite(number)) reject("setting `%s` is not a number", name);
    return number;
}

unsigned setting_whole(const char *name, unsigned otherwise, unsigned most) {
    double number = setting_number(name, otherwise);
    if (number >= 0 && number <= most && number == trunc(number)) return (unsigned)number;
    reject("setting `%s` is not a whole number from 0 to %u", name, most);
    return otherwise;
}

int setting_choice(const char *name, const char *first, ...) {
    const Text *found = setting(name);
    if (!found) return 0;
    Text wanted = text(kept(*found, name));
    va_list choices;
    va_start(choices, first);
    int number = 0;
    for (const char *choice = first; choice && !equal(text(choice), wanted); number++) {
        choice = va_arg(choices, const char *);
        if (!choice) reject("setting `%s` cannot be `%s`", name, wanted.data);
    }
    va_end(choices);
    return number;
}

const char **setting_texts(const char *name, size_t *count) {
    const Text *found = setting(name);
    *count = 0;
    if (!found || found->data[0] != '[') {
        reject(found ? "setting `%s` is not a list" : "setting `%s` is missing", name);
        return NULL;
    }
    const char **texts = malloc(found->size * sizeof *texts);
    Reader r = {found->data + 1, found->data, found->data + found->size};
    while (skip_blank(&r) && *r.at != ']') {
        Text item = {r.at, 0};
        skip_value(&r);
        item.size = (size_t)(r.at - item.data);
        texts[(*count)++] = kept(item, name);
        skip_blank(&r);
        take(&r, ',');
    }
    return texts;
}

void settings_begin(const Object *all) {
    settings = all;
    asked = scratch(all->count);
}

void settings_end(void) {
    for (size_t i = 0; i < settings->count; i++) {
        const char *reason;
        Text name = settings->members[i].name;
        if (!asked[i]) reject("unknown setting `%.*s`", (int)name.size, name.data);
        if (!find(settings, name, &reason)) reject("setting `%.*s` is there twice", (int)name.size, name.data);
    }
    settings = NULL;
}
