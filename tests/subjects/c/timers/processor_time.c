/* ITIMER_VIRTUAL and ITIMER_PROF that tick while the program computes. */
#include "../subject.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t ticks[2];
static void handler(int number) { ticks[number == SIGPROF]++; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(sigaction(SIGVTALRM, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_RESTART}, NULL));
    MUST(sigaction(SIGPROF, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_RESTART}, NULL));
    struct itimerval value = {{0, 20000}, {0, 20000}};
    MUST(setitimer(ITIMER_VIRTUAL, &value, NULL));
    MUST(setitimer(ITIMER_PROF, &value, NULL));
    subject_wait(NULL);
    int before[2] = {ticks[0], ticks[1]};
    double until = subject_now(CLOCK_PROCESS_CPUTIME_ID) + 2;
    while (subject_now(CLOCK_PROCESS_CPUTIME_ID) < until && (ticks[0] < before[0] + 3 || ticks[1] < before[1] + 3))
        for (volatile int i = 0; i < 100000; i++)
            ;
    for (int i = 0; i < 2; i++)
        EXPECT(ticks[i] >= before[i] + 3, "%s ticked %d times in 2 s of processor time", i ? "ITIMER_PROF" : "ITIMER_VIRTUAL",
               (int)ticks[i] - before[i]);
    subject_pass();
}
