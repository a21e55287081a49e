/* Futex waits with and without a time limit: woken by a wake, and by the limit not too early. */
#include "../subject.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>

static volatile uint32_t word, silent;
static double started;

static void *unlimited(void *argument)
{
    (void)argument;
    while (word == 0)
        if (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) == -1)
            EXPECT(errno == EINTR || errno == EAGAIN, "futex: %s", strerror(errno));
    return NULL;
}

static void *limited(void *argument)
{
    (void)argument;
    struct timespec limit = {3, 0};
    long result = syscall(SYS_futex, &silent, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
    double waited = subject_now(CLOCK_MONOTONIC) - started;
    EXPECT(result == -1 && (errno == ETIMEDOUT || errno == EINTR), "futex gives %ld: %s", result, strerror(errno));
    EXPECT(errno == EINTR || waited > 2.9, "it waited %.2f s instead of 3", waited);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[2];
    started = subject_now(CLOCK_MONOTONIC);
    MUST0(pthread_create(&threads[0], NULL, unlimited, NULL));
    MUST0(pthread_create(&threads[1], NULL, limited, NULL));
    subject_all_asleep(2);
    subject_wait(NULL);
    word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
