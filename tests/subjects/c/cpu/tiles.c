/* The tile registers (AMX), which a program has to ask for, in two threads; a third that never used them. */
#include "../subject.h"
#include <pthread.h>
#include <sys/syscall.h>

enum { GET_PERMISSIONS = 0x1022, ASK = 0x1023, TILES = 18, ROW = 64, SIZE = 16 * ROW };

static unsigned char config[64] __attribute__((aligned(64)));
static volatile int loaded;
static volatile bool go;

static void load(const void *from)
{
    __asm__ volatile(".byte 0xc4,0xe2,0x78,0x49,0x00" : : "a"(config) : "memory");                  /* ldtilecfg [rax] */
    __asm__ volatile(".byte 0xc4,0xe2,0x7b,0x4b,0x0c,0x18" : : "a"(from), "b"((long)ROW) : "memory"); /* tileloadd tmm1 */
}

static void store(void *to)
{
    __asm__ volatile(".byte 0xc4,0xe2,0x7a,0x4b,0x0c,0x18" : : "a"(to), "b"((long)ROW) : "memory"); /* tilestored tmm1 */
}

static void *hold(void *seed)
{
    unsigned char content[SIZE];
    subject_fill(content, SIZE, (uintptr_t)seed);
    if (seed)
        load(content);
    __sync_fetch_and_add(&loaded, 1);
    while (!go)
        subject_tick();
    if (!seed)
        load(content);
    memset(content, 0, SIZE);
    store(content);
    EXPECT_FILLED(content, SIZE, (uintptr_t)seed, "a tile register");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (syscall(SYS_arch_prctl, ASK, TILES))
        subject_skip("a processor with tile registers");
    config[0] = 1;
    for (int i = 0; i < 8; i++)
        config[16 + 2 * i] = ROW, config[48 + i] = SIZE / ROW;
    pthread_t threads[3];
    for (uintptr_t i = 0; i < 3; i++)
        MUST0(pthread_create(&threads[i], NULL, hold, (void *)i));
    while (loaded < 3)
        subject_tick();
    uint64_t before = 0, after = 0;
    MUST(syscall(SYS_arch_prctl, GET_PERMISSIONS, &before));
    subject_wait(NULL);
    MUST(syscall(SYS_arch_prctl, GET_PERMISSIONS, &after));
    EXPECT(before == after, "the permissions were %#lx and are %#lx", (long)before, (long)after);
    go = true;
    for (int i = 0; i < 3; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
