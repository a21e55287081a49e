/* Asynchronous I/O that a thread waits for (io_getevents), or a ring that a forked child sees: refused by name. */
#include "../subject.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static aio_context_t context;

static void *await_event(void *got)
{
    while (syscall(SYS_io_getevents, context, 1, 1, got, NULL) != 1)
        ;
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    pthread_t thread;
    struct io_event got = {0};
    if (syscall(SYS_io_setup, 16, &context) < 0)
        subject_skip("asynchronous I/O");
    if (argc > 2) {
        pid_t child = (pid_t)MUST(fork());
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pause();
        }
        subject_wait(NULL);
        kill(child, SIGKILL);
        subject_pass();
    }
    MUST(pipe(ends));
    struct iocb look = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (unsigned)ends[0], .aio_buf = POLLIN, .aio_data = 7};
    if (syscall(SYS_io_submit, context, 1, &(struct iocb *){&look}) != 1)
        subject_skip("IOCB_CMD_POLL");
    MUST0(pthread_create(&thread, NULL, await_event, &got));
    subject_all_asleep(1);
    subject_wait(NULL);
    MUST(write(ends[1], "x", 1));
    MUST0(pthread_join(thread, NULL));
    EXPECT(got.data == 7, "another request ended");
    subject_pass();
}
