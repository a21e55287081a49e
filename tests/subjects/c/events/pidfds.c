/* pidfds of a child that lives, of one that is a zombie, of one that was reaped, of a thread, and a non-blocking one. */
#include "../subject.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static pthread_barrier_t done;
static volatile pid_t tid;
static void *run(void *argument)
{
    (void)argument;
    tid = (pid_t)syscall(SYS_gettid);
    pthread_barrier_wait(&done);
    return NULL;
}

static pid_t child(bool lives)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        while (lives)
            pause();
        _exit(3);
    }
    return pid;
}

static bool ended(int fd) { return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t alive = child(true), zombie = child(false), reaped = child(false);
    int fds[3] = {(int)MUST(syscall(SYS_pidfd_open, alive, O_NONBLOCK)), (int)MUST(syscall(SYS_pidfd_open, zombie, 0)),
                  (int)MUST(syscall(SYS_pidfd_open, reaped, 0))};
    MUST(waitpid(reaped, NULL, 0));
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT));
    pthread_barrier_init(&done, NULL, 2);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!tid)
        subject_tick();
    int of_thread = (int)syscall(SYS_pidfd_open, tid, O_EXCL); /* PIDFD_THREAD, since OS kernel 6.9 */
    subject_wait(NULL);
    EXPECT(!ended(fds[0]) && ended(fds[1]) && ended(fds[2]), "who has ended: %d %d %d", ended(fds[0]), ended(fds[1]),
           ended(fds[2]));
    EXPECT(fcntl(fds[0], F_GETFL) & O_NONBLOCK, "O_NONBLOCK is lost");
    EXPECT(syscall(SYS_pidfd_send_signal, fds[2], 0, NULL, 0) == -1 && errno == ESRCH, "the reaped one takes signals");
    EXPECT(waitid(P_PIDFD, (id_t)fds[1], &info, WEXITED) == 0 && info.si_pid == zombie && info.si_status == 3, "the zombie");
    MUST(syscall(SYS_pidfd_send_signal, fds[0], SIGKILL, NULL, 0));
    EXPECT(poll(&(struct pollfd){.fd = fds[0], .events = POLLIN}, 1, 5000) == 1, "the killed one does not end");
    EXPECT(waitpid(alive, NULL, 0) == alive, "it was somebody else");
    EXPECT(of_thread < 0 || !ended(of_thread), "the thread has ended");
    pthread_barrier_wait(&done);
    MUST0(pthread_join(thread, NULL));
    EXPECT(of_thread < 0 || poll(&(struct pollfd){.fd = of_thread, .events = POLLIN}, 1, 5000) == 1, "the thread lives on");
    subject_pass();
}
