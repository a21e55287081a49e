/* What each thread has the processor do: whether RDTSC is refused to it, whether it speculates. */
#include "../subject.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>

static volatile int going = 1;
static sigjmp_buf back;

static void refused(int number) { siglongjmp(back, number); }

static bool may_ask_the_time(void)
{
    if (sigsetjmp(back, 1))
        return false;
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return true;
}

static int speculation(int sort) { return prctl(PR_GET_SPECULATION_CTRL, sort, 0, 0, 0); }

static void *other(void *arg)
{
    MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    int before[2];
    for (int sort = 0; sort < 2; sort++) { /* store bypass and indirect branches, where the processor can be told */
        prctl(PR_SET_SPECULATION_CTRL, sort, PR_SPEC_DISABLE, 0, 0);
        before[sort] = speculation(sort);
    }
    while (going)
        subject_tick();
    int value = -1;
    MUST(prctl(PR_GET_TSC, &value));
    EXPECT(value == PR_TSC_SIGSEGV && !may_ask_the_time(), "RDTSC is not refused any more");
    for (int sort = 0; sort < 2; sort++)
        EXPECT(speculation(sort) == before[sort], "speculation %d is %d instead of %d", sort, speculation(sort), before[sort]);
    return arg;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(signal(SIGSEGV, refused) == SIG_ERR ? -1 : 0);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, other, NULL));
    subject_all_asleep(1);
    int before[2] = {speculation(0), speculation(1)};
    subject_wait(NULL);
    EXPECT(may_ask_the_time(), "RDTSC is refused to the first thread");
    for (int sort = 0; sort < 2; sort++)
        EXPECT(speculation(sort) == before[sort], "the first thread: speculation %d is %d", sort, speculation(sort));
    going = 0;
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
