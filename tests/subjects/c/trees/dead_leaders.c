/* Zombies that lead: a session, a group with living members; one that had threads; one killed with a core; one adopted. */
#include "tree.h"
#include <pthread.h>
#include <sys/prctl.h>

static void *idle(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void await_zombie(pid_t pid)
{
    while (child_state(pid) != 'Z')
        subject_tick();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int tell[2];
    MUST(pipe(tell));
    pid_t session = (pid_t)MUST(fork());
    if (session == 0) {
        setsid();
        _exit(1);
    }
    pid_t group = (pid_t)MUST(fork());
    if (group == 0) {
        setpgid(0, 0);
        for (;;)
            pause();
    }
    setpgid(group, group);
    pid_t member = (pid_t)MUST(fork());
    if (member == 0) {
        setpgid(0, group);
        child_wait(tell[0]);
        _exit(getpgrp() == group ? 4 : 5);
    }
    setpgid(member, group);
    MUST(kill(group, SIGUSR1));
    pid_t threaded = (pid_t)MUST(fork());
    if (threaded == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, idle, NULL);
        _exit(7);
    }
    await_zombie(session);
    await_zombie(group);
    await_zombie(threaded);
    subject_wait(NULL);
    int status;
    EXPECT(waitpid(session, &status, WNOHANG) == session && WEXITSTATUS(status) == 1, "the session's leader");
    EXPECT(getpgid(member) == group, "the member is in group %d", (int)getpgid(member));
    EXPECT(waitpid(group, &status, WNOHANG) == group && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1,
           "the group's leader: status %#x", status);
    EXPECT(waitpid(threaded, &status, WNOHANG) == threaded && WEXITSTATUS(status) == 7, "the one that had threads");
    MUST(write(tell[1], "x", 1));
    EXPECT(waitpid(member, &status, 0) == member && WEXITSTATUS(status) == 4, "the member's status is %#x", status);
    subject_pass();
}
