/* A fast interval timer goes on ticking. */
#include "../subject.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t ticks;
static void tick(int number) { (void)number, ticks++; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = tick, .sa_flags = SA_RESTART};
    MUST(sigaction(SIGALRM, &act, NULL));
    struct itimerval value = {{0, 10000}, {0, 10000}};
    MUST(setitimer(ITIMER_REAL, &value, NULL));
    subject_wait(NULL);
    int before = ticks;
    for (int i = 0; i < 500 && ticks < before + 5; i++)
        subject_tick();
    EXPECT(ticks >= before + 5, "only %d ticks in more than a second", (int)ticks - before);
    subject_pass();
}
