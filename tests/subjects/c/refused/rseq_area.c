/* A child whose area for restartable sequences is gone: it sleeps, and ends as soon as it runs again. Refused by name. */
#include "../subject.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void sleep_without_area(void)
{
    struct rseq *libc_area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    MUST(syscall(SYS_rseq, libc_area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG));
    void *area = MUST_MAP(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(syscall(SYS_rseq, area, 32, 0, RSEQ_SIG));
    munmap(area, 4096);
    pause();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (__rseq_size == 0)
        subject_skip("no rseq registration by the C library");
    pid_t child = 0;
    char path[64], line[256] = "";
    for (int tries = 0; tries < 50 && atoi(line) != SYS_pause; tries++) { /* it may run again between its last calls */
        if ((child = (pid_t)MUST(fork())) == 0)
            sleep_without_area();
        for (int ticks = 0; ticks < 50 && atoi(line) != SYS_pause; ticks++) {
            subject_tick();
            snprintf(path, sizeof path, "/proc/%d/syscall", child);
            FILE *call = fopen(path, "r");
            if (call && !fgets(line, sizeof line, call))
                line[0] = 0;
            if (call)
                fclose(call);
        }
        if (atoi(line) != SYS_pause)
            MUST(kill(child, SIGKILL)), MUST(waitpid(child, NULL, 0));
    }
    EXPECT(atoi(line) == SYS_pause, "the child does not come to sleep: %s", line);
    subject_wait(NULL);
    kill(child, SIGKILL);
    MUST(waitpid(child, NULL, 0));
    subject_pass();
}
