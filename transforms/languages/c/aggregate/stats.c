// Count, mean, minimum, maximum and standard deviation of fields of the payload.
#include "headwater.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// The summary of one field. `deviations` is the sum of the squared differences from the mean: kept so, it
// loses no digits where a sum of squares would.
typedef struct { uint64_t count; double mean, min, max, deviations; } Summary;

static const char **fields;
static size_t field_count;

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void init(void) {
    fields = setting_texts("fields", &field_count);
    if (field_count == 0) reject("`fields` is empty: name at least one");
    qsort(fields, field_count, sizeof *fields, by_name);
    for (size_t i = 1; i < field_count; i++) {
        if (strcmp(fields[i - 1], fields[i]) == 0) reject("`fields` has `%s` twice", fields[i]);
    }
}

// A state is a summary for each field, in the order of their names.
size_t state_size(void) { return field_count * sizeof(Summary); }

// Takes one more number in, after Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
static void add(Summary *all, double number) {
    if (all->count == 0) {
        *all = (Summary){1, number, number, number, 0};
        return;
    }
    double before = number - all->mean;
    all->count += 1;
    all->mean += before / (double)all->count;
    all->deviations += before * (number - all->mean);
    all->min = fmin(all->min, number);
    all->max = fmax(all->max, number);
}

// Takes a sample in. A field that is missing or no number is not counted; a sample with none is refused.
void update(void *state, const Sample *sample) {
    Summary *summaries = state;
    bool found = false;
    for (size_t i = 0; i < field_count; i++) {
        double number;
        if (!json_has_number(sample->payload, fields[i], &number)) continue;
        add(&summaries[i], number);
        found = true;
    }
    if (!found) reject("no number in any of the fields");
}

// Takes another summary in, after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979.
static void join(Summary *all, const Summary *other) {
    double count = (double)(all->count + other->count);
    double share = (double)other->count / count, apart = other->mean - all->mean;
    all->deviations += other->deviations + apart * apart * (double)all->count * share;
    all->mean += apart * share;
    all->count += other->count;
    all->min = fmin(all->min, other->min);
    all->max = fmax(all->max, other->max);
}

void merge(void *state, const void *other) {
    Summary *a = state;
    const Summary *b = other;
    for (size_t i = 0; i < field_count; i++) {
        if (a[i].count == 0) a[i] = b[i];
        else if (b[i].count != 0) join(&a[i], &b[i]);
    }
}

void finish(const Window *window, const void *state) {
    const Summary *summary = state;
    for (size_t i = 0; i < field_count; i++, summary++) {
        if (summary->count == 0) continue;
        write_open(fields[i]);
        write_integer("count", summary->count);
        write_number("mean", summary->mean);
        write_number("min", summary->min);
        write_number("max", summary->max);
        write_number("stddev", sqrt(summary->deviations / (double)summary->count));
        write_close();
    }
}
