/* A computation with two threads whose result depends on every step; dumped at any moment. */
#include "../subject.h"
#include <pthread.h>

#define STEPS 400000u

static volatile uint64_t rounds[2];

static uint64_t work(void)
{
    uint64_t x = 88172645463325252u;
    double y = 0.5;
    for (unsigned i = 0; i < STEPS; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        y = 3.9 * y * (1 - y) + (double)(x & 1) * 1e-12;
        if (y >= 1)
            y = 0.5;
    }
    uint64_t bits;
    memcpy(&bits, &y, sizeof bits);
    return x ^ bits;
}

static uint64_t expected;

static void *run(void *argument)
{
    int me = (int)(long)argument;
    while (access(subject_go, F_OK) != 0) {
        uint64_t result = work();
        EXPECT(result == expected, "round %lu of thread %d came out as %lx", (unsigned long)rounds[me], me,
               (unsigned long)result);
        rounds[me]++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    expected = work();
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, (void *)1L));
    subject_announce("ready");
    run((void *)0L);
    MUST0(pthread_join(thread, NULL));
    EXPECT(rounds[0] + rounds[1] > 0, "no round was finished");
    subject_pass();
}
