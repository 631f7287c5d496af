// The calls of the world `transform`, as `process` and `emit`.
#include "own.h"
#include <string.h>

static Event *out;
static size_t out_count, out_room;

void emit(const Event *event) {
    if (rejected.data) return;
    if (out_count == out_room) {
        Event *larger = allocate((out_room *= 2) * sizeof *out);
        memcpy(larger, out, out_count * sizeof *out);
        out = larger;
    }
    out[out_count++] = *event;
}

__attribute__((export_name("process")))
Answer *call_process(Event *events, size_t count) {
    if (!started()) return answer_failed();
    Rejection *rejections = allocate(count * sizeof *rejections);
    size_t rejection_count = 0;
    out_count = 0;
    out_room = count + 1;
    out = allocate(out_room * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        size_t before = out_count;
        begin();
        process(&events[i]);
        if (!rejected.data) continue;
        out_count = before;
        rejections[rejection_count++] = (Rejection){(uint32_t)i, rejected};
    }
    return answer_with((Text){(char *)out, out_count}, (Text){(char *)rejections, rejection_count});
}

__attribute__((export_name("cabi_post_process")))
void post_process(Answer *) { release(); }
