/* A thread blocked in reading an empty pipe, one in writing a full one; both go on when they can. */
#include "../subject.h"
#include <pthread.h>

static int empty[2], full[2];
static volatile bool reading, writing, was_read, was_written;
static char text[20];

static void *reader(void *argument)
{
    (void)argument;
    reading = true;
    EXPECT(read(empty[0], text, sizeof text) == 5, "reading: %s", strerror(errno));
    was_read = true;
    return NULL;
}

static void *writer(void *argument)
{
    (void)argument;
    writing = true;
    EXPECT(write(full[1], "after", 5) == 5, "writing: %s", strerror(errno));
    was_written = true;
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[65536];
    MUST(pipe(empty));
    MUST(pipe(full));
    MUST(write(full[1], content, sizeof content));
    pthread_t threads[2];
    MUST0(pthread_create(&threads[0], NULL, reader, NULL));
    MUST0(pthread_create(&threads[1], NULL, writer, NULL));
    while (!reading || !writing)
        subject_tick();
    subject_all_asleep(2);
    subject_wait(NULL);
    EXPECT(!was_read && !was_written, "a call ended by itself");
    MUST(write(empty[1], "hello", 5));
    MUST0(pthread_join(threads[0], NULL));
    EXPECT(strcmp(text, "hello") == 0, "'%s' was read", text);
    MUST(read(full[0], content, sizeof content));
    MUST0(pthread_join(threads[1], NULL));
    MUST(read(full[0], content, sizeof content));
    EXPECT(memcmp(content, "after", 5) == 0, "what was written late");
    subject_pass();
}
