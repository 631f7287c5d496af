// The calls of the world `aggregate`, as `update`, `merge` and `finish`.
#include "own.h"
#include <string.h>

typedef struct { Text key; uint64_t start, end; Text state; Sample *samples; size_t sample_count; } Group;
typedef struct { Text state; Rejection *rejections; size_t rejection_count; } Updated;
typedef struct { Text key; uint64_t start, end; Text state; uint64_t count, late; uint32_t revision; } Closed;

// A copy of the state without its hash, zeros where there is none; NULL, and rejected, if it is none.
static char *opened(Text state) {
    size_t size = state_size();
    char *copy = scratch(sizeof made_with + size);
    memcpy(copy, &made_with, sizeof made_with);
    if (state.size == 0) return copy + sizeof made_with;
    if (state.size != sizeof made_with + size) {
        reject("the state has %zu bytes, not %zu", state.size, sizeof made_with + size);
        return NULL;
    }
    if (memcmp(state.data, &made_with, sizeof made_with) != 0) {
        reject("the state was made with other settings");
        return NULL;
    }
    return memcpy(copy + sizeof made_with, state.data + sizeof made_with, size);
}

static Text closed(const char *state) {
    return (Text){state - sizeof made_with, sizeof made_with + state_size()};
}

static Updated updated(const Group *group) {
    char *state = opened(group->state);
    if (!state) return (Updated){0};
    char *before = allocate(state_size());
    Updated done = {closed(state), allocate(group->sample_count * sizeof(Rejection)), 0};
    for (size_t i = 0; i < group->sample_count; i++) {
        begin();
        memcpy(before, state, state_size());
        update(state, &group->samples[i]);
        if (!rejected.data) continue;
        memcpy(state, before, state_size());
        done.rejections[done.rejection_count++] = (Rejection){(uint32_t)i, rejected};
    }
    rejected = (Text){0};
    return done;
}

__attribute__((export_name("update")))
Answer *call_update(const Group *groups, size_t count) {
    if (!started()) return answer_failed();
    Updated *all = allocate(count * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        all[i] = updated(&groups[i]);
        if (rejected.data) return answer_failed();
    }
    return answer_with((Text){(char *)all, count}, (Text){0});
}

__attribute__((export_name("cabi_post_update")))
void post_update(Answer *) { release(); }

__attribute__((export_name("merge")))
Answer *call_merge(const char *a, size_t a_size, const char *b, size_t b_size) {
    if (!started()) return answer_failed();
    char *state = opened((Text){a, a_size}), *other = opened((Text){b, b_size});
    if (!rejected.data) merge(state, other);
    if (rejected.data) return answer_failed();
    return answer_with(closed(state), (Text){0});
}

__attribute__((export_name("cabi_post_merge")))
void post_merge(Answer *) { release(); }

__attribute__((export_name("finish")))
Answer *call_finish(const Closed *windows, size_t count) {
    if (!started()) return answer_failed();
    Text *results = allocate(count * sizeof *results);
    for (size_t i = 0; i < count; i++) {
        const Closed *w = &windows[i];
        char *state = opened(w->state);
        if (!state) return answer_failed();
        Window window = {w->key, w->start, w->end, w->count, w->late, w->revision};
        result_begin();
        finish(&window, state);
        if (rejected.data) return answer_failed();
        results[i] = result_end();
    }
    return answer_with((Text){(char *)results, count}, (Text){0});
}

__attribute__((export_name("cabi_post_finish")))
void post_finish(Answer *) { release(); }
