// The memory: an arena, emptied after each call: nobody frees, and an instance does not grow.
#include "own.h"
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 256 * 1024, ALIGN = 8 };
typedef struct Chunk { _Alignas(ALIGN) struct Chunk *next; size_t size, used; } Chunk;
static Chunk *arena;

void *allocate(size_t size) {
    size_t wanted = (size + ALIGN - 1) / ALIGN * ALIGN;
    if (wanted < size) abort();
    if (!arena || arena->size - arena->used < wanted) {
        size_t bytes = wanted > CHUNK_BYTES ? wanted : CHUNK_BYTES;
        Chunk *chunk = malloc(sizeof *chunk + bytes);
        if (!chunk) abort();
        *chunk = (Chunk){arena, bytes, 0};
        arena = chunk;
    }
    void *start = (char *)(arena + 1) + arena->used;
    arena->used += wanted;
    return start;
}

void release(void) {
    while (arena && arena->next) {
        Chunk *next = arena->next;
        free(arena);
        arena = next;
    }
    if (arena) arena->used = 0;
}

// Allocates with a zero behind, so that a text from the agent is a string as C has them.
__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    char *new = allocate(size + 1);
    if (old_size) memcpy(new, old, old_size < size ? old_size : size);
    new[size] = 0;
    return new;
}

void *scratch(size_t size) { return memset(allocate(size), 0, size); }

Text text(const char *zero_ended) { return (Text){zero_ended, strlen(zero_ended)}; }

bool equal(Text a, Text b) { return a.size == b.size && memcmp(a.data, b.data, a.size) == 0; }
