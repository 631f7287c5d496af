// The SDK for Headwater modules in C. The calls' batches, their memory and the JSON around a field
// stay in the folder headwater.
//
// A function that cannot give its value rejects the event or sample at hand, which then goes to the
// dead letters with the reason; it gives NAN or an empty text, and nothing that is done afterwards with
// that event has an effect. So there is nothing to check, and nothing to free: all that these
// functions return lives until the call's end. Times are microseconds since the Unix epoch, UTC.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A text in UTF-8, or bytes. A zero that `size` does not count follows what comes from the agent.
typedef struct { const char *data; size_t size; } Text;

// ---- A transform defines these two.

typedef struct {
    Text topic, key;
    uint64_t time;     // The event time.
    Text payload;      // The content: JSON, unless the pipeline says otherwise.
} Event;

// Reads the settings, once. A `reject` in here is a fault of the configuration.
void init(void);
// Called with each event, which may be changed.
void process(Event *event);
// Hands an event on. `process` calls it once to pass the event on, not at all to drop it, several times to split it;
// what is emitted is as it is then. An event that is rejected gives nothing, whatever it emitted before.
void emit(const Event *event);

// ---- An aggregate defines `init` and these four.

typedef struct {
    uint64_t time;
    Text payload;
} Sample;

// A closed window, half open: `start` belongs to it, `end` does not.
typedef struct {
    Text key;
    uint64_t start, end;
    uint64_t count, late;  // The samples used, and those of them that came after it had first closed.
    uint32_t revision;     // 0 the first time, then one more each time late samples change the result.
} Window;

// Returns the size of a state in bytes. The agent keeps them, and a new one is all zeros, so it has no pointers in it.
size_t state_size(void);
// Takes one more sample into the state. One that is rejected leaves the state as it was.
void update(void *state, const Sample *sample);
// Takes one partial state into another.
void merge(void *state, const void *other);
// Writes the result of a window with the `write_` functions.
void finish(const Window *window, const void *state);

// ---- Settings, in `init`. One that nobody asks for is a fault, and so is one of another type.

const char *setting_text(const char *name, const char *otherwise);  // NULL: it has to be there.
const char **setting_texts(const char *name, size_t *count);
double setting_number(const char *name, double otherwise);          // NAN: it has to be there.
// Returns a whole number from 0 to `most`.
unsigned setting_whole(const char *name, unsigned otherwise, unsigned most);
// Returns the index of a text among those listed, which end with NULL; the first is the default.
int setting_choice(const char *name, const char *first, ...);

// ---- A payload that is a JSON object. A field that is missing, there twice or of another type is rejected.

double json_number(Text payload, const char *field);
Text json_text(Text payload, const char *field);
// Returns true if the field is there and a finite number. Only a payload that is no object is rejected.
bool json_has_number(Text payload, const char *field, double *number);
// Returns the payload with that number in the field, which is added if it is not there; all else is as it was, byte for
// byte.
Text json_with_number(Text payload, const char *field, double number);

// ---- A result: the members of a JSON object.

void write_number(const char *name, double number);
void write_integer(const char *name, uint64_t number);
void write_text(const char *name, Text text);
void write_open(const char *name);  // An object in it, up to `write_close`.
void write_close(void);

// ---- Anything else.

// Sends the event or sample at hand to the dead letters with this reason, as printf writes it. The first reason counts.
void reject(const char *reason, ...) __attribute__((format(printf, 1, 2)));
// Returns zeroed memory, which lives until the end of the call.
void *scratch(size_t size);
// Returns the text of a string.
Text text(const char *zero_ended);

typedef enum { DEBUG, INFO, WARN, ERROR } Level;
// Writes a line in the agent's log, as printf writes it.
void write_log(Level level, const char *line, ...) __attribute__((format(printf, 2, 3)));
