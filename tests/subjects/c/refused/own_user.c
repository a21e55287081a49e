/* A thread with another user for the file system than the others (privileged to set up): refused by name. */
#include "../subject.h"
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>

static volatile bool apart, end;

static void *run(void *argument)
{
    (void)argument;
    syscall(SYS_setfsuid, 4321); /* of this thread alone */
    apart = true;
    while (!end)
        subject_tick();
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!apart)
        subject_tick();
    subject_wait(NULL);
    end = true;
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
