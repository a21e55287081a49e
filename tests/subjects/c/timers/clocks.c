/* Time does not run backwards, through the vDSO and through the system call alike; CPU time is counted. */
#include "../subject.h"
#include <sys/syscall.h>
#include <sys/time.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    double real = subject_now(CLOCK_REALTIME), mono = subject_now(CLOCK_MONOTONIC);
    subject_wait(NULL);
    EXPECT(subject_now(CLOCK_REALTIME) >= real, "the time of day ran backwards");
    EXPECT(subject_now(CLOCK_MONOTONIC) >= mono, "the monotonic clock ran backwards");
    for (clockid_t clock = CLOCK_REALTIME; clock <= CLOCK_BOOTTIME; clock++) {
        struct timespec raw;
        double soft = subject_now(clock);
        MUST(syscall(SYS_clock_gettime, clock, &raw));
        double hard = (double)raw.tv_sec + (double)raw.tv_nsec / 1e9;
        EXPECT(hard - soft < 1 && hard - soft > -1, "clock %d: vDSO says %f, the call %f", clock, soft, hard);
    }
    struct timeval day;
    MUST(gettimeofday(&day, NULL));
    EXPECT(time(NULL) - day.tv_sec < 2, "time and gettimeofday disagree");
    double cpu = subject_now(CLOCK_PROCESS_CPUTIME_ID);
    for (volatile int i = 0; i < 10000000; i++)
        ;
    EXPECT(subject_now(CLOCK_PROCESS_CPUTIME_ID) > cpu, "CPU time stands still");
    subject_pass();
}
