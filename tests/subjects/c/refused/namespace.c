/*
 * A program in a namespace of its own, by argument: network (also with a socket in it), mount, uts, ipc, time; or whose
 * next children will be in one, or one of whose threads is: refused.
 */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/wait.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static volatile bool apart, end;

static void *leave(void *argument)
{
    (void)argument;
    if (unshare(CLONE_NEWNET))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    apart = true;
    while (!end)
        subject_tick();
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const struct {
        const char *name;
        int flag;
    } all[] = {{"net", CLONE_NEWNET}, {"mnt", CLONE_NEWNS}, {"uts", CLONE_NEWUTS}, {"ipc", CLONE_NEWIPC}, {"time", CLONE_NEWTIME},
               {"socket", CLONE_NEWNET}, {"pid_of_children", CLONE_NEWPID}, {"time_of_children", CLONE_NEWTIME}};
    int flag = 0;
    pthread_t thread;
    const char *name = argc > 2 ? argv[2] : "";
    if (strcmp(name, "thread") == 0) {
        MUST0(pthread_create(&thread, NULL, leave, NULL));
        while (!apart)
            subject_tick();
        subject_wait(NULL);
        end = true;
        MUST0(pthread_join(thread, NULL));
        subject_pass();
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(name, all[i].name) == 0)
            flag = all[i].flag;
    if (unshare(flag))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    if (strcmp(name, "time") == 0) { /* which takes effect for children */
        pid_t child = (pid_t)MUST(fork());
        if (child) {
            int status;
            MUST(waitpid(child, &status, 0));
            _exit(WEXITSTATUS(status));
        }
    }
    if (strcmp(name, "socket") == 0)
        MUST(socket(AF_INET, SOCK_DGRAM, 0));
    if (flag == CLONE_NEWIPC)
        (void)MUST_MAP(shmat((int)MUST(shmget(IPC_PRIVATE, 4096, 0600)), NULL, 0));
    subject_wait(NULL);
    subject_pass();
}
