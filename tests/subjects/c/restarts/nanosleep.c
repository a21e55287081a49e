/* Sleeps go on for the time that remains: relative, and until a moment. */
#include "../subject.h"
#include <pthread.h>

static double started;
static volatile bool relative_done;

static void *relative(void *argument)
{
    (void)argument;
    struct timespec wanted = {7, 0}, remains = {0};
    int result = nanosleep(&wanted, &remains);
    relative_done = true;
    /* ending early with EINTR is allowed when it says truly how much is missing */
    double slept = subject_now(CLOCK_MONOTONIC) - started;
    double missing = result ? (double)remains.tv_sec + (double)remains.tv_nsec / 1e9 : 0;
    EXPECT(result == 0 || errno == EINTR, "nanosleep: %s", strerror(errno));
    EXPECT(slept + missing > 6.9, "slept %.2f s, %.2f s are said to remain", slept, missing);
    return NULL;
}

static void *until(void *argument)
{
    (void)argument;
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    moment.tv_sec += 6;
    int error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL);
    EXPECT(error == EINTR || subject_now(CLOCK_MONOTONIC) >= (double)moment.tv_sec, "it woke early");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[2];
    started = subject_now(CLOCK_MONOTONIC);
    MUST0(pthread_create(&threads[0], NULL, relative, NULL));
    MUST0(pthread_create(&threads[1], NULL, until, NULL));
    subject_all_asleep(2);
    subject_wait(NULL);
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
