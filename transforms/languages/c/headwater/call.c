// The parts that all calls share, by the canonical ABI of the component model.
#include "own.h"

uint64_t made_with;
static Answer answer;
static bool ready;

void begin(void) {
    rejected = (Text){0};
    forget();
}

bool started(void) {
    begin();
    if (!ready) reject("called before `init`");
    return ready;
}

Answer *answer_with(Text value, Text rejections) {
    answer = (Answer){0, value, rejections};
    return &answer;
}

Answer *answer_failed(void) {
    answer = (Answer){1, rejected, {0}};
    return &answer;
}

__attribute__((export_name("init")))
Answer *call_init(const char *config, size_t size) {
    begin();
    made_with = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; i++) made_with = (made_with ^ (unsigned char)config[i]) * 0x100000001b3;
    const Object *settings = read_object((Text){config, size});
    if (settings) {
        settings_begin(settings);
        init();
        settings_end();
    }
    ready = !rejected.data;
    return rejected.data ? answer_failed() : answer_with((Text){0}, (Text){0});
}

__attribute__((export_name("cabi_post_init")))
void post_init(Answer *) { release(); }
