/* A thread that takes its own system calls (PR_SET_SYSCALL_USER_DISPATCH, as Wine does): refused by name. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static volatile char selector; /* 0: allow */
static volatile bool set, end;
static volatile sig_atomic_t taken;
static void handler(int number) { selector = 0, taken = number; }

static void *run(void *argument)
{
    (void)argument;
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector))
        subject_skip("system call user dispatch");
    set = true;
    while (!end)
        subject_tick();
    selector = 1;
    syscall(SYS_getppid);
    EXPECT(taken == SIGSYS, "the call was not taken");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(sigaction(SIGSYS, &(struct sigaction){.sa_handler = handler}, NULL));
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!set)
        subject_tick();
    subject_wait(NULL);
    end = true;
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
