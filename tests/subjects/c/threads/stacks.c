/* Thread stacks: own addresses, sizes and guard pages; values deep down on them. */
#include "../subject.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

static pthread_barrier_t set, checked;
static sigjmp_buf back;
static void fault(int number) { siglongjmp(back, number); }

static __attribute__((noinline)) void dive(int depth, uint64_t seed)
{
    char here[4000];
    subject_fill(here, sizeof here, seed + (uint64_t)depth);
    if (depth)
        dive(depth - 1, seed);
    else {
        pthread_barrier_wait(&set);
        pthread_barrier_wait(&checked);
    }
    EXPECT_FILLED(here, sizeof here, seed + (uint64_t)depth, "a frame");
}

static void *run(void *argument)
{
    dive(40, (uint64_t)(long)argument);
    pthread_attr_t attr;
    void *low;
    size_t size;
    MUST0(pthread_getattr_np(pthread_self(), &attr));
    MUST0(pthread_attr_getstack(&attr, &low, &size));
    if (sigsetjmp(back, 1) == 0) {
        *((volatile char *)low - 16) = 1; /* the guard page is below the lowest byte */
        subject_fail("the guard page can be written to");
    }
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    MUST(sigaltstack(&stack, NULL));
    struct sigaction act = {.sa_handler = fault, .sa_flags = SA_NODEFER};
    MUST(sigaction(SIGSEGV, &act, NULL));
    pthread_barrier_init(&set, NULL, 2);
    pthread_barrier_init(&checked, NULL, 2);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, (void *)9L));
    pthread_barrier_wait(&set);
    subject_all_asleep(1);
    subject_wait(NULL);
    pthread_barrier_wait(&checked);
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
