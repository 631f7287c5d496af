// The declarations that the files of this folder share.
#pragma once
#include "../headwater.h"

// memory.c: one arena, emptied after each call.
void *allocate(size_t size);
void release(void);
bool equal(Text a, Text b);

// reject.c: the first reason of the event, sample or call at hand; without `data` there is none.
extern Text rejected;

// json.c: read without building a tree.
typedef struct { Text name, value; } Member;
typedef struct { Member *members; size_t count, room; } Object;
typedef struct { const char *at, *start, *end; } Reader;
// NULL, and rejected, if it is none. Valid until `forget`.
const Object *read_object(Text payload);
void forget(void);
// Returns the place of the field's value; NULL, and a `reason`, where there is none.
const Text *find(const Object *object, Text field, const char **reason);
bool skip_blank(Reader *r);
bool skip_value(Reader *r);
bool take(Reader *r, char c);
// Gives the text between the quotes of a checked string, without escapes; false for half a surrogate pair.
bool unescaped(Text raw, Text *out);

// number.c: NAN for what is no number.
double number_of(Text value);
Text number_text(double number);

// setting.c
void settings_begin(const Object *all);
void settings_end(void);

// call.c: the calls' answers.
typedef struct { uint32_t index; Text reason; } Rejection;
typedef struct { uint32_t failed; Text value, rejected; } Answer;
// The hash of the settings (FNV-1a): a state is only good for those that it was made with.
extern uint64_t made_with;
void begin(void);
// Begins a call; false, and rejected, before an `init` that succeeded.
bool started(void);
Answer *answer_with(Text value, Text rejections);
Answer *answer_failed(void);

// write.c
// Returns the text in quotes, as JSON writes it.
Text quoted_text(Text value);
void result_begin(void);
Text result_end(void);
